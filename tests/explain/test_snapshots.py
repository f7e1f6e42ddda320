"""Snapshots of a training run: which, what they hold, that they change nothing, and that a resumed run leaves the same."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convolve
from convolve.errors import InterruptedRunError, UsageError
from convolve.jobs.snapshots import snapshot_steps
from convolve.models import create
from convolve.models.file import read
from convolve.training.records import Silent

EPOCHS, COUNT = 3, 5


class Stop(Silent):
    """Ctrl-C at one step."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.seen += 1
        if self.seen == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with snapshots, and the same without."""
    place = tmp_path_factory.mktemp("snapshots")
    convolve.train("digits", model="lenet_relu", epochs=EPOCHS, snapshots=COUNT, out=place / "with")
    convolve.train("digits", model="lenet_relu", epochs=EPOCHS, out=place / "without")
    return place / "with", place / "without"


def test_the_first_is_random_the_last_is_the_end_and_the_early_ones_are_close() -> None:
    assert sorted(snapshot_steps(5, 800)) == [0, 50, 200, 450, 800]
    assert snapshot_steps(0, 800) == frozenset()
    assert sorted(snapshot_steps(2, 7)) == [0, 7]
    assert sorted(snapshot_steps(9, 3)) == [0, 1, 2, 3]  # no more than there are steps
    with pytest.raises(UsageError, match="at least the first and the last"):
        convolve.train("digits", snapshots=1)


def test_snapshots_are_model_files_and_change_nothing(runs: tuple[Path, Path]) -> None:
    kept, plain = runs
    files = sorted((kept / "snapshots").iterdir())
    steps = [read(file)[1]["snapshot"]["step"] for file in files]
    total = read(files[-1])[1]["snapshot"]["of"]
    assert steps == sorted(snapshot_steps(COUNT, total))
    assert not (plain / "snapshots").exists()
    one, two = (read(path / "model.safetensors")[0] for path in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)
    end, state = read(files[-1])[0], read(kept / "last" / "state.safetensors", "convolve.state/1")[0]
    assert all(torch.equal(end[name], state[f"net.{name}"]) for name in end)
    first = convolve.load(files[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random = create("lenet_relu", num_classes=10, in_channels=1, img_size=first.preprocessing.size)
    assert all(torch.equal(a, b) for a, b in zip(first.net.parameters(), random.parameters(), strict=True))


def test_a_resumed_run_leaves_the_same_snapshots(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        convolve.train(
            "digits", model="lenet_relu", epochs=EPOCHS, snapshots=COUNT, out=tmp_path / "run", observer=Stop(25)
        )
    assert 1 < len(list((tmp_path / "run" / "snapshots").iterdir())) < COUNT
    convolve.resume(tmp_path / "run")
    for file in sorted((runs[0] / "snapshots").iterdir()):
        (one, card), (two, same) = read(file), read(tmp_path / "run" / "snapshots" / file.name)
        assert card == same
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_explain_shows_every_moment_with_the_weights_it_had(runs: tuple[Path, Path], tmp_path: Path) -> None:
    image = tmp_path / "digit.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)).save(image)
    shown = convolve.explain_image(runs[0] / "model.safetensors", image, out=tmp_path / "shown")
    moments = shown.findings.moments
    assert len(moments) == COUNT + 1
    assert moments[0].label == "step 0 (random weights)"
    assert moments[-1].label.startswith("trained (epoch ")
    for moment, file in zip(
        moments, [*sorted((runs[0] / "snapshots").iterdir()), runs[0] / "model.safetensors"], strict=True
    ):
        truth = dict(convolve.load(file).predict(image).probabilities)
        assert {name: pytest.approx(truth[name], abs=1e-6) for name, _ in moment.probabilities} == dict(
            moment.probabilities
        )
        assert [maps.layer for maps in moment.maps] == [layer.name for layer in shown.findings.layers]
        assert {a.target for a in moment.attributions} == {shown.label}


def test_the_run_folder_pictures_filters_and_moved_images(runs: tuple[Path, Path]) -> None:
    for name in ("filters", "augmentation", "curves", "confusion"):
        with Image.open(runs[1] / "plots" / f"{name}.png") as picture:
            assert picture.size[0] > 300


def test_images_that_are_not_moved_are_not_pictured(tmp_path: Path) -> None:
    run = convolve.train("digits", epochs=1, augment="none", out=tmp_path / "run")
    assert not (tmp_path / "run" / "plots" / "augmentation.png").exists()
    assert "filters" in run.files
