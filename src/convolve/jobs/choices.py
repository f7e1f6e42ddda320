"""What a run does where its user says nothing: the choices made from the data and the model, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convolve.data.load import load
from convolve.data.records import Dataset
from convolve.data.source import Progress
from convolve.errors import UsageError
from convolve.models import MODELS, Recipe, Variant, find
from convolve.models.source import is_file, is_spec
from convolve.training.augment import Movement
from convolve.training.measure import ACCURACY
from convolve.training.options import Options

FEWEST_STEPS = 10  # an epoch has at least so many; the batch shrinks for it
SMALLEST_BATCH = 2  # but not below what batch normalisation needs
FEWEST_UPDATES = 800  # a run has at least so many; small data get more epochs for it
DEFAULT_MODEL, DEFAULT_BELOW_28 = "smallnet", "lenet_relu"
LARGEST_OWN = 64  # pictures for a network that is in no table keep their size up to this side
TUNING = 0.3  # of the recipe's learning rate, where trained weights are to be kept and all layers learn
USUAL_LR = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3}  # where the model's recipe is for another optimizer


@dataclass(frozen=True)
class Request:
    """What the user asked for; None means: choose. Stored with the run, so that a resumed one asks for the same.

    The model is a name of the table, a one-line spec, or FILE.py:NAME. Those with a default were added later: older states lack them.
    """

    data: str | None
    model: str | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    opt: str | None
    img_size: int | tuple[int, int] | None
    seed: int
    val_split: float | None
    augment: str
    snapshots: int = 0
    weights: str | None = None
    stem: str | None = None
    channels: int | None = None
    freeze: str | None = None
    dropout: float | None = None
    weight_decay: float | None = None
    l1: float | None = None
    label_smoothing: float | None = None
    schedule: str | None = None
    warmup: float | None = None
    patience: int | None = None
    clip: float | None = None
    amp: str | None = None
    fit: str = "auto"
    split: str | None = None

    def __post_init__(self) -> None:
        if self.snapshots < 0 or self.snapshots == 1:
            rule = "snapshots are at least the first and the last weights"
            raise UsageError(rule, f"got {self.snapshots}", "use 2 or more, or 0")

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Request:
        """A stored one; older runs stretched their pictures, and say nothing of it."""
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()
        }
        return cls(**{"fit": "stretch", **given})


def data_of(request: Request, workers: int | None, progress: Progress) -> Dataset:
    """The images that are asked for, read as they are asked for."""
    return load(
        request.data,
        img_size=size_chooser(request),
        channels=request.channels,
        fit=request.fit,
        split=request.split,
        val_split=request.val_split,
        seed=request.seed,
        workers=workers,
        progress=progress,
    )


def size_chooser(request: Request) -> Callable[[tuple[int, int]], tuple[int, int]] | int | tuple[int, int]:
    """The size in pixels that the pictures get: as asked; else their own, where the model takes it, or the model's."""
    if request.img_size is not None:
        return request.img_size

    def choose(found: tuple[int, int]) -> tuple[int, int]:
        h, w = found
        variant = row_of(model_of(request, found))
        if variant is None:
            return found if max(h, w) <= LARGEST_OWN else (LARGEST_OWN, LARGEST_OWN)
        (low_h, low_w), (native_h, native_w) = variant.smallest, variant.size
        if h < low_h or w < low_w:
            return variant.size
        if variant.largest is not None:
            return found if max(h, w) <= variant.largest else (variant.largest, variant.largest)
        return found if h <= 1.5 * native_h and w <= 1.5 * native_w else variant.size

    return choose


def model_of(request: Request, found: tuple[int, int]) -> str:
    """The network: as asked, or the default for pictures of this size, the one asked for or their own (h, w)."""
    if request.model is not None:
        return request.model
    asked = request.img_size
    h, w = found if asked is None else (asked, asked) if isinstance(asked, int) else asked
    return DEFAULT_MODEL if min(h, w) >= 28 else DEFAULT_BELOW_28


def row_of(model: str) -> Variant | None:
    """The table's variant of that name; None for a one-line spec and for a network of a file, which are in no table."""
    return None if is_spec(model) or is_file(model) else find(model)[1]


def short_name(model: str) -> str:
    """What a run of this network is called: the table's name, "spec", or FILE-NAME."""
    if is_file(model):
        path, _, name = model.partition(".py:")
        return f"{Path(path).name}-{name.partition('(')[0]}"
    return "spec" if is_spec(model) else model


def options_of(
    request: Request, model: str, images: int, device: str, movement: Movement | None = None, metric: str = ACCURACY
) -> Options:
    recipe = Recipe() if row_of(model) is None else MODELS[find(model)[0].name].recipe
    optimizer = request.opt or recipe.optimizer
    usual = recipe.lr if optimizer == recipe.optimizer else USUAL_LR.get(optimizer, recipe.lr)
    if request.weights is not None and request.freeze is None:
        usual *= TUNING
    batch_size = (
        max(SMALLEST_BATCH, min(recipe.batch_size, images // FEWEST_STEPS))
        if request.batch_size is None
        else request.batch_size
    )
    updates = -(-images // max(1, batch_size))
    return Options(
        epochs=max(recipe.epochs, -(-FEWEST_UPDATES // updates)) if request.epochs is None else request.epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        lr=usual if request.lr is None else request.lr,
        weight_decay=recipe.weight_decay if request.weight_decay is None else request.weight_decay,
        label_smoothing=recipe.label_smoothing if request.label_smoothing is None else request.label_smoothing,
        schedule=request.schedule or recipe.schedule,
        seed=request.seed,
        device=device,
        movement=movement or Movement(),
        dropout=request.dropout,
        l1=request.l1 or 0.0,
        warmup=request.warmup,
        patience=request.patience,
        clip=request.clip,
        amp="bf16" if request.amp == "bf16" else "off",  # else it is decided once the network is built
        freeze=patterns_of(request.freeze),
        metric=metric,
    )


def patterns_of(freeze: str | None) -> tuple[str, ...]:
    """The layers of "conv1, layer1" one by one."""
    return tuple(part.strip() for part in freeze.split(",") if part.strip()) if freeze else ()


def device_of(name: str) -> str:
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


def architecture_of(request: Request, model: str, data: Dataset) -> dict[str, Any]:
    """What `models.source.rebuild` builds the network from, JSON-safe; it is stored in the model file."""
    given: dict[str, Any] = {
        "num_classes": len(data.classes),
        "in_channels": data.channels,
        "img_size": list(data.size),
    }
    if row_of(model) is None:
        if request.stem is not None:
            raise UsageError("a stem is a choice of the table's networks", f"got {request.stem!r}", "leave it out")
        return {"name": model, **given}
    row, variant = find(model)
    return {"name": row.name, "variant": variant.name, **given} | (
        {} if request.stem is None else {"stem": request.stem}
    )
