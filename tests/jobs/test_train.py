"""The main job: one call trains, measures honestly, and leaves a folder from which everything can be done again."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import convolve
from convolve.data.load import load as load_data
from convolve.data.records import Dataset, Split
from convolve.errors import (
    ConvolveError,
    InputError,
    InterruptedRunError,
    ModelFileError,
    ShapeError,
    UnknownNameError,
    UsageError,
)
from convolve.jobs import choices, writer
from convolve.jobs import folder as run_folder
from convolve.jobs.results import Run
from convolve.models.file import read
from convolve.training.records import Silent
from jobs_support import CLASSES, draw, folder_of


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_photos_becomes_a_classifier(run: Run) -> None:
    assert run.test is None  # the folder has no test images, so nothing may be called test accuracy
    assert run.validation.accuracy >= 0.9
    assert run.headline.startswith("validation accuracy")
    assert set(run.classes) == set(CLASSES)


def test_the_run_folder_holds_what_is_promised_and_nothing_else(run: Run) -> None:
    names = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    assert names == {
        "model.safetensors",
        "last/state.safetensors",
        "config.yaml",
        "split.csv",
        "metrics.csv",
        "predictions.csv",
        "report.html",
        "log.txt",
        "plots/curves.png",
        "plots/confusion.png",
        "plots/filters.png",
        "plots/augmentation.png",
    }
    assert all(Path(path).exists() for path in run.files.values())


def test_the_metrics_file_is_the_history(run: Run) -> None:
    rows = _rows(run.folder / "metrics.csv")
    assert [float(row["val_acc"]) for row in rows] == [record.val_acc for record in run.history]
    assert run.best_epoch == max(record.epoch for record in run.history if record.best)
    assert run.validation.accuracy == run.history[run.best_epoch - 1].val_acc


def test_predictions_and_split_name_every_image_once(run: Run, photos: Path) -> None:
    split = _rows(run.folder / "split.csv")
    assert sorted(row["image"] for row in split) == sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))
    held = {row["image"] for row in split if row["part"] == "validation"}
    rows = _rows(run.folder / "predictions.csv")
    assert {row["image"] for row in rows} == held
    right = sum(row["class"] == row["predicted"] for row in rows)
    assert right / len(rows) == run.validation.accuracy
    assert all(row["class"] == Path(row["image"]).parts[0] for row in rows)


def test_the_config_holds_every_choice(run: Run) -> None:
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["options"]["epochs"] == 12
    assert config["architecture"]["num_classes"] == 3
    assert config["versions"]["torch"] == torch.__version__


def test_the_model_file_alone_predicts(run: Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(Path(run.files["model"]).read_bytes())
    net = convolve.load(moved)
    rng = np.random.default_rng(99)
    for kind in range(3):
        picture = draw(kind, rng)
        picture.save(tmp_path / "new.png")
        prediction = net.predict(tmp_path / "new.png")
        assert prediction.label == CLASSES[kind]
        assert sum(share for _, share in prediction.probabilities) == pytest.approx(1)
        assert net.predict(picture).probabilities == prediction.probabilities
        assert net.predict(np.asarray(picture)).probabilities == prediction.probabilities
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert net.predict(tensor).probabilities == prediction.probabilities


def test_predict_sees_exactly_what_validation_saw(run: Run, photos: Path) -> None:
    net = run.load()
    for row in _rows(run.folder / "predictions.csv"):
        prediction = net.predict(photos / row["image"])
        assert prediction.label == row["predicted"]
        assert prediction.confidence == pytest.approx(float(row["probability"]), abs=1e-4)


def test_evaluate_reproduces_the_runs_own_score(run: Run, photos: Path) -> None:
    result = convolve.evaluate(run.files["model"], photos)
    assert result.split == "all"
    assert result.score.images == 72
    assert sum(sum(row) for row in result.confusion) == 72
    for row in result.classes:
        assert row.images == 24
    right = sum(result.confusion[i][i] for i in range(3))
    assert result.score.accuracy == pytest.approx(right / 72)


def test_results_show_themselves_in_a_notebook_with_names_escaped(run: Run, photos: Path) -> None:
    net = run.load()
    shown = run._repr_html_() + net._repr_html_() + net.predict(next(photos.rglob("*.png")))._repr_html_()
    shown += convolve.evaluate(net, photos)._repr_html_()
    assert "猫&lt;b&gt;" in shown
    assert "<b>猫" not in shown
    assert "猫<b>" not in shown


class Reads:
    """Counts when the test images were read, relative to the epochs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []

        def counted(*words: Any, **choices: Any) -> Dataset:
            data = load_data(*words, **choices)
            real = data.read_test
            assert real is not None

            def read_test() -> Split:
                self.events.append("test read")
                return real()

            return Dataset(**{**vars(data), "read_test": read_test})

        monkeypatch.setattr(choices, "load", counted)


