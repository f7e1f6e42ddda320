"""Convolution, ReLU and 2x2 maximum as one operation on batches of images, by the kernels of convolve/kernels/stages.py.

    y[n, k, p, q]  =  max(0, maximum over i, j < 2 of  bias[k] + sum over c, r, s of  w[k, c, r, s] x[n, c, 2p + i + r, 2q + j + s])

over the zero-padded input. Sums are in one order, whatever the batch; those of the weight gradient depend on the number of
threads, as they do in torch. They are plain, or, of 5x5 kernels over enough maps, Winograd's (not where convolve.precision forbids it,
and not where a result is not finite: then it is computed again). A second derivative is taken of torch's operators instead.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convolve.kernels import images, stages
from convolve.kernels import stages_winograd as winograd
from convolve.kernels.cache import Kernel, loaded
from convolve.kernels.machine import machine, why_no_kernels
from convolve.ops import engine
from convolve.ops.choose import KEPT
from convolve.ops.execute import is_learning
from convolve.ops.pool_kernels import _watched
from convolve.ops.precision import current_precision

Padding = tuple[tuple[int, int], tuple[int, int]]

LEAST_GROUPS = 2
"""Vectors full of images from which the kernels are worth their turning."""

MOST_CHANNELS, MOST_FILTERS = 16, 32
"""With more maps torch's vectors along channels are as good."""

STAGE, WINOGRAD, LAYERS = "stage", "winograd", "layers"
"""The ways through the layers of a stage: in one piece, by plain sums or with fewer products; or one by one."""

LEAST_MAPS = 6
"""Channels, and filters, from which transforming them costs less than the products that it spares."""

_MOST_BYTES = 2 << 20  # of scratch for one thread


def why_not(x: Tensor, weight: Tensor, padding: Padding) -> str | None:
    """Why `stage` is not for these operands, or None."""
    if _watched(x) or _watched(weight):
        return "only plain float32 and float64 tensors on a CPU are served"
    if current_precision() == "reproducible" or is_learning() or torch.is_autocast_enabled("cpu"):
        return "the layers are chosen one by one here"
    if x.dim() != 4 or x.dtype != weight.dtype or x.shape[1] != weight.shape[1] or not x.is_contiguous():
        return "the images are not (n, c, h, w) one after the other"
    if why_no_kernels() is not None:
        return why_no_kernels()
    sizes = _sizes(x.shape, weight.shape, padding, _dtype(x))
    if sizes.rows < 1 or sizes.columns < 1:
        return "the images are smaller than the window"
    slower = _why_slower(x, weight, sizes)
    if not KEPT:
        return slower
    if _way(x, weight, padding, LAYERS if slower else None) != LAYERS:
        return None
    return slower or "the run began with the layers"


def _way(x: Tensor, weight: Tensor, padding: Padding, way: str | None = None) -> str:
    """How the layers are computed: `way`, or as is best here; within a training run, as it began."""
    *maps, kernel_h, kernel_w = weight.shape
    if way is None:
        way = WINOGRAD if kernel_h == kernel_w == winograd.TAPS and min(maps) >= LEAST_MAPS else STAGE
    if KEPT:  # another version or machine may draw these lines elsewhere
        (way,) = KEPT[-1].setdefault(_key(x.shape, weight.shape, padding, x.dtype), [way])
    return STAGE if way == WINOGRAD and current_precision() == "exact" else way


def _why_slower(x: Tensor, weight: Tensor, sizes: _Sizes) -> str | None:
    """Why the layers are expected to be as fast, or None."""
    if x.shape[0] < LEAST_GROUPS * machine().lanes(_dtype(x)):
        return "too few images"
    if weight.shape[1] > MOST_CHANNELS or weight.shape[0] > MOST_FILTERS:
        return "too many maps"
    if x.element_size() * sizes.largest > _MOST_BYTES:
        return "the maps are too large to stay in a core's cache"
    return None


@lru_cache(maxsize=1024)
def _key(x: tuple[int, ...], w: tuple[int, ...], padding: Padding, dtype: torch.dtype) -> str:
    """By which the way through these layers is kept, beside the choices of rows."""
    sides = ",".join(map(str, (*padding[0], *padding[1])))
    kind = "" if dtype == torch.float32 else f" {str(dtype).removeprefix('torch.')}"
    return f"stage {'x'.join(map(str, x))} k{w[0]} {w[2]}x{w[3]} p{sides}{kind}"


