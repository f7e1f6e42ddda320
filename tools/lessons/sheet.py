"""What the lessons' pictures are made of: a board measured in cells, grids of numbers, arrows, words; and how a picture is kept.

A picture is a white card, so that it reads the same in a light and in a dark viewer. Every file carries what it shows
(`shown`: its words, curves, bars and images) as its own description, which the tests compare with the lesson's values.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image, PngImagePlugin
from tools.lessons.text import FOLDER

from convolve.draw.style import BLUE, GREY, ORANGE, figure
from convolve.files import atomic_write

INK, PAPER, LINE = "#1f2937", "#ffffff", "#cbd5e1"
PHOTOS = ("02-edges",)  # pictures with a photo in them are PNG, the others SVG
PINK = "#cc79a7"  # one more of Okabe and Ito


def path_of(stem: str) -> Path:
    """The file of a lesson's picture."""
    return FOLDER / "images" / f"{stem}.{'png' if stem in PHOTOS else 'svg'}"


def board(width: float, height: float, scale: float = 0.36) -> tuple[Figure, Axes]:
    """A figure of `width` x `height` cells, each `scale` inches, with y downwards and nothing drawn."""
    drawing = figure(width * scale, height * scale)
    drawing.set_layout_engine("none")
    axes = drawing.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return drawing, axes


def words(
    axes: Axes, x: float, y: float, text: str, *, size: float = 8, colour: str = INK, bold: bool = False, **more: Any
) -> None:
    """Words at a place of the board, centred unless `ha` says otherwise."""
    style: dict[str, Any] = {"ha": "center", "va": "center", **more}
    axes.text(x, y, text, fontsize=size, color=colour, fontweight="bold" if bold else "normal", **style)


def tint(share: float, colour: str = BLUE, other: str = ORANGE) -> tuple[float, float, float]:
    """A pale colour for -1 to 1: `other` over white to `colour`."""
    end = np.array(mpl.colors.to_rgb(colour if share >= 0 else other))
    red, green, blue = 1 - min(abs(share), 1.0) * 0.55 * (1 - end)
    return float(red), float(green), float(blue)


def number(value: float) -> str:
    """A number as short as it can be written, with a true minus sign."""
    return f"{value + 0.0:g}".replace("-", "\u2212")


def cells(
    axes: Axes,
    values: Any,
    x: float,
    y: float,
    *,
    side: float = 1.0,
    title: str = "",
    below: str = "",
    mark: Iterable[tuple[int, int]] = (),
    colour: str = ORANGE,
    shade: Any = None,
    size: float = 7.5,
    blank: bool = False,
    edge: str = LINE,
) -> tuple[float, float]:
    """A grid of numbers with its upper left corner at (x, y), shaded by `shade` in -1 to 1 (by value unless given).

    `mark` are (row, column) cells that get a frame of `colour`. Returns its width and height.
    """
    grid = np.asarray(values, dtype=float)
    top = np.abs(grid[np.isfinite(grid)]).max() if np.isfinite(grid).any() else 1.0
    share = grid / (top or 1.0) if shade is None else np.asarray(shade, dtype=float)
    rows, columns = grid.shape
    for (row, column), value in np.ndenumerate(grid):
        if np.isnan(value):
            continue
        place = x + column * side, y + row * side
        axes.add_patch(
            Rectangle(
                place, side, side, facecolor=tint(share[row, column]), edgecolor=edge, linewidth=0.6, clip_on=False
            )
        )
        if not blank:
            words(axes, place[0] + side / 2, place[1] + side / 2, number(value), size=size)
    for row, column in mark:
        axes.add_patch(
            Rectangle(
                (x + column * side, y + row * side), side, side, fill=False, edgecolor=colour, linewidth=1.8, zorder=4
            )
        )
    if title:
        words(axes, x + columns * side / 2, y - 0.55, title, size=8, bold=True)
    if below:
        words(axes, x + columns * side / 2, y + rows * side + 0.55, below, size=7, colour=GREY)
    return columns * side, rows * side


