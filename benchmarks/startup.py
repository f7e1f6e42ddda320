"""How long `convolve --help` and `import convolve` take, as whole processes (the promise: help below 0.2 s)."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.record import spread, write

COMMANDS = {
    "help": [sys.executable, "-m", "convolve", "--help"],
    "import": [sys.executable, "-c", "import convolve"],
    "python alone": [sys.executable, "-c", "pass"],
}


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    for command in COMMANDS.values():
        _seconds(command)
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(20):
        for name, command in COMMANDS.items():
            seconds[name].append(_seconds(command))
    write("startup", {f"{name} (s)": spread(values) for name, values in seconds.items()})
