"""`convolve.accelerate`: torch's convolution and pooling layers of a model compute by our operators, in place and reversibly.

A layer becomes ours by its class alone: `convolve.nn.Conv2d` is a subclass of `torch.nn.Conv2d` with the same attributes, so the object,
its parameters, hooks, name and place in the model stay what they were, and state dicts, optimizers and shared layers notice nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from convolve.errors import UsageError
from convolve.nn import conv, pool
from convolve.nn.sequential import Sequential
from convolve.ops.execute import FrozenWeight

OURS: dict[type[nn.Module], type[nn.Module]] = {
    getattr(nn, ours.__name__): ours
    for ours in (
        *(conv.Conv1d, conv.Conv2d, conv.Conv3d),
        *(conv.ConvTranspose1d, conv.ConvTranspose2d, conv.ConvTranspose3d),
        *(pool.MaxPool1d, pool.MaxPool2d, pool.MaxPool3d),
        *(pool.AvgPool1d, pool.AvgPool2d, pool.AvgPool3d),
        *(pool.AdaptiveAvgPool1d, pool.AdaptiveAvgPool2d, pool.AdaptiveAvgPool3d),
        *(pool.AdaptiveMaxPool1d, pool.AdaptiveMaxPool2d, pool.AdaptiveMaxPool3d),
    )
}
"""torch's layers and ours in their place."""

Module = TypeVar("Module", bound=nn.Module)

_MARK = "accelerated"
"""The attribute of a layer that `accelerate` changed: True."""


@dataclass(frozen=True)
class Acceleration:
    """What `accelerate` does to a model: the names of the layers that are ours now, and why others were left alone."""

    layers: tuple[str, ...]
    frozen: tuple[str, ...]
    left_alone: dict[str, str]

    def __str__(self) -> str:
        head = f"{len(self.layers)} layers accelerated, {len(self.frozen)} of them frozen, {len(self.left_alone)} left alone"
        return "\n".join((head, *(f"  {name}: {reason}" for name, reason in self.left_alone.items())))


def accelerate(model: Module, *, freeze: bool = False) -> Module:
    """Let torch's convolution, transposed convolution and pooling layers in `model` compute by our operators. Returns `model` itself.

    For training and inference: gradients, torch.compile, torch.export, deepcopy, torch.save and hooks work as before. Weights are
    the same tensors and the state dict is unchanged, so checkpoints pass both ways. Results agree within the bounds of
    `convolve.why` (`convolve.precision("exact")` keeps to plain sums). `restore` takes it back, `acceleration` says what was
    changed and what was left alone, and why: a subclass with a forward of its own, say. Calls of torch.nn.functional inside a
    forward are not seen.

    With `freeze`, the weights of convolutions are declared not to change: algorithms may keep a transformed copy (Winograd's is
    four times as large), which inference then uses; calls that need a gradient do not. A weight that changes all the same raises
    UsageError at the next call, unless it was written through `.data` or NumPy, which nothing can notice: `unfreeze`, or freeze again,
    after such a change.

    >>> import torch, convolve
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
    >>> _ = convolve.accelerate(model)
    >>> isinstance(model[0], convolve.nn.Conv2d), isinstance(model[0], torch.nn.Conv2d)
    (True, True)
    >>> type(convolve.restore(model)[0])
    <class 'torch.nn.modules.conv.Conv2d'>
    """
    if not isinstance(model, nn.Module):
        raise UsageError("accelerate takes a module", f"got {type(model).__name__}", "give a torch.nn.Module")
    for layer in model.modules():
        if _why_not(layer) is None:
            _become(layer, OURS)
            setattr(layer, _MARK, True)
        elif type(layer) is nn.Sequential:
            layer.__class__ = Sequential  # it computes stages of such layers in one piece
            setattr(layer, _MARK, True)
        if freeze and _freezable(layer):
            layer.__dict__["frozen"] = FrozenWeight()  # anew, if it was frozen before
    return model


