"""Pictures moved, each in its own way: by an affine map between pixels (`resample`), or by whole pixels and a mirror (`shifted`).

What comes in from outside repeats the border. On a CPU one kernel (kernels/resample.py) computes every pixel by itself, places in
float64: a picture's result is the same in any batch and on any number of threads. Other devices and dtypes, tensors that are
watched, and machines without kernels take torch's operators, whose places are rounded to the pictures' dtype.
"""

from __future__ import annotations

import struct

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from convolve.kernels.cache import loaded
from convolve.kernels.machine import why_no_kernels
from convolve.kernels.resample import kernel
from convolve.ops import engine
from convolve.ops.pool_kernels import _DTYPES, _watched

_SERIAL = 8192
"""Pixels below which a second thread costs more than it brings."""


def resample(images: Tensor, maps: np.ndarray) -> Tensor:
    """The images [n, c, h, w], floating point, with each output pixel read at the place that its image's map names, bilinear.

    `maps` [n, 2, 3], float64: the place (x, y) = maps[i] @ (x', y', 1) in the source for the output pixel (x', y'), both counted
    in pixels from the picture's centre, x to the right and y down.

    >>> row = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    >>> resample(row, np.array([[[1, 0, 0.5], [0, 1, 0]]])).tolist()
    [[[[1.5, 3.0, 4.0]]]]
    """
    if images.numel() == 0:
        return images.clone()
    if _by_kernel(images):
        return _moved("affine", images, np.ascontiguousarray(maps, np.float64))
    _, _, h, w = images.shape
    units = np.array([[[1, h / w, 2 / w], [w / h, 1, 2 / h]]])  # of pixels to halves of the picture
    theta = torch.from_numpy(maps * units).to(images.device, images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def shifted(images: Tensor, moves: np.ndarray) -> Tensor:
    """The images [n, c, h, w], mirrored left to right where `mirrored` is not 0, and then each pixel read `down` rows below and
    `right` columns to the right of its own place.

    `moves` [n, 3], int64: (down, right, mirrored) of each image.

    >>> row = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    >>> shifted(row, np.array([[0, 1, 0]])).tolist(), shifted(row, np.array([[0, 1, 1]])).tolist()
    ([[[[2.0, 4.0, 4.0]]]], [[[[2.0, 1.0, 1.0]]]])
    """
    if images.numel() == 0:
        return images.clone()
    if _by_kernel(images):
        return _moved("whole", images, np.ascontiguousarray(moves, np.int64))
    n, c, h, w = images.shape
    down, right, mirrored = torch.from_numpy(moves).unbind(1)
    rows = (torch.arange(h) + down[:, None]).clamp(0, h - 1)
    columns = (torch.arange(w) + right[:, None]).clamp(0, w - 1)
    columns = torch.where(mirrored[:, None] != 0, w - 1 - columns, columns)
    source = (rows[:, :, None] * w + columns[:, None, :]).view(n, 1, h * w).to(images.device)
    return images.reshape(n, c, h * w).gather(2, source.expand(n, c, h * w)).view(n, c, h, w)


def _by_kernel(images: Tensor) -> bool:
    learned = images.requires_grad and torch.is_grad_enabled()
    return not (learned or _watched(images)) and why_no_kernels() is None


def _moved(kind: str, images: Tensor, maps: np.ndarray) -> Tensor:
    n, c, h, w = images.shape
    moved = torch.empty_like(images)
    addresses = images.data_ptr(), moved.data_ptr(), maps.ctypes.data
    arguments = struct.pack("15q", *addresses, n, c, h, w, *images.stride(), *moved.stride())
    threads = engine.thread_count() if images.numel() >= _SERIAL else 1
    engine.run(loaded(kernel(kind, _DTYPES[images.dtype])).address, arguments, threads)
    return moved
