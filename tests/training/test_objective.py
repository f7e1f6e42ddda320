"""What is minimised: the cross-entropy, or the loss that a network brings along."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from convolve.errors import UsageError
from convolve.models import create
from convolve.training.objective import objective


def test_a_plain_network_minimises_the_smoothed_cross_entropy() -> None:
    output, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    loss, scores = objective(torch.nn.Identity(), output, labels, 0.1)
    torch.testing.assert_close(loss, F.cross_entropy(output, labels, label_smoothing=0.1))
    assert scores is output


def test_googlenet_minimises_its_heads_too_and_lenet5_its_own_criterion() -> None:
    labels = torch.tensor([0, 1, 2])
    net = create("googlenet", num_classes=10, img_size=32, width_divisor=16).train()
    output = net(torch.randn(3, 3, 32, 32))
    loss, scores = objective(net, output, labels, 0.2)
    main, first, second = (F.cross_entropy(each, labels, label_smoothing=0.2) for each in output)
    torch.testing.assert_close(loss, main + 0.3 * (first + second))
    assert scores is output.scores
    five, x = create("lenet5"), torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(objective(five, five(x), labels)[0], five.criterion(-five(x), labels))
    with pytest.raises(UsageError, match="no label smoothing"):
        objective(five, five(x), labels, 0.1)
