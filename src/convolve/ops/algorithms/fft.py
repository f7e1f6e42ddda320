"""By the Fourier transform: a convolution is a product of spectra, whatever the size of the kernel.

The input is cut into overlapping tiles (overlap-save: each tile's wrapped border is thrown away), a stride is a subsample
of the stride-1 result, a dilation a kernel stuffed with zeros.

The error of a transform is global: one bright corner of 1e4 spoils a dark rest by 1e-3 in float32. Hence float32 is
transformed in float64, where the same corner costs 1e-12, and data whose magnitudes span more than 1e7 within a call are
refused. For float64 itself there is nothing wider, so `auto` does not use it there.

One and two axes on a CPU go by our kernels (ops/fourier_call.py), tile by tile within a core's cache; everything else by torch's
transforms, here, in passes over all tiles.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from convolve.ops import fourier_call, fourier_plan, roles
from convolve.ops.algorithm import Algorithm, Cost, NotFinite
from convolve.ops.bounds import EPSILON, direct_bound
from convolve.ops.windows import stuff_zeros, windows, with_bias, zero_pad
from convolve.problem import ConvProblem, Role

ROLES: tuple[Role, ...] = ("output", "input_gradient")
_WIDEST_RANGE = 1e7
_BLOCK = 16  # edge of the blocks whose mean magnitudes are compared


def why_not(problem: ConvProblem) -> str | None:
    if problem.dtype not in EPSILON:
        return f"a transform is not exact, and {problem.dtype} must be"
    return None


def has_kernels(problem: ConvProblem) -> bool:
    """Whether our kernels serve, and not torch's operators."""
    return fourier_call.why_not(problem) is None


def looks(problem: ConvProblem) -> bool:
    """Our kernels see what they write; half precision is rounded after them."""
    return problem.dtype in ("float32", "float64") and has_kernels(problem)


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """The output or input gradient."""
    if has_kernels(problem):
        result, finite = fourier_call.run(problem, a, b, bias)
        if not finite:
            raise NotFinite
        return result.to(_dtype(problem))
    x, w = roles.operands(problem, a, b)
    return run_transformed(problem.as_convolution(), x, w, bias)


