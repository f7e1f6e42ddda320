"""What a run says: to whoever watches, and to log.txt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from convolve.data.records import Dataset, Quarantined
from convolve.jobs.choices import Request, row_of
from convolve.training.measure import BALANCED
from convolve.training.options import Options
from convolve.training.records import Epoch, Observer, clock


class RunLog:
    """Passes everything on to the caller's observer, and writes what is said to log.txt, each line as it comes.

    Without a path nothing is written. A log that cannot be written (a full disk, say) is no reason to lose a run: it is said once.
    """

    def __init__(self, path: Path | None, observer: Observer) -> None:
        self._path, self._observer, self._failed = path, observer, False

    def say(self, text: str) -> None:
        self._write(text)
        self._observer.say(text)

    def _write(self, text: str) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:
            if not self._failed:
                self._observer.say(f"warning   cannot write {self._path}: {error.strerror or error}; training goes on")
            self._failed = True

    def reading(self, what: str, done: int, total: int) -> None:
        self._observer.reading(what, done, total)

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self._observer.step(epoch, step, steps, loss)

    def epoch(self, record: Epoch, epochs: int, eta: float) -> None:
        self._write(record.line(epochs, eta))
        self._observer.epoch(record, epochs, eta)


def say_choices(
    log: RunLog,
    data: Dataset,
    request: Request,
    model: str,
    net: nn.Module,
    options: Options,
    start: str,
    begun: Sequence[str] = (),
    more: Sequence[str] = (),
) -> None:
    """Every choice, once, before training; `start` says where the weights come from, `begun` and `more` what else to say of
    them and of the recipe."""
    for index, line in enumerate(data.said):
        log.say(f"{'data' if index == 0 else '':<10}{line}")
    say_left_out(log, data.quarantined)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    h, w = data.size
    row = row_of(model)
    if request.img_size is None and row is not None and data.size == row.size:
        log.say(f"          {h}x{w} is the size that {model} was made for")
    stem = "" if request.stem is None else f", stem {request.stem}"
    log.say(
        f"model     {model}{stem}, {data.channels}x{h}x{w} in, {len(data.classes)} classes, {parameters:,} parameters, {start}"
    )
    for line in begun:
        log.say(line if line.startswith("weights") else f"          {line.strip()}")
    smoothing = f", label smoothing {options.label_smoothing:g}" if options.label_smoothing else ""
    log.say(
        f"train     {options.epochs} epochs, batch {options.batch_size}, {options.optimizer} lr {options.lr:g} ({options.schedule}), "
        f"weight decay {options.weight_decay:g}{smoothing}, seed {options.seed}, on {options.device}"
        + (f" with {torch.get_num_threads()} threads" if options.device == "cpu" else "")
    )
    if options.metric == BALANCED:
        log.say(
            "          classes are imbalanced: balanced accuracy (the mean of the classes' recalls) chooses the best epoch"
        )
    for line in more:
        log.say(f"          {line}")


def say_left_out(log: RunLog, files: Sequence[Quarantined]) -> None:
    """Name the files that could not be used: ten of them, and how many more."""
    for bad in files[:10]:
        log.say(f"left out  {bad.path}: {bad.reason}")
    if len(files) > 10:
        log.say(f"left out  {len(files) - 10} more, listed in split.csv")


def duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)
