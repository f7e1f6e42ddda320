"""One operator, taken apart: every window it reads, every product it forms, and the same sum in three notations.

A stage holds what an animation shows, all of it computed by the operators: the frame (the padded input; of a transposed
convolution the uncropped output), which cells of the frame each position's window touches, the window's values (`unfold`),
the products, the map of each channel before their sum (`partial_maps`), the kernel matrix, and the result.

Shapes, with L positions (flattened), T taps, g groups: input (c, *size), output (k, *out), reads (L, T).
    convolution   rows (L, c·T), products (k, L, c/g·T); output[k, l] = products[k, l].sum() + bias[k]
    transposed    positions are input cells. rows (L, channels out·T): the stamp that each position adds to the frame at `reads`;
                  products (channels out, L, in/g·T) before the channels are added; `grown` (L, channels out, *frame) is the
                  frame after each position
    pooling       rows (c, L, T) per channel; output[c, l] = the largest of them, or their sum over `divisors[l]`, or (LeNet-5's)
                  their sum times `scale[c]` plus `bias[c]`
Everything is float64: small integers stay exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from convolve.errors import ShapeError, UsageError
from convolve.explain import torch_code
from convolve.geometry import Pair, Window, per_axis
from convolve.ops import conv, pool, pool_trainable
from convolve.ops.arguments import Padding, Size, window_for
from convolve.ops.conv import GroupOrder
from convolve.ops.fold import unfold
from convolve.ops.kernel_matrix import kernel_matrix
from convolve.ops.windows import PaddingMode, mode_pad, zero_pad
from convolve.problem import check_fits

Kind = Literal["convolution", "transposed", "max", "average", "sum"]
MOST_PRODUCTS = 20_000  # what one stage may show: a page of 2 MB, and more than a reader will step through
MOST_CELLS = 8_192  # of a frame
HISTORY = 4  # a cell of a growing frame's history counts as a quarter: it is embedded, but not drawn at once
MOST_MATRIX = 2_000_000  # elements of the dense kernel matrix, most of them zero


@dataclass(frozen=True, eq=False)
class Stage:
    """One operator's work on one input, cell by cell; the shapes are those of the file's header."""

    kind: Kind
    operator: str
    window: Window
    groups: int
    padding_mode: str
    flipped: bool
    input: Tensor
    weight: Tensor | None
    """As the operator was given it: (k, c/g, *kernel), transposed (c in, k/g, *kernel)."""
    laid: Tensor | None
    """The weight as it is laid on the input: turned around where `flipped`."""
    bias: Tensor | None
    output: Tensor
    frame: Tensor
    inner: tuple[Pair, ...]
    """Per axis, where in the frame the input (transposed: the output) begins and ends."""
    reads: Tensor
    rows: Tensor
    products: Tensor
    partial: Tensor | None
    matrix: Tensor | None
    """Sparse: output.flatten() = matrix @ matrix_input.flatten() + bias."""
    matrix_input: Tensor
    returned: Tensor | None
    """What the transposed matrix makes of the output: the input's size again, not its values."""
    grown: Tensor | None
    winners: Tensor | None
    """Of max pooling: per channel and position, the tap of the largest value."""
    divisors: Tensor | None
    scale: Tensor | None
    """Of pooling with parameters: one weight per channel."""
    order: tuple[int, ...]
    """The channels, group by group, in the order in which the filters read them: 0, 1, 2, … unless the groups are interleaved."""
    size_formulas: tuple[str, ...]
    code: str
    parameters: int
    macs: int

    @property
    def axes(self) -> int:
        return self.window.axes

    @property
    def positions(self) -> int:
        return int(self.reads.shape[0])


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    padding_mode: PaddingMode = "zeros",
    flip: bool = False,
    group_order: GroupOrder = "contiguous",
) -> Stage:
    """The stage of a 1-D or 2-D convolution of x (c, *size) with weight (k, c/g, *kernel).

    >>> stage = convolution(torch.arange(9.0).reshape(1, 3, 3), torch.arange(4.0).reshape(1, 1, 2, 2))
    >>> stage.output[0].tolist(), stage.products[0, 0].tolist()
    ([[19.0, 25.0], [37.0, 43.0]], [0.0, 1.0, 6.0, 12.0])
    """
    axes, size = _start(x)
    x, weight, bias = x.double(), weight.double(), None if bias is None else bias.double()
    window = window_for(axes, size, tuple(weight.shape[2:]), stride, padding, dilation)
    _check_sides(window, padding)
    check_fits(window, size)
    operator = _either(axes, conv.conv1d, conv.conv2d)
    plain: dict[str, Any] = {"stride": window.stride, "dilation": window.dilation, "groups": groups}
    keywords = plain | {"padding": window.padding, "padding_mode": padding_mode, "flip_kernel": flip}
    keywords["group_order"] = group_order
    outputs = window.output_size(size)
    _check_amount(weight.shape[0] * math.prod(outputs) * math.prod(weight.shape[1:]), x, window)
    output = operator(x[None], weight, bias, **keywords)[0]
    partial = operator(x[None], weight, partial_maps=True, **keywords)[0]
    frame = zero_pad(x, window.padding) if padding_mode == "zeros" else mode_pad(x, window.padding, padding_mode)
    reads = _unfolded(_places(frame.shape[1:]), window)[0].long()
    rows = _unfolded(frame, window)[0]
    used = weight.flip(tuple(range(2, axes + 2))) if flip else weight
    k, depth = used.shape[:2]
    taps = math.prod(window.kernel)
    order = torch.arange(x.shape[0])
    if group_order == "interleaved":  # the same shuffle that channel_shuffle does
        order = order.reshape(depth, groups).T.flatten()
    by_channel = rows.reshape(len(rows), x.shape[0], taps)[:, order]
    by_group = by_channel.reshape(len(rows), groups, depth * taps).transpose(0, 1)  # (g, L, c/g·T)
    products = by_group.repeat_interleave(k // groups, 0) * used.reshape(k, 1, depth * taps)
    zeros = padding_mode == "zeros"
    seen = x if zeros else frame
    matrix = _matrix(used, seen.shape[1:], window, window.padding if zeros else 0, groups)
    if matrix is not None and group_order == "interleaved":
        matrix = _columns_of(matrix, order, math.prod(seen.shape[1:]))
    returned = (matrix.to_dense().T @ output.flatten()).reshape(seen.shape) if matrix is not None else None
    return Stage(
        "convolution", operator.__name__, window, groups, padding_mode, flip, x, weight, used, bias, output, frame,
        _inner(window, size), reads, rows, products, partial, matrix, seen, returned, None, None, None, None,
        tuple(order.tolist()),
        size_formulas(window, size, outputs),
        torch_code.convolution(x, weight, bias, window, groups, padding_mode, flip, order.tolist()),
        weight.numel() + (0 if bias is None else bias.numel()),
        products.numel(),
    )  # fmt: skip


def transposed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    flip: bool = False,
) -> Stage:
    """The stage of a 1-D or 2-D transposed convolution of x (c, *size) with weight (c, k/g, *kernel).

    >>> weight = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> transposed(weight[0], weight).output[0].tolist()
    [[0.0, 0.0, 1.0], [0.0, 4.0, 6.0], [4.0, 12.0, 9.0]]
    """
    axes, size = _start(x)
    x, weight, bias = x.double(), weight.double(), None if bias is None else bias.double()
    if isinstance(padding, str) and padding != "valid":
        raise UsageError(
            "the animation of a transposed convolution takes its padding in numbers", f"got {padding!r}", "give one"
        )
    window = Window.of(tuple(weight.shape[2:]), stride, 0 if isinstance(padding, str) else padding, dilation, axes=axes)
    _check_sides(window, padding)
    extra = per_axis(output_padding, axes, "output_padding", at_least=0)
    operator = _either(axes, conv.conv_transpose1d, conv.conv_transpose2d)
    used = weight.flip(tuple(range(2, axes + 2))) if flip else weight
    taps, inner = math.prod(window.kernel), weight.shape[1]
    uncropped = [s * (n - 1) + k for n, s, k in zip(size, window.stride, window.extent, strict=True)]
    framed = [n + o for n, o in zip(uncropped, extra, strict=True)]
    _check_amount(weight.shape[0] * inner * taps * math.prod(size), x, window)
    _check_cells(math.prod(framed) * math.prod(size) * inner * groups / HISTORY)
    plain: dict[str, Any] = {"stride": window.stride, "dilation": window.dilation, "groups": groups}
    keywords = plain | {"output_padding": extra, "flip_kernel": flip}
    output = operator(x[None], weight, bias, padding=window.padding, **keywords)[0]
    positions = math.prod(size)
    # One input per position, holding the cells up to it: the operator itself says how the frame grows.
    arrived = torch.ones(positions, positions, dtype=x.dtype).tril().reshape(positions, 1, *size)
    grown = operator(x[None] * arrived, weight, **keywords)
    places = _places(framed)[(slice(None), *(slice(n) for n in uncropped))]
    bare = Window(window.kernel, window.stride, ((0, 0),) * axes, window.dilation, window.input_dilation)
    reads = _unfolded(places, bare)[0].long()
    # (g, in/g, L) and (g, in/g, k/g, T) -> (k, L, in/g·T)
    by_group = x.reshape(groups, -1, positions)
    parts = used.reshape(groups, -1, inner, taps)
    products = torch.einsum("gil,giot->golit", by_group, parts).reshape(groups * inner, positions, -1)
    stamps = products.reshape(groups * inner, positions, -1, taps).sum(2)  # (k, L, T)
    rows = stamps.transpose(0, 1).flatten(1)
    # Output padding adds outputs that the forward convolution must not read as windows of their own.
    sides = tuple((p, q - o) for (p, q), o in zip(window.padding, extra, strict=True))
    matrix = _matrix(used, output.shape[1:], window, sides, groups)
    turned = None if matrix is None else matrix.transpose(0, 1).coalesce()
    returned = None if matrix is None else (matrix.to_dense() @ output.flatten()).reshape(x.shape)
    return Stage(
        "transposed", operator.__name__, window, groups, "zeros", flip, x, weight, used, bias, output, grown[-1],
        tuple((p, p + m) for (p, _), m in zip(window.padding, output.shape[1:], strict=True)),
        reads, rows, products, None, turned, x, returned, grown, None, None, None, tuple(range(x.shape[0])),
        transposed_formulas(window, size, extra, output.shape[1:]),
        torch_code.transposed(x, weight, bias, window, groups, extra, flip),
        weight.numel() + (0 if bias is None else bias.numel()),
        products.numel(),
    )  # fmt: skip


