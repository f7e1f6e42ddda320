"""What an exported graph holds: torch's own `aten::convolution`, which every runtime knows (ONNX: Conv, ConvTranspose).

Unequal sides of padding become a pad or a slice beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from convolve.ops.call import ConvCall
from convolve.ops.windows import with_bias, zero_pad


def convolution(a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Tensor:
    """The call in operators of torch. Works on symbolic sizes; the algorithm asked for is left to the runtime."""
    call = ConvCall.parse(text)
    window = call.window
    stride, dilation, groups = list(window.stride), list(window.dilation), call.groups
    zero = [0] * window.axes
    equal = all(p == q >= 0 for p, q in window.padding)
    sides = [p for p, _ in window.padding] if equal else zero
    if call.role == "weight_gradient":
        raise NotImplementedError
    if call.role == "output":
        a = a if equal else zero_pad(a, window.padding)
        return torch.convolution(a, b, bias, stride, sides, dilation, False, zero, groups)
    extra = list(call.output_padding)
    if equal and all(o < max(s, d) for o, s, d in zip(extra, stride, dilation, strict=True)):
        return torch.convolution(a, b, bias, stride, sides, dilation, True, extra, groups)
    full = torch.convolution(a, b, None, stride, zero, dilation, True, zero, groups)
    crop = [(-p, o - q) for (p, q), o in zip(window.padding, extra, strict=True)]
    return with_bias(zero_pad(full, crop), bias)
