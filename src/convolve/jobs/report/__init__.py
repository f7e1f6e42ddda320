"""report.html: the result of a training, the images behind it, and what to do next, in one file: `convolve report RUN_FOLDER`.

Every `convolve train` writes it; `report` makes it again from the run folder and the data; `convolve evaluate --html` writes one of
any labelled images. `gather` collects the facts, `draw.report` makes the page.
"""

from __future__ import annotations

import csv
import inspect
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from convolve.data.check import findings_of
from convolve.data.preprocess import normalise
from convolve.data.records import Dataset, Split
from convolve.draw import page
from convolve.draw import report as draw
from convolve.errors import ConvolveError, InputError
from convolve.jobs.choices import Request, data_of, model_of, short_name
from convolve.jobs.classifier import Classifier, load
from convolve.jobs.folder import RunFolder
from convolve.jobs.report.facts import Outcome, Subject, gather, left_out
from convolve.jobs.versions import versions
from convolve.training.measure import Measured, measure
from convolve.training.options import Options
from convolve.training.records import Epoch, Observer, Silent

if TYPE_CHECKING:
    from convolve.jobs.log import RunLog

MOST_EXAMINED = 5_000  # images that a report looks through for duplicates and the like; it takes seconds from there on
Findings = Sequence[Mapping[str, object]]


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished run: its network, the images that it learned and was measured on, and how it was trained."""

    subject: Subject
    data: Dataset
    outcomes: Sequence[Outcome]
    options: Options
    history: Sequence[Epoch]


def report(
    folder: str | os.PathLike[str],
    *,
    network: str | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> Path:
    """Make the report of a finished run again, from its `folder` and the data that it was trained on; return the page's path.

    `network` names the code of a network of your own file, as for `convolve.load`.
    Raises InputError when the folder holds no finished run, or when the data is not that of split.csv any more.

    >>> import convolve, tempfile
    >>> run = convolve.train("digits", epochs=1, out=tempfile.mkdtemp() + "/run")
    >>> convolve.report(run.folder).name
    'report.html'
    """
    path = Path(folder)
    place = RunFolder(path)
    missing = [
        name for name in ("model.safetensors", "config.yaml", "split.csv", "metrics.csv") if not (path / name).is_file()
    ]
    if missing:
        rule = "a report is made of the folder of a finished run"
        raise InputError(rule, f"{path} holds no {missing[0]}", "name a folder of convolve train")
    classifier = load(place.model, network=network)
    config = _config(place)
    request = Request.from_dict(config["request"])
    data = data_of(request, workers, (observer or Silent()).reading)
    test = None if data.read_test is None else data.read_test()
    splits = [split for split in (data.validation, test) if split is not None]
    _same_images(place, data.classes, [data.train, *splits])
    subject = _subject(classifier, short_name(model_of(request, data.found)))
    outcomes = [(split, measure(subject.net, split, subject.prepare, subject.device)) for split in splits]
    options = replace(Options.from_dict(config["options"]), device="cpu")
    _write_run(place, Finished(subject, data, outcomes, options, _history(place)))
    return place.report


def report_run(place: RunFolder, log: RunLog, finished: Finished) -> None:
    """Write the report of a run that has just been measured; where that fails, say why: the run is whole without it."""
    started = time.perf_counter()
    try:
        _write_run(place, finished)
    except ConvolveError as error:
        log.say(f"report    not written: {error}")
    else:
        log.say(f"report    {place.report}  ({time.perf_counter() - started:.1f} s)")


def report_evaluation(
    classifier: Classifier, model: str, data: str, split: Split, measured: Measured, path: str | os.PathLike[str]
) -> None:
    """Write the report of a trained model on labelled images that it was measured on."""
    facts = gather(
        _subject(classifier, str(classifier.card["architecture"]["name"])),
        [(split, measured)],
        data=data,
        left_out=left_out(None, [(split, measured)]),
        choices=_choices({key: classifier.card[key] for key in ("architecture", "preprocessing", "options") if key in classifier.card}
                         | {"versions": versions()}),
        repeat=shlex.join(["convolve", "evaluate", model, data, "--html", str(path)]),
        commands=_commands(model),
    )  # fmt: skip
    page.write(draw.page_of(facts), path)


def _subject(classifier: Classifier, name: str) -> Subject:
    def prepare(batch: torch.Tensor) -> torch.Tensor:
        return normalise(batch, classifier.preprocessing)

    return Subject(classifier.net, prepare, next(classifier.parameters()).device, name, classifier.classes)


def _write_run(place: RunFolder, finished: Finished) -> None:
    config = _config(place)
    data, outcomes, history = finished.data, finished.outcomes, finished.history
    facts = gather(
        finished.subject,
        outcomes,
        data=data.name,
        train=data.train,
        options=finished.options,
        epochs=len(history),
        history=tuple(history),
        said=data.said,
        left_out=left_out(data, outcomes),
        findings=tuple(_findings(data, [split for split, _ in outcomes if split is not data.validation])),
        choices=_choices(config),
        repeat=_repeated(config["request"]),
        commands=_commands(str(place.model)),
    )
    page.write(draw.page_of(facts), place.report)


def _findings(data: Dataset, others: Sequence[Split]) -> Findings:
    """What `convolve data check` would find in the images that were read, as far as that is quick."""
    if sum(map(len, (data.train, data.validation, *others))) > MOST_EXAMINED:
        return [{"text": f"Duplicates and leaks were not looked for: convolve data check {shlex.quote(data.origin)}"}]
    found = findings_of(data, *others[:1]).findings
    return [
        {"text": f"{row.what}: {row.remedy}", "files": [name for group in row.groups for name in group]}
        for row in found
    ]


# --- what the folder says ---------------------------------------------------------------------------------------------
def _config(place: RunFolder) -> dict[str, Any]:
    found = yaml.safe_load((place.path / "config.yaml").read_text(encoding="utf-8"))
    if not isinstance(found, dict) or "request" not in found:
        raise InputError(
            "config.yaml holds the choices of a run", f"{place.path / 'config.yaml'} does not", "restore it"
        )
    return found


def _history(place: RunFolder) -> list[Epoch]:
    """metrics.csv back as records."""
    kinds = {field.name: str(field.type) for field in fields(Epoch)}
    read: dict[str, Callable[[str], Any]] = {"bool": lambda text: text == "True", "int": int, "float": float}
    read["float | None"] = lambda text: float(text) if text else None
    with (place.path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [Epoch(**{name: read[kinds[name]](text) for name, text in row.items()}) for row in csv.DictReader(file)]


def _same_images(place: RunFolder, classes: Sequence[str], splits: Sequence[Split]) -> None:
    """Every image must be in the part, and of the class, that split.csv says."""
    with (place.path / "split.csv").open(encoding="utf-8", newline="") as file:
        before = {(row["image"], row["class"], row["part"]) for row in csv.DictReader(file) if row["class"]}
    now = {
        (name, classes[label], split.name)
        for split in splits
        for name, label in zip(split.ids, split.labels.tolist(), strict=True)
    }
    changed = sorted(before ^ now)
    if changed:
        received = f"{len(changed):,} images are not where split.csv has them; the first: {changed[0][0]}"
        raise InputError("a report is made of the images of its run", received, "put the data back, or train anew")


# --- words --------------------------------------------------------------------------------------------------------------
def _choices(config: Mapping[str, Any]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    titles = {
        "options": "training",
        "architecture": "network",
        "preprocessing": "preprocessing",
        "versions": "versions",
        "machine": "machine",
    }
    return tuple((title, _words(config[key])) for key, title in titles.items() if key in config)


def _words(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", " "), _word(value)) for name, value in values.items())


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_word(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return (
            " × ".join(map(_word, value))
            if all(isinstance(item, int) for item in value)
            else ", ".join(map(_word, value))
        )
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _repeated(request: Mapping[str, Any]) -> str:
    """The command that trains the same again: DATA and every flag that is not at its default."""
    from convolve.jobs.train import train

    usual = {name: parameter.default for name, parameter in inspect.signature(train).parameters.items()}
    words = ["convolve", "train", *([str(request["data"])] if request.get("data") is not None else [])]
    for name, value in request.items():
        if name == "data" or value is None or value == usual.get(name, inspect.Parameter.empty):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)]
    return shlex.join(words)


def _commands(model: str) -> tuple[tuple[str, str], ...]:
    """How to go on."""
    file = shlex.quote(model)
    return (
        ("classify new images", f"convolve predict {file} NEW.jpg FOLDER/"),
        ("measure it on other labelled images", f"convolve evaluate {file} OTHER-PHOTOS/ --html other.html"),
        ("see what it makes of one image", f"convolve explain {file} IMAGE.jpg"),
        ("take it elsewhere", f"convolve export {file} --to onnx"),
    )
