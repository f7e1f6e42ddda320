"""A contact sheet: the picture, and beside it what each filter made of it, with the kernel's own numbers in the corner."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from convolve.draw.style import diverging, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from convolve.jobs.filter_image import Filtered

TILE = 2.9  # inches wide
WIDEST = 480  # pixels of a tile; larger pictures are thinned by whole steps


def contact_sheet(found: Filtered, columns: int | None = None) -> Figure:
    """All responses in a grid behind the original; colours of the kernels: blue positive, orange negative, white zero."""
    tiles = 1 + len(found.responses)
    if columns is None:
        columns = tiles if tiles <= 4 else max(3, math.ceil(math.sqrt(tiles)))
    rows = math.ceil(tiles / columns)
    h, w = found.size
    tall = min(max(h / w, 0.3), 2.0) * TILE
    drawing = figure(columns * (TILE + 0.12), rows * (tall + 0.5) + 0.55)
    drawing.suptitle(_title(found), fontsize=9, color="#6b7280", x=0.005, ha="left")
    if found.credit:
        drawing.supxlabel(found.credit, fontsize=7, color="#6b7280", x=0.995, ha="right")
    grid = drawing.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    first = grid.flat[0]
    _picture(first, found.original)
    first.set_title(f"{found.image}  {h} x {w}", fontsize=9, fontweight="bold", loc="left", parse_math=False)
    for axes, row in zip(list(grid.flat)[1:], found.responses, strict=False):
        _picture(axes, row.pixels)
        axes.set_title(row.kernel.name, fontsize=9, fontweight="bold", loc="left")
        axes.set_title(row.on, fontsize=7, color="#6b7280", loc="right")
        axes.text(0, -0.025, row.kernel.shows, transform=axes.transAxes, fontsize=7, color="#6b7280", va="top")
        kernels = row.kernel.kernels.numpy()[:, ::-1, ::-1] if found.flipped else row.kernel.kernels.numpy()
        _kernels(axes, kernels, w / h)
    return drawing


def _title(found: Filtered) -> str:
    return "convolution, kernels turned around" if found.flipped else "cross-correlation, kernels as drawn"


def _picture(axes: Axes, pixels: np.ndarray) -> None:
    step = max(1, round(max(pixels.shape[:2]) / WIDEST))
    thin = pixels[::step, ::step]
    grey = thin.shape[2] == 1
    axes.imshow(
        thin[:, :, 0] if grey else thin, cmap="gray" if grey else None, vmin=0, vmax=255, interpolation="antialiased"
    )


def _kernels(axes: Axes, kernels: np.ndarray, aspect: float) -> None:
    """Up to four small kernels in the lower right corner, with their numbers where these are few and short."""
    side = 0.30 if len(kernels) == 1 else 0.24
    width = side / aspect
    for index, kernel in enumerate(kernels[::-1]):
        inset = axes.inset_axes((1 - (index + 1) * (width + 0.015), 0.02, width, side))
        top = np.abs(kernel).max() or 1.0
        inset.imshow(diverging(kernel / top), aspect="auto", interpolation="nearest")
        inset.set(xticks=[], yticks=[])
        inset.spines[:].set(color="white", linewidth=1.2)
        if kernel.size > 9 or not np.array_equal(kernel, kernel.round()):
            continue
        for (y, x), value in np.ndenumerate(kernel):
            dark = abs(value) / top > 0.6
            inset.text(x, y, f"{value:g}", ha="center", va="center", fontsize=6.5, color="white" if dark else "#111827")
