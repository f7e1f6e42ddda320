"""A small folder of images, and one finished run on it, shared by the tests of the jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolve.jobs.results import Run
from convolve.jobs.train import train

CLASSES = ("left, right", 'up "or" down', "猫<b>")  # commas, quotes, markup and another alphabet


def draw(kind: int, rng: np.random.Generator, size: tuple[int, int] = (30, 34)) -> Image.Image:
    """A noisy RGB picture: vertical stripes, horizontal stripes, or a disc."""
    h, w = size
    ys, xs = np.mgrid[:h, :w]
    pattern = [np.sin(xs * 0.8) > 0, np.sin(ys * 0.8) > 0, np.hypot(ys - h / 2, xs - w / 2) < h / 4][kind]
    pixels = rng.integers(0, 90, (h, w, 3)) + (pattern * 150)[..., None]
    return Image.fromarray(pixels.astype(np.uint8))


def folder_of(root: Path, per_class: int = 24, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for kind, name in enumerate(CLASSES):
        place = root / name.replace("/", "-")
        place.mkdir(parents=True)
        for index in range(per_class):
            draw(kind, rng).save(place / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(photos, epochs=12, out=tmp_path_factory.mktemp("runs") / "run")