def frame(axes: Axes, x: float, y: float, width: float, height: float, colour: str = ORANGE, **more: Any) -> None:
    """An empty frame."""
    style: dict[str, Any] = {"linewidth": 2.0, "zorder": 5, **more}
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, **style))


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY, bend: float = 0
) -> None:
    """An arrow, bent to the side by a share of its length."""
    style = f"arc3,rad={bend}"
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=9, color=colour, linewidth=1.1, connectionstyle=style
        )
    )


def bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str], labels: Sequence[str]
) -> None:
    """Horizontal bars from the top down, each with its number behind it."""
    drawn = axes.barh(range(len(values)), list(values), color=list(colours), height=0.62)
    axes.bar_label(drawn, labels=list(labels), padding=4, fontsize=8, color=INK)
    axes.set_yticks(range(len(values)), list(names), fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.margins(x=0.16)


def shown(drawing: Figure) -> dict[str, Any]:
    """What a figure shows, in plain values: its words, its curves, the lengths of its bars, the means of its images."""
    found: dict[str, Any] = {"words": [], "curves": [], "bars": [], "images": []}
    for axes in drawing.axes:
        found["words"] += [item.get_text() for item in axes.texts if item.get_text()]
        found["words"] += [text for text in (axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()) if text]
        found["curves"] += [
            [float(f"{value:.4g}") for value in np.asarray(line.get_ydata(), float)] for line in axes.lines
        ]
        found["bars"] += [[float(f"{bar.get_width():.6g}") for bar in group] for group in axes.containers]
        found["images"] += [
            [*np.shape(image.get_array()), round(float(np.mean(image.get_array())), 2)] for image in axes.images
        ]
    return found


def save(drawing: Figure, path: Path) -> None:
    """Write the picture with its description; the same values give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    description = json.dumps(shown(drawing), ensure_ascii=True, separators=(",", ":"))
    drawing.set_facecolor(PAPER)
    out = io.BytesIO()
    if path.suffix == ".svg":
        with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "convolve"}):
            drawing.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Description": description})
        content = compact(out.getvalue().decode()).encode()
    else:
        drawing.savefig(out, format="png", dpi=110)
        note = PngImagePlugin.PngInfo()
        note.add_text("Description", description)
        small = io.BytesIO()
        Image.open(out).convert("RGB").quantize(96).save(small, format="PNG", optimize=True, pnginfo=note)
        content = small.getvalue()
    with atomic_write(path, "wb") as file:
        file.write(content)


def compact(svg: str) -> str:
    """The same drawing in half the bytes: no names that nothing refers to, no comments, hundredths of a point at most."""
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(?:patch|text|line2d|axes|figure|xtick|ytick|matplotlib\.axis|LineCollection)_\d+"', "", svg)
    svg = re.sub(
        r' (d|x|y|transform)="([^"]*)"',
        lambda found: f' {found[1]}="{re.sub(r"-?[0-9]+[.][0-9]{3,}", _hundredths, found[2])}"',
        svg,
    )
    svg = re.sub(r"; stroke-linejoin: miter", "", re.sub(r"\s*\n\s*", "\n", svg))
    n = r"(-?[0-9.]+)"
    rectangle = rf'd="M {n} {n}\nL {n} \2\nL \3 {n}\nL \1 \4\nz\n"'
    svg = re.sub(rectangle, r'd="M\1 \2H\3V\4H\1z"', svg)
    return re.sub(r"<g>\n(<path [^>]*/>)\n</g>", r"\1", svg)


def _hundredths(found: re.Match[str]) -> str:
    value = float(found[0])
    return found[0] if abs(value) < 1 else f"{value:.2f}".rstrip("0").rstrip(".")


def description(path: Path) -> dict[str, Any]:
    """What the file says that it shows."""
    if path.suffix == ".svg":
        text = ElementTree.parse(path).findtext(".//{http://purl.org/dc/elements/1.1/}description", "")
        assert text, f"{path} carries no description"
    else:
        with Image.open(path) as image:
            text = image.info["Description"]
    found: dict[str, Any] = json.loads(text)
    return found
