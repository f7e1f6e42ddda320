"""The facts of a report against hand counts, the page against the facts, and the report made again from a run's folder."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

import convolve
from convolve.cli import main
from convolve.data.load import load
from convolve.data.records import ResidentImages, Split
from convolve.draw.report import content, page_of, sheets
from convolve.errors import InputError
from convolve.jobs.report import facts as gathering
from convolve.jobs.report import pictures
from convolve.jobs.report.facts import Subject, gather
from convolve.jobs.report.records import Report
from convolve.jobs.results import Run
from convolve.training.measure import Measured
from jobs_support import CLASSES, folder_of


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def outcome_of(n: int, classes: int, size: tuple[int, int, int] = (1, 8, 8), seed: int = 0, name: str = "test") -> Any:
    """A split of `n` images, each with a level of its own, and what a made-up network says of it: about a third is wrong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 3.0
    levels = (torch.arange(n) % 251).to(torch.uint8)[:, None, None, None].expand(n, *size).contiguous()
    sizes = torch.tensor(size[1:], dtype=torch.int32).expand(n, 2)
    split = Split(name, ResidentImages(levels), labels, [f"{name}/{k}" for k in range(n)], sizes)
    return split, Measured(1.0, 0.5, logits.softmax(1), labels)


def report_of(*outcomes: Any, classes: int, **given: Any) -> Report:
    size = outcomes[-1][0].images.shape
    net = torch.nn.Sequential(torch.nn.Conv2d(size[0], 3, 3), torch.nn.Flatten(), torch.nn.LazyLinear(classes))
    net(torch.zeros(1, *size))
    subject = Subject(
        net, lambda batch: batch.float() / 255, torch.device("cpu"), "made", tuple(f"c{k}" for k in range(classes))
    )
    return gather(subject, outcomes, data="made up", **given)


