"""Winograd's minimal filtering along the rows of small pictures, in vectors along images: F(4, 5) and F(4, 3), all three roles.

What the kernels do stands in convolve/kernels/images_winograd.py. Of the weight gradient each thread sums the share of its images; the
shares are added at the end, so its bits depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convolve.kernels import images_winograd as kernels
from convolve.kernels.cache import Kernel, loaded
from convolve.kernels.images import best
from convolve.kernels.machine import machine
from convolve.kernels.scratch import ADDRESSES
from convolve.ops import direct_call, engine, positions
from convolve.ops.algorithm import Algorithm, Cost, NotFinite
from convolve.ops.algorithms import images
from convolve.ops.bounds import direct_bound
from convolve.ops.windows import format_of, with_bias
from convolve.problem import DTYPE_BYTES, ROLES, ConvProblem

MOST_BYTES = 5 << 20
"""Of scratch for one thread: it is passed over in order, so that the third-level cache is near enough."""

APART = 64 << 10
"""Bytes between the scratches of two threads. Results are stored filter by filter, and the processor fetches where the next ones would lie:
beyond the last filter that was the other thread's scratch, taken from its cache again and again."""

# Cycles to turn a vector, in or out, to transform a tile of them, and to begin a register tile and transform its sums.
A_TURN, A_TRANSFORM, A_TILE = 5.0, 6.0, 60.0
A_WEIGHT, A_TOTAL = 6.0, 24.0  # of each thread: to transform a weight, and to sum a vector of its gradient

OVER_DIRECT = {6: 2.0, 8: 6.0}
"""How many times the largest error is that of plain sums, by the tile's size: with one channel; with many it is twice, at most."""


def why_not(problem: ConvProblem) -> str | None:
    reason = images.why_not_in_lanes(problem, problem.window)
    if reason is not None:
        return reason
    taps = problem.window.kernel[-1]
    if taps not in kernels.TAPS:
        return f"a row of its kernels has {' or '.join(map(str, kernels.TAPS))} taps, not {taps}"
    return images.why_too_large(problem, _scratch(problem), MOST_BYTES)