def restore(model: Module) -> Module:
    """Give the layers that `accelerate` changed back to torch, as they were; weights keep what they learned. Returns `model` itself.

    >>> import torch, convolve
    >>> layer = convolve.accelerate(torch.nn.MaxPool2d(2))
    >>> type(convolve.restore(layer))
    <class 'torch.nn.modules.pooling.MaxPool2d'>
    """
    unfreeze(model)
    for layer in model.modules():
        if layer.__dict__.pop(_MARK, False):
            _become(layer, {Sequential: nn.Sequential, **{ours: torchs for torchs, ours in OURS.items()}})
    return model


def unfreeze(model: Module) -> Module:
    """Drop the transformed copies of frozen weights: they may change again. Returns `model` itself.

    >>> import torch, convolve
    >>> layer = convolve.accelerate(torch.nn.Conv2d(4, 4, 3), freeze=True)
    >>> convolve.unfreeze(layer).frozen is None
    True
    """
    for layer in model.modules():
        layer.__dict__.pop("frozen", None)
    return model


def acceleration(model: nn.Module) -> Acceleration:
    """Which layers of `model` are accelerated and frozen, and why other convolution and pooling layers are not.

    >>> import torch, convolve
    >>> print(convolve.acceleration(convolve.accelerate(torch.nn.Sequential(torch.nn.AvgPool2d(2)))))
    1 layers accelerated, 0 of them frozen, 0 left alone
    """
    names: dict[str, nn.Module] = dict(model.named_modules())
    changed = tuple(n for n, layer in names.items() if _MARK in layer.__dict__ and type(layer) is not Sequential)
    frozen = tuple(name for name, layer in names.items() if layer.__dict__.get("frozen") is not None)
    reasons = {name: _why_not(layer) for name, layer in names.items() if isinstance(layer, tuple(OURS))}
    left = {
        name: "not accelerated yet" if reason is None else reason
        for name, reason in reasons.items()
        if name not in changed and reason != _ALREADY
    }
    return Acceleration(changed, frozen, left)


_ALREADY = "it is one of ours"


def _why_not(layer: nn.Module) -> str | None:
    """Why this layer cannot be exchanged, or None."""
    kind = type(layer)
    if _is_parametrized(layer):
        kind = kind.__bases__[0]
    if isinstance(layer, tuple(OURS.values())):
        return _ALREADY
    if isinstance(layer, LazyModuleMixin):
        become = getattr(layer, "cls_to_become", None)
        return None if become in OURS else f"{kind.__name__} becomes no layer of torch's"
    if kind not in OURS:
        return f"{kind.__name__} is a subclass that may compute something else"
    if "forward" in layer.__dict__ or "_conv_forward" in layer.__dict__:
        return "its forward was replaced"
    return None


def _become(layer: nn.Module, table: dict[type[nn.Module], type[nn.Module]]) -> None:
    """Exchange the class of a layer for the one that stands in the table."""
    if _is_parametrized(layer):
        # torch gave this one layer a class of its own, with its layer's class as the base.
        type(layer).__bases__ = (table[type(layer).__bases__[0]],)
    elif isinstance(layer, LazyModuleMixin):
        # It becomes the class that it names, at its first call.
        if layer.cls_to_become in OURS:
            layer.cls_to_become = table[layer.cls_to_become]
        else:
            del layer.cls_to_become
    else:
        layer.__dict__.pop("cls_to_become", None)
        layer.__class__ = table[type(layer)]


def _is_parametrized(layer: nn.Module) -> bool:
    return parametrize.is_parametrized(layer) and len(type(layer).__bases__) == 1


def _freezable(layer: nn.Module) -> bool:
    """A convolution of ours whose weight is a tensor and not computed anew in every call."""
    kinds = (conv.Conv1d, conv.Conv2d, conv.Conv3d)
    return isinstance(layer, kinds) and not _is_parametrized(layer) and "weight" in layer._parameters
