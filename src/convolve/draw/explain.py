"""An explanation as a page and as pictures. The numbers are given; here they only become bytes and colours.

A page holds many maps, so values travel as pictures of bytes (`Sprite`), one under the other: of 0..limit as 0..255, or, where
some are negative, of -limit..limit as 1..255 around 128. What a page prints as a number is either exact or carries half
a step of that scale as its ±.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convolve.draw import page
from convolve.draw.style import BLUE, GREY, ORANGE, diverging, figure, fonts
from convolve.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convolve.explain.records import Axis, Filters, Findings, Layer, Measured, Moment, Unit

GRADIENT_LEVELS = 15  # fewer than 255: gradients look like noise, which no picture format makes small
FIRST_UNITS = 8  # of a layer, that a page always holds
MOST_SIDE, MANY_SIDE = 256, 112  # pixels of an attribution's longer side, on a page of one moment and of several
PAGE_BYTES = 60_000  # of a page besides its data
PICTURE_MAPS, TILE = 8, 128  # pixels of a tile


def sprite(values: np.ndarray, signed: bool | None = None) -> dict[str, Any]:
    """Values [number, h, w] as a page carries them."""
    number, h, w = values.shape
    signed = bool((values < 0).any()) if signed is None else signed
    limit = float(np.abs(values).max(initial=0.0)) or 1.0
    share = values / limit
    levels = np.rint(share * 127) + 128 if signed else np.rint(share * 255)
    picture = page.png(levels.astype(np.uint8).reshape(number * h, w))
    return {"png": page.data_uri(picture), "limit": limit, "signed": signed, "shape": [number, h, w]}


def unpacked(packed: Mapping[str, Any]) -> np.ndarray:
    """The values of a sprite, each within half a step of what went in; what the page's script does, for tests and pictures."""
    import base64
    import io

    from PIL import Image

    content = base64.b64decode(packed["png"].partition(",")[2])
    levels = np.asarray(Image.open(io.BytesIO(content))).astype(float).reshape(packed["shape"])
    shares: np.ndarray = (levels - 128) / 127 if packed["signed"] else levels / 255
    return shares * float(packed["limit"])


