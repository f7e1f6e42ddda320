"""Run the network once and keep what the shown layers give; the network, its flags and its gradients come back as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from convolve.errors import ConvolveError
from convolve.explain.records import Layer, Maps, Unit
from convolve.ops.precision import precision

STRONGEST = 5


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no gradients for weights (they cost as much as those for the image), while this lasts."""
    flags = [(module, module.training) for module in model.modules()]
    needs = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
        for parameter, need in needs:
            parameter.requires_grad_(need)


def first_tensor(result: Any) -> Tensor:
    """The tensor that a network answers with: itself, or the first in a tuple, list, dict or record."""
    if isinstance(result, Tensor):
        return result
    items = result.values() if isinstance(result, dict) else result if isinstance(result, (tuple, list)) else ()
    for item in items:
        if isinstance(item, Tensor):
            return item
    raise ConvolveError("a network's answer must be a tensor", f"got {type(result).__name__}", "return scores or maps")


def run(model: nn.Module, image: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, dict[str, Tensor]]:
    """The answer to `image` [1, c, h, w], and the result of every layer, by name, in the graph of `image` if it needs gradients."""
    kept: dict[str, Tensor] = {}
    handles = []
    modules = dict(model.named_modules())
    try:
        for path in dict.fromkeys(layer.path for layer in layers):
            wanted = {layer.call: layer.name for layer in layers if layer.path == path}
            handles.append(modules[path].register_forward_hook(_keeper(wanted, kept)))
        with precision("exact"):  # a transform's roundings reach pixels that a unit cannot see
            answer = first_tensor(model(image))
    finally:
        for handle in handles:
            handle.remove()
    missing = [layer.name for layer in layers if layer.name not in kept]
    if missing:
        raise ConvolveError(
            "the network must run as it was traced",
            f"{missing[0]} did not run",
            "leave --layer away, or report this",
        )
    return answer, kept


def _keeper(wanted: dict[int, str], kept: dict[str, Tensor]) -> Any:
    count = 0

    def keep(_module: nn.Module, _args: Any, result: Any) -> Any:
        nonlocal count
        name = wanted.get(count)
        count += 1
        if name is None or not isinstance(result, Tensor):
            return None
        kept[name] = result
        return result.clone()  # an activation in place, or `x += y`, must not change what is shown

    return keep


def strongest_channels(values: Tensor, count: int) -> tuple[int, ...]:
    """The `count` channels of [c, h, w] with the largest absolute values, largest first."""
    peaks = values.abs().flatten(1).amax(1)
    return tuple(peaks.argsort(descending=True, stable=True)[:count].tolist())


def strongest_units(values: Tensor, channels: Sequence[int]) -> tuple[Unit, ...]:
    """The strongest unit of each of the first STRONGEST `channels` of [c, h, w]."""
    units = []
    width = values.shape[2]
    for channel in channels[:STRONGEST]:
        place = int(values[channel].abs().flatten().argmax())
        row, column = divmod(place, width)
        units.append(Unit(channel, row, column, values[channel, row, column].item()))
    return tuple(units)


def maps_of(layer: Layer, values: Tensor, channels: Sequence[int]) -> Maps:
    """What is shown of the values [c, h, w] of a layer."""
    shown = values[list(layer.channels), :: layer.step, :: layer.step]
    return Maps(layer.name, shown.detach().float().cpu().clone(), strongest_units(values.detach(), channels))


def covered(layer: Layer, index: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The pixels that a unit sees by theory: bool [h, w]."""
    mask = torch.zeros(size, dtype=torch.bool)
    for rows, columns in layer.sight.terms:
        for top, bottom in rows.at(index):
            for left, right in columns.at(index):
                mask[top : bottom + 1, left : right + 1] = True
    return mask
