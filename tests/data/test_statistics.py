"""Does a picture look like those of the training? Said in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from convolve.data.load import load
from convolve.data.preprocess import mean_and_std
from convolve.data.records import ResidentImages, Split
from convolve.data.statistics import Statistics, describe, measure
from convolve.errors import InputError


def split(pixels: torch.Tensor, sizes: list[tuple[int, int]] | None = None) -> Split:
    n = len(pixels)
    known = torch.tensor(sizes or [pixels.shape[2:]] * n, dtype=torch.int32)
    return Split("train", ResidentImages(pixels), torch.zeros(n, dtype=torch.int64), [str(i) for i in range(n)], known)


@pytest.fixture(scope="module")
def digits() -> tuple[Statistics, torch.Tensor]:
    data = load("digits")
    assert data.read_test is not None
    return measure(data.train), data.read_test().images.batch(torch.arange(100))


def test_mean_and_standard_deviation_are_those_of_all_pixels() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (37, 3, 5, 7), np.uint8))
    mean, std = mean_and_std(ResidentImages(pixels))
    values = pixels.numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(mean, values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(1), rtol=1e-12)


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    assert mean_and_std(ResidentImages(torch.full((3, 1, 4, 4), 51, dtype=torch.uint8))) == ((0.2,), (1 / 255,))


def test_contrast_and_mean_are_those_of_numpy() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 9, 9), np.uint8))
    seen = describe(pixels, (9, 9))
    assert seen.mean == pytest.approx(pixels.numpy().mean() / 255, rel=1e-5)
    assert seen.contrast == pytest.approx(pixels.numpy().std() / 255, rel=1e-5)


def test_digits_of_the_test_split_look_like_training_and_inverted_ones_do_not(
    digits: tuple[Statistics, torch.Tensor],
) -> None:
    learned, pictures = digits
    assert learned.polarity == "light on dark"
    assert not any(learned.differences(describe(picture, (8, 8))) for picture in pictures)
    for picture in pictures:
        assert any("--invert" in said for said in learned.differences(describe(255 - picture, (8, 8))))


def test_dark_on_light_training_asks_to_invert_light_on_dark_pictures(digits: tuple[Statistics, torch.Tensor]) -> None:
    _, pictures = digits
    learned = measure(split(255 - pictures))
    assert learned.polarity == "dark on light"
    assert "dark on light: try --invert" in learned.differences(describe(pictures[0], (8, 8)))[0]


def test_a_blank_picture_is_noticed(digits: tuple[Statistics, torch.Tensor]) -> None:
    learned, _ = digits
    assert "hardly any contrast" in " ".join(
        learned.differences(describe(torch.full((1, 8, 8), 9, dtype=torch.uint8), (8, 8)))
    )


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((3000, 4000), "fine detail is lost"),
        ((1, 1), "enlarged and blurred"),
        ((8, 30), "out of its proportions"),
        ((9, 7), ""),
    ],
)
def test_another_size_is_said(size: tuple[int, int], words: str, digits: tuple[Statistics, torch.Tensor]) -> None:
    learned, pictures = digits
    said = " ".join(learned.differences(describe(pictures[0], size)))
    assert words in said
    assert bool(words) == bool(said)


def test_photos_have_no_polarity_and_a_much_brighter_picture_is_said() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(40, 160, (50, 3, 16, 16), np.uint8))
    learned = measure(split(pixels))
    assert learned.polarity == "none"
    assert learned.differences(describe(pixels[0], (16, 16))) == ()
    bright = (pixels[0].int() + 95).to(torch.uint8)
    assert "brighter than they are" in " ".join(learned.differences(describe(bright, (16, 16))))


def test_statistics_survive_json(digits: tuple[Statistics, torch.Tensor], tmp_path: Path) -> None:
    import json

    learned, _ = digits
    assert Statistics.from_dict(json.loads(json.dumps(learned.to_dict(), allow_nan=False))) == learned
    with pytest.raises(InputError, match="fields of Statistics"):
        Statistics.from_dict({"colour": "blue"})
