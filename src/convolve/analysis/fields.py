"""Receptive fields over a whole graph: for every tensor, which input pixels its elements can see.

A tensor's field is a union of products: D(i, j) = union over terms r of H_r(i) x W_r(j), one factor per spatial axis of a
graph input. Window operators map each factor; joining branches concatenates terms; a term inside another is dropped. A
residual network keeps one term, an Inception block with 1x3 beside 3x1 keeps the cross of two.

A factor knows its place: the tensor's dimension that indexes it (with a stride and a size inside that dimension, so that a
flattened map keeps its axes apart), or none once an operator has looked at the whole axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm, prod

from convolve.analysis.maps import Map, blocks
from convolve.analysis.reach import MOST_PHASES, Far, Mask, Reach, bits, union
from convolve.analysis.records import Shape

MOST_TERMS = 16


@dataclass(frozen=True)
class Along:
    """A source dimension that output dimension `dim` indexes, through `rule` (None: the same index)."""

    dim: int
    rule: Map | None = None


@dataclass(frozen=True)
class Every:
    """A source dimension of which every index is read."""


@dataclass(frozen=True)
class Wide:
    """A source dimension of which every index is read, by each index of output dimension `dim`."""

    dim: int


@dataclass(frozen=True)
class Only:
    """A source dimension of which the indices `rule` gives for output 0 are read."""

    rule: Map


Dim = Along | Every | Wide | Only


@dataclass(frozen=True)
class Read:
    """How an output reads one tensor argument: one entry per dimension of that argument. `exact` False: at most this."""

    tensor: int
    dims: tuple[Dim, ...]
    exact: bool = True


@dataclass(frozen=True)
class Reshape:
    """The output holds the argument's elements in the same order, in another shape."""

    tensor: int


@dataclass(frozen=True)
class Place:
    """Where a factor's index stands in the tensor: (index of `dim` // inner) % size."""

    dim: int
    inner: int
    size: int


@dataclass(frozen=True, eq=False)
class Factor:
    place: Place | None
    reach: Reach

    @property
    def wide(self) -> bool:
        """Whether the output's position does not matter: an operator has looked at the whole axis."""
        return self.place is None or self.reach.spread_out


@dataclass(frozen=True, eq=False)
class Term:
    """A product of sets over the spatial axes of graph input `source`."""

    source: int
    factors: tuple[Factor, ...]

    @property
    def exact(self) -> bool:
        return all(factor.reach.exact for factor in self.factors)

    @property
    def local(self) -> bool:
        """Whether some axis still depends on the output's position."""
        return any(not factor.wide for factor in self.factors)

    def at(self, index: Sequence[int]) -> tuple[Mask, ...]:
        """The sets that the element at `index` of the tensor sees, one per axis."""
        return tuple(
            factor.reach.at(
                0 if factor.place is None else index[factor.place.dim] // factor.place.inner % factor.place.size
            )
            for factor in self.factors
        )


@dataclass(frozen=True)
class Field:
    """What the elements of one tensor see: a union of terms. No term: nothing of any input."""

    terms: tuple[Term, ...] = ()

    @property
    def exact(self) -> bool:
        return all(term.exact for term in self.terms)

    @classmethod
    def of_input(cls, source: int, shape: Shape, spatial: Sequence[int]) -> Field:
        factors = tuple(Factor(Place(dim, 1, shape[dim]), Reach.start(shape[dim])) for dim in spatial)
        return cls((Term(source, factors),))


def propagate(
    reads: Iterable[Read | Reshape], fields: Sequence[Field], shapes: Sequence[Shape], output: Shape
) -> Field:
    """The field of an output of shape `output` from the `fields` and `shapes` of the tensor arguments."""
    terms: list[Term] = []
    for read in reads:
        shape = shapes[read.tensor]
        for term in fields[read.tensor].terms:
            if isinstance(read, Reshape):
                factors = tuple(_reshaped(factor, shape, output) for factor in term.factors)
            else:
                factors = tuple(_read(factor, read, shape, output) for factor in term.factors)
                if _gaps(term, read):
                    factors = tuple(replace(f, reach=replace(f.reach, exact=False)) for f in factors)
            terms.append(Term(term.source, factors))
    return Field(simplified(terms))


def _gaps(term: Term, read: Read) -> bool:
    """Whether `read` leaves some output without input along a dimension that no factor of `term` stands in."""
    placed = {factor.place.dim for factor in term.factors if factor.place is not None}
    return any(
        isinstance(dim, Along) and dim.rule is not None and dim.rule.gaps
        for number, dim in enumerate(read.dims)
        if number > 1 and number not in placed
    )


