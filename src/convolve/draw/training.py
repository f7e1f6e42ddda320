"""Pictures of a training run: its curves, and which classes it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from convolve.draw.style import BLUE, GREY, ORANGE, figure, fonts, tidy

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
