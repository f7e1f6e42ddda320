"""The benchmark's written-out training step of LeNet-5 is the network: its loss and every gradient are autograd's."""

from __future__ import annotations

import pytest
import torch
from benchmarks.lenet5_step import loss_and_gradients

from convolve.models import create


@pytest.mark.parametrize("n", [1, 16, 23])
def test_the_kernel_gives_autograds_loss_and_gradients(n: int) -> None:
    torch.manual_seed(n)
    net = create("lenet5", j=0.7)
    with torch.no_grad():
        for parameter in net.parameters():  # away from the start, where everything is small, biases included
            parameter.mul_(2).add_(torch.randn_like(parameter) * 0.03)
    images, labels = torch.randn(n, 1, 32, 32), torch.randint(0, 10, (n,))
    exact = create("lenet5", j=0.7).double()
    exact.load_state_dict(net.state_dict())
    loss = exact.loss(exact(images.double()), labels)
    loss.backward()
    assert loss_and_gradients(net, images, labels) == pytest.approx(loss.item(), rel=1e-5)
    for (name, ours), theirs in zip(net.named_parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        largest = theirs.grad.abs().max()
        torch.testing.assert_close(ours.grad.double() / largest, theirs.grad / largest, rtol=0, atol=3e-5, msg=name)


def test_gradients_are_those_of_this_batch_alone() -> None:
    torch.manual_seed(0)
    net, images, labels = create("lenet5"), torch.randn(20, 1, 32, 32), torch.randint(0, 10, (20,))
    loss_and_gradients(net, images, labels)
    first = [parameter.grad.clone() for parameter in net.parameters()]  # type: ignore[union-attr]
    loss_and_gradients(net, images * 2, labels)
    loss_and_gradients(net, images, labels)
    assert all(torch.equal(before, parameter.grad) for before, parameter in zip(first, net.parameters(), strict=True))
