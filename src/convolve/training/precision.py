"""bfloat16 where it is asked for: convolutions and matrix products compute in it, weights and all sums stay float32.

No loss scaling is needed: bfloat16 has float32's exponents. Validation always computes in float32, as prediction does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from convolve.training.options import Options


def forward(net: nn.Module, images: Tensor, options: Options) -> Any:
    """What `net` makes of `images` in training; a tensor or tuple of float32, whatever it computed in."""
    if options.amp == "off":
        return net(images)
    with torch.autocast(images.device.type, torch.bfloat16):
        output = net(images)
    return _wide(output)


def _wide(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, tuple):
        parts = [_wide(part) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else tuple(parts)
    return output
