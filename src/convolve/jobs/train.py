"""Train a network on images: `convolve.train(data)` and `convolve train DATA` are this function."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convolve.data.components import principal_axes
from convolve.data.load import load
from convolve.data.preprocess import Preprocessing, normalise
from convolve.data.preprocess import measure as measure_preprocessing
from convolve.data.records import Dataset
from convolve.data.statistics import measure as measure_statistics
from convolve.draw.style import write
from convolve.draw.training import confusion, curves
from convolve.errors import InputError, InterruptedRunError, NotFiniteError, UnknownNameError, UsageError
from convolve.jobs.augmentation import AUTO, movement_of, read
from convolve.jobs.begin import Beginning, begin
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
from convolve.jobs.folder import STATE_FORMAT, RunFolder
from convolve.jobs.log import RunLog, duration, say_choices, say_left_out
from convolve.jobs.recipe import AMP_CHOICES, decide_precision, recipe_lines, set_dropout
from convolve.jobs.results import Run, Score
from convolve.jobs.snapshots import picture_filters, picture_movement, snapshot_steps
from convolve.jobs.versions import processor, versions
from convolve.models import source, spec
from convolve.models.file import load_weights
from convolve.models.file import read as read_file
from convolve.models.file import write as write_file
from convolve.training.augment_spec import with_pixels
from convolve.training.fit import fit, seconds_per_epoch, steps_per_epoch
from convolve.training.freeze import freeze as freeze_layers
from convolve.training.measure import measure
from convolve.training.options import Options
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
    amp: str = "auto",
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
    network's own; `channels` 1 or 3 makes them grey or RGB.
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
    )
    _check(request)
    observer = observer or Silent()
    request, beginning = begin(request, observer.say)
    return _run(request, None, out, device, workers, observer, beginning)


def resume(
    folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    workers: int | None = None,
    observer: Observer | None = None,
) -> Run:
    """Go on with a stopped run, from its folder alone; the result equals that of a run which was never stopped.

    Raises InputError when the folder holds no state, or when the data has changed since.
    """
    path = Path(folder)
    place = RunFolder(path)
    if not place.state.exists():
        received = f"{path} holds no {place.state.relative_to(path)}"
        raise InputError("only a run that saved a state can be resumed", received, "name a folder of convolve train")
    tensors, values = read_file(place.state, STATE_FORMAT)
    request = Request(**values["request"])
    return _run(
        request, _Saved(place, State(tensors, values["training"]), values), None, device, workers, observer or Silent()
    )


@dataclass(frozen=True)
class _Saved:
    folder: RunFolder
    state: State
    values: Mapping[str, Any]


def _run(
    request: Request,
    saved: _Saved | None,
    out: Any,
    device: str,
    workers: int | None,
    observer: Observer,
    beginning: Beginning | None = None,
) -> Run:
    started = time.perf_counter()
    data = load(
        request.data,
        img_size=size_chooser(request),
        channels=request.channels,
        val_split=request.val_split,
        seed=request.seed,
        workers=workers,
        progress=observer.reading,
    )
    model = model_of(request, data.found)
    movement, why_moved = movement_of(request.augment, data)
    options = options_of(request, model, len(data.train), device_of(device), movement)
    if saved is not None and "options" in saved.values:  # a run keeps its choices, whatever is chosen today
        options = replace(Options.from_dict(saved.values["options"]), device=options.device)
    architecture = architecture_of(request, model, data)
    fingerprint = _fingerprint(data)
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
    if saved is not None and "preprocessing" in saved.values:
        preprocessing = Preprocessing.from_dict(saved.values["preprocessing"])
    frozen = freeze_layers(net, options.freeze) if options.freeze else None
    net = net.to(options.device)
    if not options.movement.std:  # a resumed run keeps what it measured
        axes = principal_axes(data.train.images) if options.movement.pca else ()
        options = replace(options, movement=with_pixels(options.movement, preprocessing.mean, preprocessing.std, axes))

    def prepare(batch: torch.Tensor) -> torch.Tensor:
        return normalise(batch, preprocessing)

    precision = "bfloat16, as asked" if options.amp == "bf16" else ""
    if saved is None and request.amp == "auto" and torch.device(options.device).type != "cpu":
        options, precision = decide_precision(net, data.train, prepare, options)
    if saved is not None:
        _same_data(saved.values["fingerprint"], fingerprint)
    place = (
        saved.folder if saved is not None else RunFolder.create(out, f"{_slug(data.name)}-{_slug(short_name(model))}")
    )
    log = RunLog(place.log, observer)
    if saved is not None:
        log.say(f"resumed   {place.path}")
    begun = beginning.lines(preprocessing) if beginning is not None else ()
    recipe = recipe_lines(options, why_moved, frozen, precision)
    say_choices(log, data, request, model, net, options, start, begun, recipe)
    config = {
        "request": asdict(request),
        "options": options.to_dict(),
        "architecture": architecture,
        "data": {
            "origin": data.origin,
            "classes": list(data.classes),
            "said": list(data.said),
            "fingerprint": fingerprint,
        },
        "preprocessing": preprocessing.to_dict(),
        "versions": versions(),
        "machine": {"processor": processor(), "threads": torch.get_num_threads()},
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
    if saved is None:
        place.write_config(config)
        place.write_split(data)

    def save_best(record: Epoch) -> None:
        score = {"accuracy": record.val_acc, "loss": record.val_loss, "images": len(data.validation)}
        write_file(
            place.model, net.state_dict(), {**card, "metrics": {"best_epoch": record.epoch, "validation": score}}
        )

    def save_state(state: State) -> None:
        place.state.parent.mkdir(exist_ok=True)
        values = {"request": asdict(request), "fingerprint": fingerprint, "training": dict(state.values)}
        values |= {"options": options.to_dict(), "preprocessing": preprocessing.to_dict()}
        write_file(place.state, state.tensors, values, STATE_FORMAT)
        place.write_metrics([Epoch(**row) for row in state.values["progress"]["history"]])

    steps = steps_per_epoch(len(data.train), options.batch_size)
    wanted = snapshot_steps(request.snapshots, options.epochs * steps)

    def after_step(done: int) -> None:
        if done in wanted:
            path = place.snapshot(done)
            path.parent.mkdir(exist_ok=True)
            taken = {"step": done, "of": options.epochs * steps, "epoch": done / steps}
            write_file(path, net.state_dict(), {**card, "metrics": {}, "snapshot": taken})

    estimate = seconds_per_epoch(net, data.train, prepare, options)
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
            resume=saved.state if saved is not None else None,
            after_step=after_step if wanted else None,
        )
    except InterruptedRunError as stopped:
        command = f"convolve train --resume {place.path}"
        log.say(f"stopped   resume with: {command}")
        raise InterruptedRunError(stopped.rule, str(place.path), f"go on with: {command}") from None
    except NotFiniteError as error:
        raise _with_last_good(error, place, request, log) from None
    if len(history) < options.epochs:
        log.say(f"stopped   {options.patience} epochs were not better, as --patience asked")
    return _finish(place, log, net, data, prepare, options, model, history, card, started)


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
) -> Run:
    """Take the best weights, measure validation and (now, once) test images, and write what a run leaves behind."""
    tensors, _ = read_file(place.model)
    load_weights(net, tensors, place.model)
    device = torch.device(options.device)
    test = None if data.read_test is None else data.read_test()
    if test is not None:
        say_left_out(log, test.quarantined)
        place.write_split(data, test)
    outcomes = [(split, measure(net, split, prepare, device)) for split in (data.validation, test) if split is not None]
    scores = {split.name: Score(outcome.accuracy, outcome.loss, len(split)) for split, outcome in outcomes}
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
    )
    metrics = {"best_epoch": best_epoch} | {name: asdict(score) for name, score in scores.items()}
    write_file(place.model, net.state_dict(), {**card, "metrics": metrics})
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
    log.say(f"result    {run.headline}  (best epoch {best_epoch}, {duration(run.seconds)})")
    if run.test is None:
        log.say(
            "          no test images were given: validation images also chose the epoch, so expect a little less on new ones"
        )
    log.say(f"files     {place.path}")
    return replace(run, files=place.files())


def _check(request: Request) -> None:
    """Report a model or weights that cannot be before the data is read; a network of a file runs only once it is built."""
    if request.model is not None:
        if source.is_spec(request.model):
            spec.parse(request.model)
        else:
            row_of(request.model)
    if request.amp not in AMP_CHOICES:
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


def _fingerprint(data: Dataset) -> dict[str, str]:
    """A digest of the names and labels of training and validation: another set, order or class changes it."""
    return {
        split.name: hashlib.sha256(
            "\n".join((*data.classes, *split.ids, *map(str, split.labels.tolist()))).encode()
        ).hexdigest()
        for split in (data.train, data.validation)
    }


def _same_data(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = [name for name in before if before[name] != now.get(name)]
    if changed:
        received = f"the {' and '.join(changed)} images or classes are not those that the run began with"
        raise InputError("a run can only be resumed on the same data", received, "put the data back, or train anew")


def _slug(name: str) -> str:
    """A name that is safe in a path: letters, digits, dot, dash and underscore of any alphabet."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip(".-")
    return kept[:60] or "data"
