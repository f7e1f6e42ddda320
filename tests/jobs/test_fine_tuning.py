"""Fine-tuning: from an earlier run, a file of others, or torchvision's own; what is taken over is said and kept."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import convolve
from convolve.data.components import covariance
from convolve.data.load import load
from convolve.errors import (
    ConvolveError,
    InterruptedRunError,
    ModelFileError,
    NotFiniteError,
    UnknownNameError,
    UsageError,
)
from convolve.jobs import begin, setup
from convolve.jobs.augmentation import movement_of
from convolve.jobs.choices import Request, options_of
from convolve.jobs.results import Run
from convolve.models import create, releases
from convolve.models.file import read
from convolve.training.augment_spec import describe
from convolve.training.records import Silent
from jobs_support import CLASSES, folder_of

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
    assert changed == {"fc1.weight", "fc1.bias"}
    said = "\n".join(hears.said)
    assert "fc1.weight and fc1.bias anew: the file has other classes" in said
    assert "frozen: 2 layers (conv1, bn1); 21 of 201 parameters train" in said
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
        "weights": moved, "freeze": "conv1", "epochs": 3, "augment": "flip, crop 2, colour 0.1, pca", "patience": 2, "clip": 1.0,
        "warmup": 1, "l1": 1e-4, "dropout": 0.3, "schedule": "cosine", "batch_size": 8,
    }  # fmt: skip
    whole = convolve.train(others, out=tmp_path / "whole", **choices)
    with pytest.raises(InterruptedRunError):
        convolve.train(others, out=tmp_path / "stopped", **choices, observer=Stops(5))
    moved.unlink()
    monkeypatch.setattr(
        setup, "options_of", lambda *words: replace(options_of(*words), lr=9.0)
    )  # other defaults by now
    resumed = convolve.resume(tmp_path / "stopped")
    expected, _ = read(whole.files["model"])
    for name, tensor in read(resumed.files["model"])[0].items():
        assert torch.equal(tensor, expected[name]), name
    assert [record.val_loss for record in resumed.history] == [record.val_loss for record in whole.history]


class Stops(Silent):
    """Presses Ctrl-C after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def test_patience_ends_a_run_and_the_best_weights_are_what_it_leaves(photos: Path, tmp_path: Path) -> None:
    hears = Hears()
    run = convolve.train(
        photos, model="gap, fc classes", img_size=8, lr=1e-9, epochs=9, patience=2, out=tmp_path / "run", observer=hears
    )
    assert len(run.history) == run.best_epoch + 2 < 9
    assert any("2 epochs were not better" in line for line in hears.said)
    assert convolve.resume(run.folder).history == run.history