def stage(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding) -> Tensor:
    """The maxima (n, k, p, q), where `why_not` has no objection; `padding` is (before, after) of rows and of columns.

    >>> x, w = torch.randn(64, 1, 6, 6), torch.randn(2, 1, 3, 3)
    >>> y = stage(x, w, None, ((1, 1), (1, 1)))
    >>> torch.allclose(y, F.max_pool2d(F.relu(F.conv2d(x, w, padding=1)), 2), atol=1e-5)
    True
    """
    way = _way(x, weight, padding)
    if needs_gradient(x, weight, bias):
        result: Tensor = _Stage.apply(x, weight, bias, padding, way)  # type: ignore[no-untyped-call]
        return result
    return _forward(x, weight, bias, padding, way, codes=False)[0]


def needs_gradient(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a derivative may be asked for."""
    leaves = (x, weight) if bias is None else (x, weight, bias)
    return torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, way: str) -> Tensor:
        y, codes = _forward(x, weight, bias, padding, way, codes=True)
        ctx.padding, ctx.way = padding, way
        ctx.save_for_backward(x, weight, bias, codes)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, codes = ctx.saved_tensors
        if torch.is_grad_enabled() or _watched(g):
            return (*_composed(x, weight, bias, ctx.padding, g, ctx.needs_input_grad[:3]), None, None)
        g = g.contiguous()
        plan = _plan(x.shape, weight.shape, ctx.padding, engine.thread_count(), _dtype(x), ctx.way)
        dx = plan.input_gradient(g, codes, weight.contiguous()) if ctx.needs_input_grad[0] else None
        dw = db = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            dw, db = plan.weight_gradient(g, codes, x)
        return dx, dw if ctx.needs_input_grad[1] else None, db if ctx.needs_input_grad[2] else None, None, None


def _composed(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, g: Tensor, needed: tuple[bool, ...]
) -> list[Tensor | None]:
    """The gradients by torch's operators, which can be differentiated again."""
    (top, bottom), (left, right) = padding
    with torch.enable_grad():
        y = F.max_pool2d(F.relu(F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias)), 2)
        leaves = [leaf for leaf, wanted in zip((x, weight, bias), needed, strict=True) if wanted and leaf is not None]
        found = iter(torch.autograd.grad(y, leaves, g, create_graph=torch.is_grad_enabled()))
    return [next(found) if wanted else None for wanted in needed]


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, way: str, codes: bool
) -> tuple[Tensor, Tensor | None]:
    plan = _plan(x.shape, weight.shape, padding, engine.thread_count(), _dtype(x), way)
    bias = torch.zeros(weight.shape[0], dtype=x.dtype) if bias is None else bias.contiguous()
    return plan.forward(x, weight.contiguous(), bias, codes)


def _dtype(x: Tensor) -> str:
    return "float32" if x.dtype == torch.float32 else "float64"


# -- plans


