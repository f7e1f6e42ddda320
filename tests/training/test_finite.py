"""training/finite.py: NaN or infinity in input, weight, loss or gradient stops training before the step, and is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from convolve.data.records import ResidentImages, Split
from convolve.errors import NotFiniteError
from convolve.training.finite import bad_gradient
from convolve.training.fit import fit
from convolve.training.options import Options
from convolve.training.records import Epoch, Silent, State

BAD = [float("nan"), float("inf")]


def _split(name: str, count: int) -> Split:
    labels = torch.arange(count) % 2
    pixels = (torch.rand(count, 1, 6, 6) * 100 + labels.view(-1, 1, 1, 1) * 100).to(torch.uint8)
    sizes = torch.tensor([6, 6], dtype=torch.int32).expand(count, 2)
    return Split(name, ResidentImages(pixels), labels, [f"{name}/{i}" for i in range(count)], sizes)


torch.manual_seed(0)
TRAIN, VALIDATION = _split("train", 32), _split("validation", 16)


class Loop:
    """A run of four steps an epoch; what it saved; `poison` is called after each step with the number done."""

    def __init__(self, poison: Any = None, normalise: Any = None, net: nn.Module | None = None, **choices: Any) -> None:
        torch.manual_seed(1)
        self.net = net or nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
        )
        self.best: list[int] = []
        self.states: list[State] = []
        self.weights: list[dict[str, torch.Tensor]] = []  # after each step

        def after(done: int) -> None:
            if poison is not None:
                poison(self.net, done)
            self.weights.append({name: value.detach().clone() for name, value in self.net.named_parameters()})

        def save_best(record: Epoch) -> None:
            assert all(torch.isfinite(value).all() for value in self.net.state_dict().values())
            self.best.append(record.epoch)

        options: dict[str, Any] = {
            "epochs": 3, "batch_size": 8, "optimizer": "sgd", "lr": 0.01, "weight_decay": 0.0, "label_smoothing": 0.0,
            "schedule": "constant", "seed": 0, "device": "cpu",
        }  # fmt: skip
        self.error: NotFiniteError | None = None
        try:
            fit(
                self.net, TRAIN, VALIDATION, normalise or (lambda batch: batch.float() / 255), Options(**options | choices),
                Silent(), save_best=save_best, save_state=self._save_state, after_step=after,
            )  # fmt: skip
        except NotFiniteError as error:
            self.error = error

    def _save_state(self, state: State) -> None:
        assert all(torch.isfinite(tensor).all() for tensor in state.tensors.values())
        self.states.append(state)

    def stopped_before_the_step(self) -> bool:
        return all(torch.equal(value, self.weights[-1][name]) for name, value in self.net.named_parameters())


def _calls(first: int) -> Any:
    """A function that says False until it has been asked `first` times."""
    seen = [0]

    def due() -> bool:
        seen[0] += 1
        return seen[0] > first

    return due


@pytest.mark.fault("NaN or infinity in an image", outcome="stops before the step, naming the image")
@pytest.mark.parametrize("bad", BAD)
def test_in_an_image_the_image_is_named_and_the_step_not_taken(bad: float) -> None:
    due = _calls(6)  # four steps and one validation, then one step more

    def normalise(batch: torch.Tensor) -> torch.Tensor:
        images = batch.float() / 255
        if due():
            images[3, 0, 2, 2] = bad
        return images

    run = Loop(normalise=normalise)
    assert str(run.error).startswith("the loss must stay finite; it is nan: the input is not finite in image 'train/")
    assert "at epoch 2, step 2, with lr 0.01; try --lr 0.001 --clip 1" in str(run.error)
    assert run.stopped_before_the_step()
    assert run.best == [1]


@pytest.mark.fault("NaN or infinity in a weight or a running statistic", outcome="stops, naming it; it is never saved")
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_in_a_weight_or_statistic_it_is_named_and_never_saved(bad: float, name: str) -> None:
    def poison(net: nn.Module, done: int) -> None:
        if done == 4:  # after an epoch's last step: nothing but the check of the weights sees it
            net.state_dict()[name].view(-1)[1] = bad

    run = Loop(poison)
    kind, size = ("weight", 36) if name.endswith("weight") else ("buffer", 4)
    word = "NaN" if bad != bad else "infinite"
    assert str(run.error).startswith(
        f"every weight must stay finite; the {kind} {name} is not finite (1 of {size} are {word}), at epoch 1, step 4"
    )
    assert run.best == []
    assert run.states == []


def test_in_a_weight_in_mid_epoch_the_next_loss_finds_it() -> None:
    def poison(net: nn.Module, done: int) -> None:
        if done == 5:
            net.state_dict()["4.bias"][0] = float("nan")

    run = Loop(poison)
    assert "it is nan: the weight 4.bias is not finite (1 of 2 are NaN), at epoch 2, step 2" in str(run.error)
    assert run.best == [1]


class Spoils(nn.Module):
    """Passes on what it gets, but infinite or NaN from some forward or backward pass on."""

    def __init__(self, forward: float = 0.0, backward: float = 0.0, after: int = 2) -> None:
        super().__init__()
        self.factors, self.after, self.seen = (forward, backward), after, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += self.training
        if self.seen <= self.after or not self.training:
            return x
        ahead, back = self.factors
        if back:
            x = x.clone()
            x.register_hook(lambda gradient: gradient * back)
        return x * ahead if ahead else x


@pytest.mark.fault("NaN or infinity in a layer's output", outcome="stops before the step, naming the layer")
@pytest.mark.parametrize("bad", BAD)
def test_in_a_layers_output_the_first_such_layer_is_named(bad: float) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), Spoils(forward=bad), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    run = Loop(net=net)
    assert "the output of layer 1 (Spoils) is not finite" in str(run.error)
    assert "at epoch 1, step 3" in str(run.error)
    assert run.stopped_before_the_step()


@pytest.mark.fault("NaN or infinity in the loss", outcome="stops before the step")
@pytest.mark.parametrize("bad", BAD)
def test_in_the_loss_alone_that_is_said(bad: float) -> None:
    class Own(nn.Sequential):
        def loss(self, output: torch.Tensor, targets: torch.Tensor, label_smoothing: float) -> torch.Tensor:
            return nn.functional.cross_entropy(output, targets) * bad

    run = Loop(net=Own(nn.Flatten(), nn.Linear(36, 2)))
    assert f"it is {bad}: every layer's output is finite, the loss is not, at epoch 1, step 1" in str(run.error)
    assert run.stopped_before_the_step()


@pytest.mark.fault("NaN or infinity in a gradient", outcome="stops before the step, naming the parameter")
@pytest.mark.parametrize("bad", BAD)
def test_in_a_gradient_the_first_of_the_backward_pass_is_named(bad: float) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), Spoils(backward=bad), nn.Linear(64, 2))
    run = Loop(net=net)
    assert str(run.error).startswith("every gradient must stay finite; the gradient of 0.bias is not finite")
    assert "at epoch 1, step 3" in str(run.error)
    assert run.stopped_before_the_step()


def test_a_norm_that_overflows_is_no_gradient_that_does() -> None:
    net = nn.Linear(2, 1)
    net.weight.grad = torch.full((1, 2), 3e38)
    assert bad_gradient(net) is None
    net.weight.grad[0, 1] = float("inf")
    assert bad_gradient(net) == "the gradient of weight is not finite (1 of 2 are infinite)"


@pytest.mark.fault("a loss a thousand times that of guessing", outcome="stops before the step")
def test_a_finite_loss_beyond_reason_stops_too() -> None:
    run = Loop(lr=1e7, optimizer="sgd")
    assert "the loss must stay below 693, 1,000 times that of guessing; it is " in str(run.error)
    assert "try --lr 1e+06 --clip 1" in str(run.error)


@pytest.mark.fault("a validation loss that is not finite", outcome="stops; that epoch is never called the best")
def test_a_validation_loss_that_is_not_finite_is_never_called_best() -> None:
    class Blows(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (1.0 if self.training else float("nan"))

    run = Loop(net=Blows(nn.Flatten(), nn.Linear(36, 2)))
    assert str(run.error).startswith("the validation loss must stay finite; it is nan, at epoch 1, step 4")
    assert run.best == []
