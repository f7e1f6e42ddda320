"""What happens to the gradients between the backward pass and the optimizer's step: the L1 penalty, the check, the clipping.

L1 adds lambda sign(w), the derivative of lambda |w|, to the gradient of every weight with two or more dimensions: like weight
decay it spares biases and normalisation. Clipping scales all gradients alike when their common norm is above the limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from convolve.training.finite import bad_gradient, not_finite
from convolve.training.options import Options


def forget_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """What torch's `zero_grad` does, without the lists that it makes in every step."""
    for parameter in parameters:
        parameter.grad = None


def finish_gradients(
    net: nn.Module, parameters: Sequence[nn.Parameter], options: Options, epoch: int, step: int
) -> None:
    """Ready the gradients of `parameters` for the step; raises NotFiniteError, naming the one in `net`, where one is not finite."""
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    if options.l1:
        for parameter, gradient in zip(trained, gradients, strict=True):
            if parameter.ndim > 1:
                gradient.add_(parameter.detach().sign(), alpha=options.l1)
    if not gradients:
        return
    norm = torch.nn.utils.get_total_norm(gradients)
    if not math.isfinite(norm.item()):
        found = bad_gradient(net)  # none: the norm overflowed, the gradients did not
        if found is not None:
            raise not_finite("every gradient must stay finite", found, epoch, step, options)
    if options.clip is not None:
        torch.nn.utils.clip_grads_with_norm_(trained, options.clip, norm)
