"""Pooling by our own kernels where nothing but the numbers is wanted: plain eager calls on a CPU, float32 and float64.

Everything else (transforms of torch, tracing, compiling, other dtypes and devices, tiny inputs) goes to the composition of
torch's operators in pooling.py, whose rules these kernels follow: maxima have the same bits. An average is divided once; channels first it
is summed along the width, then down and through the slices (a whole map by lanes: pool_whole.py), channels last in row-major order.

A maximum that is trained keeps one byte for each result, its tap in the window (torch keeps eight, and the input), so windows of more than
256 elements are trained by the composition. A second derivative is taken of torch's scatter (maxima) or of the kernels again (averages,
which are linear).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C import (
    _are_functorch_transforms_active,
    _get_tracing_state,
    _is_torch_function_mode_enabled,
    _len_torch_dispatch_stack,
)
from torch._C._dynamo.guards import _empty_strided_cpu  # type: ignore[attr-defined]
from torch._C._functorch import is_functorch_wrapped_tensor, is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from convolve.kernels import pool_lanes, pool_rows, pool_small, pool_threes, pool_whole
from convolve.kernels.cache import Kernel, loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.ops import engine, pooling
from convolve.ops.pooling import Plan

LEAST = 4096
"""Elements from which a kernel pays. Of averages, whose last bits depend on the way, in each image: whatever its batch."""

_SERIAL = 16384  # elements below which a second thread costs more than it brings
_CODES = 256  # taps that a byte can name
_BLOCK_BYTES = 128 * 1024  # of reduced rows, of each thread
_GROUP_BYTES = (
    8192  # of lines that are written before the first is read: a load from a line that is still being written waits
)
_LINES_BYTES = 4 * 1024  # of lines of gradients and codes: memory is read and written by turns, the shorter the better
_MOST_BYTES = 4 << 20
_WIDEST = 1 << 15
_MOST_PAIRS = 1 << 20  # of an output and a tap of one axis, which are listed
_PLAIN = (Tensor, torch.nn.Parameter)
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def pool(x: Tensor, plan: Plan) -> Tensor:
    """The pooled values of x (…, spatial axes), as pooling.pool."""
    if _watched(x) or x.numel() < LEAST:  # in this order: a tracer would keep the comparison
        return pooling.pool(x, plan)
    recorded = x.requires_grad and torch.is_grad_enabled()
    return way(plan, _remembered(x, plan, recorded and plan.problem.kind == "max"), recorded)(x)


def way(plan: Plan, task: _Task | None, recorded: bool) -> Callable[[Tensor], Tensor]:
    """The pooling of what nobody watches, by its task or, without one, by the composition; `recorded`: for a gradient."""
    if task is None:
        return lambda x: pooling.pool(x, plan)
    if not recorded:
        run = task.run
    elif task.codes:
        run = lambda x: _MAXIMUM(x, task, False)[0]  # noqa: E731
    else:
        run = lambda x: _AVERAGE(x, task)  # noqa: E731
    return run if not plan.lifted else lambda x: run(x.unsqueeze(-2)).squeeze(-2)


def pool_with_indices(x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """The maxima and where they lie, as pooling.pool_with_indices."""
    if _watched(x) or x.numel() < LEAST:  # in this order: a tracer would keep the comparison
        return pooling.pool_with_indices(x, plan)
    task = _remembered(x, plan, codes=True)
    if task is None:
        return pooling.pool_with_indices(x, plan)
    lifted = x.unsqueeze(-2) if plan.lifted else x
    if x.requires_grad and torch.is_grad_enabled():
        y, indices = _MAXIMUM(lifted, task, True)
    else:
        y, _, indices = _forward(lifted, task, codes=False, indices=True)
        assert indices is not None
    return (y.squeeze(-2), indices.squeeze(-2)) if plan.lifted else (y, indices)


# -- derivatives


class _Maximum(torch.autograd.Function):
    """Keeps the codes; its gradient is a kernel, or torch's scatter where that gradient is itself watched or differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, task: _Task, indices: bool) -> tuple[Tensor, Tensor | None]:
        y, codes, places = _forward(x, task, codes=True, indices=indices)
        ctx.task = task
        ctx.save_for_backward(codes)
        if places is not None:
            ctx.mark_non_differentiable(places)
        return y, places

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor | None) -> tuple[Tensor, None, None]:
        (codes,) = ctx.saved_tensors
        scatter = torch.is_grad_enabled() or _watched(g)
        return _scattered(g, codes, ctx.task) if scatter else _backward(g, codes, ctx.task), None, None


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, task: _Task) -> Tensor:
        ctx.task = task
        return task.run(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        task = ctx.task
        if _watched(g):
            zeros = torch.zeros(task.shape, dtype=g.dtype)
            return torch.func.vjp(lambda x: _composed(x, task.plan), zeros)[1](g)[0], None
        if not torch.is_grad_enabled():  # nothing is differentiated again
            return _backward(g, None, task), None
        return _AverageGradient.apply(g, task), None  # type: ignore[no-untyped-call]


class _AverageGradient(torch.autograd.Function):
    """Linear, as the average is, so that each is the other's derivative."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, task: _Task) -> Tensor:
        ctx.task = task
        return _backward(g, None, task)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        plan = ctx.task.plan
        task = None if _watched(g) else _remembered(g.squeeze(-2) if plan.lifted else g, plan, codes=False)
        return (_composed(g, plan) if task is None else _Average.apply(g, task)), None  # type: ignore[no-untyped-call]


# Without the layer of Python before them that looks for transforms: nothing is watched where they are called.
_MAXIMUM: Callable[..., Any] = super(torch.autograd.Function, _Maximum).apply
_AVERAGE: Callable[..., Any] = super(torch.autograd.Function, _Average).apply


def _composed(x: Tensor, plan: Plan) -> Tensor:
    """pooling.pool of an input that is lifted already."""
    return pooling.pool(x.squeeze(-2), plan).unsqueeze(-2) if plan.lifted else pooling.pool(x, plan)


def _scattered(g: Tensor, codes: Tensor, task: _Task) -> Tensor:
    """The gradient of a maximum by torch's operators."""
    indices, empty = _indices(codes, task)
    flat = torch.where(empty, 0, g.reshape(indices.shape))
    zeros = torch.zeros((*indices.shape[:2], math.prod(task.size)), dtype=g.dtype)
    return zeros.scatter_add(2, indices, flat).reshape(task.shape)


def _indices(codes: Tensor, task: _Task) -> tuple[Tensor, Tensor]:
    """(n, c, outputs) indices into the flattened input, and which windows hold none."""
    codes = codes[..., : task.channels].movedim(-1, 1) if task.lanes else codes[..., : task.outputs[2]]
    first = torch.zeros((), dtype=torch.int64)
    empty = torch.zeros((), dtype=torch.bool)
    axes = zip(task.axes, task.size, strict=True)
    for axis, (one, n) in enumerate(axes):
        shape = [-1 if axis == other else 1 for other in range(3)]
        first = first * n + (torch.arange(one.m) * one.s - one.p).reshape(shape)
        empty = empty | (torch.from_numpy(one.outputs()[:, 1]) == 0).reshape(shape)
    indices = torch.from_numpy(task.code_offsets())[codes.long()] + first
    return torch.where(empty, 0, indices).flatten(2), empty.expand(task.outputs).reshape(-1)


# -- which calls are served


_TASKS: dict[tuple[Any, ...], tuple[Plan, _Task | None]] = {}


def _remembered(x: Tensor, plan: Plan, codes: bool) -> _Task | None:
    """The task for x, or None where the composition serves it."""
    key = (id(plan), x.shape, x.stride(), x.dtype, codes, engine.thread_count())
    found = _TASKS.get(key)
    if found is None or found[0] is not plan:
        if len(_TASKS) > 4096:
            _TASKS.clear()
        found = _TASKS[key] = plan, task_for(plan, tuple(x.shape), x.stride(), x.dtype, codes)
    return found[1]


def _watched(x: Tensor) -> bool:
    """Whether more than the numbers is wanted (a transform, a tracer, a mode), or x is not plain memory of a CPU."""
    return (
        is_compiling()
        or type(x) not in _PLAIN
        or _are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or _is_torch_function_mode_enabled()
        or _len_torch_dispatch_stack() > 0
        or _get_tracing_state() is not None
        or x.dtype not in _DTYPES
        or not x.is_cpu
        or x.layout is not torch.strided
        or x.is_neg()
        or is_functorch_wrapped_tensor(x)  # one that has left its transform
        or is_legacy_batchedtensor(x)  # autograd.grad(…, is_grads_batched=True)
    )


def task_for(
    plan: Plan, shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, codes: bool
) -> _Task | None:
    """The task for inputs of this shape, in memory as `strides` say, or None where the composition serves them."""
    problem = plan.problem
    window = problem.window
    if plan.lifted:
        shape = (*shape[:-1], 1, shape[-1])
        strides = (*strides[:-1], shape[-1] * strides[-1], strides[-1])
    size = shape[-window.axes :]
    sides = [abs(side) for pair in window.padding for side in pair]
    widest = max(*window.kernel, *window.stride, *window.dilation, *sides)
    if widest > _WIDEST or min(p for p, _ in window.padding) < 0 or math.prod(shape) < LEAST:
        return None
    if codes and math.prod(window.kernel) > _CODES:
        return None
    if problem.kind == "average" and math.prod(shape[-window.axes - 1 :]) < LEAST:
        return None
    outputs = window.output_size(size, problem.ceil)
    if min(outputs) < 1 or why_no_kernels() is not None:
        return None
    channel = -window.axes - 1
    lanes = shape[channel] > 1 and strides[channel] == 1 and strides[-1] != 1
    vector = machine().lanes(_DTYPES[dtype])
    if max(m * k for m, k in zip(outputs, window.kernel, strict=True)) > _MOST_PAIRS:
        return None
    fields = (size, outputs, window.kernel, window.stride, window.padding, window.dilation)
    axes = tuple(
        _Axis(n, m, k, s, p, q, d, problem.include_pad, 1) for n, m, k, s, (p, q), d in zip(*fields, strict=True)
    )
    axes = (_Axis(1, 1, 1, 1, 0, 0, 1, True, 1),) * (3 - len(axes)) + axes
    if problem.divisor is not None:
        axes = tuple(
            replace(axis, divisor=problem.divisor if i == 0 else 1, counted=None) for i, axis in enumerate(axes)
        )
    task = _Task(plan, shape, strides, dtype, codes, lanes, axes, vector, engine.thread_count())
    if not lanes and not task.whole and 4 * outputs[-1] < vector <= window.kernel[-1]:
        return None  # few results, each of a long row: torch's sums run along the row
    return task if task.launch.scratch_bytes <= _MOST_BYTES * task.threads else None


# -- what a kernel is told


@dataclass(frozen=True)
class _Axis:
    """One axis: inputs n, outputs m, taps k, stride s, padding (p, q), dilation d; what an average divides by."""

    n: int
    m: int
    k: int
    s: int
    p: int
    q: int
    d: int
    counted: bool | None
    """Whether padding counts in the divisor; None: the divisor is `divisor`."""
    divisor: int

    def outputs(self) -> np.ndarray:
        """(m, 4): first real tap, number of real taps, first input, divisor."""
        start = np.arange(self.m, dtype=np.int64) * self.s - self.p
        first, count = self._taps(start, 0, self.n)
        if self.counted is None:
            divisor = np.full(self.m, self.divisor, np.int64)
        else:
            divisor = self._taps(start, -self.p, self.n + self.q)[1] if self.counted else count
        return np.stack(
            [first, count, start + first * self.d, np.maximum(divisor, 1) if self.counted is not None else divisor], 1
        )

    def _taps(self, start: Any, low: int, high: int) -> tuple[Any, Any]:
        first = np.maximum(-(-(low - start) // self.d), 0)
        last = np.minimum((high - 1 - start) // self.d, self.k - 1)
        count = np.maximum(last - first + 1, 0)
        return np.where(count > 0, first, 0), count

    def inputs(self, at: int) -> np.ndarray:
        """For each input where its (output, tap) pairs lie in a table that begins at `at`, and how many; then the pairs."""
        output, tap = np.divmod(np.arange(self.m * self.k, dtype=np.int64), self.k)
        place = output * self.s - self.p + tap * self.d
        real = (place >= 0) & (place < self.n)
        order = np.argsort(place[real], kind="stable")
        counts = np.bincount(place[real], minlength=self.n)
        starts = at + 2 * self.n + 2 * (np.cumsum(counts) - counts)
        pairs = np.stack([output[real][order], tap[real][order]], 1)
        return np.concatenate([np.stack([starts, counts], 1).ravel(), pairs.ravel()])


@dataclass(frozen=True)
class _Launch:
    """A kernel that is ready to be called with the addresses of its operands, in its order; the table's and the scratch's follow."""

    call: Callable[..., None]
    scratch_bytes: int
    table: np.ndarray
    """Kept: the kernel knows its address."""


@dataclass(frozen=True)
class _Task:
    """A pooling of lifted inputs of one shape, strides and dtype: everything but the addresses."""

    plan: Plan
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    codes: bool
    lanes: bool
    axes: tuple[_Axis, ...]
    vector: int
    threads: int

    @cached_property
    def channels(self) -> int:
        return self.shape[-self.plan.problem.window.axes - 1]

    @cached_property
    def batch(self) -> int:
        return math.prod(self.shape[: -self.plan.problem.window.axes - 1])

    @cached_property
    def size(self) -> tuple[int, ...]:
        return tuple(axis.n for axis in self.axes)

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        return tuple(axis.m for axis in self.axes)

    @cached_property
    def result_shape(self) -> tuple[int, ...]:
        axes = self.plan.problem.window.axes
        return (*self.shape[:-axes], *self.outputs[-axes:])

    @cached_property
    def result_strides(self) -> tuple[int, ...]:
        return self._dense(self.result_shape)

    @cached_property
    def gradient_strides(self) -> tuple[int, ...]:
        return self._dense(self.shape)

    def _dense(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        order = list(range(len(shape)))
        if self.lanes:  # the channel varies fastest
            order.append(order.pop(-self.plan.problem.window.axes - 1))
        strides = [1] * len(shape)
        for outer, inner in zip(reversed(order[:-1]), reversed(order[1:]), strict=True):
            strides[outer] = strides[inner] * max(shape[inner], 1)
        return tuple(strides)

    @cached_property
    def width(self) -> int:
        """The innermost extent of the results, in whole vectors."""
        return _whole(self.channels if self.lanes else self.outputs[2], self.vector)

    @cached_property
    def codes_shape(self) -> tuple[int, ...]:
        if self.lanes:
            return (self.batch, *self.outputs, self.width)
        return (self.batch, self.channels, *self.outputs[:2], self.width)

    def code_offsets(self) -> np.ndarray:
        """For each tap its distance from the window's first position in the flattened input."""
        depth, height, width = (np.arange(axis.k, dtype=np.int64) * axis.d for axis in self.axes)
        _, n_h, n_w = self.size
        return ((depth[:, None, None] * n_h + height[:, None]) * n_w + width).ravel()

    @cached_property
    def divisors(self) -> Tensor | int:
        """What the sums were divided by: one number, or one for each window."""
        parts = [axis.outputs()[:, 3] for axis in self.axes]
        if all((part == part[0]).all() for part in parts):
            return int(math.prod(int(part[0]) for part in parts))
        depth, height, width = (torch.from_numpy(part.copy()) for part in parts)
        counts = (depth[:, None, None] * height[:, None] * width).to(self.dtype)
        return counts.reshape(self.outputs[-self.plan.problem.window.axes :])

    @property
    def kind(self) -> str:
        return "codes" if self.codes else "max" if self.plan.problem.kind == "max" else "average"

    @cached_property
    def whole(self) -> bool:
        """Whether an average is of each whole map, which lies in one piece."""
        window = all(axis.m == 1 and axis.k == axis.n and axis.p == 0 and axis.d == 1 for axis in self.axes)
        return window and self.kind == "average" and not self.lanes and self._in_one_piece()

    def _in_one_piece(self) -> bool:
        step = 1
        for axis, stride in zip(reversed(self.axes), reversed(self.strides), strict=False):
            if axis.n > 1 and stride != step:
                return False
            step *= axis.n
        return True

    @cached_property
    def launch(self) -> _Launch:
        dtype = _DTYPES[self.dtype]
        if self.lanes:
            return _launch(self, pool_lanes.forward(self.kind, dtype), pool_lanes.FORWARD, _forward_lanes(self))
        if self.whole:
            return _launch(self, pool_whole.forward(dtype), pool_whole.FORWARD, _whole_map(self))
        if _halves(self) and self.strides[-1] == 1:
            return _launch(self, pool_small.forward(self.kind, dtype), pool_small.FORWARD, _forward_small(self))
        if _threes(self) and self.strides[-1] == 1:
            kernel = pool_threes.forward(self.kind, self.axes[2].s, dtype)
            return _launch(self, kernel, pool_threes.FORWARD, _forward_threes(self))
        return _launch(self, pool_rows.forward(self.kind, dtype), pool_rows.FORWARD, _forward_rows(self))

    @cached_property
    def run(self) -> Callable[[Tensor], Tensor]:
        """The pooled values alone."""
        shape, strides, dtype = self.result_shape, self.result_strides, self.dtype
        launch = self.launch  # kept whole: the kernel reads its table

        def run(x: Tensor) -> Tensor:
            y: Tensor = _empty_strided_cpu(shape, strides, dtype)
            launch.call(x.data_ptr(), y.data_ptr(), 0, 0)
            return y

        return run

    @cached_property
    def launch_back(self) -> _Launch:
        """Called with the addresses of the results' gradient, the codes and the input's gradient."""
        dtype = _DTYPES[self.dtype]
        if self.lanes:
            return _launch(self, pool_lanes.backward(self.kind, dtype), pool_lanes.BACKWARD, _backward_lanes(self))
        if self.whole:
            return _launch(self, pool_whole.backward(dtype), pool_whole.BACKWARD, _whole_map(self))
        window = _small_window(self)
        if not self.codes and window == (3, 1, 0) and all(axis.p == 1 and axis.m == axis.n for axis in self.axes[1:]):
            return _averaged_back(self, pool_threes.forward("average", 1, dtype))
        if self.codes and window in pool_small.WINDOWS and (window != pool_small.HALVES or _halves(self)):
            return _launch(self, pool_small.backward(window, dtype), pool_small.BACKWARD, _backward_small(self))
        return _launch(self, pool_rows.backward(self.kind, dtype), pool_rows.BACKWARD, _backward_rows(self))

    def common(self) -> dict[str, int]:
        """The arguments that all kernels share, as far as they have them."""
        numbers = {
            "batch": self.batch,
            "channels": self.channels,
            "planes": self.batch * self.channels,
            "width": self.width,
        }
        axes = self.plan.problem.window.axes
        steps = self.strides[-axes - 1 :] if axes == 3 else (self.strides[-3], 0, *self.strides[-2:])
        batched = len(self.shape) == axes + 2
        numbers |= {
            "x_n": self.strides[0] if batched else 0,
            **dict(zip(("x_c", "x_d", "x_h", "x_w"), steps, strict=True)),
        }
        for name, axis in zip("dhw", self.axes, strict=True):
            numbers |= {
                f"size_{name}": axis.n,
                f"outputs_{name}": axis.m,
                f"kernel_{name}": axis.k,
                f"stride_{name}": axis.s,
            }
            numbers |= {f"before_{name}": axis.p, f"dilation_{name}": axis.d}
        return numbers


_Told = tuple[
    dict[str, int], list["np.ndarray[Any, Any]"], int
]  # arguments, parts of the table, scratch bytes of a thread


def _launch(task: _Task, kernel: Kernel, names: tuple[str, ...], told: _Told) -> _Launch:
    own_numbers, parts, scratch_bytes = told
    scratch_bytes = _whole(scratch_bytes, 64)  # of a thread
    numbers = {**task.common(), **own_numbers, "scratch_bytes": scratch_bytes}
    own = names[names.index("scratch") + 1 :]
    arguments = struct.pack(f"{len(own)}q", *(numbers[name] for name in own))
    threads = task.threads if math.prod(task.shape) >= _SERIAL else 1
    table = np.concatenate([np.zeros(0, np.int64), *(np.ravel(part) for part in parts)])
    scratch_bytes *= threads
    operands, address, table_address = names.index("table"), loaded(kernel).address, table.ctypes.data
    if scratch_bytes == 0:
        arguments = struct.pack("2q", table_address, 0) + arguments
        return _Launch(engine.prepared(address, threads, operands, arguments), 0, table)
    run = engine.prepared(address, threads, operands + 2, arguments)
    return _Launch(lambda *own: run(*own, table_address, engine.scratch(scratch_bytes)), scratch_bytes, table)


def _placed(parts: dict[str, np.ndarray]) -> tuple[dict[str, int], list[np.ndarray]]:
    """Where each part begins in the table of all, and the parts."""
    places, at = {}, 0
    for name, part in parts.items():
        places[name] = at
        at += part.size
    return places, list(parts.values())


def _forward_rows(task: _Task) -> _Told:
    depth, height, width = task.axes
    columns = width.outputs()
    used = np.zeros(height.n, np.int64)
    taps = np.arange(width.k, dtype=np.int64) * width.d
    reach = int(taps[-1]) // width.s
    pitch = _whole(width.m + reach, task.vector if width.m + reach > 3 * task.vector // 4 else 1)
    for _, count, start, _ in height.outputs():
        used[[start + t * height.d for t in range(count)]] = 1
    empties = np.flatnonzero(columns[:, 1] == 0)
    places, parts = _placed({
        "depths_at": depth.outputs(),
        "heights_at": height.outputs(),
        "columns_at": columns[:, 3 if task.kind == "average" else 0],
        "taps_at": np.stack([taps % width.s, taps // width.s], 1),
        "used_at": used,
        "codes_at": task.code_offsets() if task.codes else np.zeros(0, np.int64),
        "empties_at": np.array([len(empties), *empties], np.int64),
    })  # fmt: skip
    element = task.dtype.itemsize
    extent = (height.k - 1) * height.d + 1
    row_bytes = depth.k * pitch * element * (2 if task.codes else 1)
    rows = max(1, (_BLOCK_BYTES // row_bytes - extent) // height.s + 1)
    rows, blocks = _blocks(height.m, rows, task.batch * task.channels * depth.m, task.threads)
    block_inputs = (rows - 1) * height.s + extent
    rows_size = depth.k * block_inputs * pitch + task.vector
    group = max(1, min(block_inputs, _GROUP_BYTES // (width.s * pitch * element)))
    phase_size = group * pitch + reach + task.vector
    places_bytes = _whole(8 * width.k + 16 * depth.k * height.k, 64)
    told = {
        "places_bytes": places_bytes, "rows_size": rows_size, "block_rows": rows, "blocks": blocks,
        "block_inputs": block_inputs, "pitch": pitch, "phase_size": phase_size, "group": group,
    }  # fmt: skip
    elements = 2 * pitch + task.vector + width.s * phase_size + rows_size * (2 if task.codes else 1) + task.width
    return {**told, **places}, parts, places_bytes + elements * element


def _backward_rows(task: _Task) -> _Told:
    depth, height, width = task.axes
    s = width.s
    lead = (width.k - 1) * width.d // s + 1
    pitch = _whole(-(-width.n // s), task.vector)
    line = _whole(lead + max(width.p // s + 1 + pitch, task.width), task.vector)
    covered = -(-((height.k - 1) * height.d + 1) // height.s)  # outputs that one input can reach
    row_bytes = depth.k * task.dtype.itemsize * (line + (line if task.codes else s * pitch))
    rows = max(1, (_BLOCK_BYTES // row_bytes - covered) * height.s)
    rows, blocks = _blocks(height.n, rows, task.batch * task.channels * depth.n, task.threads)
    starts = np.arange(blocks) * rows
    low = np.maximum(-(-(starts + height.p - (height.k - 1) * height.d) // height.s), 0)
    high = np.minimum((np.minimum(starts + rows, height.n) - 1 + height.p) // height.s + 1, height.m)
    high = np.maximum(low, high)
    depths = depth.inputs(0)
    heights = height.inputs(depths.size)
    parts = {"depths_at": depths, "heights_at": heights, "blocks_at": np.stack([low, high], 1)}
    at = sum(part.size for part in parts.values()) + 3 * s
    phases: list[int] = []
    pairs: list[int] = []
    for r in range(s):
        first, phase = divmod(r + width.p, s)
        ours = [(t, (phase - t * width.d) // s) for t in range(width.k) if (phase - t * width.d) % s == 0]
        phases += [at + len(pairs), len(ours), first]
        pairs += [number for pair in ours for number in pair]
    parts["phases_at"] = np.array(phases + pairs, np.int64)
    places, tables = _placed(parts)
    outputs = depth.k * int((high - low).max())
    places_bytes = _whole(16 * depth.k * height.k, 64)
    told = {
        "places_bytes": places_bytes, "lines_size": outputs * line, "block_rows": rows, "blocks": blocks,
        "pitch": pitch, "lead": lead, "line": line, "divisor": _divisor(task),
    }  # fmt: skip
    elements = s * pitch + outputs * line + outputs * (line if task.codes else s * pitch) + task.vector
    return {**told, **places}, tables, places_bytes + elements * task.dtype.itemsize


def _whole_map(task: _Task) -> _Told:
    return {"size": math.prod(task.size), "divisor": _divisor(task)}, [], 0


def _averaged_back(task: _Task, kernel: Kernel) -> _Launch:
    """The gradient of an average of as many windows as inputs, 3 x 3 each, is such an average again."""
    one = replace(task.axes[0], divisor=_divisor(task), counted=None)
    axes = (one, *(replace(axis, divisor=1, counted=None) for axis in task.axes[1:]))
    like = replace(task, axes=axes, strides=task.gradient_strides)
    launch = _launch(like, kernel, pool_threes.FORWARD, _forward_threes(like))
    return replace(launch, call=lambda g, _, x: launch.call(g, x, 0, 0))


def _small_window(task: _Task) -> tuple[int, int, int] | None:
    """(size, stride, padding modulo the stride) of a map's square window without gaps."""
    depth, height, width = task.axes
    flat = depth.n == depth.m == depth.k == 1 and depth.p == 0
    square = height.k == width.k and height.s == width.s and height.d == width.d == 1
    return (width.k, width.s, width.p % width.s) if flat and square else None


def _halves(task: _Task) -> bool:
    """Whether the windows are 2 x 2, side by side, and wholly in the input."""
    inside = all(axis.p == 0 and 2 * axis.m <= axis.n for axis in task.axes[1:])
    return _small_window(task) == pool_small.HALVES and inside


def _threes(task: _Task) -> bool:
    """Whether the windows are 3 x 3 at stride 1 or 2, none wholly in the padding, and only those at the ends reach over them."""
    window = _small_window(task)
    ends = all(axis.p <= 1 and (axis.m - 1) * axis.s - axis.p < axis.n for axis in task.axes[1:])
    width = task.axes[2]
    inside = (width.m - 2) * width.s - width.p + width.k <= width.n
    return window is not None and window[0] == pool_threes.SIZE and window[1] in pool_threes.STRIDES and ends and inside


def _forward_threes(task: _Task) -> _Told:
    _, height, width = task.axes
    rows, blocks = _blocks(height.m, height.m, task.batch * task.channels, task.threads)
    names = ("depths_at", "heights_at", "columns_at")
    places, parts = _placed({name: axis.outputs() for name, axis in zip(names, task.axes, strict=True)})
    blank = _whole(width.n, task.vector)
    lines = 2 + (pool_threes.SIZE - width.s) * (2 if task.codes else 1)
    scratch = (blank + 12 * task.vector + lines * task.width) * task.dtype.itemsize + task.width
    return {"block_rows": rows, "blocks": blocks, "blank": blank, **places}, parts, scratch


def _forward_small(task: _Task) -> _Told:
    height = task.axes[1]
    rows, blocks = _blocks(height.m, height.m, task.batch * task.channels, task.threads)
    return {"block_rows": rows, "blocks": blocks, "divisor": _divisor(task)}, [], task.width if task.codes else 0


def _backward_small(task: _Task) -> _Told:
    _, height, width = task.axes
    if _halves(task):
        rows, blocks = _blocks(height.m, height.m, task.batch * task.channels, task.threads)
        return {"block_rows": rows, "blocks": blocks, "line": 0, "lines_size": 0, "group": 0, "sums_size": 0}, [], 0
    size, stride, element = width.k, width.s, task.dtype.itemsize
    sums_size = _whole(-(-width.n // stride), task.vector)
    reach = max(width.p // stride + 1 + sums_size, task.width)
    line = task.vector + _whole(reach, task.vector)  # a vector of zeros comes first
    group = max(1, _LINES_BYTES // (2 * line * element))
    rows, blocks = _blocks(height.n, height.n, task.batch * task.channels, task.threads)
    told = {"block_rows": rows, "blocks": blocks, "line": line, "lines_size": group * line, "group": group}
    sums = (size - stride) * stride * sums_size + stride * sums_size
    return {**told, "sums_size": sums_size}, [], (2 * group * line + sums) * element


def _forward_lanes(task: _Task) -> _Told:
    names = ("depths_at", "heights_at", "columns_at")
    tables = {name: axis.outputs() for name, axis in zip(names, task.axes, strict=True)}
    tables["codes_at"] = task.code_offsets() if task.codes else np.zeros(0, np.int64)
    places, parts = _placed(tables)
    shares = _shares(task, task.batch * math.prod(task.outputs[:2]))
    return {**shares, **places}, parts, task.width if task.codes else 0


def _backward_lanes(task: _Task) -> _Told:
    tables: dict[str, Any] = {}
    at = 0
    for name, axis in zip(("depths_at", "heights_at", "columns_at"), task.axes, strict=True):
        tables[name] = axis.inputs(at)
        at += tables[name].size
    places, parts = _placed(tables)
    shares = _shares(task, task.batch * math.prod(task.size[:2]))
    return {**shares, **places, "divisor": _divisor(task)}, parts, 0


def _divisor(task: _Task) -> int:
    return 1 if task.codes or isinstance(task.divisors, Tensor) else task.divisors


def _shares(task: _Task, tasks: int) -> dict[str, int]:
    """The channels in parts, where there are fewer rows than threads."""
    vectors = task.width // task.vector
    shares = min(vectors, -(-task.threads // tasks)) if tasks < task.threads else 1
    share = -(-vectors // shares) * task.vector
    return {"shares": -(-task.width // share), "share": share}


def _blocks(n: int, rows: int, planes: int, threads: int) -> tuple[int, int]:
    """(rows of a block, blocks): at most `rows`, as equal as can be, and enough for the threads."""
    least = -(-3 * threads // planes) if threads > 1 else 1
    blocks = min(n, max(-(-n // rows), least))
    rows = -(-n // blocks)
    return rows, -(-n // rows)


def _whole(count: int, unit: int) -> int:
    return -(-count // unit) * unit


# -- the calls


def _forward(x: Tensor, task: _Task, codes: bool, indices: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The maxima; their codes and where they lie if asked for."""
    y: Tensor = _empty_strided_cpu(task.result_shape, task.result_strides, task.dtype)
    kept = torch.empty(task.codes_shape, dtype=torch.uint8) if codes else None
    places = torch.empty_strided(task.result_shape, task.result_strides, dtype=torch.int64) if indices else None
    told = (0 if kept is None else kept.data_ptr(), 0 if places is None else places.data_ptr())
    task.launch.call(x.data_ptr(), y.data_ptr(), *told)
    return y, kept, places


def _backward(g: Tensor, codes: Tensor | None, task: _Task) -> Tensor:
    """The input's gradient for the results' gradient g."""
    if codes is None and isinstance(task.divisors, Tensor):
        g = g / task.divisors
    axes = zip(g.shape, g.stride(), task.result_strides, strict=True)
    if any(m > 1 and ours != theirs for m, ours, theirs in axes):
        g = torch.empty_strided(task.result_shape, task.result_strides, dtype=task.dtype).copy_(g)
    x: Tensor = _empty_strided_cpu(task.shape, task.gradient_strides, task.dtype)
    task.launch_back.call(g.data_ptr(), 0 if codes is None else codes.data_ptr(), x.data_ptr())
    return x
