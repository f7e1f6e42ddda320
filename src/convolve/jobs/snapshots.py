"""What a run leaves to look at besides its scores: when weights are kept on the way, and the pictures in plots/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from convolve.data.records import Split
from convolve.draw.style import write
from convolve.draw.training import augmentation, confusion, curves, filter_sheet
from convolve.explain.filters import first_filters
from convolve.jobs.setup import Setup
from convolve.training.augment_spec import describe
from convolve.training.measure import Measured
from convolve.training.records import Epoch

SHEET_IMAGES, SHEET_EPOCHS = 6, 7  # of the picture of moved images


def snapshot_steps(count: int, steps: int) -> frozenset[int]:
    """After which steps weights are kept: `count` of 0 … `steps`, quadratically spaced.

    >>> sorted(snapshot_steps(5, 800))
    [0, 50, 200, 450, 800]
    """
    return frozenset(round(steps * (number / (count - 1)) ** 2) for number in range(count)) if count else frozenset()


def picture_run(setup: Setup, history: Sequence[Epoch], split: Split, outcome: Measured, plots: Path) -> None:
    """curves.png, confusion.png of what was measured last, filters.png, and augmentation.png where images were moved."""
    plots.mkdir(exist_ok=True)
    write(curves(history, f"{setup.name} on {setup.data.name}"), plots / "curves.png")
    title = f"{split.name}: {outcome.accuracy:.2%} of {len(split):,} right"
    write(confusion(outcome.confusion().numpy(), setup.data.classes, title), plots / "confusion.png")
    _picture_filters(setup, plots)
    if setup.options.movement:
        _picture_movement(setup, plots)


def _picture_filters(setup: Setup, plots: Path) -> None:
    """The first convolution's weights."""
    found = first_filters(setup.net, (1, setup.data.channels, *setup.data.size))
    if found is not None:
        layers = [(found.layer, found.weight.numpy(), found.total)]
        write(filter_sheet(layers, f"the first filters of {setup.name} on {setup.data.name}"), plots / "filters.png")


def _picture_movement(setup: Setup, plots: Path) -> None:
    """The first training images as they are, and as the first epochs changed them."""
    data, options = setup.data, setup.options
    indices = torch.arange(min(SHEET_IMAGES, len(data.train)))
    images = data.train.images.batch(indices).float() / 255
    move = replace(options.movement, mean=(), std=())  # these are not normalised
    versions = [images, *(move.apply(images, options.seed, epoch, indices) for epoch in range(SHEET_EPOCHS))]
    sheet = (torch.stack(versions, 1) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    write(augmentation(sheet, f"{data.name} as {setup.name} saw it: {describe(move)}"), plots / "augmentation.png")
