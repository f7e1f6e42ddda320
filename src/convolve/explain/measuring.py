"""Receptive fields measured on this image: the gradient of a unit for every pixel, for as many units as a page can hold.

A unit's gradient cannot leave the unit's theoretical field. So units of one layer whose fields do not meet are measured in one
backward pass, and each is still measured itself: no gradient is carried from one place to another.

Which units: the strongest ones and those that were asked for, then a lattice over every shown map, as dense as the page and the
arithmetic allow; of a small network, all of them. Where a lattice step is a multiple of the distance at which fields part, the
lattices of different maps lie beside each other and share passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from convolve.explain.activations import covered
from convolve.explain.records import Layer, Measured, Place, Unit

MACS = 160_000_000_000  # of all backward passes of a page
OPERATOR_MACS = 10_000_000  # what an operator costs besides its arithmetic, as arithmetic
BYTES = 800_000  # of a page: what all measured units may take
UNIT_BYTES, BLOCK_BYTES = 40, 0.6
MOST_BLOCKS = 64  # a gradient is drawn in at most so many blocks per side; a small one pixel by pixel


@dataclass(frozen=True)
class Budget:
    """What the units of one moment may cost."""

    macs: float
    bytes: float

    @classmethod
    def of(cls, moments: int, last: bool) -> Budget:
        """The last moment, the network that is explained, may take half; the others share the rest."""
        part = 1.0 if moments == 1 else 0.5 if last else 0.5 / (moments - 1)
        return cls(MACS * part, BYTES * part)


@dataclass(frozen=True)
class Spots:
    """Where the units of a layer look: per row and per column of units, the first and last pixel; (0, -1) for nothing."""

    layer: Layer
    size: tuple[int, int]

    @cached_property
    def rows(self) -> list[tuple[int, int]]:
        return self._hulls(0)

    @cached_property
    def columns(self) -> list[tuple[int, int]]:
        return self._hulls(1)

    def _hulls(self, axis: int) -> list[tuple[int, int]]:
        hulls = []
        for place in range(self.layer.shape[1 + axis]):
            runs = []
            for term in self.layer.sight.terms:
                seen = term[axis]
                lists = [seen.seen[place]] if seen.along == axis else seen.seen
                runs += [run for part in lists for run in part]
            hulls.append((min(a for a, _ in runs), max(b for _, b in runs)) if runs else (0, -1))
        return hulls

    @cached_property
    def apart(self) -> tuple[int, int]:
        """How many rows, how many columns away two units' fields no longer meet."""
        return _apart(self.rows), _apart(self.columns)

    @cached_property
    def block(self) -> int:
        """The side of the blocks in which a gradient is drawn, in pixels."""
        return max(1, -(-max(self.extent) // MOST_BLOCKS))

    @property
    def extent(self) -> tuple[int, int]:
        """The largest field, in pixels."""
        return max(b - a + 1 for a, b in self.rows), max(b - a + 1 for a, b in self.columns)

    @cached_property
    def unit_bytes(self) -> float:
        h, w = self.extent
        return UNIT_BYTES + BLOCK_BYTES * -(-h // self.block) * -(-w // self.block)

    def bytes(self, places: Sequence[Place]) -> float:
        """What the units at `places` take of a page."""
        return self.unit_bytes * len(places)

    def macs(self, places: Sequence[Place]) -> float:
        """What it costs to measure the units at `places`, each pass counted as its arithmetic and its operators."""
        return float(len(passes(places, self.apart)) * pass_macs(self.layer))

    def part(self, row: int, column: int) -> tuple[slice, slice]:
        """The part of the image that a unit's hull is."""
        (top, bottom), (left, right) = self.rows[row], self.columns[column]
        return slice(top, bottom + 1), slice(left, right + 1)


def pass_macs(layer: Layer) -> int:
    """What one backward pass from a layer costs."""
    return layer.macs + OPERATOR_MACS * layer.depth


def _apart(hulls: Sequence[tuple[int, int]]) -> int:
    first, last = torch.tensor(hulls).unbind(1)
    meet = (first[:, None] <= last) & (first <= last[:, None]) & (first <= last) & (first <= last)[:, None]
    i, j = meet.nonzero().unbind(1)
    return int((i - j).max()) + 1 if len(i) else 1


def passes(places: Sequence[Place], apart: tuple[int, int]) -> list[list[Place]]:
    """The places in groups within which no two fields meet: rows and columns differ by multiples of `apart`."""
    groups: dict[tuple[int, int, int], list[Place]] = {}
    before: Counter[tuple[int, int]] = Counter()
    for place in places:
        _, row, column = place
        groups.setdefault((row % apart[0], column % apart[1], before[row, column]), []).append(place)
        before[row, column] += 1
    return list(groups.values())


def lattice(layer: Layer, apart: tuple[int, int], every: int) -> list[Place]:
    """Every `every`-th unit of each shown map, in rows and columns; from `apart` on rounded to its multiples, map beside map."""
    _, h, w = layer.shape
    steps, beside, starts = [], [], []
    for length, least in zip((h, w), apart, strict=True):
        multiple = min(-(-every // least), -(-length // least)) if every >= least else 0
        step = multiple * least or every
        steps.append(step)
        beside.append(max(1, multiple))
        starts.append((length - 1) % (least if multiple else step) // 2)
    slots = beside[0] * beside[1]
    found = []
    for number, channel in enumerate(layer.channels):
        down, across = divmod(number % slots, beside[1])
        rows = range(starts[0] + down * apart[0], h, steps[0])
        columns = range(starts[1] + across * apart[1], w, steps[1])
        found += [(channel, row, column) for row in rows for column in columns]
    return found


def chosen(spots: Spots, wanted: Sequence[Place], budget: Budget) -> list[Place]:
    """The units to measure of one layer: of `wanted` as many as the budget allows, one at least; then the densest lattice."""
    layer = spots.layer

    def affordable(places: Sequence[Place]) -> bool:
        return spots.macs(places) <= budget.macs and spots.bytes(places) <= budget.bytes

    first = list(dict.fromkeys(wanted))
    while len(first) > 1 and not affordable(first):
        first.pop()
    for every in _ladder(max(layer.shape[1:])):
        _, h, w = layer.shape
        if spots.unit_bytes * len(layer.channels) * (h // every) * (w // every) > 4 * budget.bytes:
            continue  # far too many: not worth writing down
        places = list(dict.fromkeys([*first, *lattice(layer, spots.apart, every)]))
        if affordable(places):
            return places
    return first


def _ladder(longest: int) -> Iterator[int]:
    step = 1
    while step < 2 * longest:
        yield step
        step = step + 1 if step < 4 else step * 3 // 2
    yield step


def measure(result: Tensor, image: Tensor, spots: Spots, places: Sequence[Place]) -> list[Measured]:
    """The gradients of the units at `places` of `result` [1, c, h, w] for the pixels of `image`, which must need gradients."""
    found: dict[Place, Measured] = {}
    values = result[0].detach().cpu()
    for group in passes(places, spots.apart):
        c, i, j = (list(part) for part in zip(*group, strict=True))
        (slope,) = torch.autograd.grad(result[0, c, i, j].sum(), image, retain_graph=True, materialize_grads=True)
        gradient = slope[0].abs().sum(0).cpu()
        stray = int((gradient > 0).sum())
        parts = []
        for place in group:
            part = gradient[spots.part(*place[1:])].clone()
            stray -= int((part > 0).sum())
            parts.append(part)
        for (channel, row, column), part in zip(group, parts, strict=True):
            where = spots.part(row, column)
            touched = part > 0
            holes = int((touched & ~covered(spots.layer, (row, column), spots.size)[where]).sum())
            found[channel, row, column] = Measured(
                spots.layer.name,
                Unit(channel, row, column, values[channel, row, column].item()),
                where[0].start,
                where[1].start,
                part,
                int(touched.sum()),
                holes + stray,
                spots.block,
            )
    return [found[place] for place in places]


def measured_layers(layers: Sequence[Layer], budget: Budget) -> list[Layer]:
    """The layers of which at least one unit can be measured: all, or every second, third, …, counted from the last."""
    for every in range(1, len(layers) + 1):
        kept = list(layers[::-1][::every][::-1])
        if sum(map(pass_macs, kept)) <= budget.macs:
            return kept
    return list(layers[-1:])


def measure_all(
    kept: Mapping[str, Tensor],
    image: Tensor,
    layers: Sequence[Layer],
    strongest: Mapping[str, Sequence[Unit]],
    budget: Budget,
) -> tuple[Measured, ...]:
    """The measured units of all layers, in the layers' order; cheap layers are served first, and leave what they do not need."""
    _, _, h, w = image.shape
    measured: dict[str, list[Measured]] = {}
    shown = measured_layers(layers, budget)
    order = sorted((Spots(layer, (h, w)) for layer in shown), key=lambda spots: spots.layer.macs)
    plans: dict[str, list[Place]] = {}
    macs, room = budget.macs, budget.bytes
    for turn, step in ((1, 1), (2, -1)):  # in the second, what the first left over, deep layers first
        for number, spots in enumerate(order[::step]):
            layer = spots.layer
            given = plans.get(layer.name, [])
            macs, room = macs + spots.macs(given), room + spots.bytes(given)
            left = len(order) - number if turn == 1 else 1
            wanted = [*layer.asked, *((unit.channel, unit.row, unit.column) for unit in strongest[layer.name])]
            plans[layer.name] = found = chosen(spots, wanted, Budget(macs / left, room / left))
            macs, room = macs - spots.macs(found), room - spots.bytes(found)
    for spots in order:
        name = spots.layer.name
        measured[name] = measure(kept[name], image, spots, plans[name])
    return tuple(row for layer in shown for row in measured[layer.name])
