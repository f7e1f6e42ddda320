"""One look for every plot: colours that a colour-blind reader can tell apart, thin frames, and a figure without global state."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#6b7280"  # Okabe and Ito 2008, and a grey


# Fonts with letters that matplotlib's own lacks; class names come in every alphabet. Those that are installed are used.
_MORE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
    "Noto Emoji",
)


def fonts() -> list[str]:
    """The font families for text from the user's data, in the order in which a letter is looked for."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _MORE_FONTS if name in installed)]


def figure(width: float, height: float) -> Figure:
    """An empty figure, `width` x `height` inches, drawn without a window system and without pyplot's globals."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def tidy(axes: Axes) -> None:
    """Leave the left and lower frame and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def write(drawing: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG or SVG, whichever the path's ending says, atomically."""
    from pathlib import Path

    from convolve.files import atomic_write

    kind = Path(path).suffix.removeprefix(".")
    with atomic_write(path, "wb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that no installed font has is drawn as a box
        drawing.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)


def diverging(share: np.ndarray) -> np.ndarray:
    """RGB of -1..1: orange over white to blue, zero white."""
    blue, orange = np.array([0, 114, 178]) / 255, np.array([213, 94, 0]) / 255
    end = np.where(share[..., None] >= 0, blue, orange)
    colours: np.ndarray = 1 - np.abs(share)[..., None] * (1 - end)
    return colours
