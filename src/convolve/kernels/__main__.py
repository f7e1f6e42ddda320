"""Compile every kernel anew and print how long each took, and each family: `python -m convolve.kernels`."""

from __future__ import annotations

import sys
import time

from convolve.kernels.compile import object_code
from convolve.kernels.machine import machine
from convolve.kernels.table import every


def main() -> None:
    families: dict[str, list[float]] = {}
    sys.stdout.write(f"{machine().cpu}, {machine().instruction_set}\n")
    for kernel in every().values():
        started = time.perf_counter()
        size = len(object_code(kernel.name, kernel.dtype, kernel.source(), kernel.shared()))
        seconds = time.perf_counter() - started
        families.setdefault(kernel.name.split("-")[0], []).append(seconds)
        sys.stdout.write(f"{kernel.name:32s} {seconds:5.2f} s  {size:6d} bytes\n")
    sys.stdout.write("\nfamily                       kernels  seconds  longest\n")
    families["all"] = [seconds for spent in families.values() for seconds in spent]
    for family, spent in families.items():
        sys.stdout.write(f"{family:28s} {len(spent):7d}  {sum(spent):7.2f}  {max(spent):7.2f}\n")


if __name__ == "__main__":
    main()
