"""Milliseconds per layer, measured: torch's operators and ours in turn, beside the machine's limit.

The network runs for real, once; every convolution and pooling layer is then timed by itself on the input that it got,
torch's layer and ours (same weights) in turn, `rounds` times, and the median of each is reported. The limit is the
faster of a matrix product and a wide convolution measured in the same minute, in multiply-adds per second: no layer can be
much faster without multiplying less (Winograd and FFT do, so a share above 100 % is possible).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convolve import nn as ours
from convolve.analysis.columns import lines
from convolve.analysis.report import Report
from convolve.analysis.trace import Input
from convolve.geometry import Window
from convolve.ops.why import why
from convolve.problem import ConvProblem

ROUNDS = 7
_NAMES = [f"{kind}{axes}d" for kind in ("Conv", "MaxPool", "AvgPool") for axes in (1, 2, 3)]


@dataclass(frozen=True)
class LayerTime:
    """One layer: seconds by torch and by us, the limit's share, the algorithm and why."""

    layer: str
    operator: str
    torch: float
    ours: float
    share: float | None
    algorithm: str


@dataclass(frozen=True)
class Times:
    """Every timed layer, the whole network, and the measured limit in multiply-adds per second."""

    layers: tuple[LayerTime, ...]
    whole: float
    limit: float
    threads: int

    @property
    def saved(self) -> float:
        """Seconds that taking the faster of both in every layer would save."""
        return sum(max(0.0, each.torch - each.ours) for each in self.layers)

    @property
    def lines(self) -> list[str]:
        """The table."""
        head = ("layer", "operator", "torch ms", "ours ms", "ratio", "of limit", "algorithm")
        cells = [
            (
                each.layer,
                each.operator,
                f"{each.torch * 1e3:.3f}",
                f"{each.ours * 1e3:.3f}",
                f"{each.torch / each.ours:.2f}",
                "" if each.share is None else f"{each.share:.0%}",
                each.algorithm,
            )
            for each in self.layers
        ]
        table = lines(head, cells, [False, False, True, True, True, True, False])
        return [
            *table,
            "",
            f"whole network {self.whole * 1e3:.2f} ms in torch with {self.threads} threads",
            f"the faster of both in every layer would save {self.saved * 1e3:.2f} ms",
            f"limit {self.limit / 1e9:.1f} G multiply-adds per second: the faster of a matrix product and a wide convolution, now",
        ]

    def to_json(self) -> dict[str, Any]:
        """The times as plain data, seconds."""
        return {
            "layers": [vars(each) for each in self.layers],
            "whole_seconds": self.whole,
            "saved_seconds": self.saved,
            "limit_macs_per_second": self.limit,
            "threads": self.threads,
        }


def timed(module: nn.Module, inputs: Sequence[Input], report: Report, rounds: int = ROUNDS) -> Times:
    """Time every convolution and pooling layer of `module` in torch and with our operators, interleaved.

    A module on the meta device is given random weights in a copy.
    """
    model = with_weights(module).eval()
    tensors = [random_input(item) for item in inputs]
    arrived: dict[str, torch.Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(_keep(arrived, name)) for name, layer in model.named_modules() if _kind(layer)
    ]
    try:
        with torch.no_grad():
            model(*tensors)
            whole = _median([lambda: model(*tensors)], rounds)[0]
    finally:
        for handle in handles:
            handle.remove()
    limit = _limit()
    macs = {row.path: row.macs for row in report.rows if row.macs}
    layers = dict(model.named_modules())
    found = [_layer(name, layers[name], x, macs.get(name), limit, rounds) for name, x in arrived.items()]
    return Times(tuple(found), whole, limit, torch.get_num_threads())


