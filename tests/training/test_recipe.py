"""The recipe: penalties, clipping, warm-up, patience, frozen layers and bfloat16, against torch's own and sums by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from convolve.data.records import ResidentImages, Split
from convolve.errors import UnknownNameError, UsageError
from convolve.jobs.recipe import decide_precision, is_timed
from convolve.training.augment import Movement
from convolve.training.fit import Trial
from convolve.training.freeze import begin_training, freeze
from convolve.training.gradients import finish_gradients
from convolve.training.options import Options, optimizer_of, schedule_of
from convolve.training.patience import finished
from convolve.training.precision import forward
from convolve.training.records import Epoch


def _options(**changes: Any) -> Options:
    choices: dict[str, Any] = {
        "epochs": 10, "batch_size": 16, "optimizer": "sgd", "lr": 0.5, "weight_decay": 0.0, "label_smoothing": 0.0,
        "schedule": "cosine", "seed": 0, "device": "cpu",
    }  # fmt: skip
    return Options(**(choices | changes))


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 4))


def _backward(net: nn.Module, scale: float = 1.0) -> torch.Tensor:
    images = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    loss = nn.functional.cross_entropy(net(images), torch.arange(8) % 4) * scale
    loss.backward()
    return loss


def _rates(options: Options, steps: int) -> list[float]:
    optimizer = optimizer_of(options, _net().parameters())
    schedule = schedule_of(options, optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_l1_is_autograds_gradient_of_the_penalty_on_weights_alone() -> None:
    net, other = _net(), _net()
    _backward(net)
    finish_gradients(net, list(net.parameters()), _options(l1=0.01), 1, 1)
    _backward(other)
    penalty = 0.01 * (other[0].weight.abs().sum() + other[4].weight.abs().sum())
    penalty.backward()
    for (name, ours), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-8), name


def test_weight_decay_spares_biases_and_normalisation() -> None:
    net = _net()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    optimizer = optimizer_of(_options(optimizer="adamw", lr=0.1, weight_decay=0.5), net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in net.named_parameters():
        kept = 0.95 if name in ("0.weight", "4.weight") else 1.0  # 1 - 0.1 * 0.5
        assert torch.allclose(parameter, before[name] * kept), name


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_clipping_scales_all_gradients_to_the_norm_and_leaves_small_ones(scale: float) -> None:
    net, other = _net(), _net()
    _backward(net, scale)
    _backward(other, scale)
    squares = sum((parameter.grad.double() ** 2).sum().item() for parameter in other.parameters())
    limit = 2.0
    assert (math.sqrt(squares) > limit) == (scale > 1)
    finish_gradients(net, list(net.parameters()), _options(clip=limit), 1, 1)
    factor = min(1.0, limit / math.sqrt(squares))
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad * factor, rtol=1e-4, atol=1e-7)


def test_a_warm_up_rises_evenly_and_the_cosine_takes_the_rest() -> None:
    rates = _rates(_options(warmup=2), 50)  # ten steps of fifty
    assert rates[:10] == pytest.approx([0.5 * (1 + step) / 11 for step in range(10)], rel=1e-6)
    assert rates[10:] == pytest.approx([0.25 * (1 + math.cos(math.pi * step / 40)) for step in range(40)], rel=1e-5)


def test_a_warm_up_before_a_constant_rate_and_none_at_all() -> None:
    assert _rates(_options(schedule="constant", warmup=1), 20)[2:] == pytest.approx([0.5] * 18)
    assert _rates(_options(warmup=0), 7) == _rates(_options(), 7)


@pytest.mark.parametrize(("warmup", "part"), [(None, 0.3), (1, 0.1), (5, 0.5)])
def test_onecycle_rises_for_its_warm_up_as_torchs_does(warmup: float | None, part: float) -> None:
    options = _options(schedule="onecycle", warmup=warmup)
    optimizer = torch.optim.SGD(_net().parameters(), lr=0.5, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=100, pct_start=part)
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert _rates(options, 100) == pytest.approx(expected)


def _history(best: list[bool]) -> list[Epoch]:
    return [Epoch(number + 1, 1, 0.5, 1, 0.5, 0.1, 1, 1, flag) for number, flag in enumerate(best)]


@pytest.mark.parametrize(
    ("best", "patience", "ends"),
    [
        ([True, False, False], 3, False),
        ([True, False, False, False], 3, True),
        ([True, False, False, True], 1, False),
        ([True, False, True, False], 1, True),
        ([True] + [False] * 8, None, False),
        ([True] * 10, None, True),
        ([], 1, False),
    ],
)
def test_patience_counts_the_epochs_since_the_best(best: list[bool], patience: int | None, ends: bool) -> None:
    assert finished(_history(best), _options(patience=patience)) is ends


def test_frozen_layers_keep_weights_and_statistics_and_the_rest_learns() -> None:
    net = _net()
    frozen = freeze(net, ["0", "1"])
    assert (frozen.trained, frozen.parameters, frozen.layers) == (4 * 48 + 4, 30 + 6 + 196, ("0", "1"))
    begin_training(net, ["0", "1"])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = optimizer_of(_options(), net.parameters())
    _backward(net)
    finish_gradients(net, list(net.parameters()), _options(l1=0.1, clip=1.0), 1, 1)
    optimizer.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"4.weight", "4.bias"}
    begin_training(net, [])
    assert net[1].training


@pytest.mark.parametrize(
    ("patterns", "trained"),
    [(["all-but-last"], 196), (["4"], 36), (["[01]"], 196), (["0.weight"], 205), (["0", "1.bias"], 199)],
)
def test_patterns_name_layers_parameters_and_all_but_the_last(patterns: list[str], trained: int) -> None:
    assert freeze(_net(), patterns).trained == trained


def test_a_pattern_that_names_nothing_or_everything_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown layer to freeze; got 'features'; use "):
        freeze(_net(), ["features"])
    with pytest.raises(UsageError, match="something must be left to learn"):
        freeze(_net(), ["*"])


def test_bfloat16_gives_float32_scores_near_those_of_float32_and_gradients_in_float32() -> None:
    net = _net().eval()
    images = torch.rand(8, 1, 6, 6)
    wide, narrow = forward(net, images, _options()), forward(net, images, _options(amp="bf16"))
    assert narrow.dtype == torch.float32
    assert 0 < (wide - narrow).abs().max() < 0.05
    narrow.sum().backward()
    assert {parameter.grad.dtype for parameter in net.parameters()} == {torch.float32}


def _tried(wide: Trial, narrow: Trial | Exception) -> Callable[..., Trial]:
    """Trials as some device would have them."""

    def tried(_net: nn.Module, _train: Split, _normalise: object, options: Options) -> Trial:
        if options.amp == "off":
            return wide
        if isinstance(narrow, Exception):
            raise narrow
        return narrow

    return tried


DATA = Split(
    "train", ResidentImages(torch.zeros(20, 1, 6, 6, dtype=torch.uint8)), torch.arange(20) % 4, [], torch.ones(1)
)
NO_BFLOAT16 = "Current CUDA Device does not support bfloat16. Please switch dtype to float16."


@pytest.mark.parametrize(
    ("narrow", "taken", "said"),
    [
        (Trial(4.0, 2.3), "bf16", "bfloat16: 2.00 times as fast as float32, measured"),
        (Trial(7.1, 2.3), "bf16", "bfloat16: 1.13 times as fast as float32, measured"),
        (Trial(7.3, 2.3), "off", "float32: bfloat16 takes 0.91 times as long, measured"),
        (Trial(16.0, 2.3), "off", "float32: bfloat16 takes 2.00 times as long, measured"),
        (Trial(4.0, math.nan), "off", "float32: in bfloat16 the loss is nan"),
        (Trial(4.0, math.inf), "off", "float32: in bfloat16 the loss is inf"),
        (RuntimeError(NO_BFLOAT16 + "\nmore"), "off", f"float32: bfloat16 failed ({NO_BFLOAT16})"),
    ],
)
def test_bfloat16_is_taken_where_it_is_a_tenth_faster_and_its_loss_is_finite(
    narrow: Trial | Exception, taken: str, said: str
) -> None:
    before = _options()
    options, words = decide_precision(_net(), DATA, lambda x: x, before, _tried(Trial(8.0, 2.3), narrow))
    assert (options, words) == (_options(amp=taken), said)


def test_the_decision_is_made_by_real_steps_that_change_nothing() -> None:
    net = _net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    options, words = decide_precision(net, DATA, lambda x: x.float(), _options())
    assert words.startswith({"bf16": "bfloat16: ", "off": "float32: bfloat16 takes "}[options.amp])
    assert words.endswith(", measured")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_device_whose_autocast_would_silently_stay_in_float32_is_said_to_have_no_bfloat16() -> None:
    def tried(_net: nn.Module, _train: Split, _normalise: object, options: Options) -> Trial:
        if options.amp == "bf16":  # torch's own warning, got by a type that autocast does not know
            with torch.autocast("cpu", torch.int8):
                pass
        return Trial(1.0 if options.amp == "bf16" else 2.0, 2.3)

    options, words = decide_precision(_net(), DATA, lambda x: x, _options(), tried)
    assert options.amp == "off"
    assert words.startswith("float32: bfloat16 failed (In CPU autocast, but the target dtype is not supported.")


@pytest.mark.parametrize(
    ("asked", "device", "timed"),
    [
        (None, "cpu", False), (None, "cuda:1", True), (None, "mps", True), ("auto", "cpu", True), ("auto", "cuda", True),
        ("bf16", "cpu", False), ("bf16", "cuda", False), ("off", "cpu", False), ("off", "cuda", False),
    ],
)  # fmt: skip
def test_both_are_timed_where_asked_and_unasked_not_on_a_cpu(asked: str | None, device: str, timed: bool) -> None:
    assert is_timed(asked, device) is timed


def test_options_come_back_from_json() -> None:
    move = Movement(flip=0.5, pca=0.1, mean=(0.5,), std=(0.2,), axes=((0.1, 0.2), (0.3, 0.4)))
    options = _options(movement=move, freeze=("a", "b"), warmup=1.5, patience=3)
    assert Options.from_dict(json.loads(json.dumps(options.to_dict()))) == options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 1.0}, r"dropout is a probability in \[0, 1\); got 1"),
        ({"l1": -1.0}, "l1 must be a number >= 0; got -1"),
        ({"patience": 0}, "patience must be at least 1 epoch; got 0"),
        ({"clip": 0.0}, "clip must be a norm above 0; got 0"),
        ({"warmup": 10}, "warmup is less than all 10 epochs, and 0 or more; got 10; use 3"),
        ({"warmup": 0, "schedule": "onecycle"}, "onecycle begins with a warm-up; got 0"),
        ({"amp": "fp8"}, "unknown amp; got 'fp8'"),
    ],
)
def test_a_choice_out_of_range_gets_one_clear_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _options(**changes)