def _read(factor: Factor, read: Read, shape: Shape, output: Shape) -> Factor:
    place, reach = factor.place, factor.reach
    if not read.exact and reach.exact:
        reach = replace(reach, exact=False)
    if place is None:
        return Factor(None, reach)
    dim = read.dims[place.dim]
    if isinstance(dim, Along) and dim.rule is None:
        return Factor(replace(place, dim=dim.dim), reach)
    whole = place.inner == 1 and place.size == shape[place.dim]
    if isinstance(dim, Along) and dim.rule is not None and whole:
        return Factor(Place(dim.dim, 1, dim.rule.outputs), reach.compose(dim.rule))
    if isinstance(dim, Only):
        index = dim.rule.reads(0)
        mask, exact = 0, reach.exact and dim.rule.exact
        for i in index:
            mask |= reach.at(i // place.inner % place.size)
        return Factor(None, Reach.constant(reach.inputs, mask, exact))
    exact = reach.exact and isinstance(dim, (Every, Wide))
    if isinstance(dim, Wide) and whole:
        size = output[dim.dim]
        return Factor(Place(dim.dim, 1, size), Reach.constant(reach.inputs, reach.everything, exact, size))
    return Factor(None, Reach.constant(reach.inputs, reach.everything, exact))


def _reshaped(factor: Factor, shape: Shape, output: Shape) -> Factor:
    """The factor after a reshape: its index keeps its stride in the flattened order, if it is not cut in pieces."""
    place, reach = factor.place, factor.reach
    if place is None:
        return factor
    stride = place.inner * prod(shape[place.dim + 1 :])
    for dim, size in enumerate(output):
        behind = prod(output[dim + 1 :])
        if stride % behind == 0 and behind and size % (stride // behind * place.size) == 0:
            return Factor(Place(dim, stride // behind, place.size), reach)
    for dim, size in reversed(list(enumerate(output))):  # cut into pieces: the outer part still has a place
        behind = prod(output[dim + 1 :])
        if behind > stride and behind % stride == 0 and size:
            piece = behind // stride
            if place.size % piece == 0 and size % (place.size // piece) == 0:
                outer = reach.compose(blocks(place.size, piece))
                return Factor(Place(dim, 1, place.size // piece), replace(outer, exact=False))
    return Factor(None, Reach.constant(reach.inputs, reach.everything, exact=False))


def simplified(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms without those that lie inside another; at most MOST_TERMS, beyond that their hull, marked as a bound."""
    kept: list[Term] = []
    for term in terms:
        if any(_within(term, other) for other in kept):
            continue
        kept = [other for other in kept if not _within(other, term)]
        kept.append(term)
    if len(kept) <= MOST_TERMS:
        return tuple(kept)
    hulls: list[Term] = []
    for source in dict.fromkeys(term.source for term in kept):
        mine = [term for term in kept if term.source == source]
        factors = []
        for axis in range(len(mine[0].factors)):
            reach = mine[0].factors[axis].reach
            mask = 0
            for term in mine:
                mask |= term.factors[axis].reach.everything
            factors.append(Factor(None, Reach.constant(reach.inputs, mask, exact=False)))
        hulls.append(Term(source, tuple(factors)))
    return tuple(hulls)


def _within(term: Term, other: Term) -> bool:
    if term.source != other.source:
        return False
    pairs = list(zip(term.factors, other.factors, strict=True))
    # A term that has looked at a whole axis is kept apart from the local ones: both are reported.
    if any(mine.place != theirs.place or mine.wide != theirs.wide for mine, theirs in pairs):
        return False
    return all(mine.reach.within(theirs.reach) for mine, theirs in pairs)


@dataclass(frozen=True)
class AxisField:
    """The field along one axis of an input, in numbers: of an output index j, the hull is [start + j stride, … + size - 1].

    size      the largest number of pixels from first to last, on an endless axis (theory: borders do not clip it)
    seen      how many of them are really seen, in the fullest phase; smaller than size: there are holes
    stride    pixels per output index; None when it is not the same everywhere
    start     the first pixel of output index 0 on an endless axis (minus the effective padding); None without a stride
    phases    over how many indices the pattern repeats, and the size in each
    spread    standard deviation of the path-count weights: the effective field is about 4 spreads wide
    """

    size: int
    seen: int
    stride: Fraction | None
    start: int | None
    phases: tuple[int, ...] = ()
    spread: float | None = None
    whole: bool = False

    @property
    def centre(self) -> Fraction | None:
        """The middle of the hull of output index 0, in pixels."""
        return None if self.start is None else Fraction(2 * self.start + self.size - 1, 2)


@dataclass(frozen=True)
class InputField:
    """The field of one tensor in one graph input: `axes` of what follows the position, `exact`, and whether all is seen besides."""

    source: int
    axes: tuple[AxisField, ...]
    exact: bool
    wide: bool  # an operator has looked at whole axes besides (squeeze and excitation, a norm over space)
    misaligned: bool  # branches with unequal strides met: sizes are the largest over all indices
    terms: int


def summaries(field: Field) -> tuple[InputField, ...]:
    """The field in numbers, one entry per graph input that is seen. Global terms do not hide the local ones."""
    found = []
    for source in dict.fromkeys(term.source for term in field.terms):
        terms = [term for term in field.terms if term.source == source]
        local = [term for term in terms if term.local] or terms
        axes = []
        misaligned = False
        for axis in range(len(local[0].factors)):
            summary, skewed = _axis([term.factors[axis] for term in local])
            axes.append(summary)
            misaligned |= skewed
        found.append(
            InputField(
                source, tuple(axes), all(t.exact for t in local), len(local) < len(terms), misaligned, len(local)
            )
        )
    return tuple(found)


def _axis(factors: Sequence[Factor]) -> tuple[AxisField, bool]:
    placed = [factor.reach for factor in factors if not factor.wide]
    if len(placed) < len(factors):
        mask = 0
        for factor in factors:
            mask |= factor.reach.everything
        seen = mask.bit_count()
        low, high = Far(0, mask).hull if mask else (0, -1)
        return AxisField(high - low + 1, seen, Fraction(0), low, (), None, whole=True), False
    strides = {reach.stride for reach in placed}
    if len(strides) == 1 and None not in strides:
        phases = lcm(*(len(reach.sets or ()) for reach in placed))
        if phases <= MOST_PHASES:
            return _periodic(placed, phases), False
    size = max(reach.size for reach in placed)
    most = seen = 0
    for j in range(size):
        mask = 0
        for reach in placed:
            mask |= reach.at(min(j, reach.size - 1))
        if mask:
            low, high = Far(0, mask).hull
            most, seen = max(most, high - low + 1), max(seen, mask.bit_count())
    return AxisField(most, seen, None, None), len(strides - {None}) > 1


def _periodic(reaches: Sequence[Reach], phases: int) -> AxisField:
    sets = [union(reach.far(j) for reach in reaches) for j in range(phases)]
    stride = reaches[0].stride
    assert stride is not None
    hulls = [part.hull if part.mask else None for part in sets]
    sizes = tuple(hull[1] - hull[0] + 1 if hull else 0 for hull in hulls)
    # The hull of all phases, each moved back by its phase: one [start, start + size) that holds for every index.
    starts = [Fraction(hull[0]) - stride * j for j, hull in enumerate(hulls) if hull]
    first = hulls[0][0] if hulls[0] else (int(min(starts)) if starts else 0)
    widest = max(reaches, key=lambda reach: reach.variance or 0)
    spread = None if widest.variance is None else float(widest.variance) ** 0.5
    period = _smallest_period(sizes)
    return AxisField(max(sizes), max(part.mask.bit_count() for part in sets), stride, first, sizes[:period], spread)


def _smallest_period(sizes: tuple[int, ...]) -> int:
    for period in range(1, len(sizes)):
        if len(sizes) % period == 0 and sizes == sizes[:period] * (len(sizes) // period):
            return period
    return len(sizes)


def pixels(field: Field, index: Sequence[int], source: int = 0) -> frozenset[tuple[int, ...]]:
    """The exact set of input positions (one coordinate per spatial axis) that the element at `index` sees."""
    found: set[tuple[int, ...]] = set()
    for term in field.terms:
        if term.source == source:
            positions: list[tuple[int, ...]] = [()]
            for mask in term.at(index):
                positions = [(*position, bit) for position in positions for bit in bits(mask)]
            found.update(positions)
    return frozenset(found)


def count(products: Sequence[tuple[Mask, ...]]) -> int:
    """How many positions a union of products holds."""
    products = [product for product in products if all(product)]
    if not products:
        return 0
    if len(products[0]) == 0:
        return 1
    if len(products) == 1:
        return prod(mask.bit_count() for mask in products[0])
    first = 0
    for product in products:
        first |= product[0]
    groups: dict[tuple[int, ...], int] = {}
    for bit in bits(first):
        rows = tuple(number for number, product in enumerate(products) if product[0] >> bit & 1)
        groups[rows] = groups.get(rows, 0) + 1
    return sum(times * count([products[row][1:] for row in rows]) for rows, times in groups.items())
