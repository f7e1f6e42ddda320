"""The geometry of every sliding window: integers only, written once.

One axis of a window has a kernel of k taps, a stride s, a padding (before, after) = (p, q), a dilation d, and an input
dilation e (e-1 zeros between neighbouring inputs: what a transposed convolution is made of). With n inputs,

    spread    n_e = e (n-1) + 1                       the input with its zeros (0 if n = 0)
    extent    k_d = d (k-1) + 1                       the kernel with its gaps
    outputs   m   = floor((n_e + p + q - k_d) / s) + 1,   and 0 when the kernel does not fit
    tap       output j, tap t reads spread position  j s - p + t d,  an input when e divides it and it is in range

Negative padding crops. Receptive fields, MACs, the kernel matrix and the transposed size all follow from these lines.
Sources: Dumoulin & Visin 2016 (arXiv 1603.07285) for the arithmetic; torch.nn.Conv2d for the conventions.

Sizes may be torch's symbolic integers: they are added, multiplied, floor-divided and compared, never hashed or converted.
Everything else is a plain int within 64 bits, checked by `checked`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

from convolve.errors import ShapeError, UsageError

LARGEST = 2**63 - 1  # what a tensor's size can hold

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A sliding window over one or more axes; every field holds one entry per axis.

    >>> window = Window.of(kernel=3, stride=2, padding=1, axes=2)
    >>> window.output_size((5, 6))
    (3, 3)
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[Pair, ...]
    dilation: tuple[int, ...]
    input_dilation: tuple[int, ...]

    def __post_init__(self) -> None:
        fields = (self.kernel, self.stride, self.padding, self.dilation, self.input_dilation)
        assert len({len(field) for field in fields}) == 1, "one entry per axis in every field"

    @classmethod
    def of(
        cls,
        kernel: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | Sequence[Pair] = 0,
        dilation: int | Sequence[int] = 1,
        input_dilation: int | Sequence[int] = 1,
        *,
        axes: int,
    ) -> Window:
        """The checked window of loose arguments: an int serves all `axes`; padding also one int or (before, after) per axis.

        Raises UsageError for a kernel, stride or dilation below 1, and for anything that is no integer of 64 bits.
        """
        return cls(
            per_axis(kernel, axes, "kernel_size", at_least=1),
            per_axis(stride, axes, "stride", at_least=1),
            padding_pairs(padding, axes),
            per_axis(dilation, axes, "dilation", at_least=1),
            per_axis(input_dilation, axes, "input_dilation", at_least=1),
        )

    @property
    def axes(self) -> int:
        return len(self.kernel)

    @property
    def extent(self) -> tuple[int, ...]:
        """How many spread positions the kernel covers from its first tap to its last, per axis: d (k-1) + 1."""
        return tuple(checked(d * (k - 1) + 1, "kernel extent") for k, d in zip(self.kernel, self.dilation, strict=True))

    def output_size(self, size: Sequence[int], ceil: bool = False) -> tuple[int, ...]:
        """The output's size for an input's `size`, per axis; 0 where the kernel does not fit.

        With `ceil` (pooling's ceil_mode) a last partial window counts, if it starts inside the input or its left padding.
        """
        parts = zip(size, self.kernel, self.stride, self.padding, self.dilation, self.input_dilation, strict=True)
        return tuple(_outputs(n, k, s, pair, d, e, ceil) for n, k, s, pair, d, e in parts)

    def taps(self, axis: int, size: int, output: int) -> Iterator[tuple[int, int]]:
        """The (tap, input index) pairs that output index `output` reads along `axis` from an input of `size`; no padding."""
        s, d, e = self.stride[axis], self.dilation[axis], self.input_dilation[axis]
        start = output * s - self.padding[axis][0]
        for tap in range(self.kernel[axis]):
            position = start + tap * d
            if position % e == 0 and 0 <= position // e < size:
                yield tap, position // e

    def valid_taps(self, axis: int, size: int, outputs: int) -> int:
        """How many (output, tap) pairs along `axis` read a real input, for `outputs` outputs: a loop over the fewer of both.

        The product over the axes, times the channels, is the number of multiplications that do not meet a padding zero.
        """
        s, d, e = self.stride[axis], self.dilation[axis], self.input_dilation[axis]
        last = spread(size, e) - 1
        taps = self.kernel[axis]
        if outputs < taps:  # an output at j s + t d - p is one of tap t as much as a tap of output j
            s, d, taps, outputs = d, s, outputs, taps
        count = 0
        for tap in range(taps):
            offset = (
                tap * d - self.padding[axis][0]
            )  # positions j s + offset, 0 <= j < outputs, within [0, last], divisible by e
            first_j = max(0, -(offset // s))
            last_j = min(outputs - 1, (last - offset) // s)
            count += _divisible(s, offset, e, first_j, last_j)
        return count

    def transposed(self, output_padding: int | Sequence[int] = 0) -> Window:
        """The window whose plain (stride-1) convolution is this window's transposed convolution: its adjoint, sizes swapped.

        Kernel flipped by the caller; stride becomes input dilation; padding (p, q) becomes (k_d-1-p, k_d-1-q + output_padding).
        """
        extra = per_axis(output_padding, self.axes, "output_padding", at_least=0)
        return Window(
            self.kernel,
            self.input_dilation,
            tuple(
                (checked(k - 1 - p, "padding"), checked(k - 1 - q + o, "padding"))
                for k, (p, q), o in zip(self.extent, self.padding, extra, strict=True)
            ),
            self.dilation,
            self.stride,
        )


def spread(size: int, input_dilation: int) -> int:
    """The length of `size` inputs with `input_dilation`-1 zeros between neighbours: e (n-1) + 1, and 0 for none."""
    if input_dilation == 1:
        return size
    return input_dilation * (size - 1) + 1 if size > 0 else 0


def same_padding(size: int, kernel: int, stride: int, dilation: int, lower: bool = False) -> Pair:
    """The padding with which an axis of `size` gives ceil(size / stride) outputs; an odd total puts the extra zero after.

    That is torch's and TensorFlow's side; `lower` puts it before. With stride 1 it does not depend on `size`.

    >>> same_padding(6, kernel=4, stride=1, dilation=1), same_padding(6, 4, 1, 1, lower=True), same_padding(7, 3, 2, 1)
    ((1, 2), (2, 1), (1, 1))
    """
    extent = checked(dilation * (kernel - 1) + 1, "kernel extent")
    total = extent - 1 if stride == 1 else max(0, (-(-size // stride) - 1) * stride + extent - size)
    small = total // 2
    return (total - small, small) if lower else (small, total - small)


def checked(value: SupportsIndex, name: str, at_least: int | None = None) -> int:
    """`value` as an int of 64 bits, or UsageError; `name` is the argument's name in the message."""
    try:
        number = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} must be an integer", f"got {value!r}", "use a whole number") from None
    if isinstance(value, bool):
        raise UsageError(f"{name} must be an integer", f"got {value!r}", "use a whole number")
    if at_least is not None and number < at_least:
        raise UsageError(f"{name} must be at least {at_least}", f"got {number}", f"use {at_least} or more")
    if not -LARGEST - 1 <= number <= LARGEST:
        raise UsageError(f"{name} must fit in 64 bits", f"got {number}", f"stay below {LARGEST}")
    return number


