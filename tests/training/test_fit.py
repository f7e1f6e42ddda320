"""training/fit.py: the loop learns, chooses honestly, and a stopped and resumed run equals an uninterrupted one bit for bit."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
import torch
from torch import nn

from convolve.errors import InterruptedRunError, UnknownNameError, UsageError
from convolve.training.augment import Movement
from convolve.training.fit import epoch_order, fit, seconds_per_epoch
from convolve.training.measure import measure
from convolve.training.options import Options
from convolve.training.records import Epoch, Silent, State
from training_support import normalise, options_with, split_of

CPU = torch.device("cpu")
TRAIN, VALIDATION = split_of("train", 97, 0), split_of("validation", 40, 1)


def _net(seed: int = 0) -> nn.Module:
    """With batch statistics and dropout, which an inexact resume would get wrong."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(4 * 4 * 5, 2)
        )


class Keep:
    """Collects what `fit` saves, through JSON as a file would."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self.best: list[int] = []

    def state(self, state: State) -> None:
        values = json.loads(json.dumps(state.values))
        self.states.append(State({name: tensor.clone() for name, tensor in state.tensors.items()}, values))

    def record(self, record: Epoch) -> None:
        self.best.append(record.epoch)


class StopAt(Silent):
    """Sends a real signal to this process after a number of steps."""

    def __init__(self, steps: int, number: signal.Signals = signal.SIGINT) -> None:
        self.left, self.number = steps, number

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


def _run(
    net: nn.Module, options: Options, keep: Keep, observer: Any = None, resume: State | None = None
) -> list[Epoch]:
    return fit(
        net,
        TRAIN,
        VALIDATION,
        normalise,
        options,
        observer or Silent(),
        save_best=keep.record,
        save_state=keep.state,
        resume=resume,
    )


def test_it_learns_what_a_person_sees_at_once() -> None:
    net = _net()
    history = _run(net, options_with(epochs=8, movement=Movement()), Keep())
    assert measure(net, VALIDATION, normalise, CPU).accuracy >= 0.95
    assert history[-1].loss < history[0].loss


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
@pytest.mark.parametrize("stop", [1, 7, 10])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    optimizer: str, schedule: str, stop: int
) -> None:
    options = options_with(optimizer=optimizer, schedule=schedule)
    whole, whole_keep = _net(), Keep()
    expected = _run(whole, options, whole_keep)

    keep = Keep()
    with pytest.raises(InterruptedRunError):
        _run(_net(), options, keep, StopAt(stop))
    resumed = _net(seed=99)  # other weights: everything must come from the state
    got = _run(resumed, options, keep, resume=keep.states[-1])

    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    timeless = [(row.loss, row.acc, row.val_loss, row.val_acc, row.lr, row.best) for row in got]
    assert timeless == [(row.loss, row.acc, row.val_loss, row.val_acc, row.lr, row.best) for row in expected]
    assert keep.best == whole_keep.best
    for name, tensor in whole_keep.states[-1].tensors.items():
        assert torch.equal(tensor, keep.states[-1].tensors[name]), name


def test_a_finished_run_that_is_resumed_changes_nothing() -> None:
    keep = Keep()
    net = _net()
    history = _run(net, options_with(), keep)
    again = _run(_net(3), options_with(), keep, resume=keep.states[-1])
    assert again == history


def test_signals_are_given_back_and_sigterm_stops_too() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    keep = Keep()
    with pytest.raises(InterruptedRunError, match="epoch 1, step 2"):
        _run(_net(), options_with(), keep, StopAt(2, signal.SIGTERM))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert keep.states[-1].values["progress"]["step"] == 2


def test_the_callers_random_state_is_left_alone_and_does_not_matter() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = _net()
    _run(first, options_with(), Keep())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    second = _net()
    _run(second, options_with(), Keep())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_seed_matters() -> None:
    first, second = _net(), _net()
    _run(first, options_with(seed=1), Keep())
    _run(second, options_with(seed=2), Keep())
    assert not torch.equal(first[0].weight, second[0].weight)


def test_the_best_epoch_has_the_highest_validation_accuracy_and_then_the_lowest_loss() -> None:
    keep = Keep()
    history = _run(_net(), options_with(epochs=6), keep)
    best: tuple[float, float] = (-1.0, 0.0)
    expected = []
    for row in history:
        if (row.val_acc, -row.val_loss) > best:
            best = (row.val_acc, -row.val_loss)
            expected.append(row.epoch)
    assert keep.best == expected == [row.epoch for row in history if row.best]


def test_the_reported_training_loss_is_plain_cross_entropy_without_smoothing() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([2.0, 0.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(x), 2)

    history = _run(Constant(), options_with(epochs=1, lr=1e-12, label_smoothing=0.5, weight_decay=0), Keep())
    share = torch.log_softmax(torch.tensor([2.0, 0.0], dtype=torch.float64), 0)
    expected = -sum(share[label].item() for label in TRAIN.labels.tolist()) / len(TRAIN)
    assert history[0].loss == pytest.approx(expected, rel=1e-6)


def test_every_image_is_seen_once_per_epoch_and_epochs_differ() -> None:
    first, second = epoch_order(0, 0, 101), epoch_order(0, 1, 101)
    assert sorted(first.tolist()) == list(range(101))
    assert not torch.equal(first, second)
    assert torch.equal(first, epoch_order(0, 0, 101))


@pytest.mark.parametrize(("count", "size"), [(33, 16), (17, 16), (1, 4), (32, 16)])
def test_a_last_batch_of_one_image_never_stands_alone(count: int, size: int) -> None:
    sizes: list[int] = []

    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(42, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                sizes.append(len(x))
            return self.line(x.flatten(1))

    few = split_of("train", count, 3)
    options = options_with(epochs=1, batch_size=size)
    fit(Watch(), few, VALIDATION, normalise, options, Silent(), save_best=id, save_state=id)
    assert sum(sizes) == count
    assert min(sizes) > 1 or count == 1


def test_the_estimate_of_the_time_leaves_network_and_random_state_alone() -> None:
    net = _net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state = torch.get_rng_state()
    assert seconds_per_epoch(net, TRAIN, normalise, options_with()) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_measuring_equals_a_count_by_hand_and_keeps_the_mode() -> None:
    net = _net().train()
    measured = measure(net, VALIDATION, normalise, CPU)
    assert net.training
    net.eval()
    scores = net(normalise(VALIDATION.images.batch(torch.arange(40)))).detach()
    right = sum(int(row.argmax() == label) for row, label in zip(scores, VALIDATION.labels, strict=True))
    assert measured.accuracy == right / 40
    confusion = measured.confusion()
    assert confusion.sum() == 40
    assert confusion.diagonal().sum() == right
    assert confusion.sum(1).tolist() == torch.bincount(VALIDATION.labels, minlength=2).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch_size": -1}, "batch-size must be at least 1"),
        ({"lr": 0.0}, "lr must be a positive number"),
        ({"lr": float("nan")}, "lr must be a positive number"),
        ({"label_smoothing": 1.0}, "label smoothing"),
        ({"weight_decay": -0.1}, "weight decay"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options_with(**change)


@pytest.mark.parametrize(
    ("field", "value", "near"), [("optimizer", "adamm", "adam"), ("schedule", "one-cycle", "onecycle")]
)
def test_an_unknown_name_lists_the_nearest(field: str, value: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=near):
        options_with(**{field: value})
