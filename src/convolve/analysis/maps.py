"""Which input indices one output index reads, along one axis: the local rules of receptive fields.

A `Map` answers twice. `reads(j)` is exact for its concrete sizes: what falls outside is dropped, folded or clamped as the
operator does. `pattern(j)` is the same rule on an endless axis, with the period `pattern(j + T) = pattern(j) + A`; it
gives the interior, and is None where no such rule exists (a flip, a join along the axis).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from convolve.geometry import Window

Indices = Sequence[int]


@dataclass(frozen=True)
class Map:
    """From `outputs` output indices to sets of `inputs` input indices. `exact` is False where the sets are upper bounds."""

    inputs: int
    outputs: int
    reads: Callable[[int], Indices]
    pattern: Callable[[int], Indices] | None = None
    period: int = 1
    advance: int = 1
    exact: bool = True

    @property
    def gaps(self) -> bool:
        """Whether some output reads no input at all (a phase of a transposed convolution, padding beyond the kernel)."""
        return not all(len(self.reads(j)) for j in range(self.outputs))


def within(inputs: int, outputs: int, pattern: Callable[[int], Indices], period: int, advance: int) -> Map:
    """The map of an endless rule on a finite axis: what falls outside reads nothing, as zero padding does."""
    return Map(inputs, outputs, lambda j: [i for i in pattern(j) if 0 <= i < inputs], pattern, period, advance)


def sliding(window: Window, axis: int, inputs: int, outputs: int) -> Map:
    """A window's axis: convolution, pooling, and (with input dilation) transposed convolution; geometry.py's tap line."""
    kernel, stride, before = window.kernel[axis], window.stride[axis], window.padding[axis][0]
    dilation, spread = window.dilation[axis], window.input_dilation[axis]
    if spread == 1:
        offsets = [tap * dilation - before for tap in range(kernel)]
        return within(inputs, outputs, lambda j: [j * stride + offset for offset in offsets], 1, stride)

    def pattern(j: int) -> list[int]:
        positions = (j * stride - before + tap * dilation for tap in range(kernel))
        return [position // spread for position in positions if position % spread == 0]

    period = spread // math.gcd(spread, stride)
    return within(inputs, outputs, pattern, period, period * stride // spread)


def taps(inputs: int, outputs: int, offsets: Indices, stride: int = 1) -> Map:
    """Output j reads j * stride + each of the offsets."""
    return within(inputs, outputs, lambda j: [j * stride + offset for offset in offsets], 1, stride)


def padded(inputs: int, before: int, after: int, mode: str = "zeros") -> Map:
    """Padding (or, negative, cropping); `mode` says what a padding position holds: nothing, or an input again."""
    fold: dict[str, Callable[[int], int]] = {
        "reflect": lambda i: abs(i) if i < inputs else 2 * (inputs - 1) - i,
        "replicate": lambda i: min(max(i, 0), inputs - 1),
        "circular": lambda i: i % inputs,
    }
    outputs = max(0, inputs + before + after)
    if mode not in fold:
        return taps(inputs, outputs, [-before])
    return Map(inputs, outputs, lambda j: [fold[mode](j - before)], lambda j: [j - before])


def broadcast(outputs: int) -> Map:
    """One input, read by every output."""
    return Map(1, outputs, lambda _: (0,), lambda _: (0,), 1, 0)


def adaptive(inputs: int, outputs: int) -> Map:
    """Adaptive pooling: output j reads from floor(j n/m) to before ceil((j+1) n/m)."""
    common = math.gcd(inputs, outputs) or 1
    return within(
        inputs,
        outputs,
        lambda j: range(j * inputs // outputs, -(-(j + 1) * inputs // outputs)),
        outputs // common or 1,
        inputs // common,
    )


def resized(inputs: int, outputs: int, mode: str, align_corners: bool = False, scale: float | None = None) -> Map:
    """Interpolation; weights that are exactly zero read nothing. `scale` is the factor when the operator uses it as given."""
    if align_corners:
        ratio = Fraction(inputs - 1, outputs - 1) if outputs > 1 else Fraction(0)
    elif scale:
        ratio = 1 / Fraction(scale).limit_denominator(1 << 20)
    else:
        ratio = Fraction(inputs, outputs)

    def position(j: int) -> Fraction:
        return j * ratio if align_corners else (j + Fraction(1, 2)) * ratio - Fraction(1, 2)

    def pattern(j: int) -> Indices:
        if mode == "nearest":
            return (math.floor(j * ratio),)
        if mode == "nearest-exact":
            return (math.floor((j + Fraction(1, 2)) * ratio),)
        at = position(j)
        low = math.floor(at)
        if at == low:
            return (low,)
        return (low, low + 1) if mode == "linear" else (low - 1, low, low + 1, low + 2)

    def reads(j: int) -> Indices:
        if mode == "linear" and position(j) < 0:
            return (0,)
        return sorted({min(max(i, 0), inputs - 1) for i in pattern(j)})

    if ratio.denominator > 4096 or ratio == 0:
        return Map(inputs, outputs, reads)
    return Map(inputs, outputs, reads, pattern, ratio.denominator, ratio.numerator)


def smoothed(inputs: int, outputs: int, reach: int) -> Map:
    """Antialiased interpolation with a kernel of `reach` inputs to each side: an upper bound, the outermost weights may be 0."""
    ratio = Fraction(inputs, outputs)
    support = reach * max(Fraction(1), ratio)

    def pattern(j: int) -> Indices:
        centre = (j + Fraction(1, 2)) * ratio
        return range(
            math.floor(centre - support + Fraction(1, 2)), max(math.floor(centre + support + Fraction(1, 2)), 0)
        )

    base = within(inputs, outputs, pattern, ratio.denominator, ratio.numerator)
    return Map(inputs, outputs, base.reads, pattern, base.period, base.advance, exact=False)


def blocks(inputs: int, block: int) -> Map:
    """Output j reads the j-th block of `block` inputs (pixel unshuffle, patches)."""
    return taps(inputs, inputs // block, range(block), block)


def repeated(inputs: int, times: int) -> Map:
    """Output j reads input floor(j / times) (pixel shuffle, repeat_interleave)."""
    return within(inputs, inputs * times, lambda j: (j // times,), times, 1)


def table(inputs: int, rows: Iterable[Indices]) -> Map:
    """Any finite rule, index by index."""
    listed = list(rows)
    return Map(inputs, len(listed), lambda j: listed[j])
