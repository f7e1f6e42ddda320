"""Direct convolution by our own kernel whose vectors run along images: batches of small pictures with few maps, as in LeNet.

What the kernels do stands in convolve/kernels/images.py. Output and input gradient are one kernel, since the input gradient is a
convolution whose weight is read from other places. Of the weight gradient each thread sums the share of its images; the shares are
added at the end, so its bits depend on the number of threads.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convolve.geometry import Window
from convolve.kernels import images as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.kernels.scratch import ADDRESSES
from convolve.ops import direct_call, engine, positions
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.bounds import direct_bound
from convolve.ops.windows import with_bias
from convolve.problem import DTYPE_BYTES, ROLES, ConvProblem

MOST_BYTES = 2 << 20
"""Of scratch for one thread: the maps of a vector full of images should stay in a core's cache."""
A_TURN = 3.0  # cycles to turn a vector, in or out
A_TILE, A_GROUP = 12.0, 300.0  # cycles to begin a register tile, and a vector full of images


def why_not(problem: ConvProblem) -> str | None:
    if problem.layout != "channels_first" and problem.axes > 1:
        return "its kernels read channels-first images"
    plain = problem if problem.role == "weight_gradient" else problem.as_convolution()
    return why_not_in_lanes(problem, plain.window) or why_too_large(problem, _scratch(problem), MOST_BYTES)


def why_not_in_lanes(problem: ConvProblem, window: Window) -> str | None:
    """Why kernels whose vectors run along images cannot slide this window, or None."""
    if problem.device != "cpu":
        return f"its kernels run on a CPU, not on {problem.device}"
    if problem.dtype not in ("float32", "float64"):
        return f"its kernels are written for float32 and float64, not {problem.dtype}"
    if problem.axes > 2 or problem.groups > 1:
        return "its kernels are written for one or two axes and one group"
    if {*window.stride, *window.dilation, *window.input_dilation} != {1}:
        return "its kernels are written for stride and dilation 1"
    if min(side for sides in window.padding for side in sides) < 0:
        return "its kernels do not crop"
    reason = why_no_kernels()
    if reason is not None:
        return reason
    lanes = machine().lanes(problem.dtype)
    if problem.batch < lanes:
        return f"its vectors run along {lanes} images; here are {problem.batch}"
    return None


def why_too_large(problem: ConvProblem, scratch: int, most_bytes: int) -> str | None:
    """Why one thread's scratch of so many elements is too large, or None."""
    size = DTYPE_BYTES[problem.dtype] * scratch
    if size > most_bytes:
        lanes = machine().lanes(problem.dtype)
        return f"the maps of {lanes} images take {size >> 10:,} KiB, too much to stay in a core's cache"
    return None


def not_these(problem: ConvProblem, _: Tensor, weight: Tensor) -> str | None:
    """The input gradient has no padding in its definition; here zeros surround the output's, and NaN or Inf make NaN of them."""
    if problem.role == "input_gradient" and not torch.isfinite(weight).all():
        return "the weight has NaN or Inf, which the zeros around the gradient would spread"
    return None


def _sizes(problem: ConvProblem) -> dict[str, int]:
    """What the kernels are told of a problem; a sequence has height 1."""
    plain = problem if problem.role == "weight_gradient" else problem.as_convolution()
    _, size_h, size_w = positions.lifted(plain.size, 1)
    _, kernel_h, kernel_w = positions.lifted(plain.window.kernel, 1)
    _, before_h, before_w = positions.lifted(tuple(before for before, _ in plain.window.padding), 0)
    _, after_h, after_w = positions.lifted(tuple(after for _, after in plain.window.padding), 0)
    _, out_h, out_w = positions.lifted(plain.output_size, 1)
    return {
        "batch": problem.batch, "channels": plain.channels, "filters": plain.filters,
        "size_h": size_h, "size_w": size_w, "kernel_h": kernel_h, "kernel_w": kernel_w,
        "before_h": before_h, "before_w": before_w,
        "padded_h": size_h + before_h + after_h, "padded_w": size_w + before_w + after_w,
        "out_h": out_h, "out_w": out_w, "taps": kernel_h * kernel_w,
    }  # fmt: skip


