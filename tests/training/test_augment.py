"""training/augment.py: draws depend on (seed, epoch, image) alone, and movements are what they say."""

from __future__ import annotations

import pytest
import torch

from convolve.training.augment import Movement, uniform

MASK = 2**64 - 1


def _reference(seed: int, epoch: int, lane: int) -> float:
    """splitmix64 in Python's own integers."""
    state = 0
    for part in (seed, epoch, lane):
        state = (state + part + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return (state >> 40) / 2**24


def test_draws_equal_splitmix64_in_exact_integers() -> None:
    draws = uniform(3, 11, torch.tensor([0, 5, 70_000]), 3)
    expected = [[_reference(3, 11, index * 3 + lane) for lane in range(3)] for index in (0, 5, 70_000)]
    assert draws.tolist() == expected


def test_draws_are_uniform_and_uncorrelated_between_epochs() -> None:
    indices = torch.arange(50_000)
    first, second = uniform(0, 0, indices, 2).double(), uniform(0, 1, indices, 2).double()
    assert first.min() >= 0
    assert first.max() < 1
    counts = torch.histc(first, 20, 0, 1)
    chi_square = ((counts - 5000) ** 2 / 5000).sum().item()
    assert chi_square < 43.8  # 99.9 % of 19 degrees of freedom
    assert abs(torch.corrcoef(torch.stack((first.flatten(), second.flatten())))[0, 1]) < 0.015


def test_an_image_moves_alike_alone_in_another_order_and_in_another_batch() -> None:
    images = torch.rand(6, 2, 9, 7)
    indices = torch.tensor([4, 19, 3, 8, 100, 55])
    move = Movement(0.2, 0.2, 20)
    together = move.apply(images, 1, 2, indices)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    assert torch.equal(move.apply(images[order], 1, 2, indices[order]), together[order])
    for i in range(6):
        assert torch.equal(move.apply(images[i : i + 1], 1, 2, indices[i : i + 1])[0], together[i])
    assert not torch.equal(move.apply(images, 1, 3, indices), together)


def test_a_shift_moves_the_centre_of_mass_by_what_was_drawn() -> None:
    images = torch.zeros(1, 1, 41, 61)
    images[0, 0, 15:26, 25:36] = 1
    index = torch.tensor([7])
    moved = Movement(shift=0.1).apply(images, 0, 0, index)
    draws = uniform(0, 0, index, 4)[0] * 2 - 1
    ys, xs = torch.meshgrid(torch.arange(41.0), torch.arange(61.0), indexing="ij")
    weight = moved[0, 0] / moved.sum()
    assert (weight * xs).sum().item() == pytest.approx(30 - draws[2].item() * 0.1 * 61, abs=0.02)
    assert (weight * ys).sum().item() == pytest.approx(20 - draws[3].item() * 0.1 * 41, abs=0.02)


def test_a_turn_keeps_distances_on_pictures_that_are_not_square() -> None:
    images = torch.zeros(1, 1, 81, 41)
    images[0, 0, 39:42, 30:33] = 1  # 11 right of the centre
    moved = Movement(turn=45).apply(images, 0, 4, torch.tensor([2]))
    ys, xs = torch.meshgrid(torch.arange(81.0) - 40, torch.arange(41.0) - 20, indexing="ij")
    weight = moved[0, 0] / moved.sum()
    radius = torch.hypot((weight * xs).sum(), (weight * ys).sum()).item()
    angle = (uniform(0, 4, torch.tensor([2]), 4)[0, 0].item() * 2 - 1) * 45
    assert abs(angle) > 5  # the draw must be worth testing
    assert radius == pytest.approx(11, abs=0.15)


def test_nothing_moves_by_default_and_the_border_is_repeated() -> None:
    images = torch.full((3, 1, 5, 5), 0.7)
    assert Movement().apply(images, 0, 0, torch.arange(3)) is images
    assert torch.allclose(Movement(0.5, 0.5, 90).apply(images, 0, 0, torch.arange(3)), images)
