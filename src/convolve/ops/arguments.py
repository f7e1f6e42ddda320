"""Loose window arguments into one checked Window, for convolutions, pooling, unfold and fold."""

from __future__ import annotations

from collections.abc import Sequence

from convolve.errors import ShapeError, UnknownNameError
from convolve.geometry import Pair, Window
from convolve.problem import same_pairs

Size = int | Sequence[int]
Padding = int | Sequence[int] | Sequence[Pair] | str
NAMED_PADDING = ("valid", "same", "same_lower")


def window_for(
    axes: int, size: Sequence[int] | None, kernel_size: Size, stride: Size, padding: Padding, dilation: Size
) -> Window:
    """The window of one call; "same" and "same_lower" padding depend on the input's `size`, which nothing else needs."""
    if not isinstance(padding, str):
        return Window.of(kernel_size, stride, padding, dilation, axes=axes)
    if padding not in NAMED_PADDING:
        raise UnknownNameError.of("padding", padding, NAMED_PADDING)
    window = Window.of(kernel_size, stride, 0, dilation, axes=axes)
    if padding == "valid":
        return window
    assert size is not None, "a named padding comes with the input's size"
    pairs = same_pairs(window, size, lower=padding == "same_lower")
    return Window.of(window.kernel, window.stride, pairs, window.dilation, axes=axes)


def check_rank(verb: str, shape: Sequence[int], axes: int) -> None:
    """Raise ShapeError unless a tensor of `shape` is (n, c, *size) or (c, *size) with `axes` sizes."""
    if len(shape) not in (axes + 1, axes + 2):
        sizes = {1: "length", 2: "h, w", 3: "d, h, w"}[axes]
        raise ShapeError(
            f"{verb} over {axes} {'axis' if axes == 1 else 'axes'} takes (n, c, {sizes}) or (c, {sizes})",
            f"got shape {tuple(shape)}",
            "add or remove axes, for example with x[None]",
        )