def _scratch(problem: ConvProblem) -> int:
    """Elements of one thread."""
    v, lanes = _sizes(problem), machine().lanes(problem.dtype)
    pixels, taps = v["out_h"] * v["out_w"], v["channels"] * v["taps"]
    maps = v["channels"] * v["padded_h"] * v["padded_w"]
    tile, width = _tile(problem)
    if problem.role == "weight_gradient":
        room = -(-tile * width // lanes)
        tiles = -(-v["filters"] // tile) * v["channels"] * -(-v["taps"] // width)
        return positions.aligned((maps + v["filters"] * pixels + lanes + tiles * room) * lanes)
    return positions.aligned((maps + width * pixels + lanes) * lanes + v["filters"] * (taps + 1))


def _tile(problem: ConvProblem) -> tuple[int, int]:
    v = _sizes(problem)
    if problem.role == "weight_gradient":
        return kernels.best(kernels.tap_tiles(), v["filters"], v["taps"], part=False)
    return kernels.best(kernels.tiles(), v["out_w"], v["filters"])


@cache
def _address(tile: int, width: int, dtype: str, weights: bool) -> int:
    kernel = kernels.weight_gradient if weights else kernels.kernel
    return loaded(kernel(tile, width, dtype)).address


def _plan(problem: ConvProblem, _: tuple[int, ...], b: tuple[int, ...], threads: int) -> direct_call.Plan:
    weights, turned = problem.role == "weight_gradient", problem.role == "input_gradient"
    scratch = _scratch(problem)
    values: dict[str, Any] = _sizes(problem) | {"scratch_size": scratch}
    threads = min(threads, -(-problem.batch // machine().lanes(problem.dtype)))
    table = np.zeros(1, np.int64)
    names: tuple[str, ...] = kernels.WEIGHTS_ARGUMENTS if weights else kernels.ARGUMENTS
    if weights:
        rows, columns = np.mgrid[: values["kernel_h"], : values["kernel_w"]]
        places = (rows * values["padded_w"] + columns).ravel() * machine().lanes(problem.dtype)
        table = np.concatenate([places, places[-1:].repeat(_tile(problem)[1])]).astype(np.int64)
    else:
        w_k, w_c = (b[1], b[0]) if turned else b[:2]
        w_r, w_s = positions.lifted(b[2:], 0)[1:]
        first = (values["kernel_h"] - 1) * w_r + (values["kernel_w"] - 1) * w_s if turned else 0
        sign = -1 if turned else 1
        values |= {"w_first": first, "w_k": w_k, "w_c": w_c, "w_r": sign * w_r, "w_s": sign * w_s, "skips": int(turned)}
    arguments = positions.as_bytes(names[len(ADDRESSES) :], values)
    address = _address(*_tile(problem), problem.dtype, weights)
    size = scratch * DTYPE_BYTES[problem.dtype] * threads
    return direct_call.Plan(problem, address, table, arguments, positions.result_strides(problem), size, threads)


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    a = a.contiguous()
    if problem.role != "weight_gradient":
        return direct_call.run(_plan, problem, a, b, bias)
    b = b.contiguous()
    plan = direct_call.planned(_plan, problem, a, b)
    # OpenMP may start fewer threads than it is asked for: whoever did not come has added nothing.
    shares = torch.zeros((plan.threads, *problem.weight_shape), dtype=a.dtype)
    plan.run(a.data_ptr(), shares.data_ptr(), 0, b.data_ptr())
    return with_bias(shares[0] if plan.threads == 1 else shares.sum(0), bias)


def _cost(problem: ConvProblem) -> Cost:
    return positions.cost(problem, _cycles)


def _cycles(problem: ConvProblem) -> float:
    """A count of vector instructions."""
    v = _sizes(problem)
    tile = first, second = _tile(problem)
    pixels, maps = v["out_h"] * v["out_w"], v["channels"] * v["padded_h"] * v["padded_w"]
    if problem.role == "weight_gradient":
        tiles = -(-v["filters"] // first) * v["channels"] * -(-v["taps"] // second)
        passes, products = tiles, tiles * pixels * first * second
    else:
        passes = -(-v["filters"] // second) * v["out_h"] * -(-v["out_w"] // first)
        used = 1.0
        if problem.role == "input_gradient":  # rows of padding are skipped
            used = v["size_h"] / v["out_h"]
        products = math.ceil(passes * first * second * v["channels"] * v["taps"] * used)
    turns = maps + v["filters"] * pixels
    return vectors(problem) * (products * kernels.a_step(tile) + passes * A_TILE + turns * A_TURN + A_GROUP)


def vectors(problem: ConvProblem) -> int:
    """Vectors full of images, as if each thread had as many as the busiest one: the others wait for it."""
    threads = engine.thread_count()
    return -(-problem.batch // (machine().lanes(problem.dtype) * threads)) * threads


ALGORITHM = Algorithm(
    name="images",
    summary="our kernel, vectors along images: batches of small pictures, few maps",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=direct_bound,
    roles=ROLES,
    not_these=not_these,
)