def _sizes(problem: ConvProblem) -> dict[str, int]:
    """What the kernels are told of a problem; a sequence has height 1."""
    window, taps = problem.window, problem.window.kernel[-1]
    _, size_h, size_w = positions.lifted(problem.size, 1)
    _, kernel_h, _ = positions.lifted(window.kernel, 1)
    _, before_h, before_w = positions.lifted(tuple(before for before, _ in window.padding), 0)
    _, after_h, _ = positions.lifted(tuple(after for _, after in window.padding), 0)
    _, out_h, out_w = positions.lifted(problem.output_size, 1)
    tiles = -(-out_w // kernels.OUTPUTS)
    return {
        "batch": problem.batch, "channels": problem.channels, "filters": problem.filters,
        "size_h": size_h, "size_w": size_w, "kernel_h": kernel_h, "before_h": before_h, "before_w": before_w,
        "padded_h": size_h + before_h + after_h, "padded_w": tiles * kernels.OUTPUTS + taps - 1,
        "out_h": out_h, "out_w": out_w, "tiles": tiles,
        "last": int(problem.layout == "channels_last" and problem.axes > 1),
    }  # fmt: skip


def _points(problem: ConvProblem) -> int:
    return kernels.points_of(problem.window.kernel[-1])


def _width(problem: ConvProblem) -> int:
    """Maps of the result whose products are summed together."""
    count = problem.result_shape[1]
    return min(kernels.widths_of(_points(problem)), key=lambda width: (-(-count // width) * width, -width))


def _tap_tile(problem: ConvProblem) -> tuple[int, int]:
    """Filters and rows of the kernel whose weight gradients are summed together."""
    v = _sizes(problem)
    return best(kernels.tap_tiles(), v["filters"], v["kernel_h"], part=False)


def _scratch(problem: ConvProblem) -> int:
    """Elements of one thread."""
    return positions.aligned(_used(problem)) + APART // DTYPE_BYTES[problem.dtype]


def _used(problem: ConvProblem) -> int:
    """Elements of the scratch that a kernel uses."""
    v, lanes, points = _sizes(problem), machine().lanes(problem.dtype), _points(problem)
    maps, places = v["channels"] * v["padded_h"] * v["padded_w"], v["filters"] * v["out_h"] * v["out_w"]
    if problem.role == "weight_gradient":
        filters, rows = _tap_tile(problem)
        row_blocks = -(-v["kernel_h"] // rows)
        transformed = v["channels"] * v["padded_h"] * v["tiles"] + filters * v["out_h"] * v["tiles"]
        sums = -(-v["filters"] // filters) * filters * v["channels"] * row_blocks * rows
        return (maps + places + lanes + points * (transformed + sums) + kernels.OUTPUTS) * lanes
    width, ins = _width(problem), problem.operand_shapes[0][1]
    outs = -(-problem.result_shape[1] // width) * width
    weights = outs * (ins * v["kernel_h"] * points + 1)
    if problem.role == "input_gradient":
        lines, pixels = v["channels"] * v["size_h"] * v["padded_w"], v["channels"] * v["size_h"] * v["size_w"]
        vectors = places + lines + v["filters"] * v["out_h"] * points + pixels + 2 * lanes
    else:
        vectors = maps + v["channels"] * v["padded_h"] * points + places + lanes + 1
    return (vectors + width * points) * lanes + weights


def _kernel(problem: ConvProblem) -> Kernel:
    taps = problem.window.kernel[-1]
    if problem.role == "weight_gradient":
        return kernels.weight_gradient(taps, *_tap_tile(problem), problem.dtype)
    make = kernels.input_gradient if problem.role == "input_gradient" else kernels.forward
    return make(taps, _width(problem), problem.dtype)


def _plan(problem: ConvProblem, _: tuple[int, ...], b: tuple[int, ...], threads: int) -> direct_call.Plan:
    scratch = _scratch(problem)
    values: dict[str, Any] = _sizes(problem) | {"scratch_size": scratch}
    threads = min(threads, -(-problem.batch // machine().lanes(problem.dtype)))
    weights = problem.role == "weight_gradient"
    w = (0, 0, 0, 0) if weights else (*b[:2], *positions.lifted(b[2:], 0)[1:])
    values |= dict(zip(("w_k", "w_c", "w_r", "w_s"), w, strict=True))
    arguments = positions.as_bytes(kernels.ARGUMENTS[len(ADDRESSES) :], values)
    size = scratch * DTYPE_BYTES[problem.dtype] * threads
    strides = () if weights else positions.result_strides(problem)
    return direct_call.Plan(
        problem, loaded(_kernel(problem)).address, np.zeros(1, np.int64), arguments, strides, size, threads
    )


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    memory_format = format_of(problem.layout, problem.axes)
    a = a.contiguous(memory_format=memory_format)
    weights = problem.role == "weight_gradient"
    if weights:
        b = b.contiguous(memory_format=memory_format)
    plan = direct_call.planned(_plan, problem, a, b)
    flags = torch.zeros(plan.threads, dtype=a.dtype)
    if weights:
        # OpenMP may start fewer threads than it is asked for: whoever did not come has added nothing.
        shares = torch.zeros((plan.threads, *problem.weight_shape), dtype=a.dtype)
        plan.run(a.data_ptr(), shares.data_ptr(), 0, b.data_ptr(), flags.data_ptr())
        result = shares[0] if plan.threads == 1 else shares.sum(0)
    else:
        result = torch.empty_strided(problem.result_shape, plan.result_strides, dtype=a.dtype)
        bias = None if bias is None else bias.contiguous()
        constant = 0 if bias is None else bias.data_ptr()
        plan.run(a.data_ptr(), b.data_ptr(), constant, result.data_ptr(), flags.data_ptr())
    if not all(map(math.isfinite, flags.tolist())):
        raise NotFinite
    return with_bias(result, bias) if weights else result


def bound(problem: ConvProblem) -> float:
    return OVER_DIRECT[_points(problem)] * direct_bound(problem)


def _cost(problem: ConvProblem) -> Cost:
    return positions.cost(problem, _cycles)


def _cycles(problem: ConvProblem) -> float:
    """A count of vector instructions."""
    v, points = _sizes(problem), _points(problem)
    maps, places = v["channels"] * v["padded_h"] * v["padded_w"], v["filters"] * v["out_h"] * v["out_w"]
    transforms = v["tiles"] * (v["channels"] * v["padded_h"] + v["filters"] * v["out_h"])
    elements = v["channels"] * v["filters"] * v["kernel_h"] * points
    if problem.role == "weight_gradient":
        filters, rows = _tap_tile(problem)
        passes = points * -(-v["filters"] // filters) * v["channels"] * -(-v["kernel_h"] // rows)
        products, once = passes * v["out_h"] * v["tiles"] * filters * rows, elements * A_TOTAL
    else:
        width, (ins, outs) = _width(problem), (problem.operand_shapes[0][1], problem.result_shape[1])
        rows = v["out_h"] if problem.role == "output" else v["size_h"]
        passes = v["tiles"] * rows * -(-outs // width)
        # Each row of the output meets all rows of the kernel, in either role: rows of padding are skipped.
        products = v["tiles"] * v["out_h"] * v["kernel_h"] * -(-outs // width) * width * ins * points
        once = elements * A_WEIGHT
    each = products + passes * A_TILE + transforms * A_TRANSFORM + (maps + places) * A_TURN
    return images.vectors(problem) * each + engine.thread_count() * once


ALGORITHM = Algorithm(
    name="images_winograd",
    summary="our kernel, F(4,5) or F(4,3) along rows, vectors along images: batches of small pictures",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=bound,
    roles=ROLES,
    local=False,
    looks=lambda _: True,
    exact=False,
)
