"""Class names with everything that separates, quotes, marks up or commands: in every output they are what they were, and nothing more."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import convolve
from convolve.cli import main
from convolve.data.image_folder import printable
from convolve.data.load import load
from convolve.errors import InputError
from convolve.jobs.results import Run
from jobs_support import draw

# as folders are called on the disk; "/" is the one letter that no folder has
NAMES = {
    "a comma": "left, right",
    "a semicolon": "a;b",
    "quotes": "the \"big\" 'one'",
    "emoji": "🐈\u200d⬛ 👩🏽\u200d🚀",
    "HTML": "<script>alert(1) <img src=x onerror=alert(2)>&amp;",
    "another alphabet, right to left": "חתול",
    "spaces at both ends": " padded ",
    "a formula": "=1+1",
    "a dash first": "--json",
    "a line of YAML": "a: &b [c]",
    "terminal markup": "[bold red]x[bold]",
    "a percent sign": "50%s {x}",
    "a backslash": "C:\\new",
    "a number": "007",
    "a word of YAML": "null",
}


SAME = "the same in csv, JSON, the model file, notebooks and exports"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on one folder of three images for each name."""
    root = tmp_path_factory.mktemp("named") / "photos"
    for index, name in enumerate(NAMES.values()):
        (root / name).mkdir(parents=True)
        for image in range(3):
            draw(index % 3, np.random.default_rng(10 * index + image), (12, 12)).save(root / name / f"{image}.png")
    return convolve.train(root, epochs=1, out=root.parent / "run", val_split=0.34)


def rows(run: Run, name: str) -> list[dict[str, str]]:
    with (run.folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Text(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.fault(f"a class name with {case}", outcome=SAME)) for case in NAMES],
)
def test_a_name_is_the_same_everywhere(case: str, named: Run) -> None:
    name = NAMES[case]
    assert name in named.classes
    assert name in convolve.load(named.files["model"]).classes
    assert sum(row["class"] == name for row in rows(named, "split.csv")) == 3
    assert sum(row["class"] == name for row in rows(named, "predictions.csv")) >= 1
    assert all(row["image"].startswith(f"{name}/") for row in rows(named, "predictions.csv") if row["class"] == name)
    assert name in json.loads(json.dumps(named.to_json()))["classes"]
    import yaml

    assert name in yaml.safe_load((named.folder / "config.yaml").read_text(encoding="utf-8"))["data"]["classes"]


def test_pages_show_the_names_and_run_nothing(named: Run) -> None:
    prediction = convolve.load(named.files["model"]).predict(torch.zeros(3, 12, 12, dtype=torch.uint8))
    for page in (prediction._repr_html_(), convolve.load(named.files["model"])._repr_html_(), named._repr_html_()):
        assert Text(page).tags <= {"table", "tr", "td", "th", "p", "b"}
    assert "<script>" not in prediction._repr_html_()


def test_the_command_line_prints_names_and_no_markup(named: Run, capsys: pytest.CaptureFixture[str]) -> None:
    root = named.folder.parent / "photos"
    assert main(["evaluate", named.files["model"], str(root)]) == 0
    out = capsys.readouterr().out
    assert all(name.strip() in out for name in NAMES.values() if "🐈" not in name)
    assert main(["evaluate", named.files["model"], str(root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in document["classes"]} == set(NAMES.values())
    assert main(["predict", named.files["model"], str(root / "--json"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 3


def test_an_export_keeps_the_names(named: Run, tmp_path: Path) -> None:
    made = convolve.export(named.folder, "safetensors", out=tmp_path / "w")
    with safe_open(made.file, framework="pt") as file:
        assert set(json.loads(file.metadata()["classes"])) == set(NAMES.values())


CONTROL = {
    "a line end": ("two\nlines", "two\\x0alines"),
    "a carriage return": ("over\rwritten", "over\\x0dwritten"),
    "a terminal command": ("\x1b[2Jgone", "\\x1b[2Jgone"),
    "bytes that are no UTF-8": ("caf\udce9", "caf\\xe9"),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.fault(f"a class name with {case}", outcome=f"written as {written}"))
        for case, (_, written) in CONTROL.items()
    ],
)
def test_what_would_break_a_line_or_a_terminal_is_written_out(
    case: str, tmp_path: Path, make_noise: Callable[..., Image.Image]
) -> None:
    name, written = CONTROL[case]
    assert printable(name) == written
    for index in range(6):
        folder = tmp_path / "photos" / (name if index % 2 else "cat")
        folder.mkdir(parents=True, exist_ok=True)
        make_noise(index).save(folder / f"{index}.png")
    data = load(tmp_path / "photos")
    assert set(data.classes) == {"cat", written}
    shutil.rmtree(tmp_path / "photos")


@pytest.mark.fault("two class names that are written alike", outcome="refused: one must be renamed")
def test_two_names_that_are_written_alike_are_refused(tmp_path: Path, make_noise: Callable[..., Image.Image]) -> None:
    for index, name in enumerate(("a\nb", "a\\x0ab")):
        (tmp_path / name).mkdir()
        make_noise(index).save(tmp_path / name / "1.png")
    with pytest.raises(InputError, match="classes need different names"):
        load(tmp_path)