def content(
    *, model: str, code: str, image: str, input_shape: str, pixels: np.ndarray, findings: Findings, notes: Sequence[str]
) -> dict[str, Any]:
    """Everything that the page shows, as plain values; `pixels` are uint8 [c, h, w].

    Where it would be more than a page can hold, every second, fourth, … measured unit is left out, and a note says so.
    """
    order = {layer.name: number for number, layer in enumerate(findings.layers)}
    blocks = max(1, -(-max(findings.size) // (MANY_SIDE if len(findings.moments) > 1 else MOST_SIDE)))
    shown: dict[str, Any] = {
        "model": model,
        "code": code,
        "image": image,
        "input": input_shape,
        "size": list(findings.size),
        "picture": page.data_uri(page.png(_as_picture(pixels))),
        "notes": list(notes),
        "layers": [_layer(layer) for layer in findings.layers],
        "moments": [_moment(moment, blocks) for moment in findings.moments],
    }
    for every in (1, 2, 4, 8, 16, 32, 64, 128):
        for moment, part in zip(findings.moments, shown["moments"], strict=True):
            part["measured"] = _measurements(moment, order, every)
        if every > 1:
            said = f"to keep the page below 2 MB, one in {every} of the measured units is on it, and the strongest of each layer"
            shown["notes"] = [*notes, said]
        if len(page.script_json(shown).encode()) <= page.MOST_BYTES - PAGE_BYTES:
            return shown
    raise UsageError("a page has up to 2 MB", "this one would have more", "show fewer layers: --layer NAME")


def page_of(shown: Mapping[str, Any]) -> str:
    """The page of what `content` gave."""
    return page.render(
        "explain.html",
        title=f"{shown['image']}, explained by {shown['model']}",
        data=shown,
        model=shown["model"],
        image=shown["image"],
        input_shape=shown["input"],
        notes=shown["notes"],
    )


def _as_picture(pixels: np.ndarray) -> np.ndarray:
    return pixels[0] if pixels.shape[0] == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _layer(layer: Layer) -> dict[str, Any]:
    sight = layer.sight
    return {
        "name": layer.name,
        "words": layer.words,
        "shape": layer.shape,
        "channels": layer.channels,
        "step": layer.step,
        "asked": layer.asked,
        "sight": {
            "terms": [[_axis(rows), _axis(columns)] for rows, columns in sight.terms],
            "size": sight.size,
            "stride": sight.stride,
            "exact": sight.exact,
        },
    }


def _axis(axis: Axis) -> dict[str, Any]:
    return {"along": axis.along, "seen": axis.seen}


def _measurements(moment: Moment, order: Mapping[str, int], every: int) -> dict[str, Any]:
    """The measured units by the number of their layer: the first ones, and of the others one in `every`."""
    measured: dict[str, list[Measured]] = {}
    for row in moment.measured:
        measured.setdefault(str(order[row.layer]), []).append(row)
    return {number: _measured([*rows[:FIRST_UNITS], *rows[FIRST_UNITS::every]]) for number, rows in measured.items()}


def _moment(moment: Moment, blocks: int) -> dict[str, Any]:
    return {
        "label": moment.label,
        "probabilities": moment.probabilities,
        "maps": [
            {"sprite": sprite(row.values.numpy()), "strongest": [_unit(unit) for unit in row.strongest]}
            for row in moment.maps
        ],
        "filters": [_filters(row) for row in moment.filters],
        "attributions": [
            {
                "method": row.method,
                "says": row.says,
                "target": row.target,
                "layer": row.layer,
                "sprite": sprite(_means(row.values.numpy(), blocks)[None]),
            }
            for row in moment.attributions
        ],
    }


def _unit(unit: Unit) -> dict[str, Any]:
    return {"channel": unit.channel, "row": unit.row, "column": unit.column, "value": unit.value}


def _measured(rows: Sequence[Measured]) -> dict[str, Any]:
    """The measured units of one layer, and their gradients as one sprite.

    units: channel, row, column, pixels with a gradient, those outside the theory, the strongest gradient, and first and last row and
    column of the pixels with one, counted from the corner of the unit's field. The sprite holds the square root of each gradient's
    share of its strongest, in few levels and blocks of `block` pixels (the strongest of each); only zero is drawn as zero.
    """
    block = rows[0].block
    h, w = (max(-(-row.gradient.shape[axis] // block) for row in rows) for axis in (0, 1))
    levels = np.zeros((len(rows), h, w), np.uint8)
    units = []
    for number, row in enumerate(rows):
        gradient = row.gradient.numpy()
        top = float(gradient.max(initial=0.0))
        inside, across = np.nonzero(gradient.any(1))[0], np.nonzero(gradient.any(0))[0]
        box = [int(inside[0]), int(inside[-1]), int(across[0]), int(across[-1])] if len(inside) else []
        unit = row.unit
        units.append([unit.channel, unit.row, unit.column, row.touched, row.outside, float(f"{top:.3g}"), *box])
        if len(inside):
            coarse = _strongest(gradient, block)
            shares = np.ceil(np.sqrt(coarse / top) * GRADIENT_LEVELS)
            levels[number, : coarse.shape[0], : coarse.shape[1]] = shares * (255 // GRADIENT_LEVELS)
    picture = page.png(levels.reshape(len(rows) * h, w))
    root = {"png": page.data_uri(picture), "limit": 1, "signed": False, "shape": [len(rows), h, w]}
    return {"units": units, "block": block, "root": root}


def _means(values: np.ndarray, block: int) -> np.ndarray:
    """The mean of each block x block part; the last ones may be smaller."""
    if block == 1 or max(values.shape) <= MANY_SIDE:
        return values
    rows, columns = (np.arange(0, size, block) for size in values.shape)
    sums: np.ndarray = np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1)
    counts = np.outer(*(np.diff([*starts, size]) for starts, size in zip((rows, columns), values.shape, strict=True)))
    return sums / counts


def _strongest(values: np.ndarray, block: int) -> np.ndarray:
    """The largest of each block x block part; the last ones may be smaller."""
    rows, columns = (np.arange(0, size, block) for size in values.shape)
    down: np.ndarray = np.maximum.reduceat(values, rows, axis=0)
    return np.asarray(np.maximum.reduceat(down, columns, axis=1))


def _filters(row: Filters) -> dict[str, Any]:
    count, kernels, r, s = row.weight.shape
    packed = sprite(row.weight.numpy().reshape(count * kernels, r, s), signed=True)
    return {"layer": row.layer, "shape": [count, kernels, r, s], "total": row.total, "sprite": packed}


# --- pictures for slides ---------------------------------------------------------------------------------------------
def pictures(shown: Mapping[str, Any], pixels: np.ndarray, findings: Findings) -> dict[str, Figure]:
    """The pictures by name: maps, receptive-field, and where there are any, filters and attribution."""
    from convolve.draw.training import filter_sheet

    last = findings.last
    found = {"maps": _maps(findings), "receptive-field": _fields(pixels, findings)}
    if last.filters:
        found["filters"] = filter_sheet(
            [(row.layer, row.weight.numpy(), row.total) for row in last.filters], f"filters of {shown['model']}"
        )
    if last.attributions:
        found["attribution"] = _attributions(shown, pixels, last)
    return found


def _maps(findings: Findings) -> Figure:
    """One row per layer: its name, and up to eight maps side by side."""
    rows = len(findings.layers)
    drawing = figure(10, 0.5 + 1.05 * rows)
    panels = drawing.subplots(rows, 1, squeeze=False)[:, 0]
    for axes, layer, maps in zip(panels, findings.layers, findings.last.maps, strict=True):
        values = maps.values.numpy()
        limit = float(np.abs(values).max()) or 1.0
        shown = values[:PICTURE_MAPS]
        number, h, w = shown.shape
        tall = round(TILE * min(2.0, max(0.5, h / w)))
        strip = np.ones((tall, (TILE + TILE // 16) * PICTURE_MAPS, 3))
        for index, value in enumerate(shown):
            tile = value[np.arange(tall) * h // tall][
                :, np.arange(TILE) * w // TILE
            ]  # nearest, to one size for all layers
            start = index * (TILE + TILE // 16)
            strip[:, start : start + TILE] = diverging(np.sign(tile) * np.sqrt(np.abs(tile) / limit))
        axes.imshow(strip, interpolation="nearest")
        axes.axis("off")
        c, h, w = layer.shape
        words = f"{layer.name}   {layer.words}   {c} x {h} x {w}, {number} shown"
        axes.set_title(words, fontsize=7, loc="left", parse_math=False)
    return drawing


def _fields(pixels: np.ndarray, findings: Findings) -> Figure:
    """The image, and the strongest unit of up to six layers on it: its receptive field framed, its gradient as heat."""
    first = {row.layer: row for row in reversed(findings.last.measured)}
    rows = list(first.values())[::-1]
    rows = [rows[round(n * (len(rows) - 1) / 5)] for n in range(6)] if len(rows) > 6 else rows
    layers = {layer.name: layer for layer in findings.layers}
    drawing = figure(3 * min(3, max(1, len(rows))), 3.3 * -(-len(rows) // 3))
    grid = drawing.subplots(-(-len(rows) // 3), min(3, len(rows)), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, row in zip(grid.flat, rows, strict=False):
        axes.imshow(_faded(pixels))
        gradient = row.on(findings.size).numpy()
        heat = np.zeros((*gradient.shape, 4))
        heat[..., :3] = np.array([213, 94, 0]) / 255
        heat[..., 3] = np.sqrt(gradient / (gradient.max() or 1))
        axes.imshow(heat)
        at = (row.unit.row, row.unit.column)
        spans = [(a.at(at), b.at(at)) for a, b in layers[row.layer].sight.terms]
        spans = [(a, b) for a, b in spans if a and b]
        if spans:
            top, bottom = min(a[0][0] for a, _ in spans), max(a[-1][1] for a, _ in spans)
            left, right = min(b[0][0] for _, b in spans), max(b[-1][1] for _, b in spans)
            axes.plot(
                [left - 0.5, right + 0.5, right + 0.5, left - 0.5, left - 0.5],
                [top - 0.5, top - 0.5, bottom + 0.5, bottom + 0.5, top - 0.5],
                color=BLUE,
                linewidth=1.6,
                clip_on=False,
            )
        axes.set_title(f"{row.layer}, map {row.unit.channel} at {at}", fontsize=7, parse_math=False)
    drawing.supxlabel("frame: what the unit can see; orange: what it follows on this image", fontsize=7, color=GREY)
    return drawing


def _attributions(shown: Mapping[str, Any], pixels: np.ndarray, last: Moment) -> Figure:
    """The image as the network sees it, and each attribution on it: blue for the class, orange against."""
    tiles = 1 + len(last.attributions)
    drawing = figure(2.9 * min(tiles, 4), 3.2 * -(-tiles // 4))
    grid = drawing.subplots(-(-tiles // 4), min(tiles, 4), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    picture = _as_picture(pixels)
    grid.flat[0].imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255)
    grid.flat[0].set_title(str(shown["image"]), fontsize=8, fontfamily=fonts(), parse_math=False)
    h, w = picture.shape[:2]
    for axes, row in zip(list(grid.flat)[1:], last.attributions, strict=False):
        values = row.values.numpy()
        share = values / (np.abs(values).max() or 1)
        heat = np.zeros((*share.shape, 4))
        ends = [[int(end[i : i + 2], 16) / 255 for i in (1, 3, 5)] for end in (BLUE, ORANGE)]
        heat[..., :3] = np.where(share[..., None] >= 0, ends[0], ends[1])
        heat[..., 3] = 0.92 * np.abs(share) ** 0.75
        axes.imshow(_faded(pixels))
        axes.imshow(heat, extent=(-0.5, w - 0.5, h - 0.5, -0.5), interpolation="bilinear" if row.layer else "nearest")
        where = f" at {row.layer}" if row.layer else ""
        axes.set_title(f"{row.method}{where}: {row.target}", fontsize=8, fontfamily=fonts(), parse_math=False)
    return drawing


def _faded(pixels: np.ndarray) -> np.ndarray:
    """The image in pale greys, RGB 0..1."""
    weights = np.array([1.0]) if pixels.shape[0] == 1 else np.array([0.299, 0.587, 0.114])
    light = np.tensordot(weights, pixels / 255, 1)
    return np.repeat((1 - 0.45 * (1 - light))[..., None], 3, 2)