def pooling(
    x: Tensor,
    kind: Literal["max", "average", "sum"],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
) -> Stage:
    """The stage of a 1-D or 2-D pooling of x (c, *size); of kind "sum" with parameters, a `scale` and a `bias` per channel.

    >>> stage = pooling(torch.arange(9.0).reshape(1, 3, 3), "max", 2, stride=1)
    >>> stage.output[0].tolist(), stage.winners.tolist()
    ([[4.0, 5.0], [7.0, 8.0]], [[3, 3, 3, 3]])
    """
    axes, size = _start(x)
    x = x.double()
    window = window_for(axes, size, kernel_size, kernel_size if stride is None else stride, padding, dilation)
    _check_sides(window, padding)
    largest = kind == "max"
    keywords: dict[str, Any] = {
        "kernel_size": window.kernel, "stride": window.stride, "padding": window.padding, "dilation": window.dilation,
        "ceil_mode": ceil_mode,
    }  # fmt: skip
    outputs = window.output_size(size, ceil_mode)
    _check_amount(x.shape[0] * math.prod(outputs) * math.prod(window.kernel), x, window)
    if largest:
        operator: Callable[..., Any] = _either(axes, pool.max_pool1d, pool.max_pool2d)
        output, indices = operator(x[None], **keywords, return_indices=True)
        output = output[0]
    elif kind == "sum":
        assert scale is not None
        scale, bias = scale.double(), None if bias is None else bias.double()
        operator = _either(axes, pool_trainable.trainable_pool1d, pool_trainable.trainable_pool2d)
        output = operator(x[None], scale, bias, **keywords)[0]
    else:
        operator = _either(axes, pool.avg_pool1d, pool.avg_pool2d)
        output = operator(x[None], **keywords, count_include_pad=count_include_pad)[0]
    # Ceil mode's last window may end beyond the padding: the frame then grows, by cells that never count.
    ends = [(m - 1) * s + k for m, s, k in zip(outputs, window.stride, window.extent, strict=True)]
    sides = tuple((p, max(q, end - n - p)) for (p, q), n, end in zip(window.padding, size, ends, strict=True))
    frame = _filled(x, sides, -math.inf if largest else 0.0)
    bare = Window(window.kernel, window.stride, ((0, 0),) * axes, window.dilation, window.input_dilation)
    reads = _unfolded(_places(frame.shape[1:]), bare)[0].long()[: math.prod(outputs)]
    c, taps = x.shape[0], math.prod(window.kernel)
    rows = frame.flatten(1)[:, reads]
    real = _filled(torch.ones(1, *size, dtype=x.dtype), window.padding, 1.0 if count_include_pad else 0.0)
    grows = tuple((0, after - q) for (_, q), (_, after) in zip(window.padding, sides, strict=True))
    divisors = _filled(real, grows, 0.0).flatten()[reads].sum(1)
    winners = None
    weights = torch.zeros(c, len(reads), taps, dtype=x.dtype)
    flat = _inside(sides, size, frame.shape[1:])
    if largest:
        places = flat[indices[0].flatten(1)]  # where in the frame the winner lies
        winners = (reads[None] == places[..., None]).int().argmax(-1)
        weights.scatter_(2, winners[..., None], 1.0)
    elif scale is not None:
        weights += scale[:, None, None]
    else:
        weights += (1 / divisors)[:, None]
    matrix = None  # a window that reads nothing but padding has no row: its largest value is minus infinity
    if output.isfinite().all():
        matrix = _selection(reads, weights, flat, frame.shape[1:], math.prod(size))
    return Stage(
        kind, operator.__name__, window, c, "zeros", False, x, None, None, bias, output, frame,
        tuple((p, p + n) for (p, _), n in zip(sides, size, strict=True)),
        reads, rows, rows, None, matrix, x, None, None, winners, divisors if kind == "average" else None, scale,
        tuple(range(c)),
        size_formulas(window, size, outputs, ceil_mode),
        torch_code.trainable_pooling(x, scale, bias, window, ceil_mode) if scale is not None
        else torch_code.pooling(x, kind, window, ceil_mode, count_include_pad),
        0 if scale is None else scale.numel() + (0 if bias is None else bias.numel()),
        0,
    )  # fmt: skip


