"""Totals of a network counted from its modules alone, independently of the package: multiply-adds, receptive fields, shapes.

Multiply-adds are those of convolutions (connected pairs only) and fully connected layers, without biases. The receptive field
is that of one unit of the last maps before global pooling or the first fully connected layer, by the usual recursion
r' = r + (k - 1) j, j' = j s, the largest over the paths that meet.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from convolve.nn import EuclideanRBF, LocalResponseNorm, TableConv2d, TrainableSubsampling

LEAVES = (TableConv2d, TrainableSubsampling, EuclideanRBF, LocalResponseNorm)


def shapes(net: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """The output shape of every layer without children, by name, in the order of running."""
    found: dict[str, tuple[int, ...]] = {}
    _run(net, x, lambda name, layer, out: found.__setitem__(name, tuple(out.shape)))
    return found


def multiply_adds(net: nn.Module, x: Tensor) -> dict[str, int]:
    """The multiply-adds of each layer that has any, for one image."""
    found: dict[str, int] = {}

    def count(name: str, layer: nn.Module, out: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            found[name] = out[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, TableConv2d):
            found[name] = out[0, 0].numel() * layer.weight.numel()
        elif isinstance(layer, nn.Linear):
            found[name] = layer.weight.numel()

    _run(net, x, count)
    return found


def connections(net: nn.Module, x: Tensor) -> dict[str, int]:
    """LeCun's count: every input of every unit, its bias included; weights used many times count many times."""
    found: dict[str, int] = {}

    def count(name: str, layer: nn.Module, out: Tensor) -> None:
        units = out[0, 0].numel() if out.dim() == 4 else 1
        if isinstance(layer, (nn.Conv2d, TableConv2d)):
            found[name] = units * (layer.weight.numel() + layer.bias.numel())
        elif isinstance(layer, TrainableSubsampling):
            found[name] = out[0].numel() * (layer.kernel_size**2 + 1)
        elif isinstance(layer, nn.Linear):
            found[name] = layer.weight.numel() + layer.bias.numel()
        elif isinstance(layer, EuclideanRBF):
            found[name] = layer.prototypes.numel()

    _run(net, x, count)
    return found


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or not list(m.children())


def receptive_field(net: nn.Module) -> tuple[int, int]:
    """(rows, columns) of the image that one unit of the last maps can see."""
    graph = _Tracer().trace(net.eval())
    fields: dict[fx.Node, tuple[tuple[int, int], tuple[int, int]]] = {}
    last = (1, 1)
    for node in graph.nodes:
        sources = [fields[source] for source in node.all_input_nodes if source in fields]
        if node.op == "placeholder":
            fields[node] = ((1, 1), (1, 1))
        elif sources:
            field = tuple(max(r[axis] for r, _ in sources) for axis in (0, 1))
            jump = sources[0][1]
            layer = net.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(layer, (nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear)):
                continue  # the head: what it sees is the whole image
            kernel, stride = _window(layer)
            fields[node] = (
                tuple(r + (k - 1) * j for r, k, j in zip(field, kernel, jump, strict=True)),
                tuple(j * s for j, s in zip(jump, stride, strict=True)),
            )
            last = fields[node][0]
    return last


def _window(layer: nn.Module | None) -> tuple[tuple[int, int], tuple[int, int]]:
    def pair(value: int | tuple[int, int]) -> tuple[int, int]:
        return value if isinstance(value, tuple) else (value, value)

    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, TrainableSubsampling)):
        dilation = getattr(layer, "dilation", 1)
        kernel = tuple((k - 1) * d + 1 for k, d in zip(pair(layer.kernel_size), pair(dilation), strict=True))
        return kernel, pair(layer.stride)
    if isinstance(layer, TableConv2d):
        return tuple(layer.weight.shape[1:]), (1, 1)
    return (1, 1), (1, 1)


def _run(net: nn.Module, x: Tensor, see: Callable[[str, nn.Module, Tensor], None]) -> None:
    net.eval()
    handles = []
    for name, layer in net.named_modules():
        if isinstance(layer, LEAVES) or not list(layer.children()):
            handles.append(layer.register_forward_hook(lambda m, _, out, name=name: see(name, m, out)))
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
