"""A small folder of images, and one finished run on it, shared by the tests of the jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convolve.jobs.results import Run
from convolve.jobs.train import train
from convolve.models import create
from convolve.models.file import write

MODEL = (
    "conv 4 3, bn, relu, dropout 0.3, gap, fc classes"  # with all that an inexact resume, or division, would get wrong
)
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


RANGE = {"low": 0.0, "middle": 0.5, "high": 1.0}
CARD: dict[str, Any] = {
    "architecture": {"name": "lenet_relu", "variant": "relu", "num_classes": 3, "in_channels": 1, "img_size": [12, 12]},
    "classes": list(CLASSES),
    "preprocessing": {"channels": 1, "size": [12, 12], "mean": [0.5], "std": [0.25]},
    "statistics": {
        "pictures": 4,
        "channels": 1,
        "polarity": "none",
        **dict.fromkeys(("height", "width", "mean", "contrast"), RANGE),
    },
    "metrics": {},
    "versions": {},
}


def untrained(path: Path, **changes: Any) -> Path:
    """A model file as a run writes it, of a small network that nobody trained; `changes` are made to its description."""
    torch.manual_seed(0)
    net = create("lenet_relu", num_classes=3, in_channels=1, img_size=12)
    write(path, net.state_dict(), CARD | changes)
    return path


def train_words(batch_size: int, *more: str) -> tuple[str, ...]:
    """A small training as a command line says it."""
    return ("train", "digits", "--model", MODEL, "--img-size", "8", "--batch-size", str(batch_size), *more)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(photos, epochs=12, out=tmp_path_factory.mktemp("runs") / "run")
