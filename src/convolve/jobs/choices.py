"""What a run does where its user says nothing: the choices made from the data and the model, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from convolve.data.records import Dataset
from convolve.errors import UnknownNameError, UsageError
from convolve.models import MODELS, find
from convolve.training.augment import Movement
from convolve.training.options import Options

FEWEST_STEPS = 10  # an epoch has at least so many; the batch shrinks for it
FEWEST_UPDATES = 800  # a run has at least so many; small data get more epochs for it
FEW_IMAGES = 20_000  # below, the images are moved a little in every epoch, against overfitting
AUGMENTS = ("auto", "none", "gentle")
GENTLE = Movement(shift=0.08, scale=0.12, turn=10.0)
USUAL_LR = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3}  # where the model's recipe is for another optimizer


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
            rule = "snapshots are at least the first and the last weights"
            raise UsageError(rule, f"got {self.snapshots}", "use 2 or more, or 0")


def size_chooser(request: Request) -> Callable[[tuple[int, int]], tuple[int, int]] | int | tuple[int, int]:
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


def options_of(request: Request, images: int, device: str) -> Options:
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


def architecture_of(request: Request, data: Dataset) -> dict[str, Any]:
    """The arguments of `models.create`, JSON-safe; they are stored in the model file."""
    row, variant = find(request.model)
    return {
        "name": row.name,
        "variant": variant.name,
        "num_classes": len(data.classes),
        "in_channels": data.channels,
        "img_size": list(data.size),
    }
