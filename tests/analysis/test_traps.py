"""Numbers that other tools have got wrong, each by hand. The trap and its reporter stand beside each case."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convolve


@pytest.mark.parametrize(
    ("layer", "size", "macs", "trap"),
    [
        # true n c (k/g) prod(kernel) prod(INPUT)
        (nn.ConvTranspose2d(3, 8, 3), "3x32x32", 221_184, "torch-scan asserts 249,704: counted at the output's size"),
        (nn.ConvTranspose2d(32, 1, 3), "32x1x1", 288, "TorchLens, fvcore#78: 81, weight[1] taken for the in-channels"),
        (nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=4), "8x5x7", 35 * 8 * 2 * 16, "thop#20, #93; calflops: groups"),
        (
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            "8x6x5",
            30 * 8 * 9,
            "calflops: groups divided twice, 0 for depthwise",
        ),
        (nn.Conv1d(4, 6, 5), "4x20", 16 * 6 * 20, "ptflops#143: the length lost"),
        (
            nn.Conv2d(2, 3, 4, padding="same", dilation=2),
            "2x9x7",
            63 * 3 * 2 * 16,
            "DeepSpeed: same with even kernel, one short",
        ),
        (nn.Linear(6, 4), "5x6", 5 * 24, "torchinfo#77: only the last dimension counted"),
    ],
)
def test_macs_of_a_layer(layer: nn.Module, size: str, macs: int, trap: str) -> None:
    assert convolve.inspect(layer, size).totals.macs == macs, trap


def test_an_unbatched_sequence_keeps_its_length() -> None:
    report = convolve.inspect(nn.Conv1d(4, 6, 5), torch.empty(4, 20))  # ptflops#143 again
    assert report.totals.macs == 16 * 6 * 20


def test_functional_convolutions_and_products_are_counted() -> None:
    class Functional(nn.Module):  # thop#59 (EfficientNet 0.01 G), torchinfo#126
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 2, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            y = F.conv2d(x, self.weight).flatten(2)
            return y @ y.transpose(1, 2) + torch.einsum("ncp,nkp->nck", y, y)

    assert convolve.inspect(Functional(), "2x7x6").totals.macs == 20 * 4 * 18 + 2 * 16 * 20


def test_a_bias_is_no_mac_and_a_norm_is_none() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))  # torchinfo counts both
    totals = convolve.inspect(net, "2x5x5").totals
    assert (totals.macs, totals.flops) == (25 * 6, 2 * 25 * 6 + 75 + 2 * 75)


def test_interpolation_keeps_batch_and_channels() -> None:
    report = convolve.inspect(nn.Upsample(size=(6, 8)), "3x3x4", batch=2)  # calflops returns prod(size)
    assert report.outputs == ((2, 3, 6, 8),)
    assert report.totals.macs == 0


def test_a_pooling_kernel_has_two_sides() -> None:
    assert convolve.inspect(nn.AvgPool2d(3), "1x9x9").totals.flops == 9 * 9  # torch-scan: k for k squared


def test_shared_modules_several_inputs_and_huge_sizes() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.conv(self.conv(x)) + self.conv(y)

    report = convolve.inspect(Twice(), ["3x8x8", "3x8x8"])  # torchsummary#37, #71: weights twice, inputs multiplied
    assert report.totals.parameters == 84
    assert report.totals.macs == 3 * 64 * 81
    # torchsummary#202, fvcore#76: 32-bit overflow
    assert convolve.inspect(Twice(), ["3x20000x20000"] * 2).totals.macs == 3 * 20000**2 * 81


def test_heads_that_only_training_has_are_not_counted_in_inference() -> None:
    report = convolve.inspect("googlenet")
    assert (report.totals.parameters, report.totals.active) == (13_378_280, 6_998_552)


def test_padding_zeros_are_a_share_of_the_arithmetic() -> None:
    # ResNet-18 spends 7.4 % of its products on padding zeros, AlexNet (torchvision) 7.9 %
    for name, share in (("resnet18", 0.074), ("alexnet-torchvision", 0.079)):
        totals = convolve.inspect(name, "3x224x224").totals
        assert 1 - totals.macs_valid / totals.macs == pytest.approx(share, abs=0.0006)


@pytest.mark.parametrize("transposed", [False, True])
def test_valid_macs_are_counted_by_a_convolution_of_ones(transposed: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(12):
        k, s, d, n = (int(torch.randint(1, 5, (), generator=generator)) for _ in range(4))
        p, n = int(torch.randint(0, 4, (), generator=generator)), n + 6
        if transposed:
            layer: nn.Module = nn.ConvTranspose2d(1, 1, k, s, min(p, d * (k - 1)), 0, dilation=d, bias=False)
        else:
            layer = nn.Conv2d(1, 1, k, s, p, d, bias=False)
        nn.init.ones_(layer.weight)
        layer.double()
        try:
            products = int(layer(torch.ones(1, 1, n, n + 1, dtype=torch.float64)).sum())
        except RuntimeError:
            continue
        assert convolve.inspect(layer, f"1x{n}x{n + 1}:float64").totals.macs_valid == products
