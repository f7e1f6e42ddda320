"""Questions the other way round: which input gives this output, which strides or dilations reach that receptive field?

Sizes are found by tracing, not by inverting formulas: whatever the model does with its shapes is obeyed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from convolve.analysis import trace as tracing
from convolve.analysis.inspecting import completed
from convolve.analysis.records import Shape, Step
from convolve.analysis.report import Report, Row, build
from convolve.analysis.trace import Input, StoppedTraceError
from convolve.errors import ShapeError, UsageError

PATIENCE = 2.0  # seconds that a search for a remedy may take inside an error


def runs(model: nn.Module, inputs: Sequence[Input]) -> bool:
    """Whether the model accepts the inputs."""
    try:
        tracing.run(model, inputs)
    except (StoppedTraceError, UsageError):
        return False
    return True


def resized(inputs: Sequence[Input], side: int | Sequence[int]) -> list[Input]:
    """The inputs with the first one's spatial sizes replaced: a side for all its axes, or one per axis."""
    first, *rest = inputs
    axes = len(first.shape) - 2
    sizes = (side,) * axes if isinstance(side, int) else tuple(side)
    return [replace(first, shape=(*first.shape[:2], *sizes)), *rest]


def smallest_input(model: nn.Module, inputs: Sequence[Input], largest: int = 1024) -> int:
    """The smallest side of a square (cubic, …) first input that the model accepts.

    Found by doubling, then downwards from there: the answer is the least side such that it works, even where larger ones
    do not. Raises ShapeError when no side up to `largest` works.

    >>> from torch import nn
    >>> smallest_input(nn.Sequential(nn.Conv2d(1, 1, 5), nn.MaxPool2d(2)), [Input((1, 1, 28, 28))])
    6
    """
    _spatial(inputs)
    model = completed(model, inputs)
    for side in _ascending(largest):
        if runs(model, resized(inputs, side)):
            return side
    raise ShapeError(
        f"no square input up to {largest} fits this model",
        "none was accepted",
        "inspect it with the input it is made for",
    )


def _ascending(largest: int) -> Iterator[int]:
    yield from range(1, largest + 1)


def sizes_for_output(model: nn.Module, inputs: Sequence[Input], layer: str, size: int, axis: int = 0) -> list[int]:
    """The input sizes along spatial `axis` for which the layer's output has `size` there; the other axes stay.

    >>> from torch import nn
    >>> sizes_for_output(nn.Sequential(nn.Conv2d(1, 1, 3, stride=2)), [Input((1, 1, 9, 9))], "0", 4)
    [9, 10]
    """
    _spatial(inputs)
    model = completed(model, inputs)
    report = build(tracing.run(model, inputs))
    row = report.row(layer)
    summary = row.fields[0].axes[axis] if row.fields and len(row.fields[0].axes) > axis else None
    if summary is None or not summary.stride:
        raise UsageError(
            "the layer's size must depend on the input's",
            f"{row.name} has {row.output}",
            "name a layer before the pooling",
        )
    given = inputs[0].shape[2 + axis]
    now = row.output[2 + axis]
    centre = given + int((size - now) * summary.stride)
    room = summary.size + 2 * int(summary.stride) + 2
    found = []
    for candidate in range(max(1, centre - room), centre + room + 1):
        sizes = list(inputs[0].shape[2:])
        sizes[axis] = candidate
        with contextlib.suppress(StoppedTraceError, UsageError):
            trace = tracing.run(model, resized(inputs, sizes))
            if len(trace.steps) > row.index and trace.steps[row.index].outputs[0].shape[2 + axis] == size:
                found.append(candidate)
    return found


def flattened_from(steps: Sequence[Step], step: Step) -> Shape:
    """The shape, without the batch, that was flattened into a step's input; that input's own if nothing was."""
    tensor = step.tensors[0]
    while tensor.step is not None and len(tensor.shape) == 2:
        before = steps[tensor.step]
        if not before.tensors:
            break
        tensor = before.tensors[0]
    return tensor.shape[1:]


def fitting_sides(model: nn.Module, inputs: Sequence[Input], most: int = 2, patience: float = PATIENCE) -> list[Shape]:
    """Input sizes near the given one that the model accepts, nearest first; what was found within `patience` seconds."""
    first = inputs[0].shape[2:]
    if not first:
        return []
    started = time.monotonic()
    found: list[Shape] = []
    square = len(set(first)) == 1
    for distance in range(1, 4 * max(first)):
        for candidate in (distance, -distance):
            if time.monotonic() - started > patience or len(found) == most:
                return found
            sides = tuple(size + candidate for size in first) if square else _scaled(first, candidate)
            if min(sides) > 0 and runs(model, resized(inputs, sides)):
                found.append(sides)
    return found


def _scaled(sizes: Shape, by: int) -> Shape:
    """Sizes of nearly the same proportions, the largest one changed by `by`."""
    largest = max(sizes)
    return tuple(max(1, round(size * (largest + by) / largest)) for size in sizes)


@dataclass(frozen=True)
class Change:
    """One change to one layer: what it becomes, and what the network then sees and costs."""

    layer: str
    change: str
    field: tuple[int, ...]
    macs: int
    macs_before: int
    output: Shape


def reaching(model: nn.Module, inputs: Sequence[Input], at_least: int, layer: str | None = None) -> list[Change]:
    """Single changes of a stride (to 2 or 3) or a dilation (to 2 or 4, same size) after which `layer` sees `at_least` pixels.

    `layer` is the last one whose field still depends on the position when left out. Cheapest first. The model is changed
    for the length of a trace and put back.
    """
    model = completed(model, inputs)
    before = build(tracing.run(model, inputs))
    row = before.row(layer) if layer else _last_local(before)
    windows = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, windows) or max(module.kernel_size) < 2:
            continue
        for change, attributes in _changes(module):
            with _with(module, attributes):
                try:
                    after = build(tracing.run(model, inputs))
                except (StoppedTraceError, UsageError):
                    continue
            same = [r for r in after.rows if r.name == row.name]
            if same and same[0].fields:
                sizes = tuple(axis.size for axis in same[0].fields[0].axes)
                if sizes and min(sizes) >= at_least:
                    found.append(Change(name, change, sizes, after.totals.macs, before.totals.macs, same[0].output))
    return sorted(found, key=lambda item: (item.macs, item.layer))


def _changes(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    axes = len(module.kernel_size)
    for stride in (2, 3):
        if max(module.stride) < stride:
            yield f"stride {stride}", {"stride": (stride,) * axes}
    if isinstance(module.padding, str):
        return
    for dilation in (2, 4):
        if max(module.dilation) < dilation:
            grown = tuple(
                p + (dilation - d) * (k - 1) // 2
                for p, d, k in zip(module.padding, module.dilation, module.kernel_size, strict=True)
            )
            padding = tuple(int(p) for p in grown)
            yield f"dilation {dilation}, padding {padding[0]}", {"dilation": (dilation,) * axes, "padding": padding}


@contextlib.contextmanager
def _with(module: nn.Module, attributes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    old = {name: getattr(module, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in old.items():
            setattr(module, name, value)


def _last_local(report: Report) -> Row:
    for row in reversed(report.rows):
        if row.fields and row.fields[0].axes and not any(axis.whole for axis in row.fields[0].axes):
            return row
    raise UsageError("no layer's field depends on a position", "got a network without maps", "name a layer")


def _spatial(inputs: Sequence[Input]) -> None:
    if not inputs or len(inputs[0].shape) < 3:
        raise UsageError(
            "this question needs an input with spatial axes", f"got {[i.shape for i in inputs]}", "as 3x224x224"
        )
