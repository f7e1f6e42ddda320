"""Networks that could rest at chance (loss ln 10 = 2.302585) leave it at once, with the initialisation and rate of their rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from convolve.models import MODELS, create, find


def _digits(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float().view(-1, 1, 8, 8)
    return F.interpolate((x - x.mean()) / x.std(), (side, side)), torch.from_numpy(labels)


def _train(name: str, side: int, epochs: int, **options: Any) -> float:
    """The loss on the training images after some epochs of the row's recipe, with its constant peak rate."""
    x, y = _digits(side)
    recipe = MODELS[find(name)[0].name].recipe
    torch.manual_seed(0)
    net = create(name, in_channels=1, num_classes=10, img_size=side, **options)
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    optimizer = make(net.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    loss_of = getattr(net, "loss", F.cross_entropy)
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss_of(net(x[batch]), y[batch]).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        return F.cross_entropy(net(x), y).item()


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("lenet", 28, {}),
        ("lenet-shusentang", 28, {}),
        ("nin", 16, {"width_divisor": 4}),
        ("nin-d2l", 67, {"width_divisor": 8}),
    ],
)
def test_a_network_that_could_rest_at_chance_leaves_it_in_three_epochs(
    name: str, side: int, options: dict[str, Any]
) -> None:
    assert _train(name, side, 3, **options) < 2.302585 - 0.3


def test_lenet5_learns_by_the_papers_loss() -> None:
    x, y = _digits(32)
    torch.manual_seed(0)
    net = create("lenet5")
    optimizer = torch.optim.AdamW(net.parameters(), MODELS["lenet5"].recipe.lr)
    first = None
    for _ in range(4):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss = net.loss(net(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            first = loss.item() if first is None else first
    with torch.no_grad():
        assert net.loss(net(x), y).item() < first / 4
        assert (net(x).argmax(1) == y).float().mean().item() > 0.9


def test_googlenets_heads_take_part_in_its_loss_while_training_only() -> None:
    net = create("googlenet", num_classes=10, img_size=80, width_divisor=16)
    x, y = torch.randn(4, 3, 80, 80), torch.tensor([0, 1, 2, 3])
    output = net.train()(x)
    expected = [F.cross_entropy(scores, y) for scores in output]
    torch.testing.assert_close(net.loss(output, y), expected[0] + 0.3 * (expected[1] + expected[2]))
    net.loss(output, y).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    with torch.no_grad():
        scores = net.eval()(x)
        assert scores.shape == (4, 10)
        torch.testing.assert_close(net.loss(scores, y), F.cross_entropy(scores, y))
    plain = create("googlenet", num_classes=10, aux=False, width_divisor=16, img_size=80)
    assert isinstance(plain.train()(x), torch.Tensor)
    assert sum(isinstance(m, nn.Linear) for m in plain.modules()) == 1
