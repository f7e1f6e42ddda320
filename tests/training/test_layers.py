"""training/layers.py: what dropout draws belongs to an image, however batches are divided, and networks come back untouched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from convolve.errors import UsageError
from convolve.training.layers import Step, exchanged, image_words, keep_mask, left_alone
from convolve.training.processes import ALONE, Share


def _begin(step: Step, indices: list[int], epoch: int = 0, seed: int = 0) -> None:
    step.begin(seed, epoch, Share(torch.tensor(indices), 1.0))


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Dropout(0.4), (7,)),
    (nn.Dropout(0.4), (3, 5, 5)),
    (nn.Dropout(0.4), (3, 211, 211)),  # more than one block of draws
    (nn.Dropout1d(0.4), (31, 5)),
    (nn.Dropout2d(0.4), (31, 3, 5)),
    (nn.Dropout3d(0.4), (31, 2, 3, 2)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_any_division_and_order_of_a_batch_draws_the_same_for_each_image(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    x = torch.ones(5, *shape)
    with exchanged(layer, ALONE) as step:
        _begin(step, [10, 11, 12, 13, 14])
        whole = layer(x)
        for part in ([10, 11], [12, 13, 14], [13, 11], [14]):
            _begin(step, part)
            assert torch.equal(layer(x[: len(part)]), whole[[image - 10 for image in part]])
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize(("layer", "shape"), LAYERS[3:], ids=str)
def test_whole_channels_are_dropped_and_the_rest_is_scaled_up(layer: nn.Module, shape: tuple[int, ...]) -> None:
    with exchanged(layer, ALONE) as step:
        _begin(step, [0, 1])
        y = layer(torch.ones(2, *shape)).flatten(2)
    assert torch.equal(y.amin(2), y.amax(2))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_units_are_kept_independently_with_the_probability_asked_for(p: float) -> None:
    kept = keep_mask(image_words(3, 1, torch.arange(200)), 2, 0, 5000, p).double()
    deviation = (p * (1 - p)) ** 0.5
    assert abs(kept.mean() - (1 - p)) < 4 * deviation / 1e6**0.5
    # every unit, every image, and every pair of neighbours: 5 standard errors of what independent draws would give
    assert (kept.mean(0) - (1 - p)).abs().max() < 5 * deviation / 200**0.5
    assert (kept.mean(1) - (1 - p)).abs().max() < 5 * deviation / 5000**0.5
    centred = kept - (1 - p)
    for a, b in ((centred[:, 1:], centred[:, :-1]), (centred[1:], centred[:-1])):
        assert abs((a * b).mean()) < 5 * deviation**2 / 1e6**0.5


def test_seed_epoch_image_layer_and_call_each_change_the_draws() -> None:
    def mask(seed: int = 0, epoch: int = 0, image: int = 0, layer: int = 0, call: int = 0) -> torch.Tensor:
        return keep_mask(image_words(seed, epoch, torch.tensor([image])), layer, call, 4096, 0.5)

    base = mask()
    assert torch.equal(base, mask())
    for other in (mask(seed=1), mask(epoch=1), mask(image=1), mask(layer=1), mask(call=1)):
        assert 0.45 < (base == other).float().mean() < 0.55


def test_the_mask_is_the_formula_of_the_header_computed_with_plain_integers() -> None:
    def mixed(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    def signed(x: int) -> int:
        return x - 2**32 if x >= 2**31 else x

    from convolve.training.layers import _word

    image, layer = int(_word(5, 2, torch.tensor([77]))), int(_word(9, 1, torch.zeros(1)))
    key = mixed((mixed(image % 2**32) + layer) % 2**32)
    draws = [mixed((unit * 0x9E3779B9 + key) % 2**32) for unit in range(500)]
    expected = [signed(draw) >= int(0.3 * 2**32) - 2**31 for draw in draws]
    assert keep_mask(image_words(5, 2, torch.tensor([77])), 9, 1, 500, 0.3)[0].tolist() == expected


def test_a_network_comes_back_as_it_was_and_its_state_dict_never_changes() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.AlphaDropout(0.5))
    before, attributes = [type(layer) for layer in net], [set(vars(layer)) for layer in net]
    names = list(net.state_dict())
    with pytest.raises(RuntimeError, match="stop"), exchanged(net, ALONE) as step:
        assert isinstance(net[1], nn.Dropout)
        assert type(net[1]) is not nn.Dropout
        assert list(net.state_dict()) == names
        assert repr(net[1]) == "_Dropout(p=0.5, inplace=False)"
        _begin(step, [0, 1])
        copy.deepcopy(net)(torch.ones(2, 4))
        raise RuntimeError("stop")
    assert [type(layer) for layer in net] == before
    assert [set(vars(layer)) for layer in net] == attributes


def test_evaluation_and_extreme_probabilities_are_torchs() -> None:
    x = torch.randn(3, 5)
    for p, expected in ((0.0, x), (1.0, x * 0)):
        layer = nn.Dropout(p)
        with exchanged(layer, ALONE) as step:
            _begin(step, [0, 1, 2])
            assert torch.equal(layer(x), expected)
    layer = nn.Dropout(0.5).eval()
    with exchanged(layer, ALONE):
        assert layer(x) is x


def test_in_place_dropout_changes_its_input_and_has_the_same_gradient() -> None:
    results = []
    for inplace in (False, True):
        layer = nn.Dropout(0.5, inplace=inplace)
        x = torch.ones(4, 6, requires_grad=True)
        with exchanged(layer, ALONE) as step:
            _begin(step, [0, 1, 2, 3])
            y = layer(x * 2)
        y.sum().backward()
        results.append((y.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(results[0][1], results[0][0])  # d(2 x m)/dx summed = 2 m = y


def test_rows_that_are_pieces_of_images_follow_their_image() -> None:
    layer = nn.Dropout(0.5)
    with exchanged(layer, ALONE) as step:
        _begin(step, [4, 9])
        pieces = layer(torch.ones(6, 8))  # three pieces of each of two images
        _begin(step, [9])
        assert torch.equal(layer(torch.ones(3, 8)), pieces[3:])
        _begin(step, [0, 1, 2])
        assert layer(torch.ones(7, 100)).count_nonzero() not in (
            0,
            700,
        )  # seven rows of three images: torch's own draws


class Recomputed(nn.Module):
    def __init__(self, calls: int) -> None:
        super().__init__()
        self.line, self.dropout, self.calls = nn.Linear(6, 6), nn.Dropout(0.5), calls

    def part(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.calls):
            x = self.dropout(self.line(x))
        return x

    def forward(self, x: torch.Tensor, recompute: bool) -> Any:
        return checkpoint(self.part, x, use_reentrant=False) if recompute else self.part(x)


def test_a_checkpointed_dropout_is_recomputed_with_its_own_draws() -> None:
    net, x = Recomputed(1), torch.randn(3, 6)
    found = []
    for recompute in (False, True):
        net.zero_grad()
        with exchanged(net, ALONE) as step:
            _begin(step, [0, 1, 2])
            net(x, recompute).square().sum().backward()
        found.append(net.line.weight.grad.clone())
    assert torch.equal(*found)


def test_a_shared_dropout_draws_anew_in_each_call_and_refuses_to_be_recomputed() -> None:
    layer = nn.Dropout(0.5)
    with exchanged(layer, ALONE) as step:
        _begin(step, [0])
        assert not torch.equal(layer(torch.ones(1, 64)), layer(torch.ones(1, 64)))
    net = Recomputed(2)
    with exchanged(net, ALONE) as step, pytest.raises(UsageError, match="give each call a layer of its own"):
        _begin(step, [0, 1, 2])
        net(torch.randn(3, 6), True).sum().backward()


def test_layers_of_unknown_kinds_are_named() -> None:
    class Own(nn.BatchNorm2d):
        pass

    net = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3), Own(3), nn.AlphaDropout(), nn.GroupNorm(1, 3))
    assert left_alone(net) == ["2 (Own)", "3 (AlphaDropout)"]
