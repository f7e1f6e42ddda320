"""Layers that keep their weights while the others learn: chosen by name, with the statistics of their batch normalisation.

A pattern is the name of a layer or parameter ("features", "conv1"), a shell pattern of such ("layer[12]*"), or "all-but-last":
everything but the last layer with a weight matrix. A frozen normalisation uses and keeps the statistics that it came with, as in
prediction; dropout goes on as before.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from convolve.errors import UnknownNameError, UsageError

ALL_BUT_LAST = "all-but-last"


@dataclass(frozen=True)
class Frozen:
    """How many parameters train, of how many, and in how many of the layers that have any."""

    trained: int
    parameters: int
    layers: tuple[str, ...]  # frozen ones


def freeze(net: nn.Module, patterns: Sequence[str]) -> Frozen:
    """Freeze what `patterns` name, in place. Raises UsageError where one names nothing, or nothing would be left to learn.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 5))
    >>> freeze(net, ["all-but-last"])
    Frozen(trained=15, parameters=35, layers=('0',))
    """
    for pattern in patterns:
        if not any(_named(name, [pattern], net) for name, _ in net.named_parameters()):
            tops = [name for name, layer in net.named_children() if any(True for _ in layer.parameters())]
            raise UnknownNameError.of("layer to freeze", pattern, [*tops, ALL_BUT_LAST])
    for name, parameter in net.named_parameters():
        if _named(name, patterns, net):
            parameter.requires_grad_(False)
    trained = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    if not trained:
        raise UsageError("something must be left to learn", f"{', '.join(patterns)} freezes every layer", ALL_BUT_LAST)
    layers = [
        name
        for name, layer in net.named_modules()
        if list(layer.parameters(recurse=False)) and not any(p.requires_grad for p in layer.parameters(recurse=False))
    ]
    return Frozen(trained, sum(parameter.numel() for parameter in net.parameters()), tuple(layers))


def begin_training(net: nn.Module, patterns: Sequence[str]) -> None:
    """`net.train()`, with frozen normalisation layers in evaluation mode."""
    net.train()
    if patterns:
        for name, layer in net.named_modules():
            if isinstance(layer, _NormBase) and _named(name, patterns, net):
                layer.eval()


def _named(name: str, patterns: Sequence[str], net: nn.Module) -> bool:
    """Whether a pattern names this layer or parameter, or one that holds it."""
    parts = name.split(".")
    held_by = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    for pattern in patterns:
        if pattern == ALL_BUT_LAST:
            last = _last_layer(net)
            if last not in held_by:
                return True
        elif any(fnmatch.fnmatchcase(holder, pattern) for holder in held_by):
            return True
    return False


def _last_layer(net: nn.Module) -> str:
    """The path of the last layer with a parameter of two or more dimensions of its own."""
    found = [
        path
        for path, layer in net.named_modules()
        if any(parameter.ndim > 1 for parameter in layer.parameters(recurse=False))
    ]
    return found[-1] if found else ""
