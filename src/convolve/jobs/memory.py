"""`convolve.tune_memory`: ask the C library to keep freed memory for the next tensor."""

from __future__ import annotations

import ctypes
import sys

# mallopt's parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST = 2**31 - 1  # mallopt takes an int
_LARGEST_BEFORE_2_35 = 32 * 2**20  # what older versions accept as the threshold of mmap
_TOP = 64 * 2**20


def tune_memory() -> bool:
    """Keep freed memory in this process, so that the next large tensor gets pages that were used before. Whether it was done.

    By default glibc hands a block of 32 MiB or more (at first of 128 KiB) back to the system as soon as it is freed, and the
    kernel clears every page of 4 KiB before it gives one out again: about a microsecond each, which in a layer with large maps is
    longer than the arithmetic. After this call freed blocks stay with the process. The price: its memory does not shrink
    below its highest point again. The setting holds for the whole process, cannot be read back, and stays until it ends.

    Nothing in this package calls it but the command line and the benchmarks. Without glibc nothing is done, and the answer is
    False: other allocators have settings of their own.

    >>> import convolve
    >>> convolve.tune_memory() in (True, False)
    True
    """
    if sys.platform != "linux":
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - other C libraries (musl) have no such symbol
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    kept = mallopt(_MMAP_THRESHOLD, _LARGEST) or mallopt(_MMAP_THRESHOLD, _LARGEST_BEFORE_2_35)
    return bool(kept and mallopt(_TRIM_THRESHOLD, _LARGEST) and mallopt(_TOP_PAD, _TOP))
