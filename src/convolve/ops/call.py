"""What a convolution operator is told besides its tensors: the window string of `convolve::conv`.

A custom operator of torch takes strings cheaply and integer lists dearly, and sizes may be symbolic (which a record cannot
hash), so everything but the sizes travels as one line of text, written here and read back here (cached):

    "output 3x3 s1 p1 d2 g4 auto default"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import Tensor

from convolve.geometry import Window, spread
from convolve.ops.choose import WHERE_IT_CAN
from convolve.ops.windows import layout_of
from convolve.problem import ConvProblem, Role, parse_window, transposed_size, window_text


@dataclass(frozen=True, slots=True)
class ConvCall:
    """One convolution without its sizes. `output_padding` is used by the role input_gradient only."""

    window: Window
    groups: int = 1
    role: Role = "output"
    output_padding: tuple[int, ...] = ()
    algorithm: str = "auto"
    precision: str = "default"

    def __str__(self) -> str:
        extra = f" o{'x'.join(map(str, self.output_padding))}" if any(self.output_padding) else ""
        return f"{self.role} {window_text(self.window)} g{self.groups}{extra} {self.algorithm} {self.precision}"

    @staticmethod
    def parse(text: str) -> ConvCall:
        """The call that `text` holds; the inverse of `str`."""
        role, kernel, *words, algorithm, precision = text.split(" ")
        fields = {word[0]: word[1:] for word in words}
        axes = kernel.count("x") + 1
        window = parse_window(kernel, fields, axes, text)
        extra = tuple(int(word) for word in fields["o"].split("x")) if "o" in fields else (0,) * axes
        return ConvCall(window, int(fields["g"]), role, extra, algorithm, precision)  # type: ignore[arg-type]

    def as_role(self, role: Role, input_size: Sequence[int] | None = None) -> ConvCall:
        """The same convolution in another role; for input_gradient the size of the forward input decides output_padding.

        Only the remainder of a division by the stride is taken from a (perhaps symbolic) size.
        """
        extra = (0,) * self.window.axes
        if role == "input_gradient" and input_size is not None:
            window = self.window
            parts = zip(input_size, window.input_dilation, window.extent, window.stride, window.padding, strict=True)
            extra = tuple(
                0 if s == 1 else int((spread(n, e) + p + q - extent) % s) for n, e, extent, s, (p, q) in parts
            )
        known = self.algorithm == "auto" or self.algorithm.endswith(WHERE_IT_CAN)
        algorithm = self.algorithm if known else self.algorithm + WHERE_IT_CAN
        return replace(self, role=role, output_padding=extra, algorithm=algorithm)

    def result_shape(self, a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
        """The result's shape from the operands' shapes, which may be symbolic."""
        if self.role == "output":
            return (a[0], b[0], *self.window.output_size(a[2:]))
        if self.role == "input_gradient":
            return (a[0], b[1] * self.groups, *transposed_size(self.window, a[2:], self.output_padding))
        return (b[1], a[1] // self.groups, *self.window.kernel)

    def problem(self, a: Tensor, b: Tensor) -> ConvProblem:
        """The problem record of this call on operands with real sizes."""
        if self.role == "input_gradient":
            size = transposed_size(self.window, a.shape[2:], self.output_padding)
            channels, filters = b.shape[1] * self.groups, a.shape[1]
        else:
            size = tuple(a.shape[2:])
            channels, filters = a.shape[1], b.shape[0] if self.role == "output" else b.shape[1]
        return ConvProblem(
            a.shape[0],
            channels,
            filters,
            tuple(size),
            self.window,
            self.groups,
            str(a.dtype).removeprefix("torch."),
            self.role,
            layout_of(a, b),
            a.device.type,
        )


@lru_cache(maxsize=4096)
def remembered_call(text: str) -> ConvCall:
    """ConvCall.parse, remembered; not for code that torch.compile traces, which ignores such caches and warns."""
    return ConvCall.parse(text)


def derived_text(text: str, role: Role, input_size: Sequence[int]) -> str:
    """The text of the same convolution in another role (ConvCall.as_role)."""
    try:
        return _derived_text(text, role, tuple(input_size))
    except TypeError:  # symbolic sizes cannot be remembered
        return str(remembered_call(text).as_role(role, input_size))


@lru_cache(maxsize=4096)
def _derived_text(text: str, role: Role, input_size: tuple[int, ...]) -> str:
    return str(remembered_call(text).as_role(role, input_size))
