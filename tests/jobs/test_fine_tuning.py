"""Fine-tuning: from an earlier run, a file of others, or torchvision's own; what is taken over is said and kept."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import convolve
from convolve.errors import ConvolveError, ModelFileError, NotFiniteError, UnknownNameError, UsageError
from convolve.jobs import begin, train
from convolve.jobs.results import Run
from convolve.models import create, releases
from convolve.models.file import read
from convolve.training.records import Silent
from jobs_support import CLASSES, draw, folder_of

SPEC = "conv 6 3 p1, bn, relu, max 2, gap, dropout 0.1, fc classes"


class Hears(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def first(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return convolve.train(photos, model=SPEC, img_size=24, epochs=2, out=tmp_path_factory.mktemp("first") / "run")


def _other_classes(root: Path) -> Path:
    """As many classes as `photos` has, of the same pictures, but other names."""
    folder_of(root, 12, seed=5)
    for index, name in enumerate(CLASSES):
        (root / name.replace("/", "-")).rename(root / f"kind{index}")
    return root


def test_a_run_brings_its_network_size_channels_and_normalisation(first: Run, photos: Path, tmp_path: Path) -> None:
    hears = Hears()
    run = convolve.train(photos, weights=first.folder, epochs=1, out=tmp_path / "run", observer=hears)
    before, after = read(first.files["model"])[1], read(run.files["model"])[1]
    assert after["architecture"] == before["architecture"]
    assert after["preprocessing"] == before["preprocessing"]
    said = "\n".join(hears.said)
    digest = hashlib.sha256(Path(first.files["model"]).read_bytes()).hexdigest()
    assert f"sha256 {digest}" in said
    assert f"taken over from it: network {SPEC}, size 24x24, 3 channels" in said
    assert f"normalised as {first.files['model']} was: mean 0." in said
    assert "anew" not in said


def test_other_classes_of_the_same_number_get_a_new_classifier_and_frozen_layers_stay(
    first: Run, tmp_path: Path
) -> None:
    hears = Hears()
    others = _other_classes(tmp_path / "others")
    run = convolve.train(
        others, weights=first.files["model"], freeze="all-but-last", epochs=2, out=tmp_path / "run", observer=hears
    )
    before, after = read(first.files["model"])[0], read(run.files["model"])[0]
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
    said = "\n".join(hears.said)
    assert "fc.weight and fc.bias anew: the file has other classes" in said
    assert "frozen: 2 layers (conv, bn); 21 of 201 parameters train" in said
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["options"]["freeze"] == ["all-but-last"]
    old = read(first.files["model"])[1]["preprocessing"]
    assert config["preprocessing"] == old  # not the mean of the new pictures


def test_what_is_asked_for_goes_before_what_a_run_brings(first: Run, photos: Path, tmp_path: Path) -> None:
    run = convolve.train(photos, weights=first.folder, img_size=20, epochs=1, out=tmp_path / "run")
    assert read(run.files["model"])[1]["preprocessing"]["size"] == [20, 20]
    with pytest.raises(ModelFileError, match="use channels=3"):
        convolve.train(photos, weights=first.folder, channels=1, epochs=1, out=tmp_path / "grey")


def test_a_fine_tuned_run_resumes_without_its_weights_and_keeps_every_choice(
    first: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = _other_classes(tmp_path / "others")
    moved = tmp_path / "first.safetensors"
    moved.write_bytes(Path(first.files["model"]).read_bytes())
    choices: dict[str, Any] = {
        "weights": moved, "freeze": "conv", "epochs": 3, "augment": "flip, crop 2, colour 0.1, pca", "patience": 2, "clip": 1.0,
        "warmup": 1, "l1": 1e-4, "dropout": 0.3, "schedule": "cosine", "batch_size": 8,
    }  # fmt: skip
    whole = convolve.train(others, out=tmp_path / "whole", **choices)
    started = (
        convolve.train(others, out=tmp_path / "stopped", **{**choices, "epochs": 3}, observer=Stops(4)) if 0 else None
    )
    assert started is None
    with pytest.raises(convolve.errors.InterruptedRunError):
        convolve.train(others, out=tmp_path / "stopped", **choices, observer=Stops(5))
    moved.unlink()
    monkeypatch.setattr(
        train, "options_of", lambda *a: (_ for _ in ()).throw(AssertionError) if 0 else _other_options(*a)
    )
    resumed = convolve.resume(tmp_path / "stopped")
    for name, tensor in read(whole.files["model"])[0].items():
        assert torch.equal(tensor, read(resumed.files["model"])[0][name]), name
    assert [record.val_loss for record in resumed.history] == [record.val_loss for record in whole.history]
