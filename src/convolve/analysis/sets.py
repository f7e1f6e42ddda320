"""One element's receptive field as a set of pixels, and its transpose: what one pixel influences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from convolve.analysis import fields
from convolve.analysis.fields import Field, InputField, Term
from convolve.analysis.reach import Mask, bits
from convolve.analysis.records import Shape
from convolve.analysis.report import Report
from convolve.errors import ShapeError


@dataclass(frozen=True)
class Seen:
    """The pixels of one graph input that an element sees: a union of products of index sets, one set per spatial axis.

    hull       (first, last) per axis of what is seen; empty when nothing is
    count      how many pixels; density = count / pixels of the hull
    theory     the same on an endless image, in numbers (size, stride, offset, phases), for the whole layer
    """

    input: str
    size: Shape
    products: tuple[tuple[tuple[int, ...], ...], ...]
    hull: tuple[tuple[int, int], ...]
    count: int
    exact: bool
    theory: InputField | None

    @property
    def density(self) -> float:
        return self.count / prod(last - first + 1 for first, last in self.hull) if self.count else 0.0

    @property
    def pixels(self) -> frozenset[tuple[int, ...]]:
        """Every pixel, as one coordinate per axis."""
        found: set[tuple[int, ...]] = set()
        for product in self.products:
            positions: list[tuple[int, ...]] = [()]
            for axis in product:
                positions = [(*position, index) for position in positions for index in axis]
            found.update(positions)
        return frozenset(found)


@dataclass(frozen=True)
class ReceptiveField:
    """What the element at `index` (its spatial position) of `layer` sees, per graph input."""

    layer: str
    index: tuple[int, ...]
    inputs: tuple[Seen, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{self.layer} at {list(self.index)}"]
        for seen in self.inputs:
            hull = " x ".join(f"{first}..{last}" for first, last in seen.hull) or "nothing"
            about = "" if seen.exact else " at most"
            lines.append(f"  {seen.input} {'x'.join(map(str, seen.size))}: sees{about} {seen.count} pixels in {hull}"
                         + (f", {seen.density:.0%} of it" if seen.density < 1 and seen.count else ""))  # fmt: skip
        return "\n".join(lines)


def receptive_field(report: Report, layer: str, index: Sequence[int] | None = None) -> ReceptiveField:
    """The exact set of pixels that one element of a layer's output sees; the middle one when no `index` is given.

    `index` is the element's spatial position (its last coordinates), or its full index in the output.
    """
    row = report.row(layer)
    seen = report.seen[row.index][0]
    full = full_index(row.output, seen, index)
    inputs = []
    theory = {summary.source: summary for summary in row.fields}
    for number, (name, shape) in enumerate(report.inputs):
        products = [term.at(full) for term in seen.terms if term.source == number]
        products = [product for product in products if all(product)]
        axes = (
            tuple(factor.reach.inputs for factor in next((t.factors for t in seen.terms if t.source == number), ()))
            or shape[2:]
        )
        exact = all(term.exact for term in seen.terms if term.source == number)
        hull = tuple(_hull([product[a] for product in products]) for a in range(len(axes))) if products else ()
        listed = tuple(tuple(tuple(bits(mask)) for mask in product) for product in products)
        inputs.append(Seen(name, axes, listed, hull, fields.count(products), exact, theory.get(number)))
    spatial = placed_dims(seen, row.output)
    return ReceptiveField(row.name, tuple(full[d] for d in spatial), tuple(inputs))


def placed_dims(seen: Field, output: Shape) -> tuple[int, ...]:
    """The dimensions of an output that are positions."""
    dims = {f.place.dim for term in seen.terms for f in term.factors if f.place is not None}
    return tuple(sorted(dims)) if dims else tuple(range(2, len(output)))


def full_index(output: Shape, seen: Field, index: Sequence[int] | None) -> tuple[int, ...]:
    """The index of an element in all dimensions, from a spatial one; checked."""
    spatial = placed_dims(seen, output)
    full = [0] * len(output)
    if index is None:
        for dim in spatial:
            full[dim] = output[dim] // 2
        return tuple(full)
    given = tuple(index)
    dims = tuple(range(len(output))) if len(given) == len(output) else spatial
    if len(given) != len(dims):
        raise ShapeError(
            f"an index needs {len(spatial)} spatial coordinates or all {len(output)}",
            f"got {given}",
            f"the output is {output}",
        )
    for dim, value in zip(dims, given, strict=True):
        if not -output[dim] <= value < output[dim]:
            raise ShapeError("an index must lie inside the output", f"got {given}", f"the output is {output}")
        full[dim] = value % output[dim]
    return tuple(full)


def _hull(masks: Sequence[Mask]) -> tuple[int, int]:
    union = 0
    for mask in masks:
        union |= mask
    return (union & -union).bit_length() - 1, union.bit_length() - 1


def unseen_lines(seen: Field, source: int, axis: int, size: int) -> tuple[int, ...]:
    """The rows (axis 0), columns (axis 1), … of an input that no element sees, wherever along the other axes."""
    union = 0
    for term in seen.terms:
        if term.source == source:
            masks = [factor.reach.everything for factor in term.factors]
            if all(masks):
                union |= masks[axis]
    return tuple(index for index in range(size) if not union >> index & 1)


def influences(report: Report, layer: str, pixel: Sequence[int], source: int = 0) -> frozenset[tuple[int, ...]]:
    """The projective field: the positions of a layer's output that see a `pixel` of a graph input.

    >>> import convolve, torch
    >>> report = convolve.inspect(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, stride=2)), "1x7x7")
    >>> sorted(influences(report, "0", (2, 0)))
    [(0, 0), (1, 0)]
    """
    row = report.row(layer)
    seen = report.seen[row.index][0]
    spatial = placed_dims(seen, row.output)
    found: set[tuple[int, ...]] = set()
    for term in seen.terms:
        if term.source == source:
            found |= _positions(term, pixel, row.output, spatial)
    return frozenset(found)


def _positions(term: Term, pixel: Sequence[int], output: Shape, spatial: Sequence[int]) -> set[tuple[int, ...]]:
    if len(pixel) != len(term.factors):
        raise ShapeError(
            f"a pixel needs {len(term.factors)} coordinates", f"got {tuple(pixel)}", "one per spatial axis"
        )
    allowed = {dim: set(range(output[dim])) for dim in spatial}
    for factor, coordinate in zip(term.factors, pixel, strict=True):
        if factor.place is None:
            if not factor.reach.at(0) >> coordinate & 1:
                return set()
            continue
        hits = [j for j in range(factor.place.size) if factor.reach.at(j) >> coordinate & 1]
        place = factor.place
        allowed[place.dim] &= {i for i in range(output[place.dim]) if i // place.inner % place.size in set(hits)}
    positions: set[tuple[int, ...]] = {()}
    for dim in spatial:
        positions = {(*position, i) for position in positions for i in allowed[dim]}
    return positions