def size_formulas(window: Window, size: Sequence[int], outputs: Sequence[int], ceil: bool = False) -> tuple[str, ...]:
    """Per axis, the output's size with the numbers filled in."""
    left, right = ("⌈", "⌉") if ceil else ("⌊", "⌋")
    lines = []
    for n, k, s, (p, q), d, m in zip(
        size, window.kernel, window.stride, window.padding, window.dilation, outputs, strict=True
    ):
        sides = f" + 2·{p}" if p == q and p else "" if p == q else f" + {p} + {q}"
        extent = f"{k}" if d == 1 else f"({d}·({k}−1)+1)"
        lines.append(f"{left}({n}{sides} − {extent}) / {s}{right} + 1 = {m}")
    return tuple(lines)


def transposed_formulas(
    window: Window, size: Sequence[int], extra: Sequence[int], outputs: Sequence[int]
) -> tuple[str, ...]:
    """Per axis, the transposed output's size with the numbers filled in."""
    lines = []
    for n, k, s, (p, q), d, o, m in zip(
        size, window.kernel, window.stride, window.padding, window.dilation, extra, outputs, strict=True
    ):
        sides = f" − 2·{p}" if p == q and p else "" if p == q else f" − {p} − {q}"
        extent = f"{k}" if d == 1 else f"({d}·({k}−1)+1)"
        lines.append(f"({n} − 1)·{s} + {extent}{sides}{f' + {o}' if o else ''} = {m}")
    return tuple(lines)


