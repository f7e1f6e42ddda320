"""`convolve inspect` in one call: the report, the answers to the questions asked, and the checks that decide the exit code."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from convolve.analysis import columns, inverse, profiles, sets
from convolve.analysis.columns import Sheet
from convolve.analysis.inspecting import examine, inputs_of
from convolve.analysis.report import Report
from convolve.analysis.sets import ReceptiveField
from convolve.analysis.trace import Input
from convolve.errors import CheckFailedError, UsageError
from convolve.jobs.inspect import inspect
from convolve.jobs.networks import Network, network
from convolve.jobs.published import like


@dataclass(frozen=True)
class Questions:
    """What is asked of a network besides its table; see `convolve inspect --help`."""

    batch: int = 1
    optimizer: str | None = None
    strict: bool = False
    data: bool = False
    layer: str | None = None
    index: str | None = None
    smallest: bool = False
    reach: int | None = None
    size: str | None = None
    profile: str | None = None
    diff: str | None = None
    like: str | None = None
    max_macs: str | None = None
    max_params: str | None = None
    max_memory: str | None = None
    time: bool = False


@dataclass(frozen=True)
class Inspection:
    """The report as sheets, as plain data and as CSV cells; the lines that answer a question; what did not pass."""

    report: Report
    sheet: Sheet
    wide: Sheet
    data: dict[str, Any]
    answer: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    values: tuple[tuple[object, ...], ...] = field(default=())

    def check(self) -> None:
        """Raise CheckFailedError, listing what did not pass."""
        if self.failures:
            raise CheckFailedError("the network does not pass", "; ".join(self.failures), "change it, or the limit")


def inspection(model: str, size: str | None = None, questions: Questions | None = None) -> Inspection:
    """Inspect the network that `model` names with an input `size` ("3x224x224"), and answer `questions`.

    >>> found = inspection("conv 4 3, relu, gap, fc 5", "1x12x12", Questions(max_params="10"))
    >>> found.failures
    ('65 parameters, 10 allowed',)
    """
    asked = questions or Questions()
    shape = None if size is None else inputs_of(size)[0].shape[1:]
    found = network(model, shape)
    words = size if size is not None else found.input
    if words is None:
        raise UsageError("this network does not say what input it takes", f"got {model}", "give --input, as 3x224x224")
    inputs = inputs_of(words, asked.batch)
    if asked.smallest:  # asked of networks that do not fit, too
        return _smallest(found, inputs)
    report = examine(found.module, inputs, optimizer=asked.optimizer, strict=asked.strict, data=asked.data)
    report = columns.renamed(report, found.name)
    data = columns.to_json(report)
    answer: list[str] = []
    for name, answerer in _ANSWERS.items():
        if getattr(asked, name):
            lines, more = answerer(Case(report, found, inputs, asked))
            answer += lines
            data.update(more)
    failures = _limits(report, asked)
    if asked.like:
        compared = like(report, found.name, asked.like)
        answer += compared.lines
        data["like"] = {what: {"published": theirs, "here": ours} for what, theirs, ours in compared.values}
        if not compared.agrees:
            failures.append(f"the totals differ from {asked.like}'s")
    chosen = [c for c in columns.COLUMNS if c.key not in ("field",)]
    return Inspection(
        report,
        columns.sheet(report),
        columns.sheet(report, wide=True),
        data,
        tuple(answer),
        tuple(failures),
        (*(c.key for c in chosen), "receptive_field"),
        tuple(
            (*(_cell(c, row) for c in chosen), "x".join(str(a.size) for f in row.fields[:1] for a in f.axes))
            for row in columns.visible(report)
        ),
    )


def _cell(column: columns.Column, row: Any) -> object:
    value = column.value(row)
    return column.text(row) if isinstance(value, list) else value


def _smallest(found: Network, inputs: list[Input]) -> Inspection:
    side = inverse.smallest_input(found.module, inputs)
    report = columns.renamed(examine(found.module, inverse.resized(inputs, side)), found.name)
    sheet = columns.sheet(report)
    shape = columns.shape(report.inputs[0][1][1:])
    return Inspection(
        report,
        sheet,
        columns.sheet(report, wide=True),
        {**columns.to_json(report), "smallest": side},
        (f"the smallest input is {shape}",),
    )


Answer = tuple[list[str], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """What an answer may look at."""

    report: Report
    network: Network
    inputs: list[Input]
    asked: Questions


def _layer(case: Case) -> Answer:
    assert case.asked.layer is not None
    if case.asked.size:
        return [], {}
    index = None if case.asked.index is None else _numbers(case.asked.index, "--index")
    seen = sets.receptive_field(case.report, case.asked.layer, index)
    return _described(seen), {"receptive_field": _seen_data(seen)}


def _described(seen: ReceptiveField) -> list[str]:
    lines = str(seen).split("\n")
    for part in seen.inputs:
        if part.theory is not None and part.theory.axes:
            shown = ["all" if a.whole else f"size {a.size} (sees {a.seen}), stride {columns.ratio(a.stride)}, offset {a.start}"
                     + (f", phases {list(a.phases)}" if len(a.phases) > 1 else "")
                     + (f", effective about {4 * a.spread:.1f}" if a.spread else "") for a in part.theory.axes]  # fmt: skip
            lines += [f"  without borders, axis {n}: {text}" for n, text in enumerate(shown)]
    return lines


def _seen_data(seen: ReceptiveField) -> dict[str, Any]:
    return {
        "layer": seen.layer,
        "index": list(seen.index),
        "inputs": [
            {
                "input": part.input,
                "hull": [list(pair) for pair in part.hull],
                "pixels": part.count,
                "density": part.density,
                "exact": part.exact,
                "products": [[list(axis) for axis in product] for product in part.products],
            }
            for part in seen.inputs
        ],
    }


def _size(case: Case) -> Answer:
    if case.asked.layer is None or case.asked.size is None:
        raise UsageError("--size asks for the size of a layer", "no --layer was given", "add --layer NAME")
    wanted = _numbers(case.asked.size, "--size")[0]
    sizes = inverse.sizes_for_output(case.network.module, case.inputs, case.asked.layer, wanted)
    text = f"{case.asked.layer} has {wanted} rows for inputs of {', '.join(map(str, sizes)) or 'no size'} rows"
    return [text], {"sizes": sizes}


def _reach(case: Case) -> Answer:
    assert case.asked.reach is not None
    changes = inverse.reaching(case.network.module, case.inputs, case.asked.reach, case.asked.layer)
    lines = [
        f"{c.layer}: {c.change}: sees {'x'.join(map(str, c.field))}, {columns.short(c.macs)} MACs ({c.macs / max(1, c.macs_before):.0%} "
        f"of now), output {columns.shape(c.output)}"
        for c in changes
    ]
    return lines or [f"no single change of a stride or dilation reaches {case.asked.reach} pixels"], {
        "reach": [vars(change) for change in changes]
    }


def _profile(case: Case) -> Answer:
    assert case.asked.profile is not None
    result = profiles.reconcile(case.report, case.asked.profile)
    data = {**vars(result), "differences": [vars(difference) for difference in result.differences]}
    return str(result).split("\n"), {"profile": data}


def _diff(case: Case) -> Answer:
    assert case.asked.diff is not None
    other = inspect(case.asked.diff, [*case.inputs], optimizer=case.asked.optimizer)
    return columns.difference(case.report, other), {"diff": columns.to_json(other)}


def _time(case: Case) -> Answer:
    from convolve.jobs.timing import timed

    result = timed(case.network.module, case.inputs, case.report)
    return result.lines, {"time": result.to_json()}


_ANSWERS: dict[str, Callable[[Case], Answer]] = {
    "layer": _layer,
    "size": _size,
    "reach": _reach,
    "profile": _profile,
    "diff": _diff,
    "time": _time,
}


def _limits(report: Report, asked: Questions) -> list[str]:
    peak = report.memory.training or report.memory.inference
    totals = report.totals
    found = []
    for limit, value, what, text in (
        (asked.max_macs, totals.macs, "MACs", columns.exact),
        (asked.max_params, totals.parameters, "parameters", columns.exact),
        (asked.max_memory, peak.bytes, "of memory", columns.size_of),
    ):
        if limit is not None and value > amount(limit):
            found.append(f"{text(value)} {what}, {text(amount(limit))} allowed")
    if totals.uncounted and asked.max_macs is not None:
        found.append(f"MACs cannot be limited: {', '.join(totals.uncounted)} not counted")
    return found


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6,
          "gb": 10**9, "b": 1}  # fmt: skip


def amount(text: str) -> int:
    """A number with a unit: "600M", "1.5G", "512MiB", "70_000"."""
    match = re.fullmatch(r"([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].lower() not in _UNITS:
        raise UsageError("a limit is a number with a unit", f"got {text!r}", "write 600M, 1.5G or 512MiB")
    return int(float(match[1].replace("_", "").replace(",", "")) * _UNITS[match[2].lower()])


def _numbers(text: str, what: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise UsageError(f"{what} takes whole numbers", f"got {text!r}", "write 3,4") from None
