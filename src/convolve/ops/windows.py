"""Moving windows over tensors: padding of every kind, zeros between elements, and views that slide without copying."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from convolve.errors import ShapeError
from convolve.geometry import Pair, Window
from convolve.problem import Layout

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PADDING_MODES: tuple[PaddingMode, ...] = get_args(PaddingMode)


def zero_pad(x: Tensor, padding: Sequence[Pair]) -> Tensor:
    """x with zeros around its last axes; a negative side crops. The result is x itself where nothing is to be done."""
    sides = [max(0, side) for pair in reversed(padding) for side in pair]
    if any(sides):
        x = F.pad(x, sides)
    # Cropped last: one side may be padded by more than there is and the other cropped by as much.
    for axis, (before, after) in enumerate(padding, start=x.dim() - len(padding)):
        if before < 0 or after < 0:
            start, stop = max(0, -before), x.shape[axis] + min(0, after)
            if stop < start:
                raise ShapeError("cropping must not take more than there is", f"got {padding}", "crop less")
            x = x.narrow(axis, start, stop - start)
    return x


def stuff_zeros(x: Tensor, input_dilation: Sequence[int]) -> Tensor:
    """x with e-1 zeros between neighbours along each of its last axes."""
    if all(e == 1 for e in input_dilation):
        return x
    first = x.dim() - len(input_dilation)
    sizes = [max(0, e * (n - 1) + 1) for n, e in zip(x.shape[first:], input_dilation, strict=True)]
    stuffed = x.new_zeros((*x.shape[:first], *sizes))
    stuffed[_every(input_dilation)] = x
    return stuffed


def unpad(x: Tensor, padding: Sequence[Pair], input_dilation: Sequence[int]) -> Tensor:
    """The adjoint of padding a zero-stuffed tensor: padding and stuffing dropped, cropped elements given back as zeros."""
    x = zero_pad(x, [(-before, -after) for before, after in padding])
    return x[_every(input_dilation)]


def _every(steps: Sequence[int]) -> Any:
    return (..., *(slice(None, None, step) for step in steps))


def windows(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """A view (n, c, *outputs, *kernel) of an unpadded x (n, c, *size): every window at its place, nothing copied."""
    n, c, *size = x.shape
    steps = x.stride()[2:]
    outputs = [(m - d * (k - 1) - 1) // s + 1 for m, k, s, d in zip(size, kernel, stride, dilation, strict=True)]
    return x.as_strided(
        (n, c, *outputs, *kernel),
        (
            *x.stride()[:2],
            *(step * s for step, s in zip(steps, stride, strict=True)),
            *(step * d for step, d in zip(steps, dilation, strict=True)),
        ),
        x.storage_offset(),
    )


def meetings(window: Window, size: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For every tap of every output that meets a real input: the flat index of the output, of the tap and of the input."""
    output, tap, source = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(3))
    for axis, (n, m, k) in enumerate(zip(size, window.output_size(size), window.kernel, strict=True)):
        triples = [(j, t, i) for j in range(m) for t, i in window.taps(axis, n, j)]
        table = torch.tensor(triples, dtype=torch.int64, device=device).reshape(-1, 3)
        output, tap, source = (
            (flat[:, None] * length + one).flatten()
            for flat, length, one in zip((output, tap, source), (m, k, n), table.unbind(1), strict=True)
        )
    return output, tap, source


def mode_pad(x: Tensor, padding: Sequence[Pair], mode: PaddingMode) -> Tensor:
    """x padded by its own elements: `reflect` (without the edge), `replicate` (the edge) or `circular`."""
    for axis, pair in enumerate(padding, start=x.dim() - len(padding)):
        if pair != (0, 0):
            x = x.index_select(axis, _sources(x, axis, pair, mode))
    return x


def mode_pad_adjoint(y: Tensor, padding: Sequence[Pair], mode: PaddingMode) -> Tensor:
    """The transpose of `mode_pad`: each padded element is added back to the element that it was a copy of."""
    for axis, (before, after) in enumerate(padding, start=y.dim() - len(padding)):
        if (before, after) != (0, 0):
            size = y.shape[axis] - before - after
            inner = y.new_zeros((*y.shape[:axis], size, *y.shape[axis + 1 :]))
            y = inner.index_add(axis, _sources(inner, axis, (before, after), mode), y)
    return y


def _sources(x: Tensor, axis: int, pair: Pair, mode: PaddingMode) -> Tensor:
    """For every padded position along `axis`, the index of the element it repeats."""
    n = x.shape[axis]
    before, after = pair
    limit = {"reflect": n - 1, "circular": n, "replicate": max(before, after) if n > 0 else 0}[mode]
    if before > limit or after > limit:
        raise ShapeError(
            f"{mode} padding repeats elements of the input, so it cannot exceed "
            + ("the size minus one" if mode == "reflect" else "the size" if mode == "circular" else "an empty axis"),
            f"got padding {pair} on size {n} along axis {axis}",
            f"pad by at most {max(limit, 0)}",
        )
    positions = torch.arange(-before, n + after, device=x.device)
    if mode == "circular":
        return positions.remainder(n)
    if mode == "replicate":
        return positions.clamp(0, n - 1)
    return (n - 1) - ((n - 1) - positions.abs()).abs()


def with_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """y (n, k, *size) plus one number per channel."""
    return y if bias is None else y + bias.reshape(-1, *[1] * (y.dim() - 2))


def layout_of(a: Tensor, b: Tensor) -> Layout:
    """channels_last if either operand is stored so (and not also in the plain order), as torch decides for its own."""
    axes = a.dim() - 2
    if axes < 2:
        return "channels_first"
    last = format_of("channels_last", axes)
    either = any(t.is_contiguous(memory_format=last) and not t.is_contiguous() for t in (a, b))
    return "channels_last" if either else "channels_first"


def format_of(layout: Layout, axes: int) -> torch.memory_format:
    if layout == "channels_first" or axes < 2:
        return torch.contiguous_format
    return torch.channels_last if axes == 2 else torch.channels_last_3d
