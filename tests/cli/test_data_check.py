"""`convolve data check`: its exit codes, its one document, and what it writes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolve.cli import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two sound classes, and one file that cannot be read."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.random.default_rng(100 * label + i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(tmp_path / f"photos/{name}/{i}.png")
    (tmp_path / "photos/dog/empty.png").write_bytes(b"")
    return tmp_path / "photos"


def test_findings_are_printed_and_do_not_fail(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(photos), "-q"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{photos}: 40 pictures, 1 unreadable, 2 classes; 1 finding that harms training\n")
    assert "! 1 file cannot be read" in out
    assert "dog/empty.png" in out


def test_strict_fails_when_something_harms_and_only_then(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(photos), "--strict", "-q"]) == 4
    assert "unreadable" in capsys.readouterr().err
    (photos / "dog/empty.png").unlink()
    (photos / "notes.txt").write_text("x")  # a note does not fail
    assert main(["data", "check", str(photos), "--strict", "-q"]) == 0


def test_json_is_one_document_also_when_strict_fails(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", str(photos), "--strict", "--json", "-q"])
    assert stopped.value.code == 4
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["version"]) == ("convolve.data-check", 1)
    assert found["unreadable"] == [{"name": "dog/empty.png", "part": "train", "label": "dog", "reason": "it is empty"}]
    assert [(row["kind"], row["severity"], row["count"]) for row in found["findings"]] == [("unreadable", "harm", 1)]


def test_what_is_no_data_is_an_input_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path / "nowhere"), "-q"]) == 3
    assert "error:" in capsys.readouterr().err


def test_the_split_that_it_writes_is_the_one_that_training_takes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "dog/empty.png").unlink()
    split, page = tmp_path / "split.csv", tmp_path / "check.html"
    assert main(["data", "check", str(photos), "--split", str(split), "--html", str(page), "-q"]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    words = ["--epochs", "1", "--augment", "none", "--out", str(tmp_path / "run"), "-q", "--json"]
    assert main(["train", str(photos), "--split", str(split), *words]) == 0
    capsys.readouterr()

    def rows(path: Path) -> list[list[str]]:
        with path.open(encoding="utf-8", newline="") as file:
            return sorted(csv.reader(file))

    assert rows(tmp_path / "run/split.csv") == rows(split)
