"""Train a network on images: `convolve.train(data)` and `convolve train DATA` are this function.

Top to bottom: the request; `set_up` makes all that is trained with (setup.py); a folder is claimed; a `Writer` writes into it (writer.py),
a RunLog says the choices (log.py); `fit` trains; `_finish` measures, and `_ending` tells how to go on where training stopped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from convolve.data.image_folder import available_cores
from convolve.errors import InterruptedRunError, NotFiniteError, UnknownNameError
from convolve.files import only_writer, safe_name
from convolve.jobs.augmentation import AUTO, read
from convolve.jobs.choices import Request, row_of
from convolve.jobs.folder import RunFolder
from convolve.jobs.log import RunLog, duration, say_choices, say_divided, say_left_out, say_result, say_resumed
from convolve.jobs.recipe import AMP_CHOICES
from convolve.jobs.report import Finished, report_run
from convolve.jobs.report.facts import Subject
from convolve.jobs.results import Run, Score
from convolve.jobs.resuming import Saved
from convolve.jobs.setup import Setup, set_up
from convolve.jobs.writer import Writer, card_of
from convolve.models import source, spec
from convolve.models.file import load_weights
from convolve.models.file import read as read_file
from convolve.ops.choose import Choices
from convolve.ops.kept import kept_choices
from convolve.ops.precision import current_precision
from convolve.ops.precision import precision as precision_of
from convolve.training.fit import fit, seconds_per_epoch
from convolve.training.measure import measure
from convolve.training.processes import LostProcessError, Processes, joined, launched, why_alone
from convolve.training.records import Epoch, Observer, Silent, State


def train(
    data: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    opt: str | None = None,
    img_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
    val_split: float | None = None,
    augment: str = "auto",
    snapshots: int = 0,
    weights: str | os.PathLike[str] | None = None,
    stem: str | None = None,
    channels: int | None = None,
    freeze: str | None = None,
    dropout: float | None = None,
    weight_decay: float | None = None,
    l1: float | None = None,
    label_smoothing: float | None = None,
    schedule: str | None = None,
    warmup: float | None = None,
    patience: int | None = None,
    clip: float | None = None,
    amp: str | None = None,
    fit: str = "auto",
    split: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    observer: Observer | None = None,
) -> Run:
    """Train `model` on `data` and return the finished Run; every file is written into one new folder.

    `data` is None or "digits", a name that `convolve data get` fetched, a folder of IDX files, a folder of images (one
    sub-folder per class) or a .zip of one. What is left out is chosen from the data and the model, and said to `observer`.
    `model` is a name of `convolve.models`, a one-line spec ("conv 8 3, relu, gap, fc classes") or FILE.py:NAME, whose code then
    runs; without it smallnet, or lenet_relu for pictures below 28 pixels.
    `weights` is a .safetensors or .pth file to start from, with the network's own parameter names (torchvision's, where docs/models.md
    says so), an earlier run's folder or model file, or "torchvision", which downloads; a classifier for other classes starts anew.
    `freeze` names layers that keep their weights ("features", "conv1, layer*", "all-but-last"). `augment` is a line of changes
    ("flip, crop 4"); docs/training.md describes it and the rest of the recipe. `stem` "small" is for pictures much smaller than the
    network's own; `channels` 1 or 3 makes them grey or RGB. `fit` ("crop", "pad" or "stretch") is what happens to pictures of other
    proportions than the network's. `split` is a CSV file with the columns image and part, such as split.csv of another run.
    `snapshots` sets of weights are kept on the way, the random ones first and the last ones last, closer together at the beginning,
    where most happens: `convolve.explain_image` then shows how the network came about.
    `out` must not exist yet; it is runs/<data>-<model> in the current folder otherwise. The best epoch is chosen on
    validation images; the test images, where there are any, are read once, after training.

    Raises InputError for unusable data, UsageError for wrong arguments, InterruptedRunError when stopped after saving.

    >>> import convolve, tempfile
    >>> run = convolve.train("digits", epochs=2, out=tempfile.mkdtemp() + "/run")
    >>> run.test.images, len(run.history), sorted(path.name for path in run.folder.iterdir())[:3]
    (359, 2, ['config.yaml', 'last', 'log.txt'])
    """
    request = Request(
        data=None if data is None else str(data),
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        opt=opt,
        img_size=img_size,
        seed=seed,
        val_split=val_split,
        augment=augment,
        snapshots=snapshots,
        weights=None if weights is None else str(weights),
        stem=stem,
        channels=channels,
        freeze=freeze,
        dropout=dropout,
        weight_decay=weight_decay,
        l1=l1,
        label_smoothing=label_smoothing,
        schedule=schedule,
        warmup=warmup,
        patience=patience,
        clip=clip,
        amp=amp,
        fit=fit,
        split=None if split is None else str(split),
    )
    with _begun() as here:
        with here.processes.all_or_none():
            _check(request)
        return _run(request, None, out, device, workers, observer or Silent(), here)


def resume(
    folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    workers: int | None = None,
    observer: Observer | None = None,
) -> Run:
    """Go on with a stopped run, from its folder alone; the result equals that of a run which was never stopped.

    Where its last state is damaged, it goes on from the one before, and says so. A run that was stopped before it saved anything
    begins again.

    Raises InputError when the folder holds no run, or when the data has changed since.
    """
    path, observer = Path(folder), observer or Silent()
    place = RunFolder(path)
    with _begun() as here:

        def find() -> tuple[RunFolder, tuple[dict[str, torch.Tensor], dict[str, Any]] | None, dict[str, Any]]:
            if path.is_dir():
                here.closing.enter_context(only_writer(path))
            found = place.read_state(RunLog(place.log, observer).say)
            return place, found, found[1]["request"] if found is not None else place.read_request()

        place, found, asked = here.processes.from_first(find)
        request = Request.from_dict(asked)
        saved = Saved(place, None, {})
        if found is not None:
            tensors, values = found
            saved = Saved(place, State(tensors, values["training"]), values)
            here.algorithms.update(values.get("algorithms", {}))
            here.closing.enter_context(precision_of(values.get("precision", current_precision())))
        return _run(request, saved, None, device, workers, observer, here)


def is_first() -> bool:
    """Whether this process is the one that speaks: the first of those that a launcher started, or the only one."""
    return launched().first


@dataclass(frozen=True)
class _Here:
    """What a run takes part in while it goes on."""

    processes: Processes
    algorithms: Choices
    closing: ExitStack


@contextmanager
def _begun() -> Iterator[_Here]:
    with joined() as processes, kept_choices() as algorithms, ExitStack() as closing:
        yield _Here(processes, algorithms, closing)


def _run(
    request: Request,
    saved: Saved | None,
    out: str | os.PathLike[str] | None,
    device: str,
    workers: int | None,
    observer: Observer,
    here: _Here,
) -> Run:
    started = time.perf_counter()
    processes = here.processes
    if not processes.first:
        observer = Silent()
    if workers is None and processes.size > 1:
        workers = max(1, available_cores() // processes.local_size)
    setup = set_up(request, saved, device, workers, observer, processes)
    state = None if saved is None else saved.state
    claim = partial(_claimed, out, setup, here.closing)
    place = saved.folder if saved is not None else processes.from_first(claim)
    writer = Writer(place, setup, card_of(setup), processes, here.algorithms)
    if state is None:
        writer.begin()

    log = RunLog(place.log if processes.first else None, observer)
    if saved is not None:
        say_resumed(log, saved, processes.size)
    say_choices(log, setup)
    if (why := why_alone()) is not None:
        log.say(f"          {why} (docs/training-on-many-machines.md)")
    if processes.size > 1:
        say_divided(log, setup.net, processes.size)
    net, data, options = setup.net, setup.data, setup.options
    estimate = seconds_per_epoch(net, data.train, setup.prepare, options, processes)
    log.say(f"time      about {duration(estimate)} per epoch, {duration(estimate * options.epochs)} in all")
    with _ending(writer, log):
        history = fit(
            net,
            data.train,
            data.validation,
            setup.prepare,
            options,
            log,
            save_best=writer.save_best,
            save_state=writer.save_state,
            resume=state,
            after_step=writer.after_step(),
            processes=processes,
        )
        if len(history) < options.epochs:
            log.say(f"stopped   {options.patience} epochs were not better, as --patience asked")
        return _finish(writer, log, history, started)


@contextmanager
def _ending(writer: Writer, log: RunLog) -> Iterator[None]:
    """However training ends, its user is told where it stands and how to go on."""
    place, processes = writer.place, writer.processes
    command = f"convolve train --resume {place.path}"
    try:
        yield
    except InterruptedRunError as stopped:
        log.say(f"stopped   resume with: {command}")
        error = InterruptedRunError(stopped.rule, str(place.path), f"go on with: {command}")
        error.exit_code, error.told = stopped.exit_code, not processes.first
        raise error from None
    except LostProcessError as lost:
        log.say(f"stopped   another process is gone; resume with: {command}")
        received = f"{lost.received}; this is process {processes.rank} of {processes.size}"
        remedy = f"go on from the last saved state, with any number of processes: {command}"
        raise LostProcessError(lost.rule, received, remedy) from lost
    except NotFiniteError as error:
        raise _with_last_good(error, place, writer.setup.request, log) from None


def _finish(writer: Writer, log: RunLog, history: Sequence[Epoch], started: float) -> Run:
    """Take the best weights, measure validation and (now, once) test images, and write what a run leaves behind."""
    place, setup, processes = writer.place, writer.setup, writer.processes
    net, data = setup.net, setup.data
    load_weights(net, processes.from_first(lambda: read_file(place.model)[0]), place.model)
    with processes.all_or_none():
        test = None if data.read_test is None else data.read_test()
    splits = [split for split in (data.validation, test) if split is not None]
    outcomes = [(split, measure(net, split, setup.prepare, setup.device, processes)) for split in splits]
    scores = {
        split.name: Score(outcome.accuracy, outcome.loss, len(split), outcome.balanced_accuracy)
        for split, outcome in outcomes
    }
    run = Run(
        folder=place.path,
        model=setup.model,
        classes=data.classes,
        validation=scores["validation"],
        test=scores.get("test"),
        best_epoch=max(record.epoch for record in history if record.best),
        history=tuple(history),
        seconds=time.perf_counter() - started,
        files={},
        metric=setup.options.metric,
    )
    if not processes.first:
        return run
    if test is not None:
        say_left_out(log, test.quarantined)
    writer.finish(run, test, outcomes)
    subject = Subject(net, setup.prepare, setup.device, setup.name, data.classes)
    report_run(place, log, Finished(subject, data, outcomes, setup.options, run.history))
    say_result(log, run)
    place.forget_previous_state()
    return replace(run, files=place.files())


def _check(request: Request) -> None:
    """Report a model or weights that cannot be before the data is read; a network of a file runs only once it is built."""
    if request.model is not None:
        if source.is_spec(request.model):
            spec.parse(request.model)
        else:
            row_of(request.model)
    if request.amp not in (None, *AMP_CHOICES):
        raise UnknownNameError.of("choice of --amp", request.amp, AMP_CHOICES)
    if request.augment.strip().lower() != AUTO:
        read(request.augment)


def _with_last_good(error: NotFiniteError, place: RunFolder, request: Request, log: RunLog) -> NotFiniteError:
    """The error, with where the last good weights are and how to go on from them."""
    if place.model.exists():
        epoch = read_file(place.model)[1]["metrics"]["best_epoch"]
        kept = f"the best weights so far, of epoch {epoch}, are whole: {place.model}"
        command = f"convolve train {request.data or 'digits'} --weights {place.path} --lr …"
        remedy = f"{error.remedy}; {kept}; go on from them with: {command}"
    elif request.weights is not None:
        remedy = f"{error.remedy}; no epoch was finished: begin again from {request.weights}"
    else:
        remedy = f"{error.remedy}; no epoch was finished, so there are no weights to keep"
    log.say(f"stopped   {error.rule}: {error.received}; {remedy}")
    return NotFiniteError(error.rule, error.received, remedy)


def _claimed(out: str | os.PathLike[str] | None, setup: Setup, closing: ExitStack) -> RunFolder:
    """A new folder that is ours alone until `closing` closes."""
    name = f"{safe_name(setup.data.name, 'data')}-{safe_name(setup.name, 'data')}"
    folder = RunFolder.create(None if out is None else Path(out), name)
    closing.enter_context(only_writer(folder.path))
    if out is not None:
        RunFolder.create(Path(out), name)  # looked at again, now that nobody else can write
    return folder
