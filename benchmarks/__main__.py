"""Run the measurements that take minutes, one after another, each in a process of its own."""

import subprocess
import sys

SHORT = ("startup", "training")

if __name__ == "__main__":
    sys.exit(
        max(subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode for name in SHORT)
    )
