"""Winograd's minimal filtering F(m, 3): m outputs of a 3-tap filter with m + 2 products instead of 3 m.

    y = A^T [ (G g) * (B^T d) ]          one axis; on two axes the same along both

d is a tile of m + 2 inputs, g the kernel, * the product of the transformed elements, summed over channels: one matrix product
per element. The three matrices: convolve/kernels/minimal_filtering.py. Sources: Winograd 1980; Lavin & Gray 2015 (arXiv 1509.09308).

F(2) and F(4) on two axes in float32 and float64 run on a CPU by our kernels (ops/winograd_call.py); everything else by torch's operators,
here. Both know the same matrices and keep the same bound.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from convolve.kernels.minimal_filtering import TAPS, Matrix, matrices
from convolve.kernels.winograd import SIZES
from convolve.ops import roles, winograd_call
from convolve.ops.algorithm import Algorithm, Cost, NotFinite, Preparation
from convolve.ops.bounds import EPSILON, direct_bound, summing_dtype
from convolve.ops.windows import windows, with_bias, zero_pad
from convolve.problem import ConvProblem, Role

ROLES: tuple[Role, ...] = ("output", "input_gradient")
# Largest error over the rms of the output, float32, two axes, up to 256 channels; beyond, it grows by their square root.
BOUND = {2: 5e-6, 4: 2.5e-5, 6: 2e-4}


def why_not(problem: ConvProblem) -> str | None:
    window = problem.window
    if problem.dtype not in EPSILON:
        return f"its transforms are not exact, and {problem.dtype} must be"
    if problem.axes > 2:
        return "it is written for one and two axes"
    if set(window.kernel) != {TAPS}:
        return f"its kernels have {TAPS} taps along each axis, not {'x'.join(map(str, window.kernel))}"
    if {*window.stride, *window.dilation, *window.input_dilation} != {1}:
        return "it needs stride 1 and dilation 1"
    return None


def run(m: int, problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """The output or input gradient."""
    if has_kernels(m, problem):
        return _finite(*winograd_call.run(m, problem, a, b, bias))
    x, w = roles.operands(problem, a, b)
    convolution = problem.as_convolution()
    return run_transformed(m, convolution, x, transform_weight(m, convolution, w), bias)


def prepare(m: int, problem: ConvProblem, w: Tensor) -> Tensor:
    return winograd_call.prepare(m, problem, w) if has_kernels(m, problem) else transform_weight(m, problem, w)


def run_prepared(m: int, problem: ConvProblem, x: Tensor, prepared: Tensor, bias: Tensor | None) -> Tensor:
    if has_kernels(m, problem):
        return _finite(*winograd_call.run_prepared(m, problem, x, prepared, bias))
    return run_transformed(m, problem, x, prepared, bias)


def has_kernels(m: int, problem: ConvProblem) -> bool:
    """Whether our kernels serve, and not torch's operators."""
    return m in SIZES and winograd_call.why_not(problem) is None


def _finite(result: Tensor, finite: bool) -> Tensor:
    if not finite:
        raise NotFinite
    return result


def transform_weight(m: int, problem: ConvProblem, w: Tensor) -> Tensor:
    """G g G^T for every kernel: (elements of a tile, groups, k / g, c / g)."""
    wide, axes, g = summing_dtype(w.dtype), problem.axes, problem.groups
    g_matrix = _tensor(matrices(m)[1], wide, w.device)
    kernel = _along_axes(g_matrix, w.to(wide).permute(*range(2, 2 + axes), 0, 1), axes)
    return kernel.reshape((m + TAPS - 1) ** axes, g, problem.filters // g, -1)


def run_transformed(m: int, problem: ConvProblem, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    wide, axes, g = summing_dtype(x.dtype), problem.axes, problem.groups
    a_t, _, b_t = (_tensor(matrix, wide, x.device) for matrix in matrices(m))
    counts = tuple(-(-size // m) for size in problem.output_size)
    tile = m + TAPS - 1
    x = zero_pad(x, problem.window.padding).to(wide)
    x = zero_pad(x, [(0, m * (count - 1) + tile - size) for count, size in zip(counts, x.shape[2:], strict=True)])
    tiles = windows(x, (tile,) * axes, (m,) * axes, (1,) * axes)
    # Tile elements first: (elements, g, c / g, n positions), so that each element is one matrix product over channels.
    tiles = tiles.permute(*range(2 + axes, 2 + 2 * axes), 1, 0, *range(2, 2 + axes))
    data = _along_axes(b_t, tiles, axes).reshape(tile**axes, g, problem.channels // g, -1)
    product = torch.matmul(kernel, data).reshape(*(tile,) * axes, problem.filters, problem.batch, *counts)
    y = _along_axes(a_t, product, axes)
    order = [axis for pair in zip(range(axes + 2, 2 * axes + 2), range(axes), strict=True) for axis in pair]
    whole = y.permute(axes + 1, axes, *order).reshape(*problem.output_shape[:2], *(count * m for count in counts))
    inside: Any = (..., *(slice(size) for size in problem.output_size))
    return with_bias(whole[inside], None if bias is None else bias.to(wide)).to(_dtype(problem))


def _along_axes(matrix: Tensor, tiles: Tensor, axes: int) -> Tensor:
    """The matrix applied along each of the first `axes` axes."""
    for axis in range(axes):
        tiles = torch.tensordot(matrix, tiles, dims=([1], [axis])).movedim(0, axis)
    return tiles


@lru_cache(maxsize=32)
def _tensor(matrix: Matrix, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor([[float(entry) for entry in row] for row in matrix], dtype=dtype, device=device)


def _dtype(problem: ConvProblem) -> torch.dtype:
    dtype = getattr(torch, problem.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def bound(m: int, problem: ConvProblem) -> float:
    convolution = problem.as_convolution()
    channels = convolution.channels / convolution.groups
    base = BOUND[m] * max(1.0, math.sqrt(channels / 256))
    once = EPSILON[problem.dtype]
    return base * min(1.0, once / EPSILON["float32"]) + (direct_bound(problem) if once > EPSILON["float32"] else 0.0)


def _cost(m: int, problem: ConvProblem, transformed: bool = False) -> Cost:
    if has_kernels(m, problem):
        return winograd_call.cost(m, problem, transformed)
    tile = (m + TAPS - 1) ** problem.axes
    counts = problem.batch * math.prod(-(-size // m) for size in problem.output_size)
    c, k, g = problem.channels, problem.filters, problem.groups
    elements = tile * counts * (c + k) + (0 if transformed else tile * k * c // g)
    macs = tile * counts * k * c // g
    slower = 2.5 if problem.dtype == "float64" else 1.0
    return Cost(1e-4 + slower * (elements * 3e-9 + macs / 5e10), 4 * 3 * elements)


def _row(m: int, name: str, why_not_automatic: str | None) -> Algorithm:
    return Algorithm(
        name=name,
        summary=f"F({m},{TAPS}): {m} outputs of {TAPS} taps with {m + TAPS - 1} products along an axis",
        run=partial(run, m),
        why_not=why_not,
        cost=partial(_cost, m),
        bound=partial(bound, m),
        roles=ROLES,
        local=False,
        looks=partial(has_kernels, m),
        exact=False,
        not_automatic=lambda _: why_not_automatic,
        preparation=Preparation(partial(prepare, m), partial(run_prepared, m), partial(_cost, m, transformed=True)),
    )


ALGORITHM = _row(4, "winograd", None)
SMALL = _row(2, "winograd_f2", None)
LARGE = _row(6, "winograd_f6", "its error is ten times that of F(4)")