def test_the_page_holds_what_the_run_measured(run: Run) -> None:
    data = data_of(Path(run.files["report"]).read_text(encoding="utf-8"))
    with (run.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = list(run.classes)
    truth, answers = ([classes.index(row[name]) for row in rows] for name in ("class", "predicted"))
    expected = confusion_matrix(truth, answers, labels=range(3))
    assert data["classes"] == classes
    assert {(i, j): n for i, j, n in data["confusion"]} == {
        (i, j): n for (i, j), n in np.ndenumerate(expected.tolist()) if n
    }
    shown = {name: (label, answer[0][0]) for part, name, label, _, answer in data["pictures"] if part == "validation"}
    assert shown == {row["image"]: (t, a) for row, t, a in zip(rows, truth, answers, strict=True)}
    assert [row["epoch"] for row in data["history"]] == [row.epoch for row in run.history]
    assert run.to_json()["files"]["report"].endswith("report.html")


def test_the_images_on_the_page_are_those_that_the_network_saw(tmp_path: Path) -> None:
    run = convolve.train("digits", epochs=1, out=tmp_path / "run")
    data = data_of(Path(run.files["report"]).read_text(encoding="utf-8"))
    found = load("digits", img_size=28)
    assert found.read_test is not None
    parts = {split.name: split for split in (found.train, found.validation, found.read_test())}
    sheet = data["thumbnails"]
    assert sheet["cell"] == [28, 28]
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))) for uri in sheet["sheets"]]
    per = sheet["across"] * sheet["down"]
    for number in range(0, len(data["pictures"]), 17):
        part, name, label, *_ = data["pictures"][number]
        split = parts[part]
        place = list(split.ids).index(name)
        row, column = divmod(number % per, sheet["across"])
        tile = pixels[number // per][row * 28 : row * 28 + 28, column * 28 : column * 28 + 28]
        assert np.array_equal(tile, split.images.batch(torch.tensor([place]))[0, 0].numpy())
        assert int(split.labels[place]) == label
    assert len([row for row in data["pictures"] if row[0] == "test"]) == 359


def test_a_report_is_made_again_as_it_was(run: Run, tmp_path: Path) -> None:
    before = Path(run.files["report"]).read_text(encoding="utf-8")
    folder = shutil.copytree(run.folder, tmp_path / "run")
    (folder / "report.html").unlink()
    after = convolve.report(folder).read_text(encoding="utf-8")
    old, new = data_of(before), data_of(after)
    for measured in (old, new):  # floats of another pass may differ in the last place
        measured.pop("looks"), measured.pop("bins"), measured.pop("thumbnails")
    assert new["confusion"] == old["confusion"]
    assert new["history"] == old["history"]
    assert {row[1] for row in new["pictures"]} == {row[1] for row in old["pictures"]}
    assert new["seen"] == old["seen"]


def test_a_report_refuses_data_that_is_not_the_runs(tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos", 12)
    run = convolve.train(photos, epochs=1, out=tmp_path / "run")
    next((photos / CLASSES[0]).glob("*.png")).unlink()
    with pytest.raises(InputError, match=r"not where split\.csv has them"):
        convolve.report(run.folder)
    with pytest.raises(InputError, match="holds no model"):
        convolve.report(tmp_path / "photos")


def test_a_run_is_whole_where_its_report_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise InputError("a disk must have room", "it is full")

    monkeypatch.setattr("convolve.jobs.report.page.write", refuse)
    run = convolve.train("digits", epochs=1, out=tmp_path / "run")
    assert "report" not in run.files
    assert "report    not written: a disk must have room" in (run.folder / "log.txt").read_text(encoding="utf-8")
    assert run.load().classes == run.classes


def test_of_a_large_set_every_cell_has_its_most_confident_images() -> None:
    split, measured = outcome_of(3000, 10)
    most = 200
    found = pictures.chosen(measured, most)
    assert len(found) == len(set(found)) == most
    guesses, shares = measured.predictions.numpy(), measured.probabilities.amax(1).numpy()
    labels, kept = split.labels.numpy(), set(found)
    wrong = np.flatnonzero(guesses != labels)
    assert sum(number in kept for number in wrong) == 150 < len(wrong)
    for i, j in {(labels[k], guesses[k]) for k in wrong}:
        cell = [k for k in wrong if (labels[k], guesses[k]) == (i, j)]
        there = [k for k in cell if k in kept]
        assert sorted(there, key=lambda k: -shares[k]) == sorted(cell, key=lambda k: -shares[k])[: len(there)]
        assert there
    per_class = [sum(k in kept for k in np.flatnonzero((labels == c) & (guesses == labels))) for c in range(10)]
    assert max(per_class) - min(per_class) <= 1


def test_the_worst_are_those_whose_label_got_least() -> None:
    split, measured = outcome_of(500, 4)
    own = measured.probabilities[torch.arange(500), split.labels]
    wrong = [k for k in range(500) if measured.predictions[k] != split.labels[k]]
    assert pictures.worst(measured, 20) == sorted(wrong, key=lambda k: own[k].item())[:20]


def test_a_thousand_classes_make_a_small_page_that_says_what_it_leaves_out() -> None:
    facts = report_of(outcome_of(6000, 1000), classes=1000)
    assert len(facts.matrix) == 30
    confusion = outcome_of(6000, 1000)[1].confusion().numpy()
    mistakes = confusion.sum(0) + confusion.sum(1) - 2 * np.diag(confusion)
    assert min(mistakes[list(facts.matrix)]) >= np.sort(mistakes)[-30]
    page = page_of(facts)
    assert len(page.encode()) < 8_000_000
    assert "30 of 1,000 classes are shown" in page


def test_photos_become_thumbnails_and_the_page_keeps_its_limit() -> None:
    generator = torch.Generator().manual_seed(0)
    split, measured = outcome_of(700, 3, (3, 72, 96))
    noise = torch.randint(0, 256, (700, 3, 72, 96), generator=generator, dtype=torch.uint8)  # what no format packs
    split = Split(split.name, ResidentImages(noise), split.labels, split.ids, split.sizes)
    facts = report_of((split, measured), classes=3)
    assert facts.thumbnails.shape[1:] == (3, 72, 96)
    assert pictures.thumb_size(480, 640) == (72, 96)
    assert len(page_of(facts).encode()) <= 8_000_000


def test_neighbours_on_a_sheet_do_not_bleed_into_each_other() -> None:
    black_and_white = np.zeros((64, 3, 20, 30), np.uint8)
    black_and_white[::2] = 255
    made = sheets(black_and_white, 88)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(made["sheets"][0].partition(",")[2]))))
    tall, wide = made["cell"]
    assert (tall, wide) == (32, 32)
    for number in range(64):
        row, column = divmod(number, made["across"])
        tile = sheet[row * tall : row * tall + 20, column * wide : column * wide + 30].astype(int)
        assert np.abs(tile - (255 if number % 2 == 0 else 0)).max() <= 4


