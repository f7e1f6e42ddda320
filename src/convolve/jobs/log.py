"""What a run says: to whoever watches, and to log.txt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from convolve.data.records import Quarantined
from convolve.jobs.choices import row_of
from convolve.jobs.recipe import recipe_lines
from convolve.jobs.results import Run
from convolve.jobs.resuming import Saved, differences, surroundings
from convolve.jobs.setup import Setup
from convolve.training.layers import left_alone
from convolve.training.measure import BALANCED
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


def say_resumed(log: RunLog, saved: Saved, processes: int) -> None:
    """That a run goes on, and what may be different from before."""
    anew = ", from the beginning: nothing was saved yet" if saved.state is None else ""
    log.say(f"resumed   {saved.folder.path}{anew}")
    other = differences(saved.values.get("surroundings", {}), surroundings(processes))
    if other:
        log.say(f"          {other}: the last bits of the result may differ from those of an uninterrupted run")


def say_choices(log: RunLog, setup: Setup) -> None:
    """Every choice, once, before training."""
    data, request, model, options = setup.data, setup.request, setup.model, setup.options
    for index, line in enumerate(data.said):
        log.say(f"{'data' if index == 0 else '':<10}{line}")
    say_left_out(log, data.quarantined)
    parameters = sum(parameter.numel() for parameter in setup.net.parameters())
    h, w = data.size
    row = row_of(model)
    if request.img_size is None and row is not None and data.size == row.size:
        log.say(f"          {h}x{w} is the size that {model} was made for")
    stem = "" if request.stem is None else f", stem {request.stem}"
    log.say(
        f"model     {model}{stem}, {data.channels}x{h}x{w} in, {len(data.classes)} classes, {parameters:,} parameters, {setup.start}"
    )
    for line in setup.begun:
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
    for line in recipe_lines(options, setup.why_moved, setup.frozen, setup.precision):
        log.say(f"          {line}")


def say_divided(log: RunLog, net: nn.Module, processes: int) -> None:
    """That several processes train, and which layers see only their own part of a batch."""
    log.say(f"          {processes} processes divide each batch")
    for layer in left_alone(net):
        log.say(
            f"          {layer} is not known to this package: each process computes it from its own part of a batch"
        )


def say_result(log: RunLog, run: Run) -> None:
    log.say(f"result    {run.headline}  (best epoch {run.best_epoch}, {duration(run.seconds)})")
    if run.test is None:
        log.say(
            "          no test images were given: validation images also chose the epoch, so expect a little less on new ones"
        )
    log.say(f"files     {run.folder}")


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