def test_the_test_images_are_read_once_and_after_the_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)

    class Watch(Silent):
        def epoch(self, record: Any, epochs: int, eta: float) -> None:
            reads.events.append(f"epoch {record.epoch}")

    result = convolve.train("digits", epochs=2, out=tmp_path / "run", observer=Watch())
    assert reads.events == ["epoch 1", "epoch 2", "test read"]
    assert result.test is not None
    assert result.test.images == 359


def test_two_runs_with_one_seed_have_the_same_weights_and_another_seed_has_others(tmp_path: Path) -> None:
    first, again, other = (
        read(convolve.train("digits", epochs=1, seed=seed, out=tmp_path / name).files["model"])[0]
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


class Stop(Silent):
    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("after", [3, 25])
def test_a_stopped_run_resumed_from_its_folder_equals_one_that_was_not(after: int, tmp_path: Path) -> None:
    whole = convolve.train("digits", epochs=2, out=tmp_path / "whole")
    with pytest.raises(InterruptedRunError, match="convolve train --resume") as caught:
        convolve.train("digits", epochs=2, out=tmp_path / "stopped", observer=Stop(after))
    assert caught.value.exit_code == 130
    resumed = convolve.resume(tmp_path / "stopped")
    assert resumed.test == whole.test
    for file in ("model.safetensors", "last/state.safetensors"):
        a, b = read_any(whole.folder / file), read_any(resumed.folder / file)
        assert all(torch.equal(a[name], b[name]) for name in a), file
    assert (whole.folder / "predictions.csv").read_bytes() == (resumed.folder / "predictions.csv").read_bytes()


def read_any(path: Path) -> dict[str, torch.Tensor]:
    kind = "convolve.state/1" if path.name == "state.safetensors" else "convolve.model/1"
    return read(path, kind)[0]


def test_ctrl_c_in_a_real_process_exits_130_after_saving_and_prints_the_command(tmp_path: Path) -> None:
    source = str(Path(convolve.__file__).parents[1])
    command = [sys.executable, "-m", "convolve", "train", "digits", "--epochs", "500", "--out", "run"]
    env = {**os.environ, "PYTHONPATH": source}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "convolve train --resume run" in err
    assert out == ""
    assert read_any(tmp_path / "run/last/state.safetensors")
    assert convolve.load(tmp_path / "run/model.safetensors").classes[0] == "0"


def test_kill_9_at_any_moment_leaves_a_run_that_resumes(tmp_path: Path) -> None:
    source = str(Path(convolve.__file__).parents[1])
    command = [sys.executable, "-m", "convolve", "train", "digits", "--epochs", "3", "--out", "run", "--quiet"]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": source})
    state = tmp_path / "run/last/state.safetensors"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    whole = convolve.train("digits", epochs=3, out=tmp_path / "whole")
    resumed = convolve.resume(tmp_path / "run")
    assert resumed.test == whole.test


def test_a_changed_data_set_is_noticed_on_resume(tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos", per_class=8)
    with pytest.raises(InterruptedRunError):
        convolve.train(photos, epochs=3, out=tmp_path / "run", observer=Stop(2))
    next(photos.rglob("*.png")).unlink()
    with pytest.raises(InputError, match=r"same data; the .* images or classes are not those"):
        convolve.resume(tmp_path / "run")


@pytest.mark.fault("a corrupt test image", outcome="named and listed; the others are measured")
def test_a_corrupt_test_image_is_named_and_listed_and_the_others_are_measured(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        folder_of(tmp_path / "photos" / part, per_class=8, seed=len(part))
    bad = next((tmp_path / "photos/test").rglob("*.png"))
    bad.write_bytes(bad.read_bytes()[:60])
    result = convolve.train(tmp_path / "photos", epochs=1, out=tmp_path / "run")
    assert result.test is not None
    assert result.test.images == 23
    rows = _rows(result.folder / "split.csv")
    assert sum(row["part"] == "test" for row in rows) == 23
    (left_out,) = [row for row in rows if row["part"].startswith("left out")]
    assert left_out["image"].endswith(bad.name)
    assert "left out  " + left_out["image"] in (result.folder / "log.txt").read_text(encoding="utf-8")


def test_a_folder_that_exists_is_refused_and_names_the_way_on(run: Run, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=f"exists already; name another folder, or go on with: convolve train --resume {run.folder}"
    ):
        convolve.train("digits", epochs=1, out=run.folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/keep.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        convolve.train("digits", epochs=1, out=tmp_path / "full")
    assert (tmp_path / "full/keep.txt").read_text() == "mine"


def test_run_folders_are_numbered_and_nothing_else_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [convolve.train("digits", epochs=1).folder for _ in range(2)]
    assert [str(name) for name in names] == ["runs/digits-lenet_relu", "runs/digits-lenet_relu-2"]
    assert os.listdir(tmp_path) == ["runs"]


def test_a_bad_call_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[tuple[type[ConvolveError], Callable[[], Any]]] = [
        (UnknownNameError, lambda: convolve.train("digits", model="lenet_rleu")),
        (UnknownNameError, lambda: convolve.train("digits", opt="sdg")),
        (UnknownNameError, lambda: convolve.train("digits", augment="flop")),
        (UsageError, lambda: convolve.train("digits", epochs=0)),
        (UsageError, lambda: convolve.train("digits", device="abacus")),
        (UsageError, lambda: convolve.train("digits", val_split=1.5)),
        (ShapeError, lambda: convolve.train("digits", img_size=8)),
        (InputError, lambda: convolve.train("nowhere")),
        (UnknownNameError, lambda: convolve.train("digits", model="resnet18", img_size=32, stem="smal")),
        (UsageError, lambda: convolve.train("digits", model="gap, fc classes", stem="small")),
        (UsageError, lambda: convolve.train("digits", channels=2)),
        (ModelFileError, lambda: convolve.train("nowhere", weights="absent.pth")),
        (InputError, lambda: convolve.train("digits", model="absent.py:Net")),
    ]
    for kind, call in calls:
        with pytest.raises(kind):
            call()
    assert os.listdir(tmp_path) == []


def test_images_too_small_for_the_model_name_the_smallest(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="at least 12 x 12; got 8 x 8"):
        convolve.train("digits", img_size=8, out=tmp_path / "run")


@pytest.mark.fault("a flipped bit in the state to resume from", outcome="refused by name")
def test_a_damaged_state_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        convolve.train("digits", epochs=2, out=tmp_path / "run", observer=Stop(3))
    state = tmp_path / "run/last/state.safetensors"
    content = bytearray(state.read_bytes())
    content[-5] ^= 16
    state.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"state\.safetensors is damaged"):
        convolve.resume(tmp_path / "run")
    with pytest.raises(InputError, match=r"holds no last/state\.safetensors"):
        convolve.resume(tmp_path)


@pytest.mark.fault(
    "the disk fills up in the second epoch", outcome="an error; the first epoch is whole and can be resumed"
)
def test_a_disk_that_fills_up_while_saving_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    real = writer.write_file
    calls = 0

    def write(*words: Any, **choices: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:  # the first epoch's model and state were written

            def full(handle: int) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(os, "fsync", full)
        real(*words, **choices)

    monkeypatch.setattr(writer, "write_file", write)
    monkeypatch.setattr(run_folder, "write_file", write)
    with pytest.raises(ConvolveError, match="No space left on device") as caught:
        convolve.train("digits", epochs=2, out=tmp_path / "run")
    assert caught.value.exit_code == 1
    monkeypatch.undo()
    assert convolve.load(tmp_path / "run/model.safetensors").card["metrics"]["best_epoch"] == 1
    assert len(convolve.resume(tmp_path / "run").history) == 2


def test_a_model_of_another_world_is_refused_when_loading(run: Run, tmp_path: Path) -> None:
    from convolve.models.file import write

    tensors, card = read(run.files["model"])
    write(tmp_path / "m", tensors, {**card, "architecture": {**card["architecture"], "name": "lenet9"}})
    with pytest.raises(ModelFileError, match="lenet9"):
        convolve.load(tmp_path / "m")
    write(tmp_path / "m", tensors, {**card, "architecture": {**card["architecture"], "num_classes": 4}})
    with pytest.raises(ModelFileError, match=r"3 classes for 4 scores"):
        convolve.load(tmp_path / "m")


def test_json_results_are_safe_to_serialise(run: Run, photos: Path) -> None:
    import json

    net = run.load()
    documents = (
        run.to_json(),
        convolve.evaluate(net, photos).to_json(),
        net.predict(next(photos.rglob("*.png"))).to_json(),
    )
    for document in documents:
        assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_sigmoid_lenet_trains_too(tmp_path: Path) -> None:
    result = convolve.train("digits", model="lenet", epochs=20, out=tmp_path / "run")
    assert result.test is not None
    assert result.test.accuracy > 0.8


def _fast(photos: Path, out: Path, **choices: Any) -> Run:
    return convolve.train(photos, epochs=1, out=out, **choices)


@pytest.mark.parametrize(
    ("size", "choices", "model", "given"),
    [
        ((30, 34), {}, "smallnet", (30, 34)),
        ((28, 64), {}, "smallnet", (28, 64)),
        ((27, 40), {}, "lenet_relu", (27, 40)),
        ((9, 9), {}, "lenet_relu", (28, 28)),
        ((90, 30), {}, "smallnet", (64, 64)),
        ((9, 9), {"img_size": 28}, "smallnet", (28, 28)),
        ((40, 40), {"img_size": (16, 40)}, "lenet_relu", (16, 40)),
        ((40, 40), {"model": "lenet_relu"}, "lenet_relu", (40, 40)),
    ],
)
def test_the_default_network_and_the_size_follow_the_pictures(
    size: tuple[int, int], choices: dict[str, Any], model: str, given: tuple[int, int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for kind, name in enumerate("ab"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(4):
            draw(kind, rng, size).save(tmp_path / "photos" / name / f"{index}.png")
    run = _fast(tmp_path / "photos", tmp_path / "run", **choices)
    assert run.model == model
    assert run.load().preprocessing.size == given


def test_an_unnamed_network_is_resumed_as_the_one_that_was_chosen(tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos", per_class=8)
    with pytest.raises(InterruptedRunError):
        convolve.train(photos, epochs=2, out=tmp_path / "run", observer=Stop(3))
    assert convolve.resume(tmp_path / "run").model == "smallnet"


SPEC = "conv 6 5 p2, relu, max 2, conv 8 3, relu, gap, fc classes"


def test_a_network_in_one_line_trains_and_its_file_alone_predicts(photos: Path, tmp_path: Path) -> None:
    result = convolve.train(photos, model=SPEC, epochs=12, out=tmp_path / "run")
    assert result.validation.accuracy > 0.8
    moved = (tmp_path / "run/model.safetensors").rename(tmp_path / "moved.safetensors")
    net = convolve.load(moved)
    assert [name for name, _ in net.net.named_children()] == ["conv1", "relu1", "max1", "conv2", "relu2", "gap1", "fc1"]
    assert convolve.evaluate(moved, photos).score.images == 72


def test_a_line_that_is_wrong_is_reported_before_the_data_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown layer; got 'conf'"):
        convolve.train("nowhere", model="conf 6 5, fc classes", out=tmp_path / "run")
    with pytest.raises(UsageError, match=r"one score per class: \(10 for each image\); got \(1, 5\)"):
        convolve.train("digits", model="gap, fc 5", out=tmp_path / "run")


NETWORK = """
import torch
from pathlib import Path

Path(__file__).with_suffix(".ran").touch()

class Net(torch.nn.Sequential):
    def __init__(self, num_classes, in_channels, width=4):
        super().__init__(
            torch.nn.Conv2d(in_channels, width, 3), torch.nn.ReLU(), torch.nn.AdaptiveMaxPool2d(2), torch.nn.Flatten(),
            torch.nn.Linear(4 * width, num_classes),
        )
"""


def test_a_network_of_a_file_trains_and_loads_only_where_its_code_is_named(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(NETWORK, encoding="utf-8")
    result = convolve.train(photos, model=f"{file}:Net(width=5)", epochs=1, out=tmp_path / "run")
    ran = file.with_suffix(".ran")
    assert ran.exists()
    assert result.model == f"{file}:Net(width=5)"
    ran.unlink()
    model = tmp_path / "run/model.safetensors"
    with pytest.raises(ModelFileError, match=r"holds no code.*name the code that you trust: network='FILE.py:NAME'"):
        convolve.load(model)
    assert not ran.exists()
    picture = draw(0, np.random.default_rng(1))
    shares = convolve.load(model, network=f"{file}:Net(width=5)").predict(picture).probabilities
    assert ran.exists()
    with pytest.raises(ModelFileError, match=r"do not fit"):
        convolve.load(model, network=f"{file}:Net")
    with pytest.raises(UnknownNameError, match="unknown network in"):
        convolve.load(model, network=f"{file}:Nett")
    with pytest.raises(ModelFileError, match="holds no code"):
        convolve.evaluate(model, photos)
    result = convolve.evaluate(model, photos, network=f"{file}:Net(width=5)")
    assert result.score.images == 72
    assert convolve.resume(tmp_path / "run").model == f"{file}:Net(width=5)"
    module = convolve.load(model, network=f"{file}:Net(width=5)").net
    assert convolve.load(model, network=module).predict(picture).probabilities == shares
