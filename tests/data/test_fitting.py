"""How pictures of other proportions get the network's size: what is kept, what is chosen, and that all who read obey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolve.data.fitting import choose_fit, kept_by_a_crop
from convolve.data.load import load, read_split
from convolve.data.picture import fit, to_pixels
from convolve.data.preprocess import Preprocessing, measure
from convolve.data.records import ResidentImages, Split
from convolve.data.statistics import describe
from convolve.data.statistics import measure as measure_statistics
from convolve.errors import UnknownNameError


def stripes() -> Image.Image:
    """20 x 60: red, green and blue squares of 20, side by side."""
    pixels = np.zeros((20, 60, 3), np.uint8)
    for third in range(3):
        pixels[:, 20 * third : 20 * (third + 1), third] = 255
    return Image.fromarray(pixels)


def test_a_crop_keeps_the_middle_and_nothing_else() -> None:
    green = np.array([0, 255, 0], np.uint8)[:, None, None]
    cropped = to_pixels(fit(stripes(), 3, (10, 10), how="crop"))
    assert (cropped[:, :, 1:-1] == green).all()  # the outermost column is smoothed with its neighbour outside
    assert (cropped[1] > 200).all()
    upright = to_pixels(fit(stripes().transpose(Image.Transpose.ROTATE_90), 3, (10, 10), how="crop"))
    assert (upright[:, 1:-1] == green).all()


def test_a_pad_keeps_all_of_it_between_borders_of_its_own_ground() -> None:
    image = Image.new("RGB", (60, 20), (200, 180, 160))
    image.paste((0, 0, 0), (20, 5, 40, 15))
    padded = to_pixels(fit(image, 3, (30, 30), how="pad"))
    assert (padded[:, :10] == np.array([200, 180, 160])[:, None, None]).all()
    assert (padded[:, 20:] == np.array([200, 180, 160])[:, None, None]).all()
    inside = to_pixels(fit(image, 3, (10, 30)))
    assert (padded[:, 10:20] == inside).all()
    grey = to_pixels(fit(image.convert("L"), 1, (30, 30), how="pad"))
    assert len(np.unique(grey[0, :10])) == 1


def test_stretching_keeps_every_stripe() -> None:
    stretched = to_pixels(fit(stripes(), 3, (12, 12)))
    assert [int(stretched[:, 6, x].argmax()) for x in (1, 6, 10)] == [0, 1, 2]


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(7, 5), (5, 7), (1, 9), (9, 1), (64, 64)])
def test_every_fit_gives_the_size_asked_for(how: str, size: tuple[int, int]) -> None:
    for h, w in ((3, 3), (1, 50), (50, 1), (37, 11)):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8))
        assert to_pixels(fit(image, 3, size, how=how)).shape == (3, *size)


@pytest.mark.parametrize("how", ["crop", "pad"])
def test_pictures_of_the_right_proportions_are_only_scaled(how: str) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 36, 3), dtype=np.uint8))
    assert (to_pixels(fit(image, 3, (8, 12), how=how)) == to_pixels(fit(image, 3, (8, 12)))).all()


@pytest.mark.parametrize(
    ("sizes", "target", "chosen"),
    [
        ([(64, 64)] * 3, (32, 32), "stretch"),
        ([(100, 101), (99, 100)], (32, 32), "stretch"),
        ([(480, 640), (640, 480)], (64, 64), "crop"),
        ([(480, 640)] * 30 + [(100, 400)], (64, 64), "crop"),  # one odd picture of 31
        ([(480, 720)], (64, 64), "pad"),  # 3:2 would lose a third
        ([(480, 640), (100, 400)], (64, 64), "pad"),
        ([(480, 720)] * 4, (32, 48), "stretch"),
    ],
)
def test_the_fit_follows_what_a_crop_would_lose(
    sizes: list[tuple[int, int]], target: tuple[int, int], chosen: str
) -> None:
    how, said = choose_fit(sizes, target)
    assert how == chosen
    assert bool(said) == (chosen != "stretch")


def test_the_share_that_a_crop_keeps_is_that_of_a_hand_count() -> None:
    # 20x60 in a square: 20 of 60 columns stay. 60x20 in 10x20: 10 of 60 rows. 30x40 in 3x4: all.
    assert kept_by_a_crop([(20, 60)], (5, 5)).tolist() == pytest.approx([1 / 3])
    assert kept_by_a_crop([(60, 20)], (10, 20)).tolist() == pytest.approx([1 / 6])
    assert kept_by_a_crop([(30, 40)], (3, 4)).tolist() == pytest.approx([1])


def test_an_unknown_fit_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="pad"):
        choose_fit([(3, 4)], (3, 3), "padd")


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
def test_training_and_prediction_see_the_same_pixels(how: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(6):
            pixels = rng.integers(0, 256, (20, 30 + 10 * i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    data = load(tmp_path, img_size=16, fit=how)
    rule = measure(data)
    assert rule.fit == how
    assert Preprocessing.from_dict(rule.to_dict()) == rule
    seen = data.train.images.batch(torch.arange(len(data.train)))
    for name, pixels in zip(data.train.ids, seen, strict=True):
        assert torch.equal(rule.apply(tmp_path / name), pixels)
    again = read_split(tmp_path, size=rule.size, channels=rule.channels, classes=data.classes, fit=rule.fit)
    for name, pixels in zip(again.ids, again.images.batch(torch.arange(len(again))), strict=True):
        assert torch.equal(rule.apply(tmp_path / name), pixels)
    assert any(how[:4] in line or "kept whole" in line for line in data.said)


def test_a_file_without_a_fit_was_trained_on_stretched_pictures() -> None:
    stored = Preprocessing(1, (4, 4), (0.5,), (0.5,), fit="pad").to_dict()
    del stored["fit"]
    assert Preprocessing.from_dict(stored).fit == "stretch"


def test_prediction_says_what_became_of_a_picture_of_other_proportions() -> None:
    pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    pixels[:, :, 3:5, 2:6] = 255
    learned = measure_statistics(
        Split("train", ResidentImages(pixels), torch.zeros(4), list("abcd"), torch.tensor([[8, 8]] * 4))
    )
    odd = describe(pixels[0], (8, 24))
    said = {how: " ".join(learned.differences(odd, how)) for how in ("stretch", "crop", "pad")}
    assert "stretched out of its proportions" in said["stretch"]
    assert "only its middle" in said["crop"]
    assert "wide borders" in said["pad"]
    assert learned.differences(describe(pixels[0], (8, 8)), "crop") == ()
