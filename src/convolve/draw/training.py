"""Pictures of a training run: its curves, which classes it confuses, how its images were moved, and its first filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from convolve.draw.style import BLUE, GREY, ORANGE, diverging, figure, fonts, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convolve.training.records import Epoch

NAMED_CLASSES = 40  # with more, names and counts would be too small to read


def curves(history: Sequence[Epoch], title: str) -> Figure:
    """Loss and accuracy per epoch, training and validation, with the best epoch marked."""
    drawing = figure(9, 3.6)
    drawing.suptitle(title, fontsize=11)
    epochs = [record.epoch for record in history]
    best = max((record for record in history if record.best), key=lambda record: record.epoch, default=None)
    for axes, word, label in zip(
        drawing.subplots(1, 2), ("loss", "acc"), ("loss (cross-entropy, nats)", "accuracy"), strict=True
    ):
        for prefix, colour, name in (("", BLUE, "training"), ("val_", ORANGE, "validation")):
            values = [getattr(record, prefix + word) for record in history]
            axes.plot(epochs, values, color=colour, marker="o", markersize=3, label=name)
        if best is not None:
            axes.axvline(best.epoch, color=GREY, linestyle=":", label=f"best epoch ({best.epoch})")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    return drawing


def confusion(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """The confusion matrix: rows are true classes, columns predictions, cells counts; colour is the share of the row."""
    side = min(14.0, 2.6 + 0.42 * len(classes))
    drawing = figure(side + 0.8, side)
    axes = drawing.subplots()
    rows = counts.sum(1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    drawing.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= NAMED_CLASSES:
        names = [name if len(name) <= 18 else name[:17] + "…" for name in classes]
        places = np.arange(len(classes))
        turn, side_of = (0, "center") if max(map(len, names)) <= 3 else (60, "right")
        axes.set_xticks(places, names, rotation=turn, ha=side_of, fontsize=8, fontfamily=fonts(), parse_math=False)
        axes.set_yticks(places, names, fontsize=8, fontfamily=fonts(), parse_math=False)
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=7, color=colour)
    return drawing


def augmentation(rows: np.ndarray, title: str) -> Figure:
    """What training sees: uint8 [image, version, c, h, w]; the first version is the image as it is, the others are its movements."""
    images, versions, c, h, w = rows.shape
    tall = min(max(h / w, 0.4), 2.5)
    drawing = figure(1.1 * versions, 1.1 * tall * images + 0.7)
    drawing.suptitle(title, fontsize=9)
    for number, line in enumerate(drawing.subplots(images, versions, squeeze=False)):
        for version, axes in enumerate(line):
            pixels = rows[number, version].transpose(1, 2, 0)
            axes.imshow(pixels[..., 0] if c == 1 else pixels, cmap="gray" if c == 1 else None, vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=BLUE if version == 0 else "#d1d5db", linewidth=1.6 if version == 0 else 0.8)
            if number == 0:
                axes.set_title("as it is" if version == 0 else f"epoch {version}", fontsize=7)
    return drawing


def filter_sheet(layers: Sequence[tuple[str, np.ndarray, tuple[int, int]]], title: str) -> Figure:
    """Filters [filters, kernels, r, s] of (layer, weights, total of both): three kernels as one colour picture around grey, others side
    by side, blue above zero and orange below."""
    sheets = [(name, _filter_tiles(weight), weight, total) for name, weight, total in layers]
    heights = [max(0.8, 7.2 * tiles.shape[0] / tiles.shape[1]) for _, tiles, _, _ in sheets]
    drawing = figure(7.6, sum(heights) + 0.45 * len(sheets) + 0.5)
    drawing.suptitle(title, fontsize=10, parse_math=False)
    for axes, (name, tiles, weight, total) in zip(
        drawing.subplots(len(sheets), 1, squeeze=False, height_ratios=heights)[:, 0], sheets, strict=True
    ):
        axes.imshow(tiles, interpolation="nearest")
        axes.axis("off")
        count, kernels, r, s = weight.shape
        shown = f"{count} of {total[0]} filters" + (
            "" if kernels in (1, 3) else f" (rows), {kernels} of {total[1]} kernels"
        )
        axes.set_title(
            f"{name}: {shown}, {r}x{s}, strongest {np.abs(weight).max():.3g}", fontsize=8, loc="left", parse_math=False
        )
    return drawing


def _filter_tiles(weight: np.ndarray) -> np.ndarray:
    """All tiles in one RGB picture, one pixel per weight, a white line between."""
    count, kernels, r, s = weight.shape
    share = weight / (np.abs(weight).max() or 1.0)
    tiles = (share.transpose(0, 2, 3, 1) + 1) / 2 if kernels == 3 else diverging(share.reshape(-1, r, s))
    across = min(count, 16) if kernels in (1, 3) else kernels
    sheet = np.ones((-(-len(tiles) // across) * (r + 1) - 1, across * (s + 1) - 1, 3))
    for number, tile in enumerate(tiles):
        top, left = number // across * (r + 1), number % across * (s + 1)
        sheet[top : top + r, left : left + s] = tile
    return sheet