def per_axis(value: int | Sequence[int], axes: int, name: str, at_least: int | None = None) -> tuple[int, ...]:
    """One checked int per axis: an int, or a sequence of one, serves all axes."""
    if isinstance(value, str):
        raise UsageError(f"{name} must be integers", f"got {value!r}", f"give an int or {axes} of them")
    if not isinstance(value, Sequence):
        return (checked(value, name, at_least),) * axes
    numbers = tuple(checked(item, name, at_least) for item in value)
    if len(numbers) == 1:
        return numbers * axes
    if len(numbers) != axes:
        raise UsageError(
            f"{name} needs one value per axis ({axes})", f"got {list(value)}", f"give an int or {axes} of them"
        )
    return numbers


def padding_pairs(padding: int | Sequence[int] | Sequence[Pair], axes: int) -> tuple[Pair, ...]:
    """(before, after) per axis, from an int, one int per axis, or one pair per axis."""
    if isinstance(padding, str):
        raise UsageError("padding must be integers here", f"got {padding!r}", "resolve a named padding first")
    if not isinstance(padding, Sequence):
        side = checked(padding, "padding")
        return ((side, side),) * axes
    sides = [item if isinstance(item, Sequence) else (item, item) for item in padding]
    if len(sides) == 1:
        sides = sides * axes
    if len(sides) != axes or any(len(side) != 2 for side in sides):
        raise UsageError(
            f"padding needs an int, or one int or (before, after) pair per axis ({axes})",
            f"got {padding!r}",
            "see the docs",
        )
    return tuple((checked(before, "padding"), checked(after, "padding")) for before, after in sides)


def _outputs(n: int, k: int, s: int, pair: Pair, d: int, e: int, ceil: bool) -> int:
    p, q = pair
    room = spread(n, e) + p + q - (d * (k - 1) + 1)
    if room < 0 and not (ceil and room > -s):  # with ceil a window may reach past the end, by less than a stride
        return 0
    outputs = room // s + 1
    if ceil and room % s != 0 and outputs * s < spread(n, e) + p:
        outputs += 1
    return _in_range(outputs)


def _in_range(outputs: int) -> int:
    if isinstance(outputs, int) and outputs > LARGEST:
        raise ShapeError("an output size must fit in 64 bits", f"got {outputs}", "use less padding or input dilation")
    return outputs


def _divisible(s: int, offset: int, e: int, first: int, last: int) -> int:
    """How many j in [first, last] make j s + offset divisible by e."""
    if last < first:
        return 0
    if e == 1:
        return last - first + 1
    common = math.gcd(s, e)
    if offset % common:
        return 0
    modulus = e // common
    return _count(first, last, -(offset // common) * pow(s // common, -1, modulus) % modulus, modulus)


def _count(first: int, last: int, remainder: int, modulus: int) -> int:
    """How many j in [first, last] have j mod modulus = remainder."""
    return (last - remainder) // modulus - (first - 1 - remainder) // modulus
