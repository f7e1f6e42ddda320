"""Our own operators in torch's words, so that every rule, finding and lesson serves both.

`convolve::conv` carries its geometry as text, "output 3x3 s2 p0:1 d1 g1 auto default": its role, the window, groups, and how it
was chosen. The role `input_gradient` in a forward pass is a transposed convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from convolve import nn as ours
from convolve.problem import parse_window


def in_torchs_words(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(operator, arguments by name): those of torch's convolution for ours, and any other operator as it is."""
    if name != "convolve::conv":
        return name, arguments
    text = str(arguments["window"])
    role, kernel, *words = text.split(" ")
    fields = {word[0]: word[1:] for word in words[:-2]}
    axes = kernel.count("x") + 1
    window = parse_window(kernel, fields, axes, text)
    if any(e != 1 for e in window.input_dilation) or role not in ("output", "input_gradient"):
        return name, arguments
    plain = all(before == after for before, after in window.padding)
    found: dict[str, Any] = {
        "input": arguments["a"],
        "weight": arguments["b"],
        "bias": arguments["bias"],
        "stride": window.stride,
        "padding": tuple(before for before, _ in window.padding) if plain else window.padding,
        "dilation": window.dilation,
        "groups": int(fields.get("g", "1")),
    }
    if role == "output":
        return f"conv{axes}d", found
    found["output_padding"] = tuple(int(size) for size in fields["o"].split("x")) if "o" in fields else 0
    return f"conv_transpose{axes}d", found


def forward_of(module: nn.Module) -> Callable[..., Any] | None:
    """torch's own forward for a pooling layer of ours whose arguments torch has too: one call instead of what ours is made of.

    The result's shape and field are the same; a padding that only ours has (pairs, "same", beyond half a window) is left to us.
    """
    if type(module) not in _POOLS:
        return None
    kernel, padding = getattr(module, "kernel_size", 0), getattr(module, "padding", 0)
    kernels = kernel if isinstance(kernel, tuple) else (kernel,)
    paddings = padding if isinstance(padding, tuple) else (padding,)
    if not all(isinstance(p, int) and 0 <= 2 * p <= min(kernels) for p in paddings):
        return None
    return partial(_POOLS[type(module)].forward, module)


_POOLS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(ours, name): getattr(nn, name)
    for name in (f"{kind}Pool{axes}d" for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for axes in (1, 2, 3))
}
