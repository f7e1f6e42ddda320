"""Which layers of a network can be shown, and which are: found in the trace, before anything runs.

A layer is one call of a module whose result is a map (n, c, h, w). A convolution is shown together with the pointwise layers
that follow it and have no other source (norm, activation, dropout): the last of them bears the name. A module that joins
branches (an Inception block) is a layer too. More than MOST_LAYERS: what lies inside such blocks goes first, then every
second, third, … layer; what was left out is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convolve.analysis.fields import Factor, Field
from convolve.analysis.reach import Mask
from convolve.analysis.report import Report, Row
from convolve.errors import UnknownNameError, UsageError
from convolve.explain.records import Axis, Layer, Runs, Sight

MOST_LAYERS = 24
MOST_MAPS = 16
PAGE_UNITS = 900_000  # how many units all shown maps of all moments have together
_WINDOWS = (
    "conv",
    "max_pool",
    "avg_pool",
    "lp_pool",
    "adaptive",
    "fractional",
    "interpolate",
    "upsample",
    "cat",
    "linear",
)


def convolutions(report: Report) -> list[Row]:
    """The rows that convolve. Raises UsageError when there is none."""
    found = [row for row in report.rows if row.op.startswith("conv")]
    if not found:
        raise without_convolution(report.model, [row.module for row in report.rows])
    return found


def without_convolution(model: str, modules: Sequence[str]) -> UsageError:
    """The error for a model that consists of `modules` only."""
    return UsageError(
        "explain shows convolutions, and this model has none",
        f"{model} consists of {', '.join(dict.fromkeys(modules)) or 'nothing'}",
        "name a model with a convolution",
    )


def candidates(report: Report) -> list[Layer]:
    """Every layer that can be shown, in the order of computation."""
    steps, rows = report.trace.steps, report.rows
    last: dict[tuple[str, int], int] = {}  # of each module call, the last step that is its own
    calls: dict[str, int] = {}
    final: dict[str, int] = {}  # of each module, the last step inside it
    for step in steps:
        last[step.path, step.call] = step.index
        calls[step.path] = max(calls.get(step.path, 0), step.call + 1)
        parts = step.path.split(".") if step.path else []
        for depth in range(1, len(parts) + 1):
            final[".".join(parts[:depth])] = step.index
    ends = {
        key: index
        for key, index in last.items()
        if key[0]
        and len(rows[index].outputs) == 1
        and len(rows[index].output) == 4
        and (steps[index].leaf or (final[key[0]] == index and calls[key[0]] == 1))
    }
    index_of = {row.name: row.index for row in rows}
    readers: dict[int, set[int]] = {}
    for row in rows:
        for source in row.sources:
            if source in index_of:
                readers.setdefault(index_of[source], set()).add(row.index)
    chain: dict[int, list[str]] = {}  # the words of the layers that end here, by their last step
    layers: dict[int, Layer] = {}
    costs = _cost_up_to(report, index_of)
    for (path, call), index in sorted(ends.items(), key=lambda item: item[1]):
        row = rows[index]
        own = [rows[s.index] for s in steps if s.path == path and s.call == call]
        words = row.module + (f" {row.detail}" if row.detail and steps[index].leaf and len(own) == 1 else "")
        names = {r.name for r in own}
        before = {index_of[s] for r in own for s in r.sources if s not in names and s in index_of}
        pointwise = all(r.output == row.output and not r.op.startswith(_WINDOWS) for r in own)
        said = [words]
        if pointwise and len(before) == 1:
            (head,) = before
            if head in layers and rows[head].output == row.output and readers[head] <= {r.index for r in own}:
                del layers[head]
                said = [*chain[head], words]
        chain[index] = said
        _, c, h, w = row.output
        sight = sight_of(report.seen[index][0], row)
        layers[index] = Layer(row.name, path, call, " → ".join(said), (c, h, w), *costs[index], sight)
    return [layers[index] for index in sorted(layers)]


def _cost_up_to(report: Report, index_of: dict[str, int]) -> list[tuple[int, int]]:
    """For each row, the multiply-adds and the number of the rows that it depends on, itself included."""
    needed: list[int] = []  # bit masks of rows
    totals = []
    for row in report.rows:
        mask = 1 << row.index
        for source in row.sources:
            if source in index_of:
                mask |= needed[index_of[source]]
        needed.append(mask)
        macs = sum(r.macs or 0 for r in report.rows[: row.index + 1] if mask >> r.index & 1)
        totals.append((macs, mask.bit_count()))
    return totals


def chosen(layers: Sequence[Layer], names: Sequence[str], report: Report) -> tuple[list[Layer], list[str]]:
    """The layers to show: those of `names`, or all up to MOST_LAYERS; and the names of what was left out."""
    if not layers:
        raise UsageError(
            "explain shows maps [n, c, h, w] that a module returns",
            f"no module of {report.model} returns one",
            "wrap its convolutions in modules (torch.nn.Conv2d)",
        )
    if names:
        wished = {layer.name: layer for layer in (named(layers, name, report) for name in names)}
        return list(wished.values()), []
    kept = list(layers)
    if len(kept) > MOST_LAYERS:
        paths = {layer.path for layer in kept}
        kept = [layer for layer in kept if not any(layer.path.startswith(f"{path}.") for path in paths)]
    if len(kept) > MOST_LAYERS:
        places = [round(n * (len(kept) - 1) / (MOST_LAYERS - 1)) for n in range(MOST_LAYERS)]
        kept = [kept[place] for place in places]
    shown = {layer.name for layer in kept}
    return kept, [layer.name for layer in layers if layer.name not in shown]


def named(layers: Sequence[Layer], name: str, report: Report) -> Layer:
    """The layer called `name`, or the last one inside the module of that name. Raises UnknownNameError with the nearest names."""
    for fits in (
        [layer for layer in layers if layer.name == name],
        [layer for layer in layers if layer.path == name],
        [layer for layer in layers if layer.path.startswith(name + ".")],
    ):
        if fits:
            return fits[-1]
    known = [row for row in report.rows if row.name == name or row.path == name]
    if known:  # it exists, and is shown under the name of the activation behind it, or gives no map
        index = known[-1].index
        later = next((layer for layer in layers if report.row(layer.name).index > index), None)
        _, *shape = known[-1].output
        if later is not None and tuple(shape) == later.shape:
            return later
        raise UsageError(
            "only a layer with maps can be shown",
            f"{name} gives {'x'.join(map(str, known[-1].output))}",
            f"use one of {', '.join(layer.name for layer in layers[-3:])}",
        )
    raise UnknownNameError.of("layer", name, [row.name for row in report.rows if len(row.output) == 4])


def allotted(layers: Sequence[Layer], moments: int) -> list[Layer]:
    """The same layers, each with as many maps (`channels` still unnamed: their count) and rows as the page has room for.

    Small maps are served first; what they leave goes to the large ones. Four maps at least, with rows and columns left out
    where even these are too large.
    """
    rooms = {}
    left = PAGE_UNITS // moments
    order = sorted(layers, key=lambda layer: layer.shape[1] * layer.shape[2])
    for number, layer in enumerate(order):
        c, h, w = layer.shape
        share = left // (len(order) - number)
        count = min(c, MOST_MAPS, max(4, share // (h * w)))
        step = 1
        while count * -(-h // step) * -(-w // step) > max(share, count) and step < max(h, w):
            step += 1
        left -= count * -(-h // step) * -(-w // step)
        rooms[layer.name] = (count, step)
    return [replace(layer, channels=tuple(range(rooms[layer.name][0])), step=rooms[layer.name][1]) for layer in layers]


def sight_of(seen: Field, row: Row, source: int = 0) -> Sight:
    """The receptive fields of all units of a map, written out."""
    terms = []
    exact = seen.exact
    for term in seen.terms:
        if term.source == source and len(term.factors) == 2:
            axes = [_axis(factor) for factor in term.factors]
            exact = exact and all(ok for _, ok in axes)
            terms.append((axes[0][0], axes[1][0]))
    summary = next((field for field in row.fields if field.source == source), None)
    size = stride = None
    if summary is not None and len(summary.axes) == 2:
        first, second = summary.axes
        size = (first.size, second.size)
        if first.stride is not None and second.stride is not None:
            stride = (str(first.stride), str(second.stride))
    return Sight(tuple(terms), size, stride, exact)


def _axis(factor: Factor) -> tuple[Axis, bool]:
    place, reach = factor.place, factor.reach
    if place is not None and place.dim in (2, 3) and place.inner == 1:
        return Axis(place.dim - 2, tuple(_runs(reach.at(index)) for index in range(place.size))), True
    everything = reach.at(0) if place is None else reach.everything
    return Axis(None, (_runs(everything),)), place is None


def _runs(mask: Mask) -> Runs:
    runs = []
    position = 0
    while mask:
        skip = (mask & -mask).bit_length() - 1
        position += skip
        mask >>= skip
        length = (~mask & (mask + 1)).bit_length() - 1
        runs.append((position, position + length - 1))
        position += length
        mask >>= length
    return tuple(runs)
