"""torch's Sequential, with stages of small networks computed in one piece: Conv2d, ReLU, MaxPool2d(2), on batches of images.

The layers stay what and where they are; only their calls are spared, and only where nobody can tell: layers of exactly these classes
without hooks, plain float32 or float64 tensors on a CPU, few maps (ops/stages.py says which). Everything else goes layer by layer, as in
torch, tracing and compiling included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from convolve.nn.conv import Conv2d
from convolve.nn.pool import MaxPool2d
from convolve.ops import stages

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Sequential(nn.Sequential):
    """The layers one after the other; the same results as torch.nn.Sequential's up to rounding.

    >>> net = Sequential(Conv2d(1, 6, 5, padding=2), nn.ReLU(), MaxPool2d(2))
    >>> x = torch.randn(64, 1, 28, 28)
    >>> torch.allclose(net(x), nn.Sequential(*net)(x), atol=1e-5)
    True
    """

    def forward(self, input: Any) -> Any:  # noqa: A002  (torch's own name)
        x, layers, index = input, list(self._modules.values()), 0
        while index < len(layers):
            result = None if torch.compiler.is_compiling() else _stage(x, *layers[index : index + 3])
            x, index = (layers[index](x), index + 1) if result is None else (result, index + 3)
        return x


def _stage(x: Any, *layers: Any) -> Tensor | None:
    """What three layers give, computed in one piece, or None where they are not such layers or x not such images."""
    if len(layers) < 3 or type(x) is not Tensor:
        return None
    convolution, activation, pooling = layers
    if not (type(convolution) is Conv2d and type(activation) is nn.ReLU and type(pooling) is MaxPool2d):
        return None
    if not (_plain(convolution) and _halving(pooling)) or any(map(_observed, layers)):
        return None
    if nn.modules.module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return None
    sides: list[Any] = [side if isinstance(side, tuple) else (side, side) for side in convolution.padding]
    padding = sides[0], sides[1]
    if stages.why_not(x, convolution.weight, padding) is not None:
        return None
    operands = x, convolution.weight, convolution.bias
    if convolution.frozen is not None and not stages.needs_gradient(*operands):
        convolution.frozen.check(convolution.weight)  # nothing is prepared for a stage, but the promise stands
    return stages.stage(*operands, padding)


def _plain(layer: Conv2d) -> bool:
    """Whether it is nothing but a convolution of stride 1 over a zero-padded input."""
    unusual = layer.flip_kernel or layer.algorithm != "auto" or layer.groups != 1
    usual = layer.stride == layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    return usual and not unusual and isinstance(layer.padding, tuple)


def _halving(layer: MaxPool2d) -> bool:
    """Whether it takes the maximum of 2x2 pixels and nothing else."""
    square = layer.kernel_size in (2, (2, 2)) and layer.stride in (2, (2, 2))
    simple = layer.padding in (0, (0, 0)) and layer.dilation in (1, (1, 1))
    return square and simple and not (layer.ceil_mode or layer.return_indices)


def _observed(layer: nn.Module) -> bool:
    """Whether somebody would notice that the layer was not called."""
    return any(getattr(layer, hooks) for hooks in _HOOKS) or "forward" in layer.__dict__
