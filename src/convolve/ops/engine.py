"""Kernels of ours on torch's own threads: one pool, torch's thread count, memory that stays.

A kernel (convolve.kernels) is a serial function of a block of int64 arguments that computes one thread's share. OpenMP's
`GOMP_parallel`, in the library that torch has loaded, starts it on all threads of torch's pool; a second pool would fight for the cores.
Where there is no such library, Python's threads start it (ctypes lets go of the interpreter's lock). A forked child has lost its
threads, so it computes alone.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_HEADER = struct.Struct("4q")
_ALONE = _HEADER.pack(0, 0, 0, 1)
_forked = False


def _remember_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_remember_fork)


def run(address: int, arguments: bytes, threads: int) -> None:
    """Run the kernel whose entry is at `address` on `threads` threads and wait for it."""
    if threads == 1 or _forked:
        _entry(address)(_ALONE + arguments)
        return
    parallel, header = _openmp()
    if parallel is not None:
        parallel(address, header + arguments, threads, 0)
        return
    entry = _entry(address)
    blocks = [_HEADER.pack(0, 0, thread, threads) + arguments for thread in range(threads)]
    list(_pool(threads).map(entry, blocks))


def prepared(address: int, threads: int, own: int, arguments: bytes) -> Callable[..., None]:
    """`run` as a function of the kernel's first `own` arguments, with little to decide in each call; `arguments` are the others."""
    parallel, header = (None, _ALONE) if threads == 1 else _openmp()
    pack = struct.Struct(f"{own}q").pack
    if parallel is None:
        return lambda *first: run(address, pack(*first) + arguments, threads)
    numbers, pack_all = _HEADER.unpack(header), struct.Struct(f"{4 + own}q").pack

    def call(*first: int) -> None:
        if _forked:
            run(address, pack(*first) + arguments, threads)
        else:
            parallel(address, pack_all(*numbers, *first) + arguments, threads, 0)

    return call


def thread_count() -> int:
    """How many threads a kernel should be divided among."""
    return 1 if _forked else torch.get_num_threads()


@cache
def _entry(address: int) -> Callable[[bytes], None]:
    """The kernel at `address` as a function of its arguments; a kernel stays where it is as long as the process lives."""
    return _ENTRY(address)


@cache
def _openmp() -> tuple[Callable[..., None] | None, bytes]:
    """GOMP_parallel of the OpenMP library in this process, and the first words of a kernel's arguments."""
    torch.ones(1 << 16).sum()  # starts torch's pool, and with it the library
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, b""
    for line in maps.splitlines():
        path = line[73:]
        if "libgomp" in path or "libomp" in path or "libiomp" in path:
            library = ctypes.CDLL(path)
            parallel = library.GOMP_parallel
            parallel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint]
            parallel.restype = None
            queries = (library.omp_get_thread_num, library.omp_get_num_threads)
            addresses = [ctypes.cast(query, ctypes.c_void_p).value for query in queries]
            return parallel, _HEADER.pack(*addresses, 0, 1)
    return None, b""


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="convolve")


class _Memory(threading.local):
    """One block of scratch memory for each calling thread: fresh pages would cost more than most kernels."""

    block: Tensor | None = None


_MEMORY = _Memory()


def scratch(size: int) -> int:
    """The address of `size` bytes that the calling thread may use until its next call of this; at a multiple of 64."""
    block = _MEMORY.block
    if block is None or block.numel() < size + 64:
        block = _MEMORY.block = torch.empty(size + 64, dtype=torch.uint8)
    return (block.data_ptr() + 63) // 64 * 64
