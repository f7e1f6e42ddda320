"""How a report is written: the columns, each a row of COLUMNS, and the plain text that `print(report)` shows.

Every form (text, Markdown, CSV, HTML, JSON) takes its cells from here, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from convolve.analysis.fields import AxisField
from convolve.analysis.memory import Peak
from convolve.analysis.report import Report, Row


@dataclass(frozen=True)
class Column:
    """A column: its key in data, its heading, its cell as text, its cell as data, and whether the narrow table shows it."""

    key: str
    heading: str
    text: Callable[[Row], str]
    value: Callable[[Row], Any]
    narrow: bool = True
    right: bool = False


def shape(sizes: Sequence[int]) -> str:
    """1x64x224x224."""
    return "x".join(map(str, sizes))


def exact(number: int | None) -> str:
    """1,234,567, and ? for what is unknown."""
    return "?" if number is None else f"{number:,}"


def short(number: int | None) -> str:
    """Four significant figures with a unit: 15.47 G; small numbers as they are."""
    if number is None:
        return "?"
    for power, unit in ((12, "T"), (9, "G"), (6, "M")):
        if number >= 10**power:
            return f"{number / 10**power:.4g} {unit}"
    return f"{number:,}"


def size_of(count: int | None) -> str:
    """Bytes in binary units: 12.2 MiB."""
    if count is None:
        return ""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} B"


def _axes(row: Row) -> tuple[AxisField, ...]:
    return row.fields[0].axes if row.fields else ()


def _joined(values: Sequence[str]) -> str:
    return "" if not values else values[0] if len(set(values)) == 1 else "x".join(values)


def _field(row: Row) -> str:
    if not row.fields:
        return "" if row.status == "unknown" else "-"
    cells = _joined([("all" if axis.whole else str(axis.size)) for axis in _axes(row)])
    return ("<=" if row.status in ("bound", "unknown", "data-dependent") and not row.fields[0].exact else "") + cells


def ratio(value: Fraction | None) -> str:
    return "varies" if value is None else str(value)


def _stride(row: Row) -> str:
    return _joined(["" if axis.whole else ratio(axis.stride) for axis in _axes(row)])


def _offset(row: Row) -> str:
    return _joined(["" if axis.start is None or axis.whole else str(axis.start) for axis in _axes(row)])


def field_data(row: Row) -> list[dict[str, Any]]:
    """The receptive field as plain data: one entry per graph input, fractions as text."""
    return [
        {
            "input": field.source,
            "exact": field.exact,
            "misaligned": field.misaligned,
            "sees_everything_besides": field.wide,
            "products": field.terms,
            "axes": [
                {
                    "size": axis.size,
                    "seen": axis.seen,
                    "stride": None if axis.stride is None else str(axis.stride),
                    "offset": axis.start,
                    "centre": None if axis.centre is None else str(axis.centre),
                    "phases": list(axis.phases),
                    "effective": None if axis.spread is None else round(4 * axis.spread, 3),
                    "whole": axis.whole,
                }
                for axis in field.axes
            ],
        }
        for field in row.fields
    ]


def notes(row: Row) -> str:
    """What a reader should know of a row: its status if it is not exact, holes, phases, misalignment, the rule's note."""
    parts = [] if row.status == "exact" else [row.status]
    for field in row.fields:
        holes = [axis for axis in field.axes if axis.seen < axis.size]
        if holes and not field.misaligned:
            parts.append(f"sees {holes[0].seen} of {holes[0].size}")
        if any(len(axis.phases) > 1 for axis in field.axes):
            phases = next(axis.phases for axis in field.axes if len(axis.phases) > 1)
            parts.append("sizes " + ",".join(map(str, phases[:6])) + ("…" if len(phases) > 6 else ""))
        if field.misaligned:
            parts.append("misaligned branches")
        if field.wide:
            parts.append("and everything, by a global path")
    return "; ".join(dict.fromkeys([*parts, row.note] if row.note else parts))


def _source(row: Row) -> str:
    return ", ".join(row.sources)


COLUMNS: tuple[Column, ...] = (
    Column("name", "layer", lambda r: r.name, lambda r: r.name),
    Column("op", "operator", lambda r: f"{r.op} {r.detail}".strip(), lambda r: r.op),
    Column("detail", "window", lambda r: r.detail, lambda r: r.detail, narrow=False),
    Column("from", "from", _source, lambda r: list(r.sources)),
    Column("output", "output", lambda r: shape(r.output), lambda r: [list(s) for s in r.outputs], right=True),
    Column("parameters", "params", lambda r: exact(r.parameters) if r.parameters else "", lambda r: r.parameters, right=True),
    Column("trainable", "trainable", lambda r: exact(r.trainable), lambda r: r.trainable, narrow=False, right=True),
    Column("macs", "MACs", lambda r: short(r.macs) if r.macs != 0 else "", lambda r: r.macs, right=True),
    Column("macs_valid", "MACs valid", lambda r: short(r.macs_valid), lambda r: r.macs_valid, narrow=False, right=True),
    Column("flops", "FLOPs", lambda r: short(r.flops), lambda r: r.flops, narrow=False, right=True),
    Column("activation", "memory", lambda r: size_of(r.activation) if r.activation else "", lambda r: r.activation, right=True),
    Column("saved", "saved", lambda r: size_of(r.saved), lambda r: r.saved, narrow=False, right=True),
    Column("field", "RF", _field, field_data, right=True),
    Column("stride", "stride", _stride, lambda r: [ratio(a.stride) for a in _axes(r)], right=True),
    Column("offset", "offset", _offset, lambda r: [a.start for a in _axes(r)], narrow=False, right=True),
    Column("status", "status", lambda r: r.status, lambda r: r.status, narrow=False),
    Column("note", "note", notes, notes),
)  # fmt: skip


