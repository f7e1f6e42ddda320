"""Stops training before a number that is not finite does harm, and says where it came from first.

Checked in every step: the loss, and the gradients after the backward pass, both before the optimizer's step; before anything is
saved and at the end of every epoch: the weights, running statistics included. Only where the loss fails is the cause looked
for: the images, then the weights, then the first layer whose output is not finite, in a second pass of a copy.
A finite loss above DIVERGED times that of guessing (the logarithm of the number of classes) also stops.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convolve.errors import NotFiniteError
from convolve.training.options import Options

DIVERGED = 1000.0


def check_loss(
    value: float,
    net: nn.Module,
    images: Tensor,
    ids: Callable[[], Sequence[str]],
    classes: int,
    options: Options,
    epoch: int,
    step: int,
    alone: bool = True,
) -> None:
    """Raise NotFiniteError where the loss `value` of `images` is not finite, or beyond reason; `ids` names the images if asked.

    A process that is not `alone` does not look for the layer: the others might not follow.
    """
    limit = DIVERGED * math.log(max(classes, 2))
    if math.isfinite(value) and value <= limit:
        return
    if math.isfinite(value):
        rule = f"the loss must stay below {limit:,.0f}, {DIVERGED:,.0f} times that of guessing"
        raise not_finite(rule, f"it is {value:.3g}", epoch, step, options)
    raise not_finite(
        "the loss must stay finite", f"it is {value}: {_cause(net, images, ids, alone)}", epoch, step, options
    )


def check_weights(net: nn.Module, options: Options, epoch: int, step: int) -> None:
    """Raise NotFiniteError where a weight or a running statistic is not finite: such a network is never written."""
    found = bad_weight(net)
    if found is not None:
        raise not_finite("every weight must stay finite", found, epoch, step, options)


def check_validation(loss: float, options: Options, epoch: int, step: int) -> None:
    """Raise NotFiniteError where the validation loss is not finite although the weights are."""
    if not math.isfinite(loss):
        raise not_finite("the validation loss must stay finite", f"it is {loss}", epoch, step, options)


def bad_weight(net: nn.Module) -> str | None:
    """The first parameter or buffer that is not finite, in words; None where all are."""
    for kind, tensors in (("weight", net.named_parameters()), ("buffer", net.named_buffers())):
        for name, tensor in tensors:
            if not torch.isfinite(tensor).all():
                return f"the {kind} {name} {_counted(tensor)}"
    return None


def bad_gradient(net: nn.Module) -> str | None:
    """The first gradient, in the order of the backward pass, that is not finite, in words; None where all are."""
    for name, parameter in reversed(list(net.named_parameters())):
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name} {_counted(parameter.grad)}"
    return None


def not_finite(rule: str, found: str, epoch: int, step: int, options: Options) -> NotFiniteError:
    """The error, with where it happened and what to try."""
    clip = "" if options.clip is not None else " --clip 1"
    remedy = f"try --lr {options.lr / 10:g}{clip}"
    return NotFiniteError(rule, f"{found}, at epoch {epoch}, step {step}, with lr {options.lr:g}", remedy)


def _cause(net: nn.Module, images: Tensor, ids: Callable[[], Sequence[str]], alone: bool) -> str:
    whole = torch.isfinite(images).flatten(1).all(1)
    if not whole.all():
        bad = int((~whole).nonzero()[0])
        more = int((~whole).sum()) - 1
        return f"the input is not finite in image {ids()[bad]!r}" + (f" and {more} more" if more else "")
    found = bad_weight(net)
    if found is not None:
        return found
    if not alone:
        return "the images and weights of this process are finite; resume with one process to find the layer"
    layer = _first_bad_layer(net, images)
    return "every layer's output is finite, the loss is not" if layer is None else layer


def _first_bad_layer(net: nn.Module, images: Tensor) -> str | None:
    """The first layer to give something that is not finite, in a pass of a copy: the caller's network stays as it is."""
    trial = copy.deepcopy(net)
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(layer: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not found and not torch.isfinite(output).all():
                found.append(f"the output of layer {name or 'the network'} ({type(layer).__name__}) {_counted(output)}")

        return look

    for name, layer in trial.named_modules():
        if not any(True for _ in layer.children()):
            layer.register_forward_hook(watch(name))
    with torch.no_grad():
        trial(images)
    return found[0] if found else None


def _counted(tensor: Tensor) -> str:
    bad = int((~torch.isfinite(tensor)).sum())
    kind = "NaN" if torch.isnan(tensor).any() else "infinite"
    return f"is not finite ({bad:,} of {tensor.numel():,} are {kind})"
