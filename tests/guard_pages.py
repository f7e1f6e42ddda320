"""Tensors that end, or begin, exactly at a page nobody may touch: one element too far is a crash, not luck (Linux)."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded(shape: Sequence[int], dtype: torch.dtype = torch.float32, at_end: bool = True) -> Tensor:
    """An uninitialised contiguous tensor before (or, with at_end=False, behind) an inaccessible page. Never freed: for tests."""
    count = math.prod(shape)
    size = count * torch.empty((), dtype=dtype).element_size()
    room = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    base = _LIBC.mmap(None, room + 2 * mmap.PAGESIZE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    _LIBC.mprotect(base + mmap.PAGESIZE, room, mmap.PROT_READ | mmap.PROT_WRITE)
    start = base + mmap.PAGESIZE + (room - size if at_end else 0)
    if count == 0:
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer((ctypes.c_char * size).from_address(start), dtype=dtype).view(tuple(shape))


def guarded_like(values: Tensor, at_end: bool = True) -> Tensor:
    """The values of a tensor, between such pages, with the same strides if it is dense."""
    order = sorted(range(values.dim()), key=lambda axis: -values.stride(axis))
    dense = guarded([values.shape[axis] for axis in order], values.dtype, at_end)
    there = dense.permute([order.index(axis) for axis in range(values.dim())])
    there.copy_(values)
    return there