def _layer(name: str, layer: nn.Module, x: torch.Tensor, macs: int | None, limit: float, rounds: int) -> LayerTime:
    plain, counterpart = _pair(layer)
    runs: list[Callable[[], Any]] = [lambda: plain(x), lambda: counterpart(x)]
    with torch.no_grad():
        try:
            first, second = _median(runs, rounds)
        except (RuntimeError, ValueError, TypeError):  # a padding that torch does not have
            first = second = _median(runs[1:], rounds)[0]
    share = None if not macs else macs / min(first, second) / limit
    return LayerTime(name, _kind(layer) or "", first, second, share, _algorithm(layer, x))


def _algorithm(layer: nn.Module, x: torch.Tensor) -> str:
    """The algorithm that `auto` takes for a convolution, and its reason, from `convolve.why`."""
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) or layer.padding_mode != "zeros":
        return ""
    padding: Any = layer.padding
    if isinstance(padding, str):
        return ""
    window = Window.of(layer.kernel_size, layer.stride, padding, layer.dilation, axes=len(layer.kernel_size))
    sizes = tuple(x.shape[2:])
    answers = why(ConvProblem(x.shape[0], layer.in_channels, layer.out_channels, sizes, window, layer.groups))
    reason = next(answer.reason for answer in answers.answers if answer.chosen)
    return f"{answers.chosen}: {reason}" if reason else answers.chosen


def _pair(layer: nn.Module) -> tuple[nn.Module, nn.Module]:
    """torch's layer and ours, with the same weights."""
    kind = _kind(layer)
    assert kind is not None
    return _as(getattr(nn, kind), layer), _as(getattr(ours, kind), layer)


_EXTRAS = {"algorithm": "auto", "flip_kernel": False, "group_order": "contiguous"}  # what our convolutions have besides


def _as(kind: type[nn.Module], layer: nn.Module) -> nn.Module:
    """The layer as one of another class: the same attributes and tensors."""
    other = kind.__new__(kind)
    other.__dict__.update({**(_EXTRAS if isinstance(layer, nn.modules.conv._ConvNd) else {}), **layer.__dict__})
    return other


def _kind(layer: nn.Module) -> str | None:
    """The name of torch's class that a layer is, or is a subclass of ours of."""
    return next((n for n in _NAMES if type(layer) in (getattr(nn, n), getattr(ours, n))), None)


def _keep(arrived: dict[str, torch.Tensor], name: str) -> Callable[..., None]:
    def hook(_layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        arrived.setdefault(name, args[0])

    return hook


def with_weights(module: nn.Module) -> nn.Module:
    if not any(t.is_meta for t in (*module.parameters(), *module.buffers())):
        return module
    import copy

    generator = torch.Generator().manual_seed(0)
    clone = copy.deepcopy(module).to_empty(device="cpu")
    for tensor in (*clone.parameters(), *clone.buffers()):
        if tensor.dtype.is_floating_point:
            tensor.data = torch.rand(tensor.shape, generator=generator) * 0.1 + 0.01
        else:
            tensor.data.zero_()
    return clone


def random_input(item: Input) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if item.dtype.is_floating_point:
        return torch.rand(item.shape, generator=generator).to(item.dtype)
    return torch.zeros(item.shape, dtype=item.dtype)


def _limit() -> float:
    """Multiply-adds per second of the faster of two dense kernels: a matrix product, and a wide convolution in channels-last
    memory. Where the library behind the product does not know the processor, the convolution is twice as fast."""
    size = 1024
    a = torch.rand(size, size, generator=torch.Generator().manual_seed(0))
    product = size**3 / _best(lambda: a @ a)
    image, weight = torch.ones(4, 256, 28, 28), torch.ones(256, 256, 3, 3)
    image, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (image, weight))
    macs = 4 * 28 * 28 * 256 * 256 * 9
    return float(max(product, macs / _best(lambda: torch.conv2d(image, weight, padding=1))))


def _best(run: Callable[[], Any], rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _median(runs: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Seconds of each, measured in turn after one warm-up of each."""
    for run in runs:
        run()
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for taken, run in zip(times, runs, strict=True):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]
