"""The main job on the embedded data: train on the digits, write a few test digits as image files, and predict those files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from convolve.data.load import load
from convolve.files import atomic_path
from convolve.jobs.predict import predict
from convolve.jobs.results import Prediction, Run
from convolve.jobs.train import train
from convolve.training.records import Observer

SHOWN = 8


@dataclass(frozen=True)
class Demo:
    """The run, the folder of the digits that were written as PNG files, and what the model says of them."""

    run: Run
    images: Path
    predictions: list[Prediction]


def demo(out: Path | None = None, *, observer: Observer | None = None) -> Demo:
    """Train, write `SHOWN` digits of the test part (named by their true class) and predict them from their files."""
    run = train("digits", out=out, observer=observer)
    data = load("digits")
    assert data.read_test is not None, "the digits have a fixed test part"
    test = data.read_test()
    folder = run.folder / "digits"
    folder.mkdir()
    paths = []
    for index in range(SHOWN):
        pixels = test.images.batch(test.labels.new_tensor([index]))[0, 0].numpy()
        paths.append(folder / f"{index}-is-a-{data.classes[int(test.labels[index])]}.png")
        with atomic_path(paths[-1]) as partial:
            Image.fromarray(pixels).save(partial, format="PNG")
    found, _ = predict(run.files["model"], paths)
    return Demo(run, folder, found)