@dataclass(frozen=True)
class _Sizes:
    """What the kernels are told; scratch of one thread, in elements."""

    values: dict[str, int]
    lanes: int
    rows: int
    columns: int
    places: int

    @classmethod
    def of(cls, x: tuple[int, ...], w: tuple[int, ...], padding: Padding, lanes: int) -> _Sizes:
        n, channels, h, width = x
        filters, _, kernel_h, kernel_w = w
        padded_h, padded_w = h + sum(padding[0]), width + sum(padding[1])
        rows, columns = (padded_h - kernel_h + 1) // 2, (padded_w - kernel_w + 1) // 2
        values = {
            "batch": n, "channels": channels, "size_h": h, "size_w": width,
            "filters": filters, "kernel_h": kernel_h, "kernel_w": kernel_w,
            "before_h": padding[0][0], "before_w": padding[1][0], "padded_h": padded_h, "padded_w": padded_w,
            "rows": rows, "columns": columns,
            "spread_h": max(2 * rows + 2 * (kernel_h - 1), h + padding[0][0] + kernel_h - 1),
            "spread_w": max(2 * columns + 2 * (kernel_w - 1), width + padding[1][0] + kernel_w - 1),
            "taps": kernel_h * kernel_w,
        }  # fmt: skip
        return cls(values, lanes, rows, columns, filters * rows * columns)

    @property
    def images(self) -> int:
        return self.values["channels"] * self.values["padded_h"] * self.values["padded_w"] * self.lanes

    def forward_scratch(self, width: int) -> int:
        return self.images + (width * 4 * self.columns + self.places) * self.lanes

    @property
    def input_scratch(self) -> int:
        v = self.values
        maps = v["filters"] * v["spread_h"] * v["spread_w"] + self.places + self.lanes
        weights = v["channels"] * (v["filters"] * v["taps"] + 1)
        return (maps + v["channels"] * v["size_h"] * v["size_w"]) * self.lanes + weights

    @property
    def weight_scratch(self) -> int:
        v = self.values
        sums = max(
            -(-v["filters"] // tile) * v["channels"] * -(-v["taps"] // width) * -(-tile * width // self.lanes)
            for tile, width in images.tap_tiles()
        )
        return self.images + (5 * self.places + self.lanes + sums + v["filters"]) * self.lanes

    @property
    def largest(self) -> int:
        return max(self.forward_scratch(8), self.input_scratch, self.weight_scratch)

    # Winograd's: as much, and the transformed maps.

    @property
    def tiles(self) -> int:
        """Of a row of the input."""
        return -(-self.values["size_w"] // winograd.OUTPUTS)

    @property
    def spread_w(self) -> int:
        v = self.values
        return max(v["spread_w"], v["before_w"] + winograd.OUTPUTS * self.tiles + winograd.TAPS - 1)

    def filtered_forward_scratch(self, width: int) -> int:
        v = self.values
        points = v["channels"] * v["padded_h"] * self.columns * winograd.POINTS
        filters = -(-v["filters"] // width) * width
        vectors = points + filters * 4 * self.columns + self.places + self.lanes + width * winograd.POINTS + 1
        return self.images + vectors * self.lanes + filters * v["channels"] * winograd.TAPS * winograd.POINTS

    def filtered_input_scratch(self, width: int) -> int:
        v = self.values
        channels = -(-v["channels"] // width) * width
        gradient = v["filters"] * 2 * self.rows * (self.spread_w + winograd.POINTS) + self.places + self.lanes
        results = v["channels"] * v["size_h"] * v["size_w"] + self.lanes
        vectors = gradient + results + width * winograd.POINTS + 1 + -(-v["channels"] // self.lanes)
        return vectors * self.lanes + channels * v["filters"] * winograd.TAPS * winograd.POINTS

    @property
    def filtered_weight_scratch(self) -> int:
        v, width = self.values, winograd.weight_width()
        filters = -(-v["filters"] // width) * width
        points = (v["channels"] * v["padded_h"] + width * 2 * self.rows) * self.columns
        sums = filters * v["channels"] * winograd.TAPS
        vectors = filters * 4 * self.rows * self.columns + winograd.POINTS * (points + sums) + self.places + self.lanes
        return self.images + (vectors + v["filters"]) * self.lanes


@dataclass(frozen=True)
class _Task:
    """A kernel and what it is told, but for the addresses."""

    kernel: Kernel
    names: tuple[str, ...]
    values: dict[str, int]
    scratch: int
    """Elements, of one thread."""


@dataclass(frozen=True)
class _Plan:
    """Everything but the addresses, for one shape and number of threads."""

    sizes: _Sizes
    threads: int
    dtype: str
    table: Tensor
    output: _Task
    input: _Task
    weights: _Task
    plain: _Plan | None
    """Whose results count where these are not finite; None: these are plain sums."""

    def forward(self, x: Tensor, w: Tensor, bias: Tensor, codes: bool) -> tuple[Tensor, Tensor | None]:
        v = self.sizes.values
        y = torch.empty(v["batch"], v["filters"], self.sizes.rows, self.sizes.columns, dtype=x.dtype)
        kept = torch.empty(self._groups * self.sizes.lanes * self.sizes.places, dtype=torch.uint8) if codes else None
        finite = self._run(self.output, {"x": x, "w": w, "bias": bias, "y": y, "codes": kept})
        return (y, kept) if self.plain is None or finite else self.plain.forward(x, w, bias, codes)

    def input_gradient(self, g: Tensor, codes: Tensor, w: Tensor) -> Tensor:
        v = self.sizes.values
        dx = torch.empty(v["batch"], v["channels"], v["size_h"], v["size_w"], dtype=g.dtype)
        finite = self._run(self.input, {"g": g, "codes": codes, "w": w, "dx": dx})
        return dx if self.plain is None or finite else self.plain.input_gradient(g, codes, w)

    def weight_gradient(self, g: Tensor, codes: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        v = self.sizes.values
        # OpenMP may start fewer threads than it is asked for: whoever did not come has added nothing.
        dw = torch.zeros(self.threads, v["filters"], v["channels"], v["kernel_h"], v["kernel_w"], dtype=g.dtype)
        db = torch.zeros(self.threads, v["filters"], dtype=g.dtype)
        addresses = {"g": g, "codes": codes, "x": x, "dw": dw, "db": db, "table": self.table}
        if not self._run(self.weights, addresses) and self.plain is not None:
            return self.plain.weight_gradient(g, codes, x)
        return (dw[0], db[0]) if self.threads == 1 else (dw.sum(0), db.sum(0))

    @property
    def _groups(self) -> int:
        return -(-self.sizes.values["batch"] // self.sizes.lanes)

    def _run(self, task: _Task, given: Mapping[str, Tensor | None]) -> bool:
        """Whether every result is finite, where the kernel looks."""
        scratch = -(-task.scratch // 16) * 16
        size = 4 if self.dtype == "float32" else 8
        flags = (
            None
            if self.plain is None
            else torch.zeros(self.threads, dtype=torch.float32 if size == 4 else torch.float64)
        )
        values = {**task.values, "scratch_size": scratch, "scratch": engine.scratch(scratch * size * self.threads)}
        values |= {
            name: 0 if tensor is None else tensor.data_ptr() for name, tensor in (*given.items(), ("flags", flags))
        }
        arguments = struct.pack(f"{len(task.names)}q", *map(values.__getitem__, task.names))
        engine.run(loaded(task.kernel).address, arguments, self.threads)
        return flags is None or all(map(math.isfinite, flags.tolist()))


@lru_cache(maxsize=1024)
def _sizes(x: tuple[int, ...], w: tuple[int, ...], padding: Padding, dtype: str) -> _Sizes:
    return _Sizes.of(x, w, padding, machine().lanes(dtype))


@lru_cache(maxsize=1024)
def _plan(x: tuple[int, ...], w: tuple[int, ...], padding: Padding, threads: int, dtype: str, way: str) -> _Plan:
    sizes = _sizes(x, w, padding, dtype)
    filters, channels, kernel_h, kernel_w = w
    places = [r * sizes.values["padded_w"] + s for r in range(kernel_h) for s in range(kernel_w)]
    places += places[-1:] * max(width for _, width in images.tap_tiles())
    table = torch.tensor(places) * sizes.lanes
    threads = min(threads, -(-x[0] // sizes.lanes))
    if way == WINOGRAD:
        plain = _plan(x, w, padding, threads, dtype, STAGE)
        return _Plan(sizes, threads, dtype, table, *_filtered(sizes, dtype), plain)
    output = images.best(images.tiles(), 2 * sizes.columns, filters)
    inputs = images.best(images.tiles(), x[3], channels)
    weights = images.best(images.tap_tiles(), filters, kernel_h * kernel_w, part=False)
    v = sizes.values
    tasks = (
        _Task(stages.forward(*output, dtype), stages.FORWARD, v, sizes.forward_scratch(output[1])),
        _Task(stages.input_gradient(*inputs, dtype), stages.INPUT, v, sizes.input_scratch),
        _Task(stages.weight_gradient(*weights, dtype), stages.WEIGHTS, v, sizes.weight_scratch),
    )
    return _Plan(sizes, threads, dtype, table, *tasks, None)


def _filtered(sizes: _Sizes, dtype: str) -> tuple[_Task, _Task, _Task]:
    """Winograd's kernels."""

    def width(maps: int) -> int:
        return min(winograd.widths(), key=lambda width: (-(-maps // width) * width, -width))

    v = {**sizes.values, "tiles": sizes.columns}
    turned = {**v, "tiles": sizes.tiles, "spread_w": sizes.spread_w}
    out, back = width(v["filters"]), width(v["channels"])
    return (
        _Task(winograd.forward(out, dtype), winograd.FORWARD, v, sizes.filtered_forward_scratch(out)),
        _Task(winograd.input_gradient(back, dtype), winograd.INPUT, turned, sizes.filtered_input_scratch(back)),
        _Task(winograd.weight_gradient(dtype), winograd.WEIGHTS, v, sizes.filtered_weight_scratch),
    )