def test_a_run_that_meets_infinity_names_the_last_good_weights(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = setup.normalise, [0]

    def poisoned(*words: Any) -> torch.Tensor:
        calls[0] += 1
        return real(*words) * (1.0 if calls[0] < 60 else float("inf"))

    monkeypatch.setattr(setup, "normalise", poisoned)
    out = tmp_path / "run"
    with pytest.raises(NotFiniteError) as caught:
        convolve.train(photos, model=SPEC, img_size=16, epochs=20, batch_size=8, out=out)
    monkeypatch.undo()
    message = str(caught.value)
    assert "the input is not finite in image" in message
    assert (
        f"are whole: {out / 'model.safetensors'}; go on from them with: convolve train {photos} --weights {out}"
        in message
    )
    assert caught.value.remedy in (out / "log.txt").read_text(encoding="utf-8")
    tensors, card = read(out / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert f"of epoch {card['metrics']['best_epoch']}," in message
    again = convolve.train(photos, weights=out, epochs=1, out=tmp_path / "again")  # as it advises
    assert again.validation.images > 0


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"augment": "gentel"}, UnknownNameError, "unknown augmentation; got 'gentel'; use gentle"),
        (
            {"augment": "crop 99"},
            UsageError,
            "crop must be smaller than the pictures; got crop 99 for pictures of 16x16",
        ),
        ({"amp": "fp16"}, UnknownNameError, "unknown choice of --amp"),
        ({"dropout": 0.5}, UsageError, "dropout needs a network with dropout layers"),
        ({"freeze": "features"}, UnknownNameError, "unknown layer to freeze; got 'features'; use "),
        ({"weights": "."}, UsageError, "a folder of weights is that of an earlier run"),
        ({"weights": "torchvision"}, UsageError, "torchvision's weights are for networks of the table"),
        ({"weights": "torchvision", "model": "alexnet"}, UsageError, r"got alexnet \(2012\); use alexnet-torchvision"),
    ],
)
def test_a_choice_that_cannot_be_gets_one_clear_error_and_leaves_no_folder(
    choices: dict[str, Any], error: type[ConvolveError], message: str, photos: Path, tmp_path: Path
) -> None:
    given = {"model": "conv 4 3, relu, gap, fc classes", "img_size": 16, "epochs": 1} | choices
    with pytest.raises(error, match=message):
        convolve.train(photos, out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("channels", "classes", "images", "line"),
    [
        (1, ("a1", "b1"), 100, "shift 0.08, rotate 10, scale 0.12"),
        (1, ("a1", "b1"), 20_000, "none"),
        (3, ("cat", "dog"), 100, "flip, crop 4"),
        (3, tuple("0123456789"), 100_000, "crop 4"),
        (3, ("turn left", "stop"), 100, "crop 4"),
        (3, ("cleft", "bright"), 100, "flip, crop 4"),
    ],
)
def test_digits_are_never_mirrored_and_photos_are(
    channels: int, classes: tuple[str, ...], images: int, line: str
) -> None:
    data = SimpleNamespace(channels=channels, classes=classes, size=(32, 40), train=range(images))
    assert describe(movement_of("auto", data)[0]) == line  # type: ignore[arg-type]
    assert describe(movement_of("gentle, crop 2", data)[0]) == "crop 2, shift 0.08, rotate 10, scale 0.12"  # type: ignore[arg-type]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[releases.Release, list[str]]]:
    """A release of our own making on a server of our own, in torch.hub's manner; the requests that came in."""
    place = tmp_path / "server"
    place.mkdir()
    torch.manual_seed(0)
    torch.save(create("mobilenet_v2", num_classes=10).state_dict(), place / "new.pth")
    digits = hashlib.sha256((place / "new.pth").read_bytes()).hexdigest()[:8]
    release = releases.Release("mobilenet_v2", "1.0", f"small-{digits}.pth")
    (place / "new.pth").rename(place / release.file)
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(f"{self.command} {self.path}")

    server = HTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(releases, "RELEASES", (release,))
    monkeypatch.setattr(releases, "ORIGIN", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    yield release, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_word_torchvision_downloads_once_and_checks_the_hash(
    published: tuple[releases.Release, list[str]], tmp_path: Path
) -> None:
    release, asked = published
    request = Request("digits", "mobilenet_v2", *(None,) * 5, 0, None, "none", weights="torchvision")
    hears = Hears()
    _, begun = begin.begin(request, hears.say)
    path = tmp_path / "home" / "hub" / "checkpoints" / release.file
    assert begun is not None
    assert (begun.path, begun.mean) == (str(path), (0.485, 0.456, 0.406))
    size = path.stat().st_size
    assert hears.said == [f"download  {releases.ORIGIN}{release.file} ({size / 1e6:,.1f} MB) to {path}"]
    assert f"sha256 {release.digits}" in begun.said[0]
    assert asked == [f"HEAD /{release.file}", f"GET /{release.file}"]
    assert begun.start(create("mobilenet_v2", num_classes=10), list("abcdefghij")).startswith(
        f"from {path} (314 tensors"
    )
    begin.begin(request, hears.say)
    assert len(asked) == 2  # it is there
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ConvolveError, match="is not what torchvision published; its sha256 does not begin with"):
        begin.begin(request, hears.say)


def test_a_file_that_arrives_wrong_is_not_kept_and_offline_means_offline(
    published: tuple[releases.Release, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, asked = published
    place = tmp_path / "server" / release.file
    place.write_bytes(b"something else")
    request = Request("digits", "mobilenet_v2", *(None,) * 5, 0, None, "none", weights="torchvision")
    with pytest.raises(ConvolveError, match=r"cannot download .*invalid hash value.*--weights FILE"):
        begin.begin(request, id)
    place.unlink()
    with pytest.raises(ConvolveError, match=r"cannot download .*404"):
        begin.begin(request, id)
    assert not list((tmp_path / "home").rglob("*.pth"))
    count = len(asked)
    monkeypatch.setenv("CONVOLVE_OFFLINE", "1")
    with pytest.raises(UsageError, match="the network is switched off"):
        begin.begin(request, id)
    assert len(asked) == count


def test_a_published_file_by_its_path_is_recognised_by_its_digest(
    published: tuple[releases.Release, list[str]], tmp_path: Path
) -> None:
    release, asked = published
    path = (tmp_path / "server" / release.file).rename(tmp_path / "mine.pth")
    request = Request("digits", "mobilenet_v2", *(None,) * 5, 0, None, "none", weights=str(path))
    _, begun = begin.begin(request, id)
    assert begun is not None
    assert begun.origin == f"torchvision's {release.file}"
    assert begun.std == (0.229, 0.224, 0.225)
    assert asked == []


def test_every_release_fits_a_row_of_the_table_and_names_its_hash() -> None:
    for release in releases.RELEASES:
        assert convolve.models.find(release.model, release.variant)[1].name == release.variant
        assert len(release.digits) == 8
        int(release.digits, 16)
    assert len({release.file for release in releases.RELEASES}) == len(releases.RELEASES)


def test_the_picture_of_the_changes_shows_them(photos: Path, tmp_path: Path) -> None:
    run = convolve.train(
        photos, model="gap, fc classes", img_size=16, epochs=1, augment="colour 0.9, pca 1", out=tmp_path / "run"
    )
    with Image.open(run.folder / "plots" / "augmentation.png") as picture:
        assert picture.size[0] > 500
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    axes = torch.tensor(config["options"]["movement"]["axes"], dtype=torch.float64)
    data = load(photos, img_size=16)
    assert torch.allclose(axes.T @ axes, covariance(data.train.images), atol=1e-12)
