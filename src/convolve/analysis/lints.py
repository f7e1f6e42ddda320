"""Findings with reasons, each a pure function of the report. LINTS is the table; a new finding is a function and a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

from convolve.analysis import sets
from convolve.analysis.fields import Along
from convolve.analysis.records import Tensor
from convolve.analysis.report import Lint, Report, Row, used_parameters
from convolve.analysis.rules.registry import Call, rule_of

Finding = Iterator[tuple[str, str]]  # where, what it says

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def _gridding(report: Report) -> Finding:
    """Dilations with a common factor leave holes that no later layer fills."""
    holed = [row for row in report.rows if any(_holes(row))]
    last = next(
        (row for row in reversed(report.rows) if row.fields and any(a.stride for a in row.fields[0].axes)), None
    )
    if holed and last is not None and any(_holes(last)):
        axis = next(a for a in last.fields[0].axes if a.seen < a.size)
        yield (
            holed[0].name,
            (
                f"gaps between the taps are never filled: {last.name} spans {axis.size} pixels per axis and sees {axis.seen} of "
                "them; use dilations without a common factor, as 1, 2, 3 or 1, 2, 4, 8"
            ),
        )


def _holes(row: Row) -> Iterator[bool]:
    return (axis.seen < axis.size for field in row.fields[:1] for axis in field.axes if not axis.whole)


def _checkerboard(report: Report) -> Finding:
    """A transposed convolution whose kernel is no multiple of its stride sums unequal numbers of taps."""
    for row in report.rows:
        if row.op.startswith("conv_transpose"):
            weight, stride = report.trace.steps[row.index].arguments.get("weight"), _of(report, row, "stride", 1)
            if isinstance(weight, Tensor):
                kernel = weight.shape[2:]
                strides = stride if isinstance(stride, (list, tuple)) else [stride] * len(kernel)
                for k, s in zip(kernel, strides, strict=False):
                    if k % s:
                        taps = sorted({-(-(k - phase) // s) if k > phase else 0 for phase in range(s)})
                        yield (
                            row.name,
                            (
                                f"kernel {k} is no multiple of stride {s}: outputs sum {' or '.join(map(str, taps))} taps in turn, "
                                f"a checkerboard; use kernel {s * -(-k // s)}, or resize and convolve"
                            ),
                        )
                        break


def _too_wide(report: Report) -> Finding:
    """Beyond the image a larger receptive field adds no context."""
    for row in report.rows:
        if not row.fields or not row.op.startswith(("conv", "max_pool", "avg_pool")):
            continue
        field = row.fields[0]
        sizes = _spatial(report, field.source)
        axes = field.axes
        if (
            sizes
            and len(axes) == len(sizes)
            and all(not a.whole and a.size > n for a, n in zip(axes, sizes, strict=True))
        ):
            shown = "x".join(str(a.size) for a in axes)
            yield (
                row.name,
                (
                    f"receptive field {shown} exceeds the {'x'.join(map(str, sizes))} input: from here on, context grows no "
                    "more; a larger input would use it, fewer layers or less stride would do for this one"
                ),
            )
            return


def _spatial(report: Report, source: int) -> tuple[int, ...]:
    for fields in report.seen:
        for term in fields[0].terms if fields else ():
            if term.source == source:
                return tuple(factor.reach.inputs for factor in term.factors)
    return ()


def _dropped(report: Report) -> Finding:
    """The floor in the output size: the last rows of a map are read by no window."""
    for step in report.trace.steps:
        if not step.op.startswith(("conv1", "conv2", "conv3", "max_pool", "avg_pool")):
            continue
        entry = rule_of(step.op)
        reads = entry.rule(Call(step)).reads if entry else None
        for read in (reads or ())[:1]:
            for number, dim in enumerate(getattr(read, "dims", ())):
                if isinstance(dim, Along) and dim.rule is not None and dim.rule.outputs and number > 0:
                    last = max(dim.rule.reads(dim.rule.outputs - 1), default=dim.rule.inputs - 1)
                    lost = dim.rule.inputs - 1 - last
                    if lost > 0:
                        size = dim.rule.inputs
                        yield (
                            report.rows[step.index].name,
                            (
                                f"the last {lost} of {size} positions along axis {number} are in no window; a size of {size - lost} "
                                f"or {size - lost + dim.rule.advance}, or {lost if lost > 1 else 1} more padding, wastes none"
                            ),
                        )
                        break


def _unseen(report: Report) -> Finding:
    """Input pixels that no output sees."""
    last = [t for t in report.trace.outputs if t.step is not None]
    for source, (name, shape) in enumerate(report.inputs):
        sizes = _spatial(report, source)
        if not any(t.step is not None and source in _sources(report, t) for t in last):
            yield name, f"no output depends on this input ({'x'.join(map(str, shape))})"
            continue
        missing = {
            axis: set.intersection(
                *(set(sets.unseen_lines(report.seen[t.step or 0][t.output], source, axis, size)) for t in last)
            )
            for axis, size in enumerate(sizes)
        } if last else {}  # fmt: skip
        for axis, lines in missing.items():
            if lines and len(lines) < sizes[axis]:
                what = (
                    {0: "rows", 1: "columns"}.get(axis, f"indices of axis {axis}") if len(sizes) == 2 else "positions"
                )
                listed = ", ".join(map(str, sorted(lines)[:6])) + ("…" if len(lines) > 6 else "")
                yield name, f"no output sees {len(lines)} of its {sizes[axis]} {what}: {listed}"


def _sources(report: Report, tensor: Tensor) -> set[int]:
    """The graph inputs that a tensor depends on."""
    found: set[int] = set()
    waiting, done = [tensor], set[int]()
    while waiting:
        current = waiting.pop()
        if current.source is not None:
            found.add(current.source)
        elif current.step is not None and current.step not in done:
            done.add(current.step)
            waiting += report.trace.steps[current.step].tensors
    return found


def _even_kernel(report: Report) -> Finding:
    """An even kernel at stride 1 with padding has no middle: the map moves by half a pixel."""
    for row in report.rows:
        step = report.trace.steps[row.index]
        weight = step.arguments.get("weight")
        if row.op in _CONVOLUTIONS and isinstance(weight, Tensor):
            even = [k for k in weight.shape[2:] if k % 2 == 0]
            strides = _of(report, row, "stride", 1)
            plain = all(s == 1 for s in (strides if isinstance(strides, (list, tuple)) else [strides]))
            if even and plain and step.arguments.get("padding") not in (0, (0, 0), [0, 0], (0,), "valid", None):
                yield (
                    row.name,
                    f"kernel {even[0]} is even: the result moves by half a pixel; an odd kernel keeps it centred",
                )


def _isolated(report: Report) -> Finding:
    """Grouped after grouped with nothing between that mixes channels: the groups never meet."""
    groups: dict[int, tuple[int, str]] = {}
    for step in report.trace.steps:
        made = [groups.get(t.step) for t in step.tensors if t.step is not None]
        before = made[0] if len(made) == 1 else None
        if step.op in _CONVOLUTIONS:
            own = step.arguments.get("groups", 1)
            name = report.rows[step.index].name
            if (
                own > 1 and own == step.tensors[0].shape[1]
            ):  # depthwise: each channel by itself, nothing mixed or parted
                if before:
                    groups[step.index] = before
                continue
            if before and own > 1 and (shared := math.gcd(before[0], own)) > 1:
                yield (
                    name,
                    (
                        f"its {own} groups read those of {before[1]} and nothing mixes them: {shared} parts of the channels never "
                        "meet; shuffle the channels between, or put a 1x1 convolution there"
                    ),
                )
            if own > 1:
                groups[step.index] = (own, name)
        elif before and step.op not in _MIXERS and step.outputs[0].shape[1:2] == step.tensors[0].shape[1:2]:
            groups[step.index] = before


_MIXERS = (
    "cat",
    "channel_shuffle",
    "view",
    "reshape",
    "transpose",
    "permute",
    "flatten",
    "linear",
    "matmul",
    "layer_norm",
)


def _misaligned(report: Report) -> Finding:
    """Branches that meet at different strides, or half a pixel apart."""
    by_name = {row.name: row for row in report.rows}
    for row in report.rows:
        if row.op not in ("add", "cat", "mul", "sub", "stack", "concat", "maximum", "minimum"):
            continue
        branches = [by_name[name] for name in row.sources if name in by_name and by_name[name].fields]
        for first, second in pairwise(branches):
            for a, b in zip(first.fields[0].axes, second.fields[0].axes, strict=False):
                if a.whole or b.whole or not a.stride or not b.stride:
                    continue
                if a.stride != b.stride:
                    yield (
                        row.name,
                        f"{first.name} has stride {a.stride} and {second.name} {b.stride}: they do not match pixel by pixel",
                    )
                elif (
                    a.centre is not None
                    and b.centre is not None
                    and a.centre != b.centre
                    and len(a.phases) == len(b.phases) == 1
                ):
                    shift = abs(a.centre - b.centre)
                    yield row.name, f"{first.name} and {second.name} are centred {float(shift):g} pixels apart"
                else:
                    continue
                break


def _unused(report: Report) -> Finding:
    """Parameters that no operator read."""
    used = used_parameters(report.trace)
    idle = [p for p in report.trace.parameters if not p.buffer and not used.intersection(p.names)]
    if idle:
        names = ", ".join(p.names[0] for p in idle[:4]) + ("…" if len(idle) > 4 else "")
        count = sum(p.numel for p in idle)
        yield report.model, f"{count:,} parameters take no part in this forward pass: {names}"


def _of(report: Report, row: Row, name: str, default: object) -> object:
    value = report.trace.steps[row.index].arguments.get(name)
    return default if value is None else value


LINTS: dict[str, Callable[[Report], Finding]] = {
    "gridding": _gridding,
    "checkerboard": _checkerboard,
    "too wide": _too_wide,
    "dropped": _dropped,
    "unseen": _unseen,
    "even kernel": _even_kernel,
    "isolated": _isolated,
    "misaligned": _misaligned,
    "unused": _unused,
}


def lints(report: Report) -> tuple[Lint, ...]:
    """Every finding, in the order of the table."""
    return tuple(Lint(kind, where, says) for kind, find in LINTS.items() for where, says in find(report))
