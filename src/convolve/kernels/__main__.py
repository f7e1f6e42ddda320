"""Compile every kernel anew and print how long each took: `python -m convolve.kernels`."""

from __future__ import annotations

import sys
import time

from convolve.kernels.compile import object_code
from convolve.kernels.machine import machine
from convolve.kernels.table import every


def main() -> None:
    total = 0.0
    sys.stdout.write(f"{machine().cpu}, {machine().instruction_set}\n")
    for kernel in every().values():
        started = time.perf_counter()
        size = len(object_code(kernel.name, kernel.dtype, kernel.source(), kernel.shared()))
        seconds = time.perf_counter() - started
        total += seconds
        sys.stdout.write(f"{kernel.name:32s} {seconds:5.2f} s  {size:6d} bytes\n")
    sys.stdout.write(f"{len(every())} kernels, {total:.1f} s\n")


if __name__ == "__main__":
    main()