def run_transformed(problem: ConvProblem, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution by torch's transforms."""
    window, axes = problem.window, problem.axes
    x = zero_pad(stuff_zeros(x, window.input_dilation), window.padding).to(torch.float64)
    w = stuff_zeros(w, window.dilation).to(torch.float64)
    full = tuple(s * (m - 1) + 1 for s, m in zip(window.stride, problem.output_size, strict=True))  # at stride 1
    tile = tile_size(window.extent, full)
    step = tuple(t - k + 1 for t, k in zip(tile, window.extent, strict=True))
    counts = tuple(-(-m // b) for m, b in zip(full, step, strict=True))
    needed = [b * (count - 1) + t for b, count, t in zip(step, counts, tile, strict=True)]
    x = zero_pad(x, [(0, size - n) for size, n in zip(needed, x.shape[2:], strict=True)])
    last = tuple(range(-axes, 0))
    g = problem.groups
    spectra = torch.fft.rfftn(windows(x, tile, step, (1,) * axes), dim=last)
    spectra = spectra.reshape(problem.batch, g, problem.channels // g, math.prod(counts), *spectra.shape[2 + axes :])
    kernel = torch.fft.rfftn(w, s=tile, dim=last).conj().reshape(g, problem.filters // g, -1, *spectra.shape[4:])
    product = torch.einsum("ngctf,gkcf->ngktf", spectra.flatten(4), kernel.flatten(3))
    product = product.reshape(*product.shape[:4], *spectra.shape[4:])
    tiles = torch.fft.irfftn(product, s=tile, dim=last)[(..., *(slice(b) for b in step))]
    tiles = tiles.reshape(problem.batch, problem.filters, *counts, *step)
    order = [axis for pair in zip(range(2, 2 + axes), range(2 + axes, 2 + 2 * axes), strict=True) for axis in pair]
    whole = tiles.permute(0, 1, *order).reshape(
        *problem.output_shape[:2], *(count * b for count, b in zip(counts, step, strict=True))
    )
    every = (..., *(slice(None, m, s) for m, s in zip(full, window.stride, strict=True)))
    return with_bias(whole[every], bias).to(_dtype(problem))


def tile_size(extent: tuple[int, ...], full: tuple[int, ...]) -> tuple[int, ...]:
    """Per axis, the transform's size: the whole where that is small, else about four kernels, of factors 2, 3 and 5."""
    return tuple(fast_size(min(m + k - 1, max(64, 4 * k))) for k, m in zip(extent, full, strict=True))


def fast_size(least: int) -> int:
    """The smallest product of 2s, 3s and 5s that is at least `least`: sizes that transform fast."""
    best: int = 2 ** math.ceil(math.log2(max(1, least)))
    five = 1
    while five < best:
        three = five
        while three < best:
            size: int = three * 2 ** max(0, math.ceil(math.log2(least / three)))
            best = min(best, size) if size >= least else best
            three *= 3
        five *= 5
    return best


def not_these(problem: ConvProblem, x: Tensor, w: Tensor) -> str | None:  # noqa: ARG001 - every row's signature
    """Too wide a range of magnitudes: the error is relative to the largest, and must be small against the smallest."""
    if problem.dtype == "float64":
        return None
    blocks = [min(_BLOCK, n) for n in x.shape[2:]]
    peak, smallest = _spread(problem, x, blocks)
    if math.isfinite(peak) and peak > _WIDEST_RANGE * smallest:
        return f"its error is global, and the input's magnitudes span {peak:.0e} to {smallest:.0e}"
    return None


def _spread(problem: ConvProblem, x: Tensor, blocks: list[int]) -> tuple[float, float]:
    """The largest mean magnitude of a block, and the smallest above 0."""
    if has_kernels(problem):
        return fourier_plan.spread(x.float(), tuple(blocks))
    largest = x.abs().amax(dim=1)
    tiled = windows(largest[:, None], blocks, blocks, [1] * problem.axes)
    means = tiled.double().mean(dim=tuple(range(2 + problem.axes, 2 + 2 * problem.axes)))
    peak = float(means.max())
    return peak, float(means[means > 0].min()) if peak > 0 else 0.0


def _dtype(problem: ConvProblem) -> torch.dtype:
    dtype = getattr(torch, problem.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def bound(problem: ConvProblem) -> float:
    """Half precision and float32 are rounded once, at the end. For float64: global, against the rms of the whole result."""
    if problem.dtype != "float64":
        return direct_bound(problem)
    return 64 * EPSILON["float64"] * (1 + math.sqrt(problem.summed))


def _cost(problem: ConvProblem) -> Cost:
    if has_kernels(problem):
        return fourier_call.cost(problem)
    problem = problem.as_convolution()
    window = problem.window
    full = [s * (m - 1) + 1 for s, m in zip(window.stride, problem.output_size, strict=True)]
    tile = tile_size(window.extent, tuple(full))
    size = math.prod(tile)
    tiles = math.prod(-(-m // (t - k + 1)) for m, t, k in zip(full, tile, window.extent, strict=True))
    c, k = problem.channels, problem.filters
    transforms = problem.batch * tiles * (c + k) + k * c // problem.groups
    products = problem.batch * tiles * k * c // problem.groups
    seconds = 1e-4 + transforms * size * math.log2(size + 1) * 4e-10 + products * size * 2e-9
    return Cost(seconds, 16 * (transforms + k * c // problem.groups) * size)


ALGORITHM = Algorithm(
    name="fft",
    summary="products of spectra, tile by tile, in float64",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=bound,
    roles=ROLES,
    local=False,
    looks=looks,
    exact=False,
    not_automatic=lambda problem: "in float64 its error is not local" if problem.dtype == "float64" else None,
    not_these=not_these,
)
