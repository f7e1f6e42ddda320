"""The profiles of torchinfo and fvcore against the tools themselves, on networks that torch defines and ours."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convolve
from convolve.analysis.profiles import reconcile
from convolve.models import create


class Mixed(nn.Module):
    """What the others get wrong or count in their own way: transposed, grouped, norms, resizing, linear over maps, products."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=4, bias=False)
        self.bn, self.gn = nn.BatchNorm2d(12), nn.GroupNorm(2, 6)
        self.up = nn.ConvTranspose2d(12, 6, 3, 2, 1, 1, groups=2)
        self.pool, self.fc, self.last = nn.AdaptiveAvgPool2d(3), nn.Linear(54, 5), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = torch.relu(self.gn(self.up(self.bn(self.grouped(self.first(x))))))
        large = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return (
            self.fc(self.pool(x).flatten(1)),
            self.last(x.permute(0, 2, 3, 1)),
            torch.matmul(large, large.transpose(2, 3)),
        )


def of_torch(name: str, side: int) -> nn.Module:
    """The network with torch's own layers, which the tools know by class or by operator."""
    net = create(name, img_size=side, num_classes=7)
    for module in net.modules():
        for torchs in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d):
            if isinstance(module, torchs):
                module.__class__ = torchs
    return net.eval()


NETWORKS = [
    ("lenet", "1x28x28"),
    ("alexnet", "3x67x67"),
    ("vgg11", "3x32x32"),
    ("resnet18", "3x37x37"),
    ("mobilenet_v1", "3x33x33"),
]


@pytest.fixture(params=[*NETWORKS, ("mixed", "3x17x17")], ids=lambda pair: pair[0], scope="module")
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[int, ...]]:
    name, size = request.param
    shape = tuple(map(int, size.split("x")))
    return (Mixed().eval() if name == "mixed" else of_torch(name, shape[1])), (2, *shape)


def test_torchinfo_counts_what_its_profile_says(network: tuple[nn.Module, tuple[int, ...]]) -> None:
    torchinfo = pytest.importorskip("torchinfo")
    net, size = network
    theirs = torchinfo.summary(net, size, verbose=0, device="cpu", mode="eval")
    report = convolve.inspect(net, size[1:], batch=2)
    found = reconcile(report, "torchinfo")
    assert found.theirs == theirs.total_mult_adds
    assert found.theirs - found.ours == sum(d.amount for d in found.differences)
    assert report.totals.parameters == theirs.total_params


def test_fvcore_counts_what_its_profile_says(network: tuple[nn.Module, tuple[int, ...]]) -> None:
    flops = pytest.importorskip("fvcore.nn")
    net, size = network
    with warnings.catch_warnings():  # it traces with TorchScript, which torch deprecates
        warnings.simplefilter("ignore")
        counted = flops.FlopCountAnalysis(net, torch.zeros(size)).unsupported_ops_warnings(False)
        theirs = int(counted.total())
    found = reconcile(convolve.inspect(net, size[1:], batch=2), "fvcore")
    assert found.theirs == theirs
    assert found.theirs - found.ours == sum(d.amount for d in found.differences)
