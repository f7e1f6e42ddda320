"""When shapes do not fit: the table up to that layer, the layer, the sum with its numbers, and the smallest fix."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from convolve.analysis.columns import shape as written
from convolve.analysis.columns import text
from convolve.analysis.inverse import fitting_sides, flattened_from
from convolve.analysis.records import Shape, Step, Tensor, Trace
from convolve.analysis.report import build, step_names
from convolve.analysis.trace import Input, StoppedTraceError
from convolve.errors import ConvolveError, ShapeError, UsageError
from convolve.geometry import Window

Finding = tuple[str, str, list[str]]  # rule, received, remedies


def lesson(
    model: nn.Module, inputs: Sequence[Input], stopped: StoppedTraceError, arguments: Mapping[str, Any] | None = None
) -> ConvolveError:
    """The error to raise for a forward pass that failed; the table so far is its note."""
    failed, trace = stopped.failed, stopped.trace
    if isinstance(stopped.error, ConvolveError):
        ours = stopped.error
        at = f"at {stopped.module}: " if stopped.module else ""
        return _with_table(type(ours)(at + ours.rule, ours.received, ours.remedy), trace)
    if failed is None:
        where = f"after {step_names(trace)[-1]}" if trace.steps else "before the first layer"
        error: ConvolveError = UsageError(
            "the model's forward pass failed", f"{where}: {type(stopped.error).__name__}: {_first_line(stopped.error)}",
            "run the model once by itself to see the traceback",
        )  # fmt: skip
        return _with_table(error, trace)
    name = f"{failed.path} ({failed.op})" if failed.path else failed.op
    find = _EXPLAINED.get(
        failed.op.rstrip("123d") if failed.op.startswith(("conv", "max_pool", "avg_pool")) else failed.op
    )
    finding = find(trace, failed) if find else None
    if finding is None:
        arriving = ", ".join(written(t.shape) for t in failed.tensors if not t.constant)
        finding = (f"{failed.op} declines", f"{arriving or 'nothing'} arrives: {_first_line(stopped.error)}", [])
    rule, received, remedies = finding
    if not arguments:
        sides = fitting_sides(model, inputs)
        if sides:
            now = written(inputs[0].shape[2:])
            remedies.append(f"give it an input of {' or '.join(written(s) for s in sides)} instead of {now}")
    return _with_table(ShapeError(f"at {name}: {rule}", received, _either(remedies)), trace)


def _with_table(error: ConvolveError, trace: Trace) -> ConvolveError:
    if trace.steps:
        error.add_note(text(build(trace)).partition("\n\nparameters ")[0])
    return error


def _either(remedies: Sequence[str]) -> str:
    return "; or ".join(remedies) if remedies else "change the layer or its input"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _linear(trace: Trace, step: Step) -> Finding | None:
    weight = step.arguments.get("weight")
    if not isinstance(weight, Tensor) or not step.tensors[0].shape:
        return None
    wanted, arriving = weight.shape[-1], step.tensors[0].shape[-1]
    if wanted == arriving:
        return None
    flat = flattened_from(trace.steps, step)
    product = f"{written(flat)} = {arriving}" if len(flat) > 1 else str(arriving)
    remedies = [f"use in_features={arriving}"]
    if len(step.tensors[0].shape) > 2:
        total = math.prod(step.tensors[0].shape[1:])
        if total == wanted:
            return (
                f"Linear expects {wanted} features", f"{written(step.tensors[0].shape[1:])} = {total} arrive, not flattened",
                ["put Flatten() before it"],
            )  # fmt: skip
    if len(flat) == 3 and wanted % flat[0] == 0 and math.isqrt(wanted // flat[0]) ** 2 == wanted // flat[0]:
        remedies.append(f"put AdaptiveAvgPool2d({math.isqrt(wanted // flat[0])}) before the flattening")
    return f"Linear expects {wanted} features", f"{product} arrive", remedies


def _convolution(trace: Trace, step: Step) -> Finding | None:
    weight = step.arguments.get("weight")
    if not isinstance(weight, Tensor):
        return None
    axes = len(weight.shape) - 2
    source = step.tensors[0].shape
    if len(source) not in (axes + 1, axes + 2):
        return (
            f"{step.op} expects {axes + 2} dimensions (n, c, {', '.join('dhw'[3 - axes:])})",
            f"{written(source)} arrives", ["do not flatten before it" if len(source) < axes + 1 else "reshape its input"],
        )  # fmt: skip
    groups = step.arguments.get("groups", 1) or 1
    transposed = step.op.startswith("conv_transpose")
    wanted = weight.shape[0] if transposed else weight.shape[1] * groups
    arriving = source[-axes - 1]
    if wanted != arriving:
        maker = _maker(trace, step)
        remedies = [f"use in_channels={arriving}"]
        if maker is not None:
            remedies.append(f"let {maker} have {wanted} out_channels")
        else:
            remedies.append(f"give it an input with {wanted} channels")
        return f"it expects {wanted} channels", f"{written(source)} arrives: {arriving} channels", remedies
    if transposed:
        return None
    return _too_small(step, weight.shape[2:], axes)


def _maker(trace: Trace, step: Step) -> str | None:
    """The nearest convolution before a step."""
    tensor = step.tensors[0]
    names = step_names(trace)
    while tensor.step is not None:
        before = trace.steps[tensor.step]
        if before.op.startswith("conv"):
            return names[before.index]
        if not before.tensors:
            return None
        tensor = before.tensors[0]
    return None


def _too_small(step: Step, kernel: Shape, axes: int) -> Finding | None:
    given = step.arguments
    padding = given.get("padding", 0)
    if isinstance(padding, str):
        return None
    window = Window.of(kernel, given.get("stride") or kernel, padding or 0, given.get("dilation", 1) or 1, axes=axes)
    sizes = step.tensors[0].shape[-axes:]
    for n, (before, after), extent in zip(sizes, window.padding, window.extent, strict=True):
        if n + before + after < extent:
            pads = f" + {before} + {after}" if before or after else ""
            total = n + before + after
            return (
                f"the kernel covers {extent} positions", f"{n}{pads} = {total} are there" if pads else f"{n} are there",
                [f"pad it by {-(-(extent - total) // 2)} more" if "conv" in step.op else "leave this pooling out"],
            )  # fmt: skip
    return None


def _pooling(_: Trace, step: Step) -> Finding | None:
    axes = int(next(letter for letter in step.op if letter.isdigit()))
    kernel = step.arguments.get("kernel_size")
    if kernel is None or len(step.tensors[0].shape) < axes + 1:
        return None
    sizes = tuple(kernel) if isinstance(kernel, (list, tuple)) else (int(kernel),) * axes
    return _too_small(step, sizes, axes)


def _elementwise(trace: Trace, step: Step) -> Finding | None:
    if len(step.tensors) < 2:
        return None
    first, second = step.tensors[:2]
    names = step_names(trace)
    who = [names[t.step] if t.step is not None else t.parameter or "the input" for t in (first, second)]
    for ahead in range(1, min(len(first.shape), len(second.shape)) + 1):
        a, b = first.shape[-ahead], second.shape[-ahead]
        if a != b and 1 not in (a, b):
            dim = len(first.shape) - ahead
            channels = dim == 1 and len(first.shape) > 2
            remedy = (
                f"project one branch with a 1x1 convolution to {a} channels" if channels
                else "pad or crop one branch, or use an input size that all strides divide"
            )  # fmt: skip
            return (
                f"{step.op} joins {who[0]} and {who[1]}, which must have equal sizes",
                f"{written(first.shape)} and {written(second.shape)} arrive: {a} is not {b}",
                [remedy],
            )
    return None


def _join(trace: Trace, step: Step) -> Finding | None:
    names = step_names(trace)
    rank = len(step.tensors[0].shape)
    dim = (step.arguments.get("dim") or 0) % max(1, rank)
    first = step.tensors[0]
    for other in step.tensors[1:]:
        if len(other.shape) != rank:
            return "cat joins tensors of equal rank", f"{written(first.shape)} and {written(other.shape)} arrive", []
        for axis, (a, b) in enumerate(zip(first.shape, other.shape, strict=True)):
            if axis != dim and a != b:
                who = [names[t.step] if t.step is not None else "the input" for t in (first, other)]
                return (
                    f"cat along dimension {dim} joins {who[0]} and {who[1]}, whose other sizes must be equal",
                    f"{written(first.shape)} and {written(other.shape)} arrive: {a} is not {b}",
                    ["pad or crop one branch", "use an input size that all strides divide"],
                )
    return None


def _reshaping(_: Trace, step: Step) -> Finding | None:
    source = step.tensors[0]
    sizes = [v for v in step.arguments.get("rest", ()) if isinstance(v, int)] or step.arguments.get("shape")
    rest = [n for n in (sizes or ()) if isinstance(n, int) and n > 0]
    if not rest:
        return None
    per_image = math.prod(source.shape[1:])
    return (
        f"{step.op} keeps the number of elements",
        f"{written(source.shape)} = {source.numel} elements cannot become {sizes!r}",
        [f"use {per_image} for the last size", "flatten(1)"] if len(rest) <= 2 else ["count the elements again"],
    )


def _batch_norm(_: Trace, step: Step) -> Finding | None:
    stored = step.arguments.get("running_mean") or step.arguments.get("weight")
    if isinstance(stored, Tensor) and len(step.tensors[0].shape) > 1 and stored.shape[0] != step.tensors[0].shape[1]:
        arriving = step.tensors[0].shape[1]
        return (
            f"the norm is for {stored.shape[0]} channels", f"{written(step.tensors[0].shape)} arrives: {arriving} channels",
            [f"use num_features={arriving}"],
        )  # fmt: skip
    return None


def _product(_: Trace, step: Step) -> Finding | None:
    first, second = step.tensors[0].shape, step.tensors[1].shape
    inner = second[-2] if len(second) > 1 else second[0]
    if first[-1] == inner:
        return None
    return (
        f"{step.op} needs equal inner sizes", f"{written(first)} @ {written(second)}: {first[-1]} is not {inner}",
        ["transpose one of them" if first[-1] == second[-1] else "change one of the sizes"],
    )  # fmt: skip


_EXPLAINED: dict[str, Callable[[Trace, Step], Finding | None]] = {
    "linear": _linear,
    "conv": _convolution,
    "conv_transpose": _convolution,
    "max_pool": _pooling,
    "avg_pool": _pooling,
    **dict.fromkeys(("add", "sub", "mul", "div", "maximum", "minimum", "where"), _elementwise),
    "cat": _join,
    **dict.fromkeys(("view", "reshape"), _reshaping),
    "batch_norm": _batch_norm,
    **dict.fromkeys(("matmul", "bmm", "mm"), _product),
}
