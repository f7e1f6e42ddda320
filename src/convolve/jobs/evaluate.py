"""Measure a trained model on labelled images; the model file alone says how they are prepared."""

from __future__ import annotations

import os
import time

import torch

from convolve.data.load import read_split
from convolve.data.preprocess import normalise
from convolve.jobs.classifier import Classifier, load
from convolve.jobs.report import report_evaluation
from convolve.jobs.results import ClassScore, Evaluation, Score
from convolve.training.measure import ACCURACY, measure
from convolve.training.records import Observer, Silent


def evaluate(
    model: str | os.PathLike[str] | Classifier,
    data: str | os.PathLike[str] | None = None,
    *,
    part: str | None = None,
    network: str | None = None,
    workers: int | None = None,
    html: str | os.PathLike[str] | None = None,
    observer: Observer | None = None,
) -> Evaluation:
    """Accuracy, loss and confusion matrix of a `model` (a file, or what `convolve.load` returned) on `data`.

    Of data with several parts the test images are measured, or the `part` that is named; of a plain folder all images.
    `html` is a file to write a report into: the images behind every number, as after training.
    `network` names the code of a network of your own file, as for `convolve.load`.
    The data's classes must be among the model's. Raises InputError where they are not, or the data is unusable.

    >>> import convolve, tempfile
    >>> run = convolve.train("digits", epochs=2, out=tempfile.mkdtemp() + "/run")
    >>> result = convolve.evaluate(run.files["model"], "digits")
    >>> result.split, result.score.images, result.score.accuracy == run.test.accuracy
    ('test', 359, True)
    """
    started = time.perf_counter()
    classifier = model if isinstance(model, Classifier) else load(model, network=network)
    rule = classifier.preprocessing
    split = read_split(
        None if data is None else str(data),
        size=rule.size,
        channels=rule.channels,
        classes=classifier.classes,
        fit=rule.fit,
        part=part,
        workers=workers,
        progress=(observer or Silent()).reading,
    )
    device = next(classifier.parameters()).device
    outcome = measure(classifier.net, split, lambda batch: normalise(batch, rule), device)
    confusion = outcome.confusion()
    named = str(model) if not isinstance(model, Classifier) else str(classifier.card["architecture"]["name"])
    if html is not None:
        report_evaluation(classifier, named, "digits" if data is None else str(data), split, outcome, html)
    return Evaluation(
        model=named,
        data="digits" if data is None else str(data),
        split=split.name,
        score=Score(outcome.accuracy, outcome.loss, len(split), outcome.balanced_accuracy),
        classes=tuple(_class_score(name, index, confusion) for index, name in enumerate(classifier.classes)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        seconds=time.perf_counter() - started,
        quarantined=tuple((bad.path, bad.reason) for bad in split.quarantined),
        metric=classifier.card["options"].get("metric", ACCURACY),
    )


def _class_score(name: str, index: int, confusion: torch.Tensor) -> ClassScore:
    right, images, predicted = (
        int(value) for value in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
    )
    return ClassScore(name, images, right / images if images else None, right / predicted if predicted else None)
