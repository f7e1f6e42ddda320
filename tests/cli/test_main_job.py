"""train, evaluate, predict and demo from the command line: documents, messages, exit codes, and a live terminal."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convolve.cli import main
from convolve.jobs.results import Run
from jobs_support import CLASSES, draw, folder_of

SOURCE = str(Path(__file__).parents[2] / "src")


def _document(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_prints_one_document_and_says_its_choices_on_stderr(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits", "--epochs", "2", "--json"]) == 0
    document, err = _document(capsys)
    assert document["schema"] == "convolve.train"
    assert document["version"] == 1
    assert 0 < document["test"]["accuracy"] <= 1
    assert document["test"]["images"] == 359
    assert document["validation"]["images"] == 180
    assert document["seconds"] > 0
    assert all((here / path).exists() for path in document["files"].values())
    lines = err.splitlines()
    assert lines[0].startswith("data ")
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert any("resized to 28x28" in line for line in lines)
    assert any(line.startswith("time      about ") for line in lines)
    assert (here / "runs/digits-lenet_relu/log.txt").read_text(encoding="utf-8").splitlines() == lines


def test_quiet_prints_the_result_and_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "1", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("test accuracy ")
    assert "epoch" not in err


def test_a_run_that_exists_is_refused_with_exit_2(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--out", str(run.folder)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_finished_run_can_be_resumed_and_gives_the_same_result(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run.folder / "predictions.csv").read_bytes()
    assert main(["train", "--resume", str(run.folder), "--json"]) == 0
    document, _ = _document(capsys)
    assert document["validation"]["accuracy"] == run.validation.accuracy
    assert (run.folder / "predictions.csv").read_bytes() == before


def test_evaluate_prints_a_table_or_one_document(run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", run.files["model"], str(photos)]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in CLASSES)
    assert "all accuracy" in out
    assert main(["evaluate", run.files["model"], str(photos), "--json"]) == 0
    document, _ = _document(capsys)
    assert document["schema"] == "convolve.evaluate"
    assert document["images"] == 72
    assert [row["name"] for row in document["classes"]] == list(run.classes)


def test_evaluate_on_classes_that_the_model_never_saw_names_them(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data/zebra").mkdir(parents=True)
    draw(0, np.random.default_rng(0)).save(tmp_path / "data/zebra/1.png")
    assert main(["evaluate", run.files["model"], str(tmp_path / "data")]) == 3
    assert "zebra" in capsys.readouterr().err


def test_evaluate_names_an_unknown_part(run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", run.files["model"], str(photos), "--part", "test"]) == 2
    assert "'test'" in capsys.readouterr().err


def test_predict_takes_files_and_folders_and_names_what_it_left_out(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "new", per_class=2, seed=5)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    assert main(["predict", run.files["model"], str(folder), str(bad), "--json"]) == 0
    document, err = _document(capsys)
    assert len(document["predictions"]) == 6
    for row in document["predictions"]:
        assert row["label"] == Path(row["image"]).parent.name
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert "bad.png" in document["left_out"][0]["why"]
    assert "bad.png" in err


@pytest.mark.parametrize("content", [b"", b"not an image", b"GIF89a"])
def test_predict_with_no_usable_image_exits_3_and_names_it(
    content: bytes, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert main(["predict", run.files["model"], str(tmp_path / "x.png")]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "x.png" in err
    assert main(["predict", run.files["model"], str(tmp_path / "absent.png")]) == 3
    assert "absent.png" in capsys.readouterr().err


def test_a_model_that_is_not_a_model_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"\x80\x04N.")
    assert main(["predict", str(tmp_path / "m.safetensors"), "x.png"]) == 3
    assert "m.safetensors" in capsys.readouterr().err


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of light digits on black."""
    from convolve.jobs.train import train

    return Path(train("digits", epochs=8, out=tmp_path_factory.mktemp("digits") / "run").files["model"])


def _own_digit(path: Path) -> Path:
    """A 7 in dark ink on white paper, 120 x 110, in colour."""
    picture = np.full((120, 110, 3), 250, np.uint8)
    picture[20:32, 30:85] = (40, 30, 90)
    for row in range(32, 105):
        left = 73 - (row - 32) // 3
        picture[row, left : left + 12] = (40, 30, 90)
    Image.fromarray(picture).save(path)
    return path


