"""Measure a trained model on labelled images; the model file alone says how they are prepared."""

from __future__ import annotations

import os
import time

import torch

from convolve.data.load import load as load_data
from convolve.data.preprocess import normalise
from convolve.data.records import Dataset, Split
from convolve.errors import InputError, UnknownNameError
from convolve.jobs.classifier import Classifier, load
from convolve.jobs.results import ClassScore, Evaluation, Score
from convolve.training.measure import measure
from convolve.training.records import Observer, Silent

PARTS = ("test", "validation", "train")


def evaluate(
    model: str | os.PathLike[str] | Classifier,
    data: str | os.PathLike[str] | None = None,
    *,
    part: str | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> Evaluation:
    """Accuracy, loss and confusion matrix of a `model` (a file, or what `convolve.load` returned) on `data`.

    Of data with several parts the test images are measured, or the `part` that is named; of a plain folder all images.
    The folder's classes must be among the model's. Raises InputError where they are not, or the data is unusable.

    >>> import convolve, tempfile
    >>> run = convolve.train("digits", epochs=2, out=tempfile.mkdtemp() + "/run")
    >>> result = convolve.evaluate(run.files["model"], "digits")
    >>> result.split, result.score.images, result.score.accuracy == run.test.accuracy
    ('test', 360, True)
    """
    started = time.perf_counter()
    watcher = observer or Silent()
    classifier = model if isinstance(model, Classifier) else load(model)
    rule = classifier.preprocessing
    dataset = load_data(
        None if data is None else str(data),
        img_size=rule.size,
        channels=rule.channels,
        workers=workers,
        progress=watcher.reading,
    )
    split = _choose(dataset, part)
    labels = _in_the_models_words(split, dataset.classes, classifier.classes)
    device = next(classifier.parameters()).device
    outcome = measure(
        classifier.net,
        Split(split.name, split.images, labels, split.ids, split.sizes),
        lambda x: normalise(x, rule),
        device,
    )
    confusion = outcome.confusion()
    return Evaluation(
        model=str(model) if not isinstance(model, Classifier) else str(classifier.card["architecture"]["name"]),
        data=dataset.name,
        split=split.name,
        score=Score(outcome.accuracy, outcome.loss, len(split)),
        classes=tuple(_class_score(name, index, confusion) for index, name in enumerate(classifier.classes)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        seconds=time.perf_counter() - started,
        quarantined=tuple((bad.path, bad.reason) for bad in split.quarantined),
    )


def _choose(dataset: Dataset, part: str | None) -> Split:
    """The part to measure: the one named, else test, else the declared validation, else all there is."""
    if part is not None and part not in PARTS:
        raise UnknownNameError.of("part of the data", part, PARTS)
    if part in (None, "test") and dataset.read_test is not None:
        return dataset.read_test()
    if part in (None, "validation") and dataset.validation is not None:
        return dataset.validation
    if part in (None, "train"):
        return dataset.train
    raise InputError(
        f"the data has no {part} part", f"{dataset.origin} was read", "leave --part out to measure what there is"
    )


def _in_the_models_words(split: Split, found: tuple[str, ...], known: tuple[str, ...]) -> torch.Tensor:
    """The split's labels as indices into the model's classes, matched by name."""
    strange = [name for name in found if name not in known]
    if strange:
        received = f"the model does not know {', '.join(strange[:5])}; it knows {', '.join(known[:10])}"
        raise InputError(
            "the data's classes must be among the model's", received, "rename the folders, or name other data"
        )
    return torch.tensor([known.index(name) for name in found], dtype=torch.int64)[split.labels]


def _class_score(name: str, index: int, confusion: torch.Tensor) -> ClassScore:
    right, images, predicted = (
        int(value) for value in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
    )
    return ClassScore(name, images, right / images if images else None, right / predicted if predicted else None)
