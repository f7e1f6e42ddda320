"""A picture as a list of boxes and words, written as SVG or painted by Pillow: two files of the same picture agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    w: float
    h: float
    fill: str | None = None
    stroke: str | None = None
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Words:
    """A line of text whose middle (or left end) lies at x, and whose vertical middle lies at y."""

    x: float
    y: float
    text: str
    size: float
    colour: str
    bold: bool = False
    middle: bool = True


@dataclass(frozen=True)
class Picture:
    width: int
    height: int
    ground: str
    title: str
    shapes: tuple[Box | Words, ...]


def svg(picture: Picture) -> str:
    """The picture as one SVG document."""
    size = f'width="{picture.width}" height="{picture.height}" viewBox="0 0 {picture.width} {picture.height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">',
        f"<title>{escape(picture.title)}</title>",
        f'<rect width="{picture.width}" height="{picture.height}" fill="{picture.ground}"/>',
    ]
    for shape in picture.shapes:
        if isinstance(shape, Box):
            dash = ' stroke-dasharray="3 3"' if shape.dashed else ""
            stroke = f' stroke="{shape.stroke}" stroke-width="{shape.width:g}"' if shape.stroke else ""
            place = f'x="{shape.x:g}" y="{shape.y:g}" width="{shape.w:g}" height="{shape.h:g}"'
            lines.append(f'<rect {place} fill="{shape.fill or "none"}"{stroke}{dash}/>')
        else:
            anchor = ' text-anchor="middle"' if shape.middle else ""
            bold = ' font-weight="bold"' if shape.bold else ""
            place = f'x="{shape.x:g}" y="{shape.y:g}" dy="0.36em" font-size="{shape.size:g}" fill="{shape.colour}"'
            lines.append(f'<text {place}{anchor}{bold} xml:space="preserve">{escape(shape.text)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def paint(picture: Picture, scale: float) -> Image:
    """The picture as pixels, `scale` of them per unit."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (round(picture.width * scale), round(picture.height * scale)), picture.ground)
    pen = ImageDraw.Draw(image)
    for shape in picture.shapes:
        if isinstance(shape, Box):
            corners = [shape.x * scale, shape.y * scale, (shape.x + shape.w) * scale, (shape.y + shape.h) * scale]
            corners = [round(corner) for corner in corners]
            pen.rectangle(corners, fill=shape.fill)
            if shape.stroke:
                _frame(pen, corners, shape, scale)
        else:
            anchor = "mm" if shape.middle else "lm"
            font = _font(max(4, round(shape.size * scale)), shape.bold)
            pen.text((shape.x * scale, shape.y * scale), shape.text, shape.colour, font, anchor=anchor)
    return image


def _frame(pen: object, corners: Sequence[float], shape: Box, scale: float) -> None:
    width = max(1, round(shape.width * scale))
    left, top, right, bottom = corners
    reach = width // 2
    if not shape.dashed:
        pen.rectangle((left - reach, top - reach, right + width - reach - 1, bottom + width - reach - 1), outline=shape.stroke, width=width)  # type: ignore[attr-defined]  # fmt: skip
        return
    step = max(2, round(3 * scale))
    for start in range(int(left), int(right), 2 * step):
        for y in (top, bottom):
            pen.line((start, y, min(start + step, right), y), shape.stroke, width)  # type: ignore[attr-defined]
    for start in range(int(top), int(bottom), 2 * step):
        for x in (left, right):
            pen.line((x, start, x, min(start + step, bottom)), shape.stroke, width)  # type: ignore[attr-defined]


@cache
def _font(size: int, bold: bool) -> FreeTypeFont:
    from pathlib import Path

    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSansMono-Bold.ttf" if bold else "DejaVuSansMono.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
