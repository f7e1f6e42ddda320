"""LeNet as taught: d2l's printed shapes and its 61,706 parameters."""

from __future__ import annotations

import torch

from convolve.models import create

# d2l.ai 7.6 prints these, layer by layer
SHAPES = {
    "conv1": (1, 6, 28, 28), "avg1": (1, 6, 14, 14), "conv2": (1, 16, 10, 10), "avg2": (1, 16, 5, 5),
    "flatten1": (1, 400), "fc1": (1, 120), "fc2": (1, 84), "fc3": (1, 10),
}  # fmt: skip


def test_the_layers_have_the_published_shapes_and_the_sum_of_parameters() -> None:
    net, x, shapes = create("lenet"), torch.zeros(1, 1, 28, 28), {}
    for name, layer in net.named_children():
        x = layer(x)
        shapes[name] = tuple(x.shape)
    assert {name: shapes[name] for name in SHAPES} == SHAPES
    assert sum(p.numel() for p in net.parameters()) == 61_706
    assert sum(p.numel() for p in create("lenet-shusentang").parameters()) == 44_426
