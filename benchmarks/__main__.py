"""Run the measurements that take minutes, one after another, each in a process of its own."""

import subprocess
import sys

SHORT = (["startup"], ["training"], ["lenet_step"], ["memory"], ["ops", "--write", "--columns"])

if __name__ == "__main__":
    sys.exit(
        max(
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *words], check=False).returncode
            for name, *words in SHORT
        )
    )
