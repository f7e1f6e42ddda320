"""An animation for slides: one step as SVG or PNG, all steps as GIF. The numbers are those of `animation_data`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from convolve.draw.animation_data import TINTS
from convolve.draw.palette import mix, palette
from convolve.draw.shapes import Box, Picture, Words, paint, svg

STEP_MS, LAST_MS = 700, 2_200
MOST_FRAMES = 120
ALL_FILTERS = 60  # up to this many frames a GIF shows every filter, above it the first
MOST_TERMS = 30  # written out in one sum
WIDEST = 1_100  # units of a picture
LETTER = 0.602  # width of a letter of DejaVu Sans Mono, in its size


def render_as(scenes: Sequence[dict[str, Any]], title: str, theme: str, kind: str, step: int | None) -> bytes:
    """The bytes of a "gif" of all steps, or of an "svg" or "png" of one (counted from 1; the last without)."""
    if kind == "gif":
        return _gif(scenes, title, theme)
    stage = scenes[0]["stages"][0]
    shown = len(stage["reads"]) if step is None else min(step, len(stage["reads"]))
    picture = frame(stage, _heading(title, scenes, scenes[0], 0), theme, 0, shown - 1)
    if kind == "svg":
        return svg(picture).encode()
    out = io.BytesIO()
    paint(picture, 2.0).save(out, format="PNG", optimize=True)
    return out.getvalue()


def left_out(scenes: Sequence[dict[str, Any]]) -> int:
    """How many steps, over all filters, a GIF of these scenes does not show."""
    stages = [stage for scene in scenes for stage in scene["stages"]]
    every: int = sum(len(stage["reads"]) * stage["output_size"][0] for stage in stages)
    return every - min(MOST_FRAMES, sum(len(stage["reads"]) * _filters(stage, len(scenes)) for stage in stages))


def _filters(stage: dict[str, Any], scenes: int) -> int:
    filters: int = stage["output_size"][0]
    return filters if scenes == 1 and len(stage["reads"]) * filters <= ALL_FILTERS else 1


def _gif(scenes: Sequence[dict[str, Any]], title: str, theme: str) -> bytes:
    from PIL import Image

    pictures = list(islice((found for scene in scenes for found in _frames(scene, scenes, title, theme)), MOST_FRAMES))
    w, h = max(picture.width for picture, _ in pictures), max(picture.height for picture, _ in pictures)
    images = []
    for picture, _ in pictures:
        image = Image.new("RGB", (w, h), picture.ground)
        image.paste(paint(picture, 1.0), (0, 0))
        images.append(image)
    # One palette for all frames, from three of them: choosing a palette is the slow part.
    sample = Image.new("RGB", (w, 3 * h))
    for row, image in enumerate((images[0], images[len(images) // 2], images[-1])):
        sample.paste(image, (0, row * h))
    colours = sample.quantize(192, dither=Image.Dither.NONE)
    images = [image.quantize(palette=colours, dither=Image.Dither.NONE) for image in images]
    out = io.BytesIO()
    durations = [LAST_MS if last else STEP_MS for _, last in pictures]
    images[0].save(out, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return out.getvalue()


def _frames(
    scene: dict[str, Any], scenes: Sequence[dict[str, Any]], title: str, theme: str
) -> Iterator[tuple[Picture, bool]]:
    """Every picture, and whether it is the last of its filter."""
    for number, stage in enumerate(scene["stages"]):
        steps, heading = len(stage["reads"]), _heading(title, scenes, scene, number)
        for chosen in range(_filters(stage, len(scenes))):
            for step in range(steps):
                yield frame(stage, heading, theme, chosen, step), step == steps - 1


def _heading(title: str, scenes: Sequence[dict[str, Any]], scene: dict[str, Any], stage: int) -> str:
    several = len(scene["stages"]) > 1
    return (f"{scene['name']}" if len(scenes) > 1 else title) + (
        f", stage {stage + 1} ({scene['stages'][stage]['operator']})" if several else ""
    )


def frame(stage: dict[str, Any], heading: str, theme: str, chosen: int, step: int) -> Picture:
    """One step of one filter: the input under the window, the kernel, the output so far, and the sum in numbers."""
    colours = palette(theme)
    channels = _channels(stage, chosen)
    _, _, wide = stage["frame_size"]
    transposed = stage["kind"] == "transposed"
    left = stage["input_size"] if transposed else stage["frame_size"]
    right = stage["frame_size"] if transposed else stage["output_size"]
    r, s = stage["kernel"] if stage["weight"] is not None else (0, 0)
    # One line: input and kernel of each channel, plus signs between, then the output.
    gap, top, side, number_of = 30, 74, 24, len(channels)
    per = left[2] + s
    cell = max(14, min(44, (WIDEST - 2 * side - gap * (2 * number_of + 1)) // (per * number_of + right[2])))
    block = per * cell + (2 * gap if s else gap)
    x_output = side + block * number_of
    tall = max(left[1], r, right[1]) * cell + 34
    width = int(max(x_output + right[2] * cell + side, 520))
    text, result = _sum(stage, channels, chosen, step)
    most = int((width - 2 * side) / (15 * LETTER))
    lines = _wrapped(text, most - len(result))
    shapes: list[Box | Words] = [
        Words(side, 24, heading, 20, colours["ink"], bold=True, middle=False),
        Words(side, 48, "   ".join(dict.fromkeys(stage["formulas"])), 13, colours["output"], middle=False),
    ]
    reads = stage["reads"][step]
    for row, channel in enumerate(channels):
        x, y = side + row * block, top + (tall - 34 - left[1] * cell) / 2
        names = stage.get("names") or []
        name = f"input {names[channel] if names else channel}" if stage["input_size"][0] > 1 else "input"
        tint = TINTS[names[channel]] if names else None
        shapes.append(Words(x, y + 4, name, 12, colours["muted"], middle=False))
        values = stage["input" if transposed else "frame"][channel]
        inner = None if transposed else stage["inner"]
        shapes += _grid(values, left[2], x, y + 16, cell, colours, "input", inner, tint=tint)
        weights = _weights(stage, chosen, row)
        if transposed:
            shapes += _marks([step], left[2], x, y + 16, cell, colours["kernel"])
        else:
            shapes += _window(reads, weights, wide, x, y + 16, cell, colours)
        if weights is not None:
            x, y = x + left[2] * cell + gap, top + (tall - 34 - r * cell) / 2
            turned = "turned " if stage["flipped"] else ""
            shapes.append(Words(x, y + 4, f"{turned}kernel", 12, colours["muted"], middle=False))
            shapes += _grid(weights, s, x, y + 16, cell, colours, "kernel", None)
            sign = "=" if row == number_of - 1 else "+"
            shapes.append(Words(x + s * cell + gap / 2, top + 16 + (tall - 34) / 2, sign, 17, colours["muted"]))
    y = top + (tall - 34 - right[1] * cell) / 2
    many = stage["output_size"][0] > 1
    shapes.append(Words(x_output, y + 4, f"output {chosen}" if many else "output", 12, colours["muted"], middle=False))
    if transposed:
        shapes += _grid(stage["grown"][step][chosen], wide, x_output, y + 16, cell, colours, "output", stage["inner"])
        shapes += _window(reads, None, wide, x_output, y + 16, cell, colours)
    else:
        values = [value if at <= step else None for at, value in enumerate(stage["output"][chosen])]
        scale = stage["output"][chosen]
        shapes += _grid(values, right[2], x_output, y + 16, cell, colours, "output", None, scale)
        shapes += _marks([step], right[2], x_output, y + 16, cell, colours["output"])
    y = top + tall + 12
    for row, line in enumerate(lines):
        shapes.append(Words(side, y + 22 * row, line, 15, colours["ink"], middle=False))
    end = side + len(lines[-1]) * 15 * LETTER
    shapes.append(
        Words(round(end, 2), y + 22 * (len(lines) - 1), result, 15, colours["output"], bold=True, middle=False)
    )
    return Picture(width, int(y + 22 * max(len(lines), 2) + 4), colours["surface"], heading, tuple(shapes))


def _channels(stage: dict[str, Any], chosen: int) -> list[int]:
    if stage["kind"] in ("max", "average", "sum"):
        return [chosen]
    inputs, outputs, groups = stage["input_size"][0], stage["output_size"][0], stage["groups"]
    depth = inputs // groups
    first = chosen // (outputs // groups) * depth
    return [int(channel) for channel in stage["order"][first : first + depth]]


def _weights(stage: dict[str, Any], chosen: int, row: int) -> list[float] | None:
    if stage["weight"] is None:
        return None
    if stage["kind"] == "convolution":
        return _listed(stage["weight"][chosen][row])
    per = stage["output_size"][0] // stage["groups"]
    channel = _channels(stage, chosen)[row]
    return _listed(stage["weight"][channel][chosen % per])


def _sum(stage: dict[str, Any], channels: Sequence[int], chosen: int, step: int) -> tuple[str, str]:
    """The sum of this step with its numbers, and its result; per channel only, where there would be too many numbers."""
    kind = stage["kind"]
    if kind == "transposed":
        inputs = ", ".join(number(stage["input"][channel][step]) for channel in channels)
        return f"step {step + 1}: the input's {inputs} times the kernel is added to the marked cells", ""
    result = " " + number(stage["output"][chosen][step])
    if kind == "max":
        return f"max({', '.join(number(value) for value in _listed(stage['rows'][chosen][step]))}) =", result
    if kind == "average":
        values = (_bracketed(number(value)) for value in stage["rows"][chosen][step])
        return f"({' + '.join(values)}) / {number(stage['divisors'][step])} =", result
    bias = "" if stage["bias"] is None else f" + bias {number(stage['bias'][chosen])}"
    if kind == "sum":
        values = (_bracketed(number(value)) for value in stage["rows"][chosen][step])
        return f"({' + '.join(values)}) · weight {_bracketed(number(stage['scale'][chosen]))}{bias} =", result
    taps = len(stage["reads"][step])
    if taps * len(channels) > MOST_TERMS:
        parts = (_bracketed(number(stage["partial"][chosen][row][step])) for row in range(len(channels)))
        return f"{taps * len(channels)} products; per channel {' + '.join(parts)}{bias} =", result
    terms = (
        f"{_bracketed(number(stage['rows'][step][channel * taps + tap]))}·{_bracketed(number(weight))}"
        for row, channel in enumerate(channels)
        for tap, weight in enumerate(_weights(stage, chosen, row) or ())
    )
    return f"{' + '.join(terms)}{bias} =", result


def _wrapped(text: str, most: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def _grid(
    values: Any,
    cols: int,
    x: float,
    y: float,
    cell: float,
    colours: dict[str, str],
    tone: str,
    inner: Any,
    scale: Any = None,
    tint: tuple[float, float, float] | None = None,
) -> Iterator[Box | Words]:
    listed = _listed(values)
    finite = [
        abs(v) for v in _listed(scale if scale is not None else values) if v is not None and abs(v) < float("inf")
    ]
    top = max([*finite, 1e-12])
    texts = ["" if value is None else number(value) for value in listed]
    size = min(cell * 0.42, cell * 0.9 / (LETTER * max(1, *map(len, texts))))
    for at, value in enumerate(listed):
        row, col = divmod(at, cols)
        outer = inner is not None and not (inner[0][0] <= row < inner[0][1] and inner[1][0] <= col < inner[1][1])
        share = 0.0 if value is None or abs(value) == float("inf") else 0.42 * abs(value) / top
        fill = colours["raised"] if outer else mix(colours[tone], colours["surface"], share)
        ink = colours["muted"] if outer else colours["ink"]
        if tint is not None and not outer:
            red, green, blue = (round(part * min(max(value, 0.0), 255.0)) for part in tint)
            fill = f"#{red:02x}{green:02x}{blue:02x}"
            ink = "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 120 else "#ffffff"  # ITU-R 601-2 luma
        left, upper = x + col * cell, y + row * cell
        yield Box(left, upper, cell, cell, fill, colours["line"], 1, outer)
        if size >= 5:
            yield Words(left + cell / 2, upper + cell / 2, texts[at], round(size, 2), ink)


def _window(
    reads: Any, weights: Sequence[float] | None, cols: int, x: float, y: float, cell: float, colours: dict[str, str]
) -> Iterator[Box | Words]:
    """Each tap framed, with its weight in the corner where there is room, and a bold frame around them all."""
    listed = [int(at) for at in reads]
    yield from _marks(listed, cols, x, y, cell, colours["kernel"], 1.5)
    if weights is not None and cell >= 30:
        for at, weight in zip(listed, weights, strict=True):
            row, col = divmod(at, cols)
            text = "×" + number(weight)
            corner = x + (col + 1) * cell - 3 - len(text) * cell * 0.25 * LETTER / 2
            yield Words(
                round(corner, 2), y + (row + 0.84) * cell, text, round(cell * 0.25, 2), colours["kernel"], bold=True
            )
    rows, columns = [at // cols for at in listed], [at % cols for at in listed]
    place = (x + min(columns) * cell, y + min(rows) * cell)
    size = ((max(columns) - min(columns) + 1) * cell, (max(rows) - min(rows) + 1) * cell)
    yield Box(*place, *size, None, colours["surface"], 6)  # a halo, for grounds of any colour
    yield Box(*place, *size, None, colours["kernel"], 3)


def _marks(
    cells: Sequence[int], cols: int, x: float, y: float, cell: float, colour: str, width: float = 3
) -> Iterator[Box]:
    for at in cells:
        row, col = divmod(at, cols)
        yield Box(x + col * cell, y + row * cell, cell, cell, None, colour, width)


def number(value: Any) -> str:
    """A number as the pages write it: whole, or with three significant digits, with a true minus sign."""
    value = float(value)
    if value != value:
        return "NaN"
    size = abs(value)
    if size == float("inf"):
        text = "∞"
    elif value.is_integer() and size < 1e6:
        text = str(int(size))
    else:
        text = f"{size:.2e}" if size >= 1e5 or size < 1e-3 else f"{float(f'{size:.3g}'):g}"
    return ("−" if value < 0 else "") + text


def _bracketed(text: Any) -> str:
    return f"({text})" if str(text).startswith("−") else str(text)


def _listed(values: Any) -> list[Any]:
    """Numbers; "-Infinity" as JSON has it becomes one again."""
    return [float(value) if isinstance(value, str) else value for value in values]