def test_ones_own_digit_on_white_paper_is_noticed_and_invert_helps(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(_own_digit(tmp_path / "seven.png"))
    assert main(["predict", str(digits), picture, "--json"]) == 0
    document, err = _document(capsys)
    notes = " ".join(document["predictions"][0]["notes"])
    assert "--invert" in notes
    assert "grey" in notes
    assert "note      " in err
    assert main(["predict", str(digits), picture, "--invert", "--json"]) == 0
    document, _ = _document(capsys)
    assert document["predictions"][0]["label"] == "7"
    assert "--invert" not in " ".join(document["predictions"][0]["notes"])


def test_an_array_with_a_wrong_number_of_channels_is_refused(digits: Path) -> None:
    import convolve

    net = convolve.load(digits)
    for shape in ((8, 8, 2), (8, 8, 5), (2, 8, 8, 3)):
        with pytest.raises(convolve.InputError, match=r"uint8 \[h, w\]"):
            net.predict(np.zeros(shape, np.uint8))


@pytest.mark.fault("no right to create the run folder", outcome="an error names the place")
def test_no_right_to_write_is_one_error_that_names_the_place(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def refuse(self: Path, *words: Any, **choices: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["train", "digits", "--epochs", "1", "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "runs/digits-lenet_relu" in err
    assert "Permission denied" in err


@pytest.mark.fault("memory runs out in a training step", outcome="said, with what helps; the run can be resumed")
def test_memory_that_runs_out_is_one_error_that_says_what_helps(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from convolve.jobs import train as job

    def fit(*_: Any, **__: Any) -> None:
        torch.empty(1 << 55, dtype=torch.uint8)  # torch's own error, of a size that no machine has

    monkeypatch.setattr(job, "seconds_per_epoch", lambda *_: 1.0)
    monkeypatch.setattr(job, "fit", fit)
    assert main(["train", "digits", "--epochs", "1", "--out", "run"]) == 1
    err = capsys.readouterr().err
    assert "error: not enough memory" in err
    assert "you tried to allocate 36028797018963968 bytes" in err
    assert "use a smaller --batch-size or --img-size" in err
    assert "convolve itself failed" not in err
    assert (here / "run/config.yaml").exists()


def test_the_demo_predicts_its_own_digits_and_says_where_the_files_are(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "test accuracy" in out
    rows = [line.split() for line in out.splitlines() if "-is-a-" in line]
    assert len(rows) == 8
    right = sum(Path(row[0]).stem.endswith(row[1]) for row in rows)
    assert right >= 7
    assert (here / "runs/digits-lenet_relu/model.safetensors").exists()


def test_a_terminal_gets_a_live_bar_and_the_same_lines(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    env = {**os.environ, "PYTHONPATH": SOURCE, "TERM": "xterm-256color", "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "convolve", "train", "digits", "--epochs", "2"]
    seen = b""
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(master, 65536):
                seen += piece
        os.close(master)
        assert process.stdout is not None
        out = process.stdout.read().decode()
    assert process.returncode == 0
    text = seen.decode("utf-8", "replace")
    assert "\x1b[" in text  # the bar redraws itself
    assert "epoch 2/2  loss " in text
    assert out.startswith("test accuracy ")
    assert "\x1b" not in out


def test_a_network_of_a_file_predicts_and_is_measured_where_its_code_is_named(
    here: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "net.py").write_text(
        "import torch\n\n\ndef build(num_classes, in_channels):\n"
        "    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(),\n"
        "                               torch.nn.Linear(16 * in_channels, num_classes))\n",
        encoding="utf-8",
    )
    assert main(["train", str(photos), "--model", "net.py:build", "--epochs", "1", "--quiet"]) == 0
    model = "runs/photos-net-build/model.safetensors"
    assert capsys.readouterr().out.splitlines()[1] == model
    assert main(["evaluate", model, str(photos)]) == 3
    assert "--network FILE.py:NAME" in capsys.readouterr().err
    assert main(["evaluate", model, str(photos), "--network", "net.py:build", "--json"]) == 0
    assert _document(capsys)[0]["images"] == 72
    picture = str(next(photos.rglob("*.png")))
    assert main(["predict", model, picture, "--network", "net.py:build", "--json"]) == 0
    assert _document(capsys)[0]["predictions"][0]["label"] in CLASSES
