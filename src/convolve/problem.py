"""A convolution problem as one frozen record: what choice, cost, shapes, caches, tests, benchmarks and reports all speak.

A convolution ties three tensors by one sum, the input x (n, c, size), the weight w (k, c/g, kernel) and the output y
(n, k, output_size). Its `role` says which of the three is computed from the other two:

    output            y = conv(x, w)                  the forward pass
    input_gradient    x = its adjoint of (y, w)       the gradient by x; also every transposed convolution
    weight_gradient   w = its adjoint of (x, y)       the gradient by w

The derivative of each role is another role, and `as_convolution` turns each into the first, so an algorithm that only
knows the forward pass serves all three. As text a problem is "8x64x56x56 k64 3x3 s1 p1": batch x channels x size, filters,
kernel, stride, padding, then whatever is not the default. No torch here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from convolve.errors import ShapeError, UnknownNameError, UsageError
from convolve.geometry import Pair, Window, checked, same_padding, spread

Role = Literal["output", "input_gradient", "weight_gradient"]
Layout = Literal["channels_first", "channels_last"]
ROLES: tuple[Role, ...] = get_args(Role)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
DTYPE_BYTES = {
    "float32": 4,
    "float64": 8,
    "bfloat16": 2,
    "float16": 2,
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
}
DEVICES = ("cpu", "cuda", "mps", "xpu", "meta")


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """One convolution with all its sizes; `size` is always that of the forward input, whatever the role.

    >>> problem = ConvProblem.parse("8x64x56x56 k128 3x3 s2 p1")
    >>> problem.output_shape, problem.macs
    ((8, 128, 28, 28), 462422016)
    >>> str(problem)
    '8x64x56x56 k128 3x3 s2 p1'
    """

    batch: int
    channels: int
    filters: int
    size: tuple[int, ...]
    window: Window
    groups: int = 1
    dtype: str = "float32"
    role: Role = "output"
    layout: Layout = "channels_first"
    device: str = "cpu"

    @property
    def axes(self) -> int:
        return len(self.size)

    @property
    def output_size(self) -> tuple[int, ...]:
        return self.window.output_size(self.size)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, self.channels, *self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.filters, self.channels // self.groups, *self.window.kernel)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.batch, self.filters, *self.output_size)

    @property
    def operand_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of the two tensors that the role starts from: (x, w), (y, w) or (x, y)."""
        first = self.output_shape if self.role == "input_gradient" else self.input_shape
        second = self.output_shape if self.role == "weight_gradient" else self.weight_shape
        return first, second

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape of the tensor that the role computes."""
        shapes = {"output": self.output_shape, "input_gradient": self.input_shape}
        return shapes.get(self.role, self.weight_shape)

    @property
    def taps(self) -> int:
        """Products summed in one output element: (c / g) times the kernel's elements."""
        return self.channels // self.groups * math.prod(self.window.kernel)

    @property
    def macs(self) -> int:
        """Multiply-adds, padding zeros included; the same for all three roles."""
        return math.prod(self.output_shape) * self.taps

    @property
    def macs_valid(self) -> int:
        """Multiply-adds that meet a real input element, not a zero of padding or input dilation."""
        valid = math.prod(
            self.window.valid_taps(axis, self.size[axis], outputs) for axis, outputs in enumerate(self.output_size)
        )
        return self.batch * self.filters * (self.channels // self.groups) * valid

    @property
    def summed(self) -> int:
        """Products summed in one element of the *result*: what a rounding bound grows with."""
        elements = math.prod(self.result_shape)
        return -(-self.macs // elements) if elements else 0

    @property
    def bytes(self) -> int:
        """Bytes of the three tensors, each once."""
        elements = math.prod(self.input_shape) + math.prod(self.weight_shape) + math.prod(self.output_shape)
        return elements * DTYPE_BYTES[self.dtype]

    def validate(self) -> ConvProblem:
        """This problem, if a convolution can have these sizes; otherwise ShapeError with the numbers filled in."""
        check_groups(self.channels, self.filters, self.groups)
        check_fits(self.window, self.size)
        return self

    def normalise(self) -> ConvProblem:
        """The same arithmetic in its plainest record, so that equal work has equal keys.

        The tail of the padding that no output reads is cut; a stride or dilation that nothing depends on is 1.
        Only for problems whose kernel fits.
        """
        axes = [
            _plain_axis(*axis)
            for axis in zip(
                self.size,
                self.output_size,
                self.window.kernel,
                self.window.stride,
                self.window.padding,
                self.window.dilation,
                self.window.input_dilation,
                strict=True,
            )
        ]
        stride, padding, dilation, input_dilation = zip(*axes, strict=True)
        return replace(self, window=Window(self.window.kernel, stride, padding, dilation, input_dilation))

    def as_convolution(self) -> ConvProblem:
        """The forward convolution whose output holds this role's result (how the tensors move: ops/roles.py).

        input_gradient: the kernel flipped and its channels swapped, over y with the stride as input dilation.
        weight_gradient: y as the kernel, over x with batch and channels swapped; stride and dilation change places.
        """
        if self.role == "input_gradient":
            return replace(
                self,
                role="output",
                channels=self.filters,
                filters=self.channels,
                size=self.output_size,
                window=self.window.transposed(self.unused),
            )
        if self.role == "weight_gradient":
            return replace(
                self,
                role="output",
                batch=self.channels // self.groups,
                channels=self.groups * self.batch,
                window=self._window_over_outputs(),
            )
        return self

    @property
    def unused(self) -> tuple[int, ...]:
        """How many padded input positions behind the last window no output reads, per axis (torch: output_padding)."""
        parts = zip(
            self.size,
            self.output_size,
            self.window.extent,
            self.window.stride,
            self.window.padding,
            self.window.input_dilation,
            strict=True,
        )
        return tuple(spread(n, e) + p + q - extent - s * (m - 1) for n, m, extent, s, (p, q), e in parts)

    def _window_over_outputs(self) -> Window:
        unused = self.unused
        return Window(
            self.output_size,
            self.window.dilation,
            tuple((p, q - u) for (p, q), u in zip(self.window.padding, unused, strict=True)),
            self.window.stride,
            self.window.input_dilation,
        )

    def __str__(self) -> str:
        parts = ["x".join(map(str, self.input_shape)), f"k{self.filters}", window_text(self.window)]
        parts += [f"g{self.groups}"] if self.groups != 1 else []
        defaults = {"dtype": "float32", "role": "output", "layout": "channels_first", "device": "cpu"}
        parts += [getattr(self, field) for field, default in defaults.items() if getattr(self, field) != default]
        return " ".join(parts)

    @classmethod
    def parse(cls, text: str) -> ConvProblem:
        """The problem that `text` describes; the inverse of `str`. Raises UsageError, naming the word that it cannot read.

        Also understood: `psame`, `psame_lower`, `pvalid`, and `transposed`, where sizes are those of its own input.

        >>> str(ConvProblem.parse("1x3x32x32 k8 5x5 psame g1 float64"))
        '1x3x32x32 k8 5x5 s1 p2 float64'
        >>> ConvProblem.parse("1x8x7x7 k4 4x4 s2 p1 transposed").result_shape
        (1, 4, 14, 14)
        """
        words = text.split()
        if len(words) < 3 or not words[1].startswith("k"):
            raise _unreadable(text, text)
        batch, channels, *size = (checked(n, "a size", at_least=0) for n in _numbers(words[0], text))
        axes = len(size)
        if not 1 <= axes <= 3:
            raise _unreadable(words[0], text)
        filters = _number(words[1][1:], text)
        named: dict[str, str] = {}
        fields: dict[str, str] = {}
        transposed = False
        for word in words[3:]:
            kind = _kind_of(word)
            if word == "transposed":
                transposed = True
            elif kind is not None:
                named[kind] = word
            elif word[0] in "spdego" and len(word) > 1:
                fields[word[0]] = word[1:]
            else:
                raise _unreadable(word, text)
        if transposed and "role" in named:
            raise UsageError(
                "transposed is a role of its own: the output of a transposed convolution",
                f"got {named['role']} besides in {text!r}",
                "leave one out; its gradients are the output and the weight gradient of the plain convolution that it turns around",
            )
        padding = fields.get("p", "0")
        if padding in ("same", "same_lower", "valid"):
            fields["p"] = "0"
        window = parse_window(words[2], fields, axes, text)
        if len(window.kernel) != axes:
            raise _unreadable(words[2], text)
        groups = _number(fields.get("g", "1"), text)
        if padding in ("same", "same_lower"):
            full = size if not transposed else [n * s for n, s in zip(size, window.stride, strict=True)]
            window = replace(window, padding=same_pairs(window, full, lower=padding == "same_lower"))
        record = cls(batch, channels, filters, tuple(size), window, groups, **named)  # type: ignore[arg-type]
        if transposed:
            extra = _spread_over(_numbers(fields.get("o", "0"), text), axes)
            record = replace(
                record,
                role="input_gradient",
                channels=filters,
                filters=channels,
                size=transposed_size(window, size, extra),
            )
        return record.validate()


def check_groups(channels: int, filters: int, groups: int) -> None:
    """Raise ShapeError unless `groups` divides both channel counts."""
    for name, count in (("in-channels", channels), ("out-channels", filters)):
        if count % groups != 0:
            divisors = [str(d) for d in range(1, min(count, 64) + 1) if math.gcd(channels, filters) % d == 0]
            raise ShapeError(
                f"groups must divide {name}", f"got {count} {name}, groups={groups}", f"use {', '.join(divisors)}"
            )


def check_fits(window: Window, size: Sequence[int]) -> None:
    """Raise ShapeError unless the kernel fits into the padded input on every axis."""
    for axis, (n, extent, (p, q), e) in enumerate(
        zip(size, window.extent, window.padding, window.input_dilation, strict=True)
    ):
        padded = spread(n, e) + p + q
        if padded < extent:
            k, d = window.kernel[axis], window.dilation[axis]
            gaps = f" (kernel {k}, dilation {d})" if d != 1 else ""
            raise ShapeError(
                "the kernel must fit into the padded input",
                f"got a kernel of {extent}{gaps} on {padded} (input {n} + padding {p} + {q}) along spatial axis {axis}",
                f"pad by {extent - padded} more, or use a smaller kernel",
            )


def transposed_size(window: Window, size: Sequence[int], output_padding: Sequence[int]) -> tuple[int, ...]:
    """The output size of the transposed convolution: s (m-1) + k_d - p - q + output_padding, per axis.

    With input dilation e that is the spread size, of which every e-th is returned.
    """
    parts = zip(size, window.extent, window.stride, window.padding, window.input_dilation, output_padding, strict=True)
    sizes = tuple(
        (s * (m - 1) + extent - p - q + extra + e - 1) // e if m else 0 for m, extent, s, (p, q), e, extra in parts
    )
    for axis, n in enumerate(sizes):
        if n < 0:
            raise ShapeError(
                "the padding of a transposed convolution crops its output to nothing",
                f"got an output of {n} along spatial axis {axis}",
                "use less padding or more output_padding",
            )
        if not isinstance(n, int) or n <= 2**63 - 1:
            continue
        raise ShapeError("an output size must fit in 64 bits", f"got {n}", "use a smaller stride, dilation or input")
    return sizes


def same_pairs(window: Window, size: Sequence[int], lower: bool = False) -> tuple[Pair, ...]:
    """Per axis, the padding with which an input of `size` gives ceil(size / stride) outputs."""
    parts = zip(size, window.kernel, window.stride, window.dilation, strict=True)
    return tuple(same_padding(n, k, s, d, lower) for n, k, s, d in parts)


def window_text(window: Window) -> str:
    """'3x3 s1 p1', then d and e where they are not 1; unequal axes by x, unequal sides by a colon: 's2x1 p1:2x0'."""
    words = [
        "x".join(map(str, window.kernel)),
        "s" + _short(map(str, window.stride)),
        "p" + _short(str(p) if p == q else f"{p}:{q}" for p, q in window.padding),
    ]
    words += ["d" + _short(map(str, window.dilation))] if set(window.dilation) != {1} else []
    words += ["e" + _short(map(str, window.input_dilation))] if set(window.input_dilation) != {1} else []
    return " ".join(words)


def parse_window(kernel: str, fields: dict[str, str], axes: int, text: str) -> Window:
    """The window of a kernel word and of the fields s, p, d, e: the inverse of `window_text`."""
    pairs = [_pair(word, text) for word in fields.get("p", "0").split("x")]
    return Window.of(
        _numbers(kernel, text),
        _numbers(fields.get("s", "1"), text),
        pairs * axes if len(pairs) == 1 else pairs,
        _numbers(fields.get("d", "1"), text),
        _numbers(fields.get("e", "1"), text),
        axes=axes,
    )


def _plain_axis(n: int, m: int, k: int, s: int, pair: Pair, d: int, e: int) -> tuple[int, Pair, int, int]:
    """(stride, padding, dilation, input dilation) of one axis without what nothing depends on."""
    p, q = pair
    if k == 1:
        d = 1
    if n <= 1:
        e = 1
    q -= spread(n, e) + p + q - (d * (k - 1) + 1) - s * (m - 1)
    return (s if m > 1 else 1), (p, q), d, e


def _short(words: Iterable[str]) -> str:
    words = list(words)
    return words[0] if len(set(words)) == 1 else "x".join(words)


def _numbers(word: str, text: str) -> list[int]:
    if not re.fullmatch(r"\d+(x\d+)*", word):
        raise _unreadable(word, text)
    return [int(number) for number in word.split("x")]


def _number(word: str, text: str) -> int:
    if not word.isdigit():
        raise _unreadable(word, text)
    return int(word)


def _pair(word: str, text: str) -> Pair:
    if not re.fullmatch(r"-?\d+(:-?\d+)?", word):
        raise _unreadable(word, text)
    before, _, after = word.partition(":")
    return int(before), int(after or before)


def _spread_over(numbers: list[int], axes: int) -> list[int]:
    return numbers * axes if len(numbers) == 1 else numbers


def _kind_of(word: str) -> str | None:
    tables: dict[str, Iterable[str]] = {"dtype": DTYPE_BYTES, "role": ROLES, "layout": LAYOUTS, "device": DEVICES}
    return next((kind for kind, names in tables.items() if word in names), None)


def _unreadable(word: str, text: str) -> UsageError:
    example = "write it like '8x64x56x56 k64 3x3 s1 p1 d1 g1 float32'"
    if word == text or not word.isalpha():
        return UsageError("a convolution problem cannot be read", f"got {word!r} in {text!r}", example)
    known = [*DTYPE_BYTES, *ROLES, *LAYOUTS, *DEVICES, "transposed"]
    return UnknownNameError.of("word in a convolution problem", word, known)
