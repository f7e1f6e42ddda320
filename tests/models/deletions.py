"""Take one thing out of a network: an activation, a normalisation, a pooling, a dropout, a branch, a padding, a shortcut.

What is taken out stays inside as a child that is not used, so that the network's parameters and their order, from which its
twin draws, are unchanged: only what is computed differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from convolve.errors import ConvolveError
from convolve.nn import ChannelShuffle, InvertedResidual, LocalResponseNorm, ScaledTanh
from models import twins

SKIPPED = (
    *(nn.ReLU, nn.ReLU6, nn.Sigmoid, ScaledTanh, nn.BatchNorm2d, LocalResponseNorm, nn.Dropout, ChannelShuffle),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)
NOTICED = 1e-6  # the twins agree to 1e-7; the least of all deletions shows at more than this


class Skip(nn.Module):
    """Passes its input on; the layer that it replaces is kept, unused."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return x


class Zero(Skip):
    """Runs the branch that it replaces, and gives zeros of its shape."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * 0


def deletions(net: nn.Module) -> Iterator[tuple[str, Callable[[], object]]]:
    """What can be taken out of `net`: a description, and a context manager that takes it out and puts it back."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, SKIPPED):
            yield f"{type(layer).__name__} {name}", lambda name=name, layer=layer: _replaced(net, name, Skip(layer))
        if name.rpartition(".")[2].startswith(("branch", "downsample")):
            yield f"branch {name}", lambda name=name, layer=layer: _replaced(net, name, Zero(layer))
        padding = getattr(layer, "padding", 0)
        if padding not in (0, (0, 0)):
            none = 0 if isinstance(padding, int) else (0, 0)
            yield f"padding {name}", lambda layer=layer, none=none: _set(layer, "padding", none)
        if isinstance(layer, InvertedResidual) and layer.adds:
            yield f"shortcut {name}", lambda layer=layer: _set(layer, "adds", False)


def survivors(name: str, variant: str) -> tuple[int, list[str]]:
    """How many deletions were tried on a variant, and those that its twin did not notice."""
    net = twins.network(name, variant)
    tried, unnoticed = 0, []
    for what, deleted in deletions(net):
        tried += 1
        with deleted():
            try:
                noticed = twins.difference(net, name, variant, training=True) > NOTICED
            except (RuntimeError, AssertionError, ConvolveError):
                noticed = True  # shapes no longer fit
        if not noticed:
            unnoticed.append(what)
    return tried, unnoticed


@contextmanager
def _replaced(net: nn.Module, name: str, new: nn.Module) -> Iterator[None]:
    old = net.get_submodule(name)
    net.set_submodule(name, new)
    try:
        yield
    finally:
        net.set_submodule(name, old)


@contextmanager
def _set(layer: nn.Module, name: str, value: object) -> Iterator[None]:
    old = getattr(layer, name)
    setattr(layer, name, value)
    try:
        yield
    finally:
        setattr(layer, name, old)
