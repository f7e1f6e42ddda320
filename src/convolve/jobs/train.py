"""Train a network on images: `convolve.train(data)` and `convolve train DATA` are this function."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convolve.data.load import load
from convolve.data.preprocess import measure as measure_preprocessing
from convolve.data.preprocess import normalise
from convolve.data.records import Dataset
from convolve.data.statistics import measure as measure_statistics
from convolve.draw.style import write
from convolve.draw.training import augmentation, confusion, curves, filter_sheet
from convolve.errors import InputError, InterruptedRunError, UnknownNameError, UsageError
from convolve.explain.filters import first_filters
from convolve.jobs.folder import STATE_FORMAT, RunFolder
from convolve.jobs.results import Run, Score
from convolve.jobs.versions import processor, versions
from convolve.models import MODELS, create, find
from convolve.models.file import load_weights
from convolve.models.file import read as read_file
from convolve.models.file import write as write_file
from convolve.training.augment import Movement
from convolve.training.fit import fit, seconds_per_epoch, steps_per_epoch
from convolve.training.measure import measure
from convolve.training.options import Options
from convolve.training.records import Epoch, Observer, Silent, State, clock

DEFAULT_MODEL = "lenet_relu"
SHEET_IMAGES, SHEET_EPOCHS = 6, 7  # of the picture of moved images
FEWEST_STEPS = 10  # an epoch has at least so many; the batch shrinks for it
FEWEST_UPDATES = 800  # a run has at least so many; small data get more epochs for it
FEW_IMAGES = 20_000  # below, the images are moved a little in every epoch, against overfitting
AUGMENTS = ("auto", "none", "gentle")
GENTLE = Movement(shift=0.08, scale=0.12, turn=10.0)
USUAL_LR = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3}  # where the model's recipe is for another optimizer


def train(
    data: str | os.PathLike[str] | None = None,
    *,
    model: str = DEFAULT_MODEL,
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
    out: str | os.PathLike[str] | None = None,
    observer: Observer | None = None,
) -> Run:
    """Train `model` on `data` and return the finished Run; every file is written into one new folder.

    `data` is None or "digits", a name that `convolve data get` fetched, a folder of IDX files, a folder of images (one
    sub-folder per class) or a .zip of one. What is left out is chosen from the data and the model, and said to `observer`.
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
    )
    find(model)  # an unknown model is reported before the data is read
    return _run(request, None, out, device, workers, observer or Silent())


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
class Request:
    """What the user asked for; None means: choose. Stored with the run, so that a resumed one asks for the same."""

    data: str | None
    model: str
    epochs: int | None
    batch_size: int | None
    lr: float | None
    opt: str | None
    img_size: int | tuple[int, int] | None
    seed: int
    val_split: float | None
    augment: str
    snapshots: int = 0  # states that were saved before there were any lack it

    def __post_init__(self) -> None:
        if self.snapshots < 0 or self.snapshots == 1:
            raise UsageError(
                "snapshots are at least the first and the last weights", f"got {self.snapshots}", "use 2 or more, or 0"
            )


@dataclass(frozen=True)
class _Saved:
    folder: RunFolder
    state: State
    values: Mapping[str, Any]


