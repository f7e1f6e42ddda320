"""Peak memory against torch's own MemTracker, under fake tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional as F

import convolve


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((16, 2), (32, 2), (64, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 100), nn.Dropout(), nn.Linear(100, 10))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.silu(self.norm1(self.conv1(x))))))


def residual() -> nn.Module:
    blocks = [Residual(24) for _ in range(4)]
    return nn.Sequential(nn.Conv2d(3, 24, 5, 2, 2), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))


class Dense(nn.Module):
    """Concatenations: every map stays until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 8 * n, 8, 3, padding=1) for n in range(5))
        self.head = nn.Conv2d(43, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x).tanh()], 1)
        return self.head(F.interpolate(x, scale_factor=2, mode="bilinear")).softmax(1)


def tracked(build, training: bool, batch: int) -> int:
    """MemTracker's peak of one forward (and backward) pass of a fresh network."""
    with FakeTensorMode():
        model = build().train(training)
        images = torch.empty(batch, 3, 32, 32)
        tracker = MemTracker()
        tracker.track_external(model, images)
        with tracker, torch.set_grad_enabled(training):
            output = model(images)
            if training:
                output.backward(torch.ones_like(output))
        peaks = tracker.get_tracker_snapshot("peak")
    return int(next(iter(peaks.values()))["Total"])


@pytest.mark.parametrize("build", [vgg, residual, Dense])
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("training", [False, True])
def test_the_peak_is_mem_trackers_within_two_percent(build, training: bool, batch: int) -> None:
    memory = convolve.inspect(build(), "3x32x32", batch=batch, optimizer="sgd" if training else None).memory
    ours = memory.training if training else memory.inference
    assert ours is not None
    # The optimiser's own step holds every gradient at once; MemTracker saw forward and backward only.
    assert ours.bytes == pytest.approx(tracked(build, training, batch), rel=0.02)


def test_optimisers_keep_what_they_keep() -> None:
    net = nn.Sequential(nn.Linear(100, 100, bias=False))
    weights = 40_000
    step = {}
    for name, copies in (("sgd", 0), ("sgd-momentum", 1), ("adagrad", 1), ("rmsprop", 1), ("adam", 2), ("adamw", 2)):
        peak = convolve.inspect(net, "100", optimizer=name).memory.training
        assert peak is not None
        step[name] = peak.bytes
        # the optimisers that divide by a root need one temporary of the largest parameter
        temporary = weights if name in ("adagrad", "rmsprop", "adam", "adamw") else 0
        assert peak.bytes - step["sgd"] == pytest.approx(copies * weights + temporary, abs=2000)
    real = torch.optim.Adam(net.parameters())
    net(torch.zeros(1, 100)).sum().backward()
    real.step()
    held = sum(t.numel() * t.element_size() for s in real.state.values() for t in s.values() if t.dim())
    assert held == 2 * weights


def test_what_autograd_keeps_is_counted_once_per_layer() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    report = convolve.inspect(net, "1x10x10", optimizer="sgd")
    # conv keeps its input (the image: counted as input); relu its result; pooling its int64 indices besides relu's result,
    # which is kept already; the last conv keeps the pooled map.
    assert [row.saved for row in report.rows] == [0, 4 * 64 * 4, 4 * 16 * 8, 4 * 16 * 4]
    assert report.totals.saved == 1024 + 512 + 256


def test_the_optimisers_state_is_there_while_activations_peak() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1), nn.Tanh())
    plain, adam = (
        convolve.inspect(net, "3x32x32", batch=4, optimizer=name).memory.training for name in ("sgd", "adam")
    )
    assert plain is not None
    assert adam is not None
    assert adam.bytes - plain.bytes == adam.optimizer == 2 * 4 * (224 + 584)
