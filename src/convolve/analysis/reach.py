"""Sets of input indices along one axis, for every output index at once, exact inside and at the borders.

A `Reach` has three parts. `sets`: the rule of an endless axis, D(j + T) = D(j) + A, one set per phase; the interior and
the textbook receptive field. `low` and `high`: the first and last output indices one by one, where padding positions
(which hold no input) are dropped *at every layer*. In between, the endless rule is exact. So the cost depends on the
receptive field and not on the image. A set is a Python integer used as a bit mask; on the endless axis with an offset.

    compose      D'(j) = union of D(i) over i in pattern(j);  T' = T_l m, m = T / gcd(T, A_l);  A' = A_l m A / T
    spread       sigma'^2 = sigma^2 + (A/T)^2 * (variance of the pattern): path counting, all weights equal
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from convolve.analysis.maps import Map

MOST_PHASES = 4096

Mask = int


@dataclass(frozen=True)
class Far:
    """A finite set of integers: bit b of `mask` stands for offset + b."""

    offset: int
    mask: Mask

    def shifted(self, by: int) -> Far:
        return Far(self.offset + by, self.mask)

    @property
    def hull(self) -> tuple[int, int]:
        """The smallest and the largest element; the set must not be empty."""
        low = (self.mask & -self.mask).bit_length() - 1
        return self.offset + low, self.offset + self.mask.bit_length() - 1

    @property
    def elements(self) -> tuple[int, ...]:
        return tuple(self.offset + bit for bit in bits(self.mask))

    def within(self, other: Far) -> bool:
        shift = self.offset - other.offset
        mine, theirs = (self.mask << shift, other.mask) if shift >= 0 else (self.mask, other.mask << -shift)
        return mine & ~theirs == 0


def union(sets: Iterable[Far]) -> Far:
    parts = [part for part in sets if part.mask]
    if len(parts) < 2:
        return parts[0] if parts else Far(0, 0)
    offset = min(part.offset for part in parts)
    mask = 0
    for part in parts:
        mask |= part.mask << (part.offset - offset)
    return Far(offset, mask)


def bits(mask: Mask) -> Iterator[int]:
    """The set bits, ascending."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


