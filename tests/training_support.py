"""A task that a network learns in a moment, shared by the tests of training: pictures, how they are fed, and how it is trained."""

from __future__ import annotations

from typing import Any

import torch

from convolve.data.records import ResidentImages, Split
from convolve.training.augment import Movement
from convolve.training.options import Options


def split_of(name: str, count: int, seed: int) -> Split:
    """Pictures of 6x7 whose class is the brighter half: left or right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    pixels = torch.randint(0, 120, (count, 1, 6, 7), generator=generator)
    for index, label in enumerate(labels.tolist()):
        pixels[index, :, :, 4 * label : 4 * label + 3] += 60
    sizes = torch.tensor([6, 7], dtype=torch.int32).expand(count, 2)
    return Split(name, ResidentImages(pixels.to(torch.uint8)), labels, [f"{name}/{i}" for i in range(count)], sizes)


def normalise(batch: torch.Tensor) -> torch.Tensor:
    return batch.float() / 255 - 0.3


def options_with(**changes: Any) -> Options:
    chosen: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 16,
        "optimizer": "adamw",
        "lr": 0.01,
        "weight_decay": 0.01,
        "label_smoothing": 0.1,
        "schedule": "onecycle",
        "seed": 5,
        "device": "cpu",
        "movement": Movement(0.1, 0.1, 10),
    }
    return Options(**(chosen | changes))
