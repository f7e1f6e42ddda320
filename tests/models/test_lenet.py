"""LeNet as taught: d2l's printed shapes, its 61,706 parameters, and a sigmoid net that does not rest at chance."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from convolve.models import MODELS, create

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


@pytest.mark.parametrize("name", ["lenet", "lenet-shusentang"])
def test_a_sigmoid_lenet_leaves_the_loss_of_chance_in_three_epochs(name: str) -> None:
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float().view(-1, 1, 8, 8)
    x = nn.functional.interpolate((x - x.mean()) / x.std(), (28, 28))
    y = torch.from_numpy(labels)
    recipe = MODELS["lenet"].recipe
    assert recipe.optimizer == "adam"
    torch.manual_seed(0)
    net = create(name)
    optimizer = torch.optim.Adam(net.parameters(), recipe.lr)
    for _ in range(3):
        for batch in torch.randperm(len(x)).split(recipe.batch_size):
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert nn.functional.cross_entropy(net(x), y).item() < 2.302585 - 0.5
