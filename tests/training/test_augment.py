"""training/augment.py: draws depend on (seed, epoch, image) alone, and movements are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convolve.data.components import principal_axes
from convolve.data.records import ResidentImages
from convolve.errors import UsageError
from convolve.training.augment import Movement, uniform
from convolve.training.augment_spec import CHANGES, describe, fitting, parse, with_pixels

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


@pytest.mark.parametrize("size", [0.0, 1e-9])  # alone a shift is in whole pixels, with a change of scale it is not
def test_a_shift_moves_the_centre_of_mass_by_what_was_drawn(size: float) -> None:
    images = torch.zeros(1, 1, 41, 61)
    images[0, 0, 15:26, 25:36] = 1
    index = torch.tensor([7])
    moved = Movement(shift=0.1, scale=size).apply(images, 0, 0, index)
    right, down = [value * 0.1 * side for value, side in zip(_two(index), (61, 41), strict=True)]
    assert abs(right - round(right)) > 0.05  # the draw must tell the two apart
    if not size:
        right, down = round(right), round(down)
    ys, xs = torch.meshgrid(torch.arange(41.0), torch.arange(61.0), indexing="ij")
    weight = moved[0, 0] / moved.sum()
    assert (weight * xs).sum().item() == pytest.approx(30 - right, abs=0.02)
    assert (weight * ys).sum().item() == pytest.approx(20 - down, abs=0.02)


def _two(index: torch.Tensor) -> list[float]:
    """The draws of a shift: to the right, and down, in -1..1."""
    return (uniform(0, 0, index, 4)[0, 2:] * 2 - 1).tolist()


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


def _apply(move: Movement, images: torch.Tensor, epoch: int = 0) -> torch.Tensor:
    return move.apply(images, 3, epoch, torch.arange(len(images)))


def test_a_mirror_and_a_crop_equal_slices_of_the_padded_picture() -> None:
    images = torch.rand(40, 3, 9, 11)
    moved = _apply(Movement(flip=0.5, crop=2), images)
    mirrored = uniform(3, 1 << 32, torch.arange(40), 1)[:, 0] < 0.5
    places = (uniform(3, 2 << 32, torch.arange(40), 2) * 5).int().tolist()
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    assert 5 < mirrored.sum() < 35
    for i, (top, left) in enumerate(places):
        source = padded[i].flip(2) if mirrored[i] else padded[i]
        expected = source[:, top : top + 9, left : left + 11]
        assert torch.equal(moved[i], expected)
    assert {place for pair in places for place in pair} == {0, 1, 2, 3, 4}  # every place of the window comes up


def test_colour_equals_brightness_contrast_and_saturation_one_after_the_other_in_float64() -> None:
    images = torch.rand(5, 3, 4, 4)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    move = Movement(colour=0.4, mean=mean, std=std)
    factors = 1 + 0.4 * (uniform(3, 3 << 32, torch.arange(5), 3).double() * 2 - 1)
    centre, width = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (mean, std))
    pixels = images.double() * width + centre
    brightness, contrast, saturation = (factors[:, i].view(5, 1, 1, 1) for i in range(3))
    pixels = (pixels * brightness - 0.5) * contrast + 0.5
    grey = (pixels * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)).sum(1, keepdim=True)
    pixels = grey + saturation * (pixels - grey)
    assert torch.allclose(_apply(move, images).double(), (pixels - centre) / width, atol=2e-6)
    assert torch.allclose(  # one channel has no saturation
        _apply(Movement(colour=0.4), images[:, :1]).double(),
        (images[:, :1].double() * brightness - 0.5) * contrast + 0.5,
        atol=1e-6,
    )


def test_the_principal_axes_are_those_of_numpys_covariance() -> None:
    rng = np.random.default_rng(0)
    pixels = (rng.normal(size=(700, 5, 5, 3)) @ rng.normal(size=(3, 3)) * 20 + 120).clip(0, 255).astype(np.uint8)
    axes = np.array(principal_axes(ResidentImages(torch.from_numpy(pixels).permute(0, 3, 1, 2))))
    covariance = np.cov(pixels.reshape(-1, 3).T / 255, bias=True)
    assert np.allclose(axes.T @ axes, covariance, atol=1e-12)
    assert np.allclose((axes**2).sum(1), np.linalg.eigvalsh(covariance)[::-1], atol=1e-12)


def test_alexnets_colour_shifts_whole_pictures_with_a_hundredth_of_the_pixels_covariance() -> None:
    axes = ((0.3, 0.2, 0.1), (0.05, -0.1, 0.05), (0.01, 0.0, -0.03))
    std = (0.5, 0.25, 0.2)
    images = torch.zeros(40_000, 3, 1, 2)
    shifts = _apply(Movement(pca=0.1, std=std, axes=axes), images)
    assert torch.equal(shifts[..., 0], shifts[..., 1])
    found = np.cov(shifts[:, :, 0, 0].double().numpy().T * np.array(std)[:, None])
    expected = 0.01 * np.array(axes).T @ np.array(axes)
    assert np.abs(found - expected).max() < 0.03 * expected.max()


def test_noise_is_normal_and_another_for_every_image_and_epoch() -> None:
    images = torch.zeros(60, 1, 30, 30)
    noise = _apply(Movement(noise=0.05, std=(0.5,)), images) * 0.5
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert abs(noise.mean().item()) < 0.001
    assert (noise.abs() > 2 * 0.05).double().mean().item() == pytest.approx(0.0455, abs=0.005)
    assert torch.corrcoef(noise.flatten(1)).fill_diagonal_(0).abs().max() < 0.15
    assert (
        abs(torch.corrcoef(torch.stack((noise.flatten(), _apply(Movement(noise=0.05), images, 1).flatten())))[0, 1])
        < 0.02
    )


EVERYTHING = Movement(
    0.1, 0.1, 10, 0.5, 2, 0.05, 0.2, 0.1, (0.5,) * 3, (0.2, 0.3, 0.4), ((0.2,) * 3, (0.1, -0.1, 0.0), (0.0,) * 3)
)


@pytest.mark.parametrize(
    "text", [change.word + ("" if change.usual else " 1") for change in CHANGES if change.word != "scale"] + ["all"]
)
def test_a_picture_is_the_same_in_any_batch_order_and_place_with_every_change(text: str) -> None:
    move = EVERYTHING if text == "all" else with_pixels(parse(text), EVERYTHING.mean, EVERYTHING.std, EVERYTHING.axes)
    images, indices = torch.rand(37, 3, 7, 5), torch.arange(37) * 3 + 1
    together = move.apply(images, 1, 2, indices)
    assert not torch.equal(together, images)
    assert not torch.equal(move.apply(images, 1, 3, indices), together)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(0))
    assert torch.equal(move.apply(images[order], 1, 2, indices[order]), together[order])
    for i in (0, 17, 36):
        assert torch.equal(move.apply(images[i : i + 1], 1, 2, indices[i : i + 1])[0], together[i])


def test_one_more_change_leaves_the_draws_of_the_others_as_they_were() -> None:
    images = torch.rand(9, 3, 8, 8)
    both = _apply(parse("flip, crop 2, colour 0.2"), images)
    assert torch.equal(both, _apply(parse("colour 0.2"), _apply(parse("flip, crop 2"), images)))


@pytest.mark.parametrize(
    "text",
    ["flip, crop 4", "flip 0.25, crop 1, shift 0.1, rotate 10, scale 0.1, noise 0.05, colour 0.2, pca", "pca 0.2"],
)
def test_a_line_is_read_and_written_back(text: str) -> None:
    assert describe(parse(text)) == text
    assert parse(text.upper().replace("COLOUR", "Color")) == parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", r"unknown change of the images; got 'flop'; use flip, crop or colour"),
        ("crop", r"crop takes one number, 0 to 10000 \(pixels\); got 'crop'"),
        ("crop 1.5", "crop is in whole pixels"),
        ("rotate 200", r"rotate takes one number, 0 to 180 \(degrees\); got 'rotate 200'"),
        ("noise -1", "noise takes one number"),
        ("noise nan", "noise takes one number"),
        ("flip 0.1 0.2", "flip takes one number"),
        ("flip, flip", "got flip twice"),
        ("flip,, crop 2", "separated by single commas"),
        ("", "separated by single commas"),
    ],
)
def test_a_line_that_cannot_be_read_gets_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_what_the_pictures_do_not_allow_is_refused() -> None:
    with pytest.raises(UsageError, match="it needs RGB pictures; got 1 channel"):
        fitting(parse("pca"), 1, (28, 28))
    with pytest.raises(
        UsageError, match=r"crop must be smaller than the pictures; got crop 8 for pictures of 8x9; use 1"
    ):
        fitting(parse("crop 8"), 3, (8, 9))