def shown(report: Report, wide: bool = False) -> list[Column]:
    """The columns that say something: the narrow ones, or all."""
    straight = all(
        row.sources == (report.rows[row.index - 1].name if row.index else report.inputs[0][0],) for row in report.rows
    )
    columns = [c for c in COLUMNS if (wide or c.narrow) and not (c.key == "from" and straight and not wide)]
    if report.totals.saved is not None and not wide:
        columns.insert([c.key for c in columns].index("activation") + 1, next(c for c in COLUMNS if c.key == "saved"))
    return [c for c in columns if c.key not in ("note",) or any(c.text(row) for row in report.rows)]


def visible(report: Report) -> list[Row]:
    """The rows that depend on the input; what is computed from parameters alone is left out unless it is unknown."""
    return [row for row in report.rows if row.sources or row.parameters or row.macs is None]


def lines(heading: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Aligned text."""
    widths = [max(map(len, column)) for column in zip(heading, *cells, strict=True)]
    return [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in (heading, *cells)
    ]


def text(report: Report, wide: bool = False) -> str:
    """The table, the totals, the memory and the findings as plain text."""
    columns = shown(report, wide)
    cells = [[column.text(row) for column in columns] for row in visible(report)]
    table = lines([c.heading for c in columns], cells, [c.right for c in columns])
    inputs = ", ".join(f"{name} {shape(size)}" for name, size in report.inputs)
    return "\n".join([f"{report.model}   {inputs}", "", *table, "", *summary(report)])


def summary(report: Report) -> list[str]:
    """The totals, the memory and the findings, a line each."""
    t = report.totals
    least = "at least " if t.uncounted else ""
    found = [
        f"parameters   {t.parameters:,}" + (f" ({t.trainable:,} trainable)" if t.trainable != t.parameters else "")
        + (f", buffers {t.buffers:,}" if t.buffers else ""),
        f"MACs         {least}{t.macs:,}"
        + (f", {t.macs_valid:,} without padding zeros ({1 - t.macs_valid / t.macs:.1%} less)" if t.macs_valid < t.macs else ""),
        f"FLOPs        {least}{t.flops:,} (2 per MAC, and biases, activations, pooling, …)",
        f"memory       inference {_peak(report.memory.inference)}",
    ]  # fmt: skip
    if report.memory.training is not None:
        found.append(f"             training with {report.memory.optimizer} {_peak(report.memory.training)}")
    if t.uncounted:
        found.append(f"not counted  {', '.join(t.uncounted)}: no rule; see convolve.layer_rule")
    found += [f"{lint.kind:<12} {lint.where}: {lint.says}" for lint in report.lints]
    return found


def _peak(peak: Peak) -> str:
    parts = [
        f"{name} {size_of(size)}"
        for name, size in (
            ("parameters", peak.parameters), ("buffers", peak.buffers), ("input", peak.inputs),
            ("activations", peak.activations), ("gradients", peak.gradients), ("optimiser", peak.optimizer),
        )
        if size
    ]  # fmt: skip
    return f"{size_of(peak.bytes)} at its peak: {', '.join(parts)}"


def to_json(report: Report) -> dict[str, Any]:
    """The whole report as plain data; docs/inspect.md lists the keys."""
    totals, memory = report.totals, report.memory
    return {
        "model": report.model,
        "inputs": [{"name": name, "shape": list(size)} for name, size in report.inputs],
        "outputs": [list(size) for size in report.outputs],
        "layers": [
            {
                **{c.key: c.value(row) for c in COLUMNS if c.key not in ("stride", "offset")},
                "path": row.path,
                "module": row.module,
            }
            for row in report.rows
        ],
        "totals": {**vars(totals), "uncounted": list(totals.uncounted)},
        "memory": {
            "inference": vars(memory.inference),
            "training": None if memory.training is None else vars(memory.training),
            "optimizer": memory.optimizer,
        },
        "findings": [vars(lint) for lint in report.lints],
    }


@dataclass(frozen=True)
class Node:
    """A box of the diagram: a row with the pointwise rows that follow it, and the boxes it reads (by number; -1 - k: input k)."""

    title: str
    lines: tuple[str, ...]
    kind: str
    share: float  # of all MACs
    sources: tuple[int, ...]
    finding: str = ""


@dataclass(frozen=True)
class Sheet:
    """A report ready to be drawn: headings, cells, which are flush right, the lines below, and the diagram's boxes."""

    title: str
    inputs: tuple[str, ...]
    heading: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    summary: tuple[str, ...]
    nodes: tuple[Node, ...]


def sheet(report: Report, wide: bool = False) -> Sheet:
    """The report as text cells, in the order of COLUMNS."""
    columns = shown(report, wide)
    return Sheet(
        report.model,
        tuple(f"{name} {shape(size)}" for name, size in report.inputs),
        tuple(c.heading for c in columns),
        tuple(tuple(c.text(row) for c in columns) for row in visible(report)),
        tuple(c.right for c in columns),
        tuple(summary(report)),
        _nodes(report),
    )


_KINDS = {
    "conv": "convolution", "linear": "dense", "matmul": "dense", "bmm": "dense", "scaled": "dense", "multi": "dense", "max": "pooling",
    "avg": "pooling", "adaptive": "pooling", "mean": "pooling", "cat": "join", "add": "join", "mul": "join",
}  # fmt: skip


def _nodes(report: Report) -> tuple[Node, ...]:
    """The diagram's boxes. A row without arithmetic of its own weight joins the box before it, if nothing else reads that."""
    rows = visible(report)
    by_name = {row.name: row for row in rows}
    inputs = {name: -1 - number for number, (name, _) in enumerate(report.inputs)}
    readers: dict[str, int] = {}
    for row in rows:
        for name in row.sources:
            readers[name] = readers.get(name, 0) + 1
    findings = {lint.where: lint.kind for lint in report.lints}
    boxes: list[dict[str, Any]] = []
    box_of: dict[str, int] = {}
    for row in rows:
        sources = [box_of[name] for name in row.sources if name in box_of]
        sources += [inputs[name] for name in row.sources if name in inputs]
        before = by_name.get(row.sources[0]) if len(row.sources) == 1 else None
        small = (
            not row.macs
            and row.macs is not None
            and not row.op.startswith(("max_", "avg_", "adaptive", "cat", "interp"))
        )
        if (
            before is not None
            and before.name in box_of
            and small
            and readers[before.name] == 1
            and row.fields == before.fields
        ):
            box = boxes[box_of[before.name]]
            box["after"].append(row.op)
            box["output"] = shape(row.output)
            box["parameters"] += row.parameters
            box_of[row.name] = box_of[before.name]
            continue
        box_of[row.name] = len(boxes)
        boxes.append(
            {"row": row, "after": [], "output": shape(row.output), "parameters": row.parameters, "sources": sources}
        )
    total = max(1, report.totals.macs)
    nodes = []
    for box in boxes:
        row = box["row"]
        numbers = [
            f"{box['parameters']:,} params" if box["parameters"] else "",
            f"{short(row.macs)} MACs" if row.macs != 0 else "",
        ]
        sees = f"RF {_field(row)}" + (f" stride {_stride(row)}" if _stride(row) else "") if row.fields else ""
        what = " ".join(filter(None, [row.op, row.detail, *(f"+ {op}" for op in box["after"])]))
        lines = ["" if what == row.name else what, box["output"], " · ".join(filter(None, numbers)), sees]
        kind = next((v for k, v in _KINDS.items() if row.op.startswith(k)), "other")
        share, finding = (row.macs or 0) / total, findings.get(row.name, "")
        read = tuple(dict.fromkeys(box["sources"]))
        nodes.append(Node(row.name, tuple(filter(None, lines)), kind, share, read, finding))
    return tuple(nodes)


def renamed(report: Report, name: str) -> Report:
    """The report under another title."""
    return replace(report, model=name)


def difference(report: Report, other: Report) -> list[str]:
    """Two reports beside each other: totals, then the layers that differ, by name."""
    found = [f"{'':<14} {report.model:>20} {other.model:>20}"]
    for what, a, b in (
        ("parameters", report.totals.parameters, other.totals.parameters),
        ("MACs", report.totals.macs, other.totals.macs),
        ("MACs valid", report.totals.macs_valid, other.totals.macs_valid),
        ("peak bytes", report.memory.inference.bytes, other.memory.inference.bytes),
    ):
        change = "" if a == b else f"   {(b - a) / a:+.1%}" if a else f"   {b - a:+,}"
        found.append(f"{what:<14} {a:>20,} {b:>20,}{change}")
    mine, theirs = ({row.name: row for row in r.rows} for r in (report, other))
    for name in dict.fromkeys((*mine, *theirs)):
        one, two = mine.get(name), theirs.get(name)
        cells = [["", ""] if row is None else [_brief(row), ""] for row in (one, two)]
        if cells[0] != cells[1]:
            found.append(f"{name}: {cells[0][0] or 'absent'} -> {cells[1][0] or 'absent'}")
    return found


def _brief(row: Row) -> str:
    sees = f", RF {_field(row)}" if row.fields else ""
    return (
        f"{row.op} {row.detail} {shape(row.output)}, {row.parameters:,} params, {short(row.macs)} MACs{sees}".replace(
            "  ", " "
        )
    )
