"""Text S002: little-known facts about convolution and pooling layers."""

from __future__ import annotations

import math

import torch

from convolve.errors import ShapeError
from convolve.geometry import Window
from convolve.jobs.claims.record import Claim, Fact, same, true
from convolve.jobs.claims.s001 import parameters
from convolve.ops.conv import conv2d
from convolve.ops.pool import avg_pool2d, max_pool2d
from convolve.ops.pool_trainable import trainable_pool2d


def one_set_of_weights_everywhere() -> list[Fact]:
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 2, 3] = 1
    moved = torch.zeros(1, 1, 9, 9)
    moved[0, 0, 5, 4] = 1
    kernel = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    first, second = conv2d(x, kernel), conv2d(moved, kernel)
    return [
        same("a dot leaves the kernel, turned around", first[0, 0, 0:3, 1:4], kernel[0, 0].flip(0, 1)),
        true("wherever the dot is", torch.equal(first[..., 0:3, 1:4], second[..., 3:6, 2:5])),
        same("outputs that the dot reaches", int((first != 0).sum()), 9),
    ]


def six_by_six_to_two_by_two() -> list[Fact]:
    y = conv2d(torch.zeros(3, 6, 6), torch.zeros(64, 3, 3, 3), stride=2)
    ceiling = Window.of(3, 2, axes=1).output_size((6,), ceil=True)[0]
    tensorflow = conv2d(torch.zeros(6, 6), torch.zeros(3, 3), stride=2, padding="same").shape[0]
    return [
        same("(3, 6, 6) with 64 filters (3, 3, 3), stride 2", y.shape, [64, 2, 2]),
        same("before rounding", (6 - 3) / 2 + 1, 2.5),
        same(
            "weights, and with biases", [parameters("1x3x6x6 k64 3x3 s2", bias=b) for b in (False, True)], [1728, 1792]
        ),
        same("with ceil, as Caffe's pooling; with TensorFlow's SAME", [ceiling, tensorflow], [3, 3]),
    ]


def channels_must_match() -> list[Fact]:
    try:
        conv2d(torch.zeros(1, 4, 6, 6), torch.zeros(2, 3, 3, 3))
        refused = False
    except ShapeError:
        refused = True
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = torch.randn(7, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    halves = conv2d(torch.zeros(1, 4, 3, 3), torch.zeros(2, 2, 3, 3), groups=2)
    by_channel = sum(conv2d(x[:, c : c + 1], w[:, c : c + 1]) for c in range(3))
    return [
        true("a filter of 3 channels on 4 is refused", refused),
        true("the channels' results are added", torch.allclose(torch.as_tensor(by_channel), conv2d(x, w), atol=1e-12)),
        same("7 filters on 3 channels: output channels", conv2d(x, w).shape[1], 7),
        same("4 channels in 2 groups take filters of 2: output channels", halves.shape[1], 2),
    ]


def pooling_keeps_channels() -> list[Fact]:
    x = torch.arange(50.0).reshape(2, 5, 5)
    corner = avg_pool2d(torch.ones(1, 3, 3, dtype=torch.float64), 3, 3, 1)[0, 0, 0].item()
    sizes = [
        (Window.of(k, s, p, axes=2).output_size((5, 5)), tuple(max_pool2d(x, k, s, p).shape[1:]))
        for k in (1, 2, 3)
        for s in (1, 2, 3)
        for p in range(k)
    ]
    return [
        same("channels before and after", [x.shape[0], max_pool2d(x, 2).shape[0]], [2, 2]),
        true(f"the size is the convolution's in {len(sizes)} cases", all(a == b for a, b in sizes)),
        same("parameters of LeNet-5's S2, which has some", sum(t.numel() for t in _s2()), 12),
        same("-1 padded: its maximum, as padding is -inf there", max_pool2d(-torch.ones(1, 1, 1), 3, 1, 1).item(), -1),
        same("ones padded: mean of a corner window of 9, as padding is 0 there", corner, 4 / 9),
    ]


def _s2() -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = torch.ones(6), torch.zeros(6)
    trainable_pool2d(torch.zeros(1, 6, 28, 28), weight, bias, 2)
    return weight, bias


def sharing_cuts_parameters() -> list[Fact]:
    inputs, outputs = math.prod((3, 6, 6)), math.prod((64, 2, 2))
    return [
        same("fully connected", inputs * outputs, 27648),
        same("locally connected", outputs * 27, 6912),
        same("convolution", parameters("1x3x6x6 k64 3x3 s2", bias=False), 1728),
    ]


def pooling_shrinks_what_follows() -> list[Fact]:
    def first_connected(pooled: bool) -> int:
        x = torch.zeros(1, 1, 28, 28)
        for filters, channels, padding in ((6, 1, 2), (16, 6, 0)):
            x = conv2d(x, torch.zeros(filters, channels, 5, 5), padding=padding)
            x = max_pool2d(x, 2) if pooled else x
        return (x.numel() + 1) * 120

    return [
        same("LeNet's first fully connected layer with pooling", first_connected(True), 48120),
        same("without", first_connected(False), 1106040),
    ]


CLAIMS = (
    Claim(
        "S002-1",
        "Receptive field and weight sharing make a convolution: one set of filters serves every place.",
        "holds",
        one_set_of_weights_everywhere,
    ),
    Claim(
        "S002-2",
        "(3, 6, 6) with 64 filters (3, 3, 3) gives (64, 2, 2), rounding 2.5 down; other frameworks should do likewise.",
        "holds as corrected",
        six_by_six_to_two_by_two,
        "The stride is 2, unsaid. Other frameworks do not all round down: Caffe's pooling and TensorFlow's SAME round up.",
    ),
    Claim(
        "S002-3",
        "A filter has as many channels as its input; products are added over channels; output channels are the filters.",
        "holds as corrected",
        channels_must_match,
        "With groups a filter has channels / groups.",
    ),
    Claim(
        "S002-4",
        "Pooling has no parameters, keeps the channels, and its size formula is the convolution's.",
        "holds as corrected",
        pooling_keeps_channels,
        "Plain pooling has none; LeNet-5's has two per channel. The stride defaults to the kernel; padding is -inf for max, 0 for average.",
    ),
    Claim("S002-5", "Sharing weights cuts the parameters.", "holds", sharing_cuts_parameters),
    Claim(
        "S002-6",
        "Pooling reduces the dimension and the parameters.",
        "holds as corrected",
        pooling_shrinks_what_follows,
        "It has none of its own to reduce: the layers behind it shrink.",
    ),
)