def _start(x: Tensor) -> tuple[int, tuple[int, ...]]:
    if x.dim() not in (2, 3) or x.numel() == 0:
        raise ShapeError(
            "an animation takes one input of (channels, length) or (channels, h, w), not empty",
            f"got shape {tuple(x.shape)}",
            "add a channel axis, or take one image of the batch",
        )
    return x.dim() - 1, tuple(x.shape[1:])


def _either(axes: int, one: Callable[..., Any], two: Callable[..., Any]) -> Callable[..., Any]:
    return one if axes == 1 else two


def _check_sides(window: Window, padding: object) -> None:
    if any(side < 0 for pair in window.padding for side in pair):
        raise UsageError("an animation needs padding of 0 or more", f"got {padding!r}", "crop the input instead")


def _check_amount(products: int, x: Tensor, window: Window) -> None:
    if products > MOST_PRODUCTS:
        raise UsageError(
            f"an animation shows up to {MOST_PRODUCTS:,} products",
            f"this operator forms {products:,}",
            "use a smaller input, fewer channels or filters, or a larger stride",
        )
    cells = x.shape[0] * math.prod(n + p + q for n, (p, q) in zip(x.shape[1:], window.padding, strict=True))
    _check_cells(cells)


def _check_cells(cells: float) -> None:
    if cells > MOST_CELLS:
        raise UsageError(
            f"an animation draws up to {MOST_CELLS:,} cells",
            f"this one needs {math.ceil(cells):,}",
            "use a smaller input, fewer channels, or less padding",
        )