def _run(request: Request, saved: _Saved | None, out: Any, device: str, workers: int | None, observer: Observer) -> Run:
    started = time.perf_counter()
    data = load(
        request.data,
        img_size=_size_chooser(request),
        val_split=request.val_split,
        seed=request.seed,
        workers=workers,
        progress=observer.reading,
    )
    options = _options(request, len(data.train), _device(device))
    architecture = _architecture(request, data)
    fingerprint = _fingerprint(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        net = create(**{**architecture, "img_size": data.size}).to(options.device)
    preprocessing = measure_preprocessing(data)
    if saved is not None:
        _same_data(saved.values["fingerprint"], fingerprint)
    place = saved.folder if saved is not None else RunFolder.create(out, f"{_slug(data.name)}-{_slug(request.model)}")
    log = _Log(place.log, observer)
    if saved is not None:
        log.say(f"resumed   {place.path}")
    _say(log, data, request, net, options)
    config = {
        "request": asdict(request),
        "options": asdict(options),
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
        "options": asdict(options),
        "versions": versions(),
    }
    if saved is None:
        place.write_config(config)
        place.write_split(data)

    def prepare(batch: torch.Tensor) -> torch.Tensor:
        return normalise(batch, preprocessing)

    def save_best(record: Epoch) -> None:
        score = {"accuracy": record.val_acc, "loss": record.val_loss, "images": len(data.validation)}
        write_file(
            place.model, net.state_dict(), {**card, "metrics": {"best_epoch": record.epoch, "validation": score}}
        )

    def save_state(state: State) -> None:
        place.state.parent.mkdir(exist_ok=True)
        values = {"request": asdict(request), "fingerprint": fingerprint, "training": dict(state.values)}
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
    log.say(f"time      about {_duration(estimate)} per epoch, {_duration(estimate * options.epochs)} in all")
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
    return _finish(place, log, net, data, prepare, options, request, history, card, started)


def _finish(
    place: RunFolder,
    log: _Log,
    net: nn.Module,
    data: Dataset,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    options: Options,
    request: Request,
    history: list[Epoch],
    card: Mapping[str, Any],
    started: float,
) -> Run:
    """Take the best weights, measure validation and (now, once) test images, and write what a run leaves behind."""
    tensors, _ = read_file(place.model)
    load_weights(net, tensors, place.model)
    device = torch.device(options.device)
    test = None if data.read_test is None else data.read_test()
    outcomes = [(split, measure(net, split, prepare, device)) for split in (data.validation, test) if split is not None]
    scores = {split.name: Score(outcome.accuracy, outcome.loss, len(split)) for split, outcome in outcomes}
    best_epoch = max(record.epoch for record in history if record.best)
    run = Run(
        folder=place.path,
        model=request.model,
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
    write(curves(history, f"{request.model} on {data.name}"), plots / "curves.png")
    title = f"{split.name}: {outcome.accuracy:.2%} of {len(split):,} right"
    write(confusion(outcome.confusion().numpy(), data.classes, title), plots / "confusion.png")
    _picture_filters(net, data, request, plots)
    if options.movement:
        _picture_movement(data, options, request, plots)
    log.say(f"result    {run.headline}  (best epoch {best_epoch}, {_duration(run.seconds)})")
    if run.test is None:
        log.say(
            "          no test images were given: validation images also chose the epoch, so expect a little less on new ones"
        )
    log.say(f"files     {place.path}")
    return replace(run, files=place.files())


def snapshot_steps(count: int, steps: int) -> frozenset[int]:
    """After which steps weights are kept: `count` of 0 … `steps`, quadratically spaced.

    >>> sorted(snapshot_steps(5, 800))
    [0, 50, 200, 450, 800]
    """
    return frozenset(round(steps * (number / (count - 1)) ** 2) for number in range(count)) if count else frozenset()


def _picture_filters(net: nn.Module, data: Dataset, request: Request, plots: Path) -> None:
    found = first_filters(net, (1, data.channels, *data.size))
    if found is not None:
        sheet = filter_sheet(
            [(found.layer, found.weight.numpy(), found.total)], f"the first filters of {request.model} on {data.name}"
        )
        write(sheet, plots / "filters.png")


def _picture_movement(data: Dataset, options: Options, request: Request, plots: Path) -> None:
    """plots/augmentation.png: the first training images as they are, and as the first epochs moved them."""
    indices = torch.arange(min(SHEET_IMAGES, len(data.train)))
    images = data.train.images.batch(indices).float()
    versions = [images] + [
        options.movement.apply(images, options.seed, epoch, indices) for epoch in range(SHEET_EPOCHS)
    ]
    sheet = torch.stack(versions, 1).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    largest = f"shift {options.movement.shift:.0%}, scale {options.movement.scale:.0%}, turn {options.movement.turn:g}°"
    write(
        augmentation(sheet, f"how {data.name} was moved for {request.model}: at most {largest}"),
        plots / "augmentation.png",
    )


class _Log:
    """Passes everything on to the caller's observer, and writes what is said to log.txt, each line as it comes."""

    def __init__(self, path: Path, observer: Observer) -> None:
        self._path, self._observer = path, observer

    def say(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        self._observer.say(text)

    def reading(self, what: str, done: int, total: int) -> None:
        self._observer.reading(what, done, total)

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self._observer.step(epoch, step, steps, loss)

    def epoch(self, record: Epoch, epochs: int, eta: float) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(record.line(epochs, eta) + "\n")
        self._observer.epoch(record, epochs, eta)


def _say(log: _Log, data: Dataset, request: Request, net: nn.Module, options: Options) -> None:
    """Every choice, once, before training."""
    for index, line in enumerate(data.said):
        log.say(f"{'data' if index == 0 else '':<10}{line}")
    for bad in data.quarantined[:10]:
        log.say(f"left out  {bad.path}: {bad.reason}")
    if len(data.quarantined) > 10:
        log.say(f"left out  {len(data.quarantined) - 10} more, listed in split.csv")
    parameters = sum(parameter.numel() for parameter in net.parameters())
    h, w = data.size
    native = find(request.model)[1].size
    if request.img_size is None and data.size == native:
        log.say(f"          {h}x{w} is the size that {request.model} was made for")
    log.say(
        f"model     {request.model}, {data.channels}x{h}x{w} in, {len(data.classes)} classes, {parameters:,} parameters, from scratch"
    )
    smoothing = f", label smoothing {options.label_smoothing:g}" if options.label_smoothing else ""
    log.say(
        f"train     {options.epochs} epochs, batch {options.batch_size}, {options.optimizer} lr {options.lr:g} ({options.schedule}), "
        f"weight decay {options.weight_decay:g}{smoothing}, seed {options.seed}, on {options.device}"
        + (f" with {torch.get_num_threads()} threads" if options.device == "cpu" else "")
    )
    if options.movement:
        move = options.movement
        largest = f"shift {move.shift:.0%}, scale {move.scale:.0%}, turn {move.turn:g} degrees"
        log.say(f"          each image moves a little in every epoch: at most {largest}")


def _size_chooser(request: Request) -> Callable[[tuple[int, int]], tuple[int, int]] | int | tuple[int, int]:
    """The size in pixels that the pictures get: as asked; else their own, where the model takes it, or the model's."""
    if request.img_size is not None:
        return request.img_size
    _, variant = find(request.model)
    (low_h, low_w), (native_h, native_w) = variant.smallest, variant.size

    def choose(found: tuple[int, int]) -> tuple[int, int]:
        h, w = found
        fits = low_h <= h <= 1.5 * native_h and low_w <= w <= 1.5 * native_w
        return found if fits else (native_h, native_w)

    return choose


def _options(request: Request, images: int, device: str) -> Options:
    recipe = MODELS[find(request.model)[0].name].recipe
    optimizer = request.opt or recipe.optimizer
    usual = recipe.lr if optimizer == recipe.optimizer else USUAL_LR.get(optimizer, recipe.lr)
    batch_size = (
        max(1, min(recipe.batch_size, images // FEWEST_STEPS)) if request.batch_size is None else request.batch_size
    )
    updates = -(-images // max(1, batch_size))
    if request.augment not in AUGMENTS:
        raise UnknownNameError.of("augmentation", request.augment, AUGMENTS)
    moved = request.augment == "gentle" or (request.augment == "auto" and images < FEW_IMAGES)
    return Options(
        epochs=max(recipe.epochs, -(-FEWEST_UPDATES // updates)) if request.epochs is None else request.epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=usual if request.lr is None else request.lr,
        weight_decay=recipe.weight_decay,
        label_smoothing=recipe.label_smoothing,
        schedule=recipe.schedule,
        seed=request.seed,
        device=device,
        movement=GENTLE if moved else Movement(),
    )


def _device(name: str) -> str:
    """ "auto" is the first accelerator that torch can use, else the CPU."""
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found.type if found is not None else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        received = f"{name!r}: {str(error).splitlines()[0]}"
        raise UsageError("the device must be one that torch can use here", received, "use cpu, or auto") from error
    return str(device)


def _architecture(request: Request, data: Dataset) -> dict[str, Any]:
    """The arguments of `models.create`, JSON-safe; they are stored in the model file."""
    row, variant = find(request.model)
    return {
        "name": row.name,
        "variant": variant.name,
        "num_classes": len(data.classes),
        "in_channels": data.channels,
        "img_size": list(data.size),
    }


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


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)
