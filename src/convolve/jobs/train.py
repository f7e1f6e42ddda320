"""Train a network on images: `convolve.train(data)` and `convolve train DATA` are this function."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convolve.data.components import principal_axes
from convolve.data.image_folder import available_cores
from convolve.data.load import load
from convolve.data.preprocess import Preprocessing, normalise
from convolve.data.preprocess import measure as measure_preprocessing
from convolve.data.records import Dataset
from convolve.data.statistics import measure as measure_statistics
from convolve.draw.style import write
from convolve.draw.training import confusion, curves
from convolve.errors import InterruptedRunError, NotFiniteError, UnknownNameError, UsageError
from convolve.files import only_writer
from convolve.jobs.augmentation import AUTO, movement_of, read
from convolve.jobs.begin import begin
from convolve.jobs.choices import (
    Request,
    architecture_of,
    device_of,
    model_of,
    options_of,
    row_of,
    short_name,
    size_chooser,
)
from convolve.jobs.folder import RunFolder
from convolve.jobs.log import RunLog, duration, say_choices, say_left_out
from convolve.jobs.recipe import AMP_CHOICES, decide_precision, is_timed, recipe_lines, set_dropout
from convolve.jobs.report import report_run
from convolve.jobs.results import Run, Score
from convolve.jobs.resuming import differences, fingerprint, same_data, same_network, surroundings
from convolve.jobs.snapshots import picture_filters, picture_movement, snapshot_steps
from convolve.jobs.versions import processor, versions
from convolve.models import source, spec
from convolve.models.file import load_weights
from convolve.models.file import read as read_file
from convolve.models.file import write as write_file
from convolve.ops.choose import Choices
from convolve.ops.kept import kept_choices
from convolve.ops.precision import current_precision
from convolve.ops.precision import precision as precision_of
from convolve.training.augment_spec import with_pixels
from convolve.training.fit import fit, seconds_per_epoch, steps_per_epoch
from convolve.training.freeze import freeze as freeze_layers
from convolve.training.layers import left_alone
from convolve.training.measure import measure, metric_of
from convolve.training.options import Options
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
        request = Request(**{"fit": "stretch", **asked})  # older states stretched, and say nothing of it
        saved = _Saved(place, None, {})
        if found is not None:
            tensors, values = found
            saved = _Saved(place, State(tensors, values["training"]), values)
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


@dataclass(frozen=True)
class _Saved:
    """A run that goes on; without a state it begins again in its folder."""

    folder: RunFolder
    state: State | None
    values: Mapping[str, Any]


def _run(
    request: Request,
    saved: _Saved | None,
    out: Any,
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
    state = None if saved is None else saved.state
    beginning = None
    if request.weights is not None and state is None:
        request, beginning = processes.from_first(partial(begin, request, observer.say))
    with processes.all_or_none():
        data = load(
            request.data,
            img_size=size_chooser(request),
            channels=request.channels,
            fit=request.fit,
            split=request.split,
            val_split=request.val_split,
            seed=request.seed,
            workers=workers,
            progress=observer.reading,
        )
        model = model_of(request, data.found)
        movement, why_moved = movement_of(request.augment, data)
        options = options_of(
            request, model, len(data.train), device_of(processes.device(device)), movement, metric_of(data.train.labels)
        )
        if saved is not None and "options" in saved.values:  # a run keeps its choices, whatever is chosen today
            options = replace(Options.from_dict(saved.values["options"]), device=options.device)
        architecture = architecture_of(request, model, data)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed)
            net = source.rebuild(architecture, model if source.is_file(model) else None)
        if row_of(model) is None:
            _one_score_per_class(net, model, data)
        start = "from scratch" if request.weights is None else f"begun from {request.weights}"
        set_dropout(net, options.dropout)
        preprocessing = measure_preprocessing(data)
        if beginning is not None:
            start, preprocessing = beginning.start(net, data.classes), beginning.normalised(preprocessing)
        found = fingerprint(data)
        if saved is not None and state is not None:
            same_data(saved.values["fingerprint"], found)
            same_network(saved.values.get("architecture", architecture), architecture)
            weights_only = {
                name.removeprefix("net."): tensor for name, tensor in state.tensors.items() if name.startswith("net.")
            }
            load_weights(net, weights_only, saved.folder.state)
            if "preprocessing" in saved.values:
                preprocessing = Preprocessing.from_dict(saved.values["preprocessing"])
        frozen = freeze_layers(net, options.freeze) if options.freeze else None
        net = net.to(options.device)
        if not options.movement.std:  # a resumed run keeps what it measured
            axes = principal_axes(data.train.images) if options.movement.pca else ()
            movement = with_pixels(options.movement, preprocessing.mean, preprocessing.std, axes)
            options = replace(options, movement=movement)
    processes.same("data", found)

    def prepare(batch: torch.Tensor) -> torch.Tensor:
        return normalise(batch, preprocessing)

    precision = "bfloat16, as asked" if options.amp == "bf16" else ""
    if state is None and is_timed(request.amp, options.device):
        options, precision = processes.from_first(partial(decide_precision, net, data.train, prepare, options))
        options = replace(options, device=device_of(processes.device(device)))
    name = f"{_slug(data.name)}-{_slug(short_name(model))}"
    place = saved.folder if saved is not None else processes.from_first(lambda: _claimed(out, name, here.closing))
    config = {
        "request": asdict(request),
        "options": options.to_dict(),
        "architecture": architecture,
        "data": {
            "origin": data.origin,
            "classes": list(data.classes),
            "said": list(data.said),
            "fingerprint": found,
        },
        "preprocessing": preprocessing.to_dict(),
        "versions": versions(),
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "processes": processes.size,
        },
    }
    card = {
        "architecture": architecture,
        "classes": list(data.classes),
        "preprocessing": preprocessing.to_dict(),
        "statistics": measure_statistics(data.train).to_dict(),
        "data": data.name,
        "options": options.to_dict(),
        "versions": versions(),
    }
    if processes.first and state is None:
        place.write_config(config)  # first of all: from now on the run can be resumed
        place.write_split(data)

    log = RunLog(place.log if processes.first else None, observer)
    if saved is not None:
        log.say(f"resumed   {place.path}" + (", from the beginning: nothing was saved yet" if state is None else ""))
        other = differences(saved.values.get("surroundings", {}), surroundings(processes.size))
        if other:
            log.say(f"          {other}: the last bits of the result may differ from those of an uninterrupted run")
    begun = beginning.lines(preprocessing) if beginning is not None else ()
    recipe = recipe_lines(options, why_moved, frozen, precision)
    say_choices(log, data, request, model, net, options, start, begun, recipe)
    if (why := why_alone()) is not None:
        log.say(f"          {why} (docs/training-on-many-machines.md)")
    if processes.size > 1:
        log.say(f"          {processes.size} processes divide each batch")
        for layer in left_alone(net):
            log.say(
                f"          {layer} is not known to this package: each process computes it from its own part of a batch"
            )

    def save_best(record: Epoch) -> None:
        if not processes.first:
            return
        score = {"accuracy": record.val_acc, "loss": record.val_loss, "images": len(data.validation)}
        if record.val_balanced is not None:
            score["balanced_accuracy"] = record.val_balanced
        write_file(
            place.model, net.state_dict(), {**card, "metrics": {"best_epoch": record.epoch, "validation": score}}
        )

    def save_state(state: State) -> None:
        for others in processes.gather(here.algorithms):
            here.algorithms.update({key: names for key, names in others.items() if key not in here.algorithms})
        if not processes.first:
            return
        values = {
            "request": asdict(request),
            "fingerprint": found,
            "options": options.to_dict(),
            "preprocessing": preprocessing.to_dict(),
            "architecture": architecture,
            "surroundings": surroundings(processes.size),
            "algorithms": here.algorithms,
            "precision": current_precision(),
            "training": dict(state.values),
        }
        place.write_state(state.tensors, values)
        place.write_metrics([Epoch(**row) for row in state.values["progress"]["history"]])

    steps = steps_per_epoch(len(data.train), options.batch_size)
    wanted = snapshot_steps(request.snapshots, options.epochs * steps)

    def after_step(done: int) -> None:
        if processes.first and done in wanted:
            path = place.snapshot(done)
            path.parent.mkdir(exist_ok=True)
            taken = {"step": done, "of": options.epochs * steps, "epoch": done / steps}
            write_file(path, net.state_dict(), {**card, "metrics": {}, "snapshot": taken})

    estimate = seconds_per_epoch(net, data.train, prepare, options, processes)
    log.say(f"time      about {duration(estimate)} per epoch, {duration(estimate * options.epochs)} in all")
    try:
        history = fit(
            net,
            data.train,
            data.validation,
            prepare,
            options,
            log,
            save_best=save_best,
            save_state=save_state,
            resume=state,
            after_step=after_step if wanted else None,
            processes=processes,
        )
        if len(history) < options.epochs:
            log.say(f"stopped   {options.patience} epochs were not better, as --patience asked")
        return _finish(place, log, net, data, prepare, options, model, history, card, started, processes)
    except InterruptedRunError as stopped:
        command = f"convolve train --resume {place.path}"
        log.say(f"stopped   resume with: {command}")
        error = InterruptedRunError(stopped.rule, str(place.path), f"go on with: {command}")
        error.exit_code, error.told = stopped.exit_code, not processes.first
        raise error from None
    except LostProcessError as lost:
        command = f"convolve train --resume {place.path}"
        log.say(f"stopped   another process is gone; resume with: {command}")
        received = f"{lost.received}; this is process {processes.rank} of {processes.size}"
        remedy = f"go on from the last saved state, with any number of processes: {command}"
        raise LostProcessError(lost.rule, received, remedy) from lost
    except NotFiniteError as error:
        raise _with_last_good(error, place, request, log) from None


def _finish(
    place: RunFolder,
    log: RunLog,
    net: nn.Module,
    data: Dataset,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    options: Options,
    model: str,
    history: list[Epoch],
    card: Mapping[str, Any],
    started: float,
    processes: Processes,
) -> Run:
    """Take the best weights, measure validation and (now, once) test images, and write what a run leaves behind."""
    tensors = processes.from_first(lambda: read_file(place.model)[0])
    load_weights(net, tensors, place.model)
    device = torch.device(options.device)
    with processes.all_or_none():
        test = None if data.read_test is None else data.read_test()
    outcomes = [
        (split, measure(net, split, prepare, device, processes))
        for split in (data.validation, test)
        if split is not None
    ]
    scores = {
        split.name: Score(outcome.accuracy, outcome.loss, len(split), outcome.balanced_accuracy)
        for split, outcome in outcomes
    }
    best_epoch = max(record.epoch for record in history if record.best)
    run = Run(
        folder=place.path,
        model=model,
        classes=data.classes,
        validation=scores["validation"],
        test=scores.get("test"),
        best_epoch=best_epoch,
        history=tuple(history),
        seconds=time.perf_counter() - started,
        files={},
        metric=options.metric,
    )
    if not processes.first:
        return run
    if test is not None:
        say_left_out(log, test.quarantined)
        place.write_split(data, test)
    metrics = {"best_epoch": best_epoch} | {name: asdict(score) for name, score in scores.items()}
    write_file(place.model, net.state_dict(), {**card, "metrics": metrics})
    place.write_metrics(history)  # again: a crash may have come between the last state and its row
    place.write_predictions(outcomes, data.classes)
    split, outcome = outcomes[-1]
    plots = place.path / "plots"
    plots.mkdir(exist_ok=True)
    write(curves(history, f"{short_name(model)} on {data.name}"), plots / "curves.png")
    title = f"{split.name}: {outcome.accuracy:.2%} of {len(split):,} right"
    write(confusion(outcome.confusion().numpy(), data.classes, title), plots / "confusion.png")
    picture_filters(net, data, short_name(model), plots)
    if options.movement:
        picture_movement(data, options, short_name(model), plots)
    report_run(place, log, net, data, outcomes, prepare, options, short_name(model), history)
    log.say(f"result    {run.headline}  (best epoch {best_epoch}, {duration(run.seconds)})")
    if run.test is None:
        log.say(
            "          no test images were given: validation images also chose the epoch, so expect a little less on new ones"
        )
    log.say(f"files     {place.path}")
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


def _one_score_per_class(net: nn.Module, model: str, data: Dataset) -> None:
    """A network that is in no table is tried once: pictures in, one score per class out."""
    was_training = net.training
    with torch.inference_mode():
        scores = net.eval()(torch.zeros(1, data.channels, *data.size))
    net.train(was_training)
    shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
    if shape != (1, len(data.classes)):
        rule = f"{model} must give one score per class: ({len(data.classes)} for each image)"
        raise UsageError(rule, f"got {shape} for one image", "end with fc classes, or take num_classes as an argument")


def _claimed(out: str | os.PathLike[str] | None, name: str, closing: ExitStack) -> RunFolder:
    """A new folder that is ours alone until `closing` closes."""
    folder = RunFolder.create(None if out is None else Path(out), name)
    closing.enter_context(only_writer(folder.path))
    return (
        folder if out is None else RunFolder.create(Path(out), name)
    )  # looked at again, now that nobody else can write


def _slug(name: str) -> str:
    """A name that is safe in a path: letters, digits, dot, dash and underscore of any alphabet."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip(".-")
    return kept[:60] or "data"
