"""The same operator in PyTorch's own words: a short program that runs as it stands and gives the animation's output.

What torch has no argument for (unequal padding, a turned kernel, dilated averages) is written out beside the layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from convolve.geometry import Window


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
    groups: int,
    mode: str,
    flip: bool,
    order: Sequence[int],
) -> str:
    k, depth = weight.shape[:2]
    arguments = [f"{depth * groups}, {k}", f"kernel_size={_one(window.kernel)}", *_steps(window)]
    equal = all(p == q for p, q in window.padding)
    padded = any(p or q for p, q in window.padding)
    by_layer = equal and padded
    if by_layer:
        arguments.append(f"padding={_one([p for p, _ in window.padding])}")
    arguments += [f"groups={groups}"] * (groups > 1)
    if by_layer and mode != "zeros":
        arguments.append(f'padding_mode="{mode}"')
    arguments.append(f"bias={bias is not None}")
    lines = [*_head(x), f"layer = nn.Conv{window.axes}d({', '.join(arguments)})"]
    lines += _weights(weight, bias, flip)
    data = "x"
    if padded and not by_layer:
        lines.append(_pad(window, "constant" if mode == "zeros" else mode))
    if list(order) != sorted(order):
        lines.append(f"x = x[:, {list(order)}]  # interleaved groups: those of torch are blocks of channels")
    return _program(lines, f"layer({data})")


def transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, groups: int, extra: Sequence[int], flip: bool
) -> str:
    c, inner = weight.shape[:2]
    arguments = [f"{c}, {inner * groups}", f"kernel_size={_one(window.kernel)}", *_steps(window)]
    equal = all(p == q for p, q in window.padding)
    if equal and any(p for p, _ in window.padding):
        arguments.append(f"padding={_one([p for p, _ in window.padding])}")
    arguments += [f"output_padding={_one(extra)}"] * any(extra) + [f"groups={groups}"] * (groups > 1)
    arguments.append(f"bias={bias is not None}")
    lines = [*_head(x), f"layer = nn.ConvTranspose{window.axes}d({', '.join(arguments)})"]
    lines += _weights(weight, bias, flip)
    crop = "" if equal else "[..., " + ", ".join(f"{p}:{-q or None}" for p, q in window.padding) + "]"
    return _program(lines, f"layer(x){crop}")


def pooling(x: Tensor, kind: str, window: Window, ceil_mode: bool, count_include_pad: bool) -> str:
    name = "MaxPool" if kind == "max" else "AvgPool"
    equal = all(p == q for p, q in window.padding)
    small = all(2 * p <= k for (p, _), k in zip(window.padding, window.kernel, strict=True))
    padded = any(p or q for p, q in window.padding)
    inside = equal and small
    dilated = any(d > 1 for d in window.dilation)
    arguments = [f"kernel_size={_one(window.kernel)}", f"stride={_one(window.stride)}"]
    if padded and inside:
        arguments.append(f"padding={_one([p for p, _ in window.padding])}")
    if dilated:
        if kind == "average":
            return "# torch's average pooling has no dilation; convolve's has:\n" + _ours(
                x, window, ceil_mode, count_include_pad
            )
        arguments.append(f"dilation={_one(window.dilation)}")
    if (padded and not inside) and (ceil_mode or (kind == "average" and not count_include_pad)):
        return "# torch's pooling has no such padding; convolve's has:\n" + _ours(
            x, window, ceil_mode, count_include_pad, kind
        )
    arguments += ["ceil_mode=True"] * ceil_mode
    if kind == "average" and not count_include_pad:
        arguments.append("count_include_pad=False")
    lines = [*_head(x), f"layer = nn.{name}{window.axes}d({', '.join(arguments)})"]
    if padded and not inside:
        lines.append(_pad(window, "constant", ', value=float("-inf")' if kind == "max" else ""))
    return _program(lines, "layer(x)")


def trainable_pooling(x: Tensor, scale: Tensor, bias: Tensor | None, window: Window, ceil_mode: bool) -> str:
    per_channel = "[:, None]" if window.axes == 1 else "[:, None, None]"
    lines = [*_head(x), f"weight = {_tensor(scale, 9)}"]
    lines += [] if bias is None else [f"bias = {_tensor(bias, 7)}"]
    equal = all(p == q and 2 * p <= k for (p, q), k in zip(window.padding, window.kernel, strict=True))
    if window.axes == 1 or not equal or any(d > 1 for d in window.dilation):  # torch's averages cannot become sums
        arguments = f"{_one(window.kernel)}, stride={_one(window.stride)}, padding={window.padding}"
        arguments += f", dilation={_one(window.dilation)}, ceil_mode={ceil_mode}"
        call = f"convolve.trainable_pool{window.axes}d(x, weight, {'None' if bias is None else 'bias'}, {arguments})"
        return "# torch has no such pooling; convolve has:\n" + _program(["import convolve", *lines], call)
    arguments = f"{_one(window.kernel)}, stride={_one(window.stride)}"
    arguments += f", padding={_one([p for p, _ in window.padding])}" * any(p for p, _ in window.padding)
    arguments += ", ceil_mode=True" * ceil_mode
    lines.append(f"sums = nn.functional.avg_pool2d(x, {arguments}, divisor_override=1)")
    return _program(lines, f"sums * weight{per_channel}" + ("" if bias is None else f" + bias{per_channel}"))


def _ours(x: Tensor, window: Window, ceil_mode: bool, count_include_pad: bool, kind: str = "average") -> str:
    word = "max" if kind == "max" else "avg"
    arguments = f"{_one(window.kernel)}, stride={_one(window.stride)}, padding={window.padding}"
    arguments += f", dilation={_one(window.dilation)}, ceil_mode={ceil_mode}"
    arguments += f", count_include_pad={count_include_pad}" if kind == "average" else ""
    lines = ["import convolve", *_head(x)]
    return _program(lines, f"convolve.{word}_pool{window.axes}d(x, {arguments})")


def _head(x: Tensor) -> list[str]:
    return ["import torch", "from torch import nn", "", f"x = {_tensor(x[None], 4)}"]


def _program(lines: list[str], last: str) -> str:
    return "\n".join([*lines, f"y = {last}", "print(y)"]) + "\n"


def _steps(window: Window) -> list[str]:
    stride = [f"stride={_one(window.stride)}"] * any(s != 1 for s in window.stride)
    return stride + [f"dilation={_one(window.dilation)}"] * any(d != 1 for d in window.dilation)


def _weights(weight: Tensor, bias: Tensor | None, flip: bool) -> list[str]:
    turned = ".flip(" + ", ".join(map(str, range(2, weight.dim()))) + ")" if flip else ""
    note = "  # turned around: the convolution of mathematics" if flip else ""
    lines = [f"layer.weight.data = {_tensor(weight, 20)}{turned}{note}"]
    return lines if bias is None else [*lines, f"layer.bias.data = {_tensor(bias, 18)}"]


def _pad(window: Window, mode: str, value: str = "") -> str:
    sides = [side for pair in reversed(window.padding) for side in pair]
    named = f', mode="{mode}"' if mode != "constant" else ""
    return f"x = nn.functional.pad(x, {tuple(sides)}{named}{value})  # last axis first: before, after"


def _tensor(values: Tensor, indent: int) -> str:
    """A float tensor as Python text, exact; integers are written short; one line per row, `indent` letters in."""
    whole = bool(torch.equal(values, values.round()))
    return f"torch.tensor({_nested(values, whole, indent + len('torch.tensor('))})"


def _nested(values: Tensor, whole: bool, indent: int) -> str:
    if values.dim() == 0:
        return f"{int(values.item())}." if whole else repr(values.item())
    between = ", " if values.dim() == 1 else ",\n" + " " * (indent + 1)
    return "[" + between.join(_nested(part, whole, indent + 1) for part in values) + "]"


def _one(values: Sequence[int]) -> str:
    """One number where all axes agree, else a tuple."""
    return str(values[0]) if len(set(values)) == 1 else str(tuple(values))