@dataclass(frozen=True, eq=False)
class Reach:
    """What each of `size` indices sees of an input axis with `inputs` indices."""

    inputs: int
    size: int
    sets: tuple[Far, ...] | None  # one per phase; None: no endless rule
    advance: int  # per period of len(sets) indices
    low: tuple[Mask, ...]  # indices 0 .. len(low)-1
    high: tuple[Mask, ...]  # the last len(high) indices
    variance: Fraction | None = Fraction(0)
    exact: bool = True
    spread_out: bool = False  # an operator has looked at the whole axis: the index no longer matters

    @classmethod
    def start(cls, size: int) -> Reach:
        """An input axis sees itself."""
        return cls(size, size, (Far(0, 1),), 1, (), ())

    @classmethod
    def constant(cls, inputs: int, mask: Mask, exact: bool = True, size: int = 1) -> Reach:
        """One set, whatever the index."""
        return cls(inputs, size, (Far(0, mask),), 0, (), (), None, exact, spread_out=True)

    @property
    def stride(self) -> Fraction | None:
        """Input pixels per step of the index; None without an endless rule."""
        return None if self.sets is None else Fraction(self.advance, len(self.sets))

    def far(self, index: int) -> Far:
        """The set of an index of the endless axis."""
        assert self.sets is not None
        periods, phase = divmod(index, len(self.sets))
        return self.sets[phase].shifted(periods * self.advance)

    def at(self, index: int) -> Mask:
        """The exact set of an index, clipped to the input."""
        if index < len(self.low):
            return self.low[index]
        if index >= self.size - len(self.high):
            return self.high[index - self.size + len(self.high)]
        here = self.far(index)
        return here.mask << here.offset if here.offset >= 0 else here.mask >> -here.offset

    @property
    def interior(self) -> range:
        """The indices that see what the endless rule says."""
        return range(len(self.low), self.size - len(self.high))

    @cached_property
    def everything(self) -> Mask:
        """The union over all indices."""
        mask = 0
        for part in (*self.low, *self.high):
            mask |= part
        inside = self.interior
        if not inside or self.sets is None:
            return mask
        period = len(self.sets)
        for phase in range(min(period, len(inside))):
            first = inside.start + phase
            times = (inside.stop - 1 - first) // period + 1
            mask |= _repeated(self.at(first), self.advance, times)
        return mask

    def compose(self, rule: Map) -> Reach:
        """What the outputs of `rule` see, when its inputs see this."""
        exact = self.exact and rule.exact
        spread_out = self.spread_out or (rule.pattern is not None and rule.advance == 0)
        sets, advance = self._endless(rule)
        if sets is None or rule.pattern is None:
            listed = tuple(self._gather(rule.reads(j)) for j in range(rule.outputs))
            return Reach(self.inputs, rule.outputs, None, 0, listed, (), None, exact, spread_out)
        first, last = self._interior(rule)
        return Reach(
            self.inputs,
            rule.outputs,
            sets,
            advance,
            tuple(self._gather(rule.reads(j)) for j in range(first)),
            tuple(self._gather(rule.reads(j)) for j in range(last, rule.outputs)),
            self._variance(rule),
            exact,
            spread_out,
        )

    def _gather(self, indices: Iterable[int]) -> Mask:
        mask = 0
        for index in indices:
            mask |= self.at(index)
        return mask

    def _endless(self, rule: Map) -> tuple[tuple[Far, ...] | None, int]:
        if self.sets is None or rule.pattern is None:
            return None, 0
        period = len(self.sets)
        times = period // math.gcd(period, rule.advance)
        if rule.period * times > MOST_PHASES:
            return None, 0
        sets = tuple(union(self.far(index) for index in rule.pattern(phase)) for phase in range(rule.period * times))
        return sets, rule.advance * times * self.advance // period

    def _interior(self, rule: Map) -> tuple[int, int]:
        """The outputs [first, last) all of whose reads are interior: the others are listed one by one."""
        assert rule.pattern is not None
        inside, count = self.interior, rule.outputs
        low_enough = high_enough = 0
        first, last = 0, count
        while first < count and low_enough < rule.period:
            low_enough = low_enough + 1 if all(i >= inside.start for i in rule.pattern(first)) else 0
            first += 1
        first = first - low_enough if low_enough >= min(rule.period, count) else count
        while last > first and high_enough < rule.period:
            last -= 1
            high_enough = high_enough + 1 if all(i < inside.stop for i in rule.pattern(last)) else 0
        if high_enough == 0:
            return count, count
        return first, last + high_enough

    def _variance(self, rule: Map) -> Fraction | None:
        stride = self.stride
        if self.variance is None or stride is None or rule.pattern is None:
            return None
        spreads = []
        for phase in range(rule.period):
            reads = rule.pattern(phase)
            if len(reads):
                count, total = len(reads), sum(reads)
                spreads.append(Fraction(sum(i * i for i in reads) * count - total * total, count * count))
        return self.variance + stride * stride * sum(spreads, Fraction(0)) / max(1, len(spreads))

    def within(self, other: Reach) -> bool:
        """Whether every index sees no more than it does in `other`, inside and at the borders."""
        if self is other:
            return True
        if self.size != other.size or (other.sets is None) != (self.sets is None):
            return False
        if self.sets is None or other.sets is None:
            return all(self.at(j) & ~other.at(j) == 0 for j in range(self.size))
        if self.stride != other.stride:
            return False
        phases = math.lcm(len(self.sets), len(other.sets))
        if phases > MOST_PHASES or not all(self.far(j).within(other.far(j)) for j in range(phases)):
            return False
        low = max(len(self.low), len(other.low))
        high = max(len(self.high), len(other.high))
        borders = (*range(min(low, self.size)), *range(max(0, self.size - high), self.size))
        return all(self.at(j) & ~other.at(j) == 0 for j in borders)


def _repeated(mask: Mask, advance: int, times: int) -> Mask:
    """mask | mask << a | mask << 2a | … (`times` copies), by doubling."""
    copies = 1
    result = mask
    while copies < times:
        more = min(copies, times - copies)
        result |= result << (advance * more)
        copies += more
    return result