def test_planted_wrong_labels_lead_the_doubts_of_their_part() -> None:
    validation, measured = outcome_of(300, 3, seed=7, name="validation")
    sure = measured.probabilities.amax(1).argsort(descending=True)
    planted = [k for k in sure.tolist() if measured.predictions[k] == validation.labels[k]][:3]
    labels = validation.labels.clone()
    labels[planted] = (labels[planted] + 1) % 3
    split = Split("validation", validation.images, labels, validation.ids, validation.sizes)
    facts = report_of((split, Measured(1.0, 0.5, measured.probabilities, labels)), outcome_of(300, 3), classes=3)
    first = [facts.pictures[number] for number in facts.doubts.pictures[:3]]
    assert {(row.part, row.name) for row in first} == {("validation", f"validation/{k}") for k in planted}
    assert all(row.lead > 0 for row in first)


def test_only_as_many_training_images_are_searched_as_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    train = outcome_of(2000, 3, name="train")[0]
    monkeypatch.setattr(gathering, "TRAIN_MACS", 0)
    free = report_of(
        outcome_of(300, 3), classes=3, train=train, epochs=10
    )  # 1 % of 3 passes x 10 epochs x 2,000 images
    assert free.doubts.counts[-1][2] == 600
    assert any("600 drawn ones of 2,000 training images" in note for note in free.notes)
    none = report_of(outcome_of(300, 3), classes=3, train=train, epochs=1)
    assert [name for name, _, _ in none.doubts.counts] == ["test"]
    assert any("not searched" in note for note in none.notes)


def test_names_cannot_become_markup() -> None:
    split, measured = outcome_of(60, 3)
    nasty = ('<img src=x onerror="alert(1)">', "a,b'\"", "🐈‍⬛ & </script>")
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten(), torch.nn.Linear(108, 3))
    subject = Subject(net, lambda batch: batch.float(), torch.device("cpu"), nasty[0], nasty)
    facts = gather(
        subject, [(split, measured)], data=nasty[2], said=(nasty[0],), repeat=nasty[0], findings=({"text": nasty[0]},)
    )
    page = page_of(facts)
    assert "<img src=x" not in page
    assert page.count("</script>") == 3
    assert data_of(page)["classes"] == list(nasty)


def test_findings_of_the_data_stand_on_the_page() -> None:
    findings = ({"text": "2 files are duplicates", "files": ["a.png", "b.png"]}, {"kind": "balance", "ratio": 9.8})
    page = page_of(report_of(outcome_of(60, 3), classes=3, findings=findings))
    assert "2 files are duplicates" in page
    assert "a.png, b.png" in page
    assert "kind: balance, ratio: 9.8" in page


def test_the_command_to_repeat_a_run_names_what_was_asked_for(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "my photos", 8)
    run = convolve.train(folder, epochs=1, seed=3, img_size=(24, 28), out=tmp_path / "run")
    page = Path(run.files["report"]).read_text(encoding="utf-8")
    found = re.search(r'<pre id="repeat">(.*?)</pre>', page)
    assert found
    words = shlex.split(found[1].replace("&#39;", "'"))
    assert words == ["convolve", "train", str(folder), "--epochs", "1", "--img-size", "24x28", "--seed", "3"]


def test_an_evaluation_writes_a_report_too(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "there.html"
    assert main(["evaluate", run.files["model"], str(photos), "--html", str(target), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    data = data_of(target.read_text(encoding="utf-8"))
    matrix = np.zeros((3, 3), int)
    for i, j, n in data["confusion"]:
        matrix[i, j] = n
    assert matrix.tolist() == document["confusion"]
    assert data["history"] == []
    assert data["seen"] is None


def test_report_prints_its_path(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    assert main(["report", str(folder), "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "convolve.report"
    assert Path(document["file"]).is_file()
    assert main(["report", str(tmp_path / "absent"), "--json"]) == 3


def test_what_the_page_counts_is_what_was_gathered() -> None:
    facts = report_of(outcome_of(200, 4, seed=5, name="validation"), outcome_of(300, 4), classes=4)
    shown = content(facts)
    assert shown["part"] == "test"
    assert shown["images"] == 300 == sum(n for _, _, n in shown["confusion"])
    assert [part.name for part in facts.parts] == ["test", "validation"]
    assert {row[0] for row in shown["pictures"]} <= {"test", "validation"}
    assert sum(row[0] == "test" for row in shown["pictures"]) == 300
    assert facts.pairs[0][2] == max(n for i, j, n in facts.confusion if i != j)
    assert shown["bins"][-1][2] == sum(
        share > 14 / 15 for share in outcome_of(300, 4)[1].probabilities.amax(1).tolist()
    )