def _places(size: Sequence[int]) -> Tensor:
    """A map (1, *size) whose cells hold their own flat index."""
    return torch.arange(math.prod(size), dtype=torch.float64).reshape(1, *size)


def _unfolded(x: Tensor, window: Window) -> Tensor:
    return unfold(x[None], window.kernel, window.dilation, 0, window.stride, axes=window.axes, orientation="rows")


def _filled(x: Tensor, sides: Sequence[Pair], value: float) -> Tensor:
    flat = [side for pair in reversed(sides) for side in pair]
    return torch.nn.functional.pad(x, flat, value=value)


def _inner(window: Window, size: Sequence[int]) -> tuple[Pair, ...]:
    return tuple((p, p + n) for (p, _), n in zip(window.padding, size, strict=True))


def _inside(sides: Sequence[Pair], size: Sequence[int], frame: Sequence[int]) -> Tensor:
    """The frame's flat index of every input cell."""
    cells = _places(frame)[(slice(None), *(slice(p, p + n) for (p, _), n in zip(sides, size, strict=True)))]
    return cells.flatten().long()


def _matrix(weight: Tensor, size: Sequence[int], window: Window, padding: Padding, groups: int) -> Tensor | None:
    outputs = Window.of(window.kernel, window.stride, padding, window.dilation, axes=window.axes).output_size(size)  # type: ignore[arg-type]
    if math.prod(outputs) * weight.shape[0] * math.prod(size) * weight.shape[1] * groups > MOST_MATRIX:
        return None
    return kernel_matrix(weight, tuple(size), window.stride, padding, window.dilation, groups)


def _columns_of(matrix: Tensor, order: Tensor, cells: int) -> Tensor:
    """The sparse matrix for channels as they come, from one for channels in `order`."""
    rows, columns = matrix.coalesce().indices()
    columns = order[columns // cells] * cells + columns % cells
    return torch.sparse_coo_tensor(
        torch.stack([rows, columns]), matrix.coalesce().values(), matrix.shape, check_invariants=False
    ).coalesce()


def _selection(reads: Tensor, weights: Tensor, flat: Tensor, frame: Sequence[int], cells: int) -> Tensor | None:
    """The sparse matrix of a pooling, (c·L, c·cells): weights (c, L, T) at the input cells that `reads` names."""
    c, positions, _ = weights.shape
    if c * positions * c * cells > MOST_MATRIX:
        return None
    place = torch.full((math.prod(frame),), -1)
    place[flat] = torch.arange(cells)
    column = place[reads].expand(c, -1, -1)
    channel = torch.arange(c)[:, None, None]
    row = (channel * positions + torch.arange(positions)[:, None]).expand_as(column)
    keep = (column >= 0) & (weights != 0)
    indices = torch.stack([row[keep], (channel * cells + column)[keep]])
    return torch.sparse_coo_tensor(
        indices, weights[keep], (c * positions, c * cells), check_invariants=False
    ).coalesce()
