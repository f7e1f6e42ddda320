"""What a run leaves to look at besides its scores: when weights are kept, and pictures of first filters and moved images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from convolve.data.records import Dataset
from convolve.draw.style import write
from convolve.draw.training import augmentation, filter_sheet
from convolve.explain.filters import first_filters
from convolve.training.augment_spec import describe
from convolve.training.options import Options

SHEET_IMAGES, SHEET_EPOCHS = 6, 7  # of the picture of moved images


def snapshot_steps(count: int, steps: int) -> frozenset[int]:
    """After which steps weights are kept: `count` of 0 … `steps`, quadratically spaced.

    >>> sorted(snapshot_steps(5, 800))
    [0, 50, 200, 450, 800]
    """
    return frozenset(round(steps * (number / (count - 1)) ** 2) for number in range(count)) if count else frozenset()


def picture_filters(net: nn.Module, data: Dataset, model: str, plots: Path) -> None:
    """plots/filters.png: the first convolution's weights."""
    found = first_filters(net, (1, data.channels, *data.size))
    if found is not None:
        layers = [(found.layer, found.weight.numpy(), found.total)]
        write(filter_sheet(layers, f"the first filters of {model} on {data.name}"), plots / "filters.png")


def picture_movement(data: Dataset, options: Options, model: str, plots: Path) -> None:
    """plots/augmentation.png: the first training images as they are, and as the first epochs changed them."""
    indices = torch.arange(min(SHEET_IMAGES, len(data.train)))
    images = data.train.images.batch(indices).float() / 255
    move = replace(options.movement, mean=(), std=())  # these are not normalised
    versions = [images, *(move.apply(images, options.seed, epoch, indices) for epoch in range(SHEET_EPOCHS))]
    sheet = (torch.stack(versions, 1) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    write(augmentation(sheet, f"{data.name} as {model} saw it: {describe(move)}"), plots / "augmentation.png")
