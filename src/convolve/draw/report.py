"""A report as one page. The facts are given; here they become words, JSON and sheets of small pictures.

Pictures travel as sheets, many to one file: grey ones up to 64 pixels as PNG, exact; others as JPEG, each in a cell of its own whose
sides are multiples of 16, so that no picture bleeds into another. Where a page would exceed MOST_BYTES its JPEGs get coarser.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from convolve.draw import page
from convolve.errors import ConvolveError

if TYPE_CHECKING:
    from convolve.explain.records import Filters
    from convolve.jobs.report.records import Look, Part, Report

MOST_BYTES = 8_000_000  # of a whole page
QUALITIES = (88, 75, 60, 40, 20)  # of JPEG, tried in this order
EXACT_SIDE, BLOCK = 64, 16  # pixels
ACROSS, SHEET_SIDE = 32, 4096  # pictures in a row of a sheet; its largest height in pixels
ABOVE, BELOW = (46, 150, 255), (255, 122, 26)  # of heat on a grey picture: for the class, against it


def page_of(facts: Report) -> str:
    """The page. Raises ConvolveError when it would be too large even with the coarsest pictures."""
    for quality in QUALITIES:
        html = _render(facts, quality)
        size = len(html.encode())
        if size <= MOST_BYTES:
            return html
    raise ConvolveError(f"a report has up to {MOST_BYTES:,} bytes", f"this one would have {size:,}", "report this case")


def _render(facts: Report, quality: int) -> str:
    main = facts.main
    return page.render(
        "report.html",
        title=f"{facts.model} on {facts.data}: {percent(main.right / main.images)} right",
        data=content(facts, quality),
        report=facts,
        main=main,
        percent=percent,
        interval=_interval,
        mistakes=main.images - main.right,
        guessing=max(row.images for row in facts.counts) / main.images,
        uneven=_uneven(facts),
        doubted=[(part, found, of) for part, found, of in facts.doubts.counts if found],
        word=lambda part: "training" if part == "train" else part,
        findings=[_finding(row) for row in facts.findings],
        best=max((row.epoch for row in facts.history if row.best), default=None),
    )


def percent(share: float) -> str:
    """A share with two decimals, never rounded up to all or down to nothing.

    >>> percent(0.99996), percent(0.5), percent(1)
    ('99.99 %', '50.00 %', '100 %')
    """
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    return f"{min(99.99, max(0.01, 100 * share)):.2f} %" if math.isfinite(share) else "?"


def content(facts: Report, quality: int = QUALITIES[0]) -> dict[str, Any]:
    """Everything that the page's script shows, as plain values."""
    looks = facts.looks
    return {
        "classes": facts.classes,
        "part": facts.main.name,
        "images": facts.main.images,
        "counts": [[row.images, row.predicted, row.right, row.recall, row.precision, row.f1] for row in facts.counts],
        "confusion": facts.confusion,
        "matrix": facts.matrix,
        "pairs": facts.pairs[:12],
        "bins": [
            [row.low, row.high, row.images, row.probability, row.accuracy, row.interval.low, row.interval.high]
            for row in facts.calibration.bins
        ],
        "pictures": [
            [row.part, row.name, row.label, _short(row.own), [[number, _short(share)] for number, share in row.answers]]
            for row in facts.pictures
        ],
        "thumbnails": sheets(facts.thumbnails.numpy(), quality),
        "worst": facts.worst,
        "doubts": facts.doubts.pictures,
        "history": [asdict(row) for row in facts.history],
        "seen": None if facts.seen is None else _seen(facts, quality),
        "looks": None
        if not looks
        else {
            "pictures": [look.picture for look in looks],
            "sheet": sheets(np.stack([_grey(look.pixels.numpy()) for look in looks]), quality),
            "maps": [
                {
                    "picture": number,
                    "target": row.target,
                    "heat": page.data_uri(page.png(heat(look, row.values.numpy()))),
                }
                for number, look in enumerate(looks)
                for row in look.maps
            ],
        },
        "filters": None if facts.filters is None else _filters(facts.filters),
    }


def _short(share: float) -> float:
    return float(f"{share:.4f}")


def _interval(part: Part) -> str:
    low, high = percent(part.interval.low), percent(part.interval.high)
    return f"{low.removesuffix(' %')} to {high}"


def _uneven(facts: Report) -> bool:
    """Whether some class has more than three times the images of another."""
    sizes = [row.images for row in facts.counts if row.images]
    return max(sizes) > 3 * min(sizes)


def _finding(row: Mapping[str, object]) -> dict[str, Any]:
    """A finding of the data's check as the page lists it: its text, and the files that it names."""
    files = row.get("files") or ()
    named = (
        [str(name) for name in files] if isinstance(files, Sequence) and not isinstance(files, str) else [str(files)]
    )
    text = row.get("text") or ", ".join(f"{key}: {value}" for key, value in row.items() if key != "files")
    return {"text": str(text), "files": named}


# --- pictures -----------------------------------------------------------------------------------------------------------
def sheets(pixels: np.ndarray, quality: int) -> dict[str, Any]:
    """Pictures uint8 [n, c, h, w] on as many sheets as they need: {sheets, n, h, w, cell: [h, w], across, down}."""
    n, c, h, w = pixels.shape
    exact = c == 1 and max(h, w) <= EXACT_SIDE
    tall, wide = (h, w) if exact else (-(-h // BLOCK) * BLOCK, -(-w // BLOCK) * BLOCK)
    across = max(1, min(ACROSS, SHEET_SIDE // wide, n or 1))
    down = max(1, SHEET_SIDE // tall)
    made = []
    for start in range(0, n, across * down):
        part = pixels[start : start + across * down]
        rows = -(-len(part) // across)
        sheet = np.zeros((rows * across, tall, wide, c), np.uint8)
        sheet[: len(part)] = np.pad(part, ((0, 0), (0, 0), (0, tall - h), (0, wide - w)), "edge").transpose(0, 2, 3, 1)
        whole = (
            sheet.reshape(rows, across, tall, wide, c).transpose(0, 2, 1, 3, 4).reshape(rows * tall, across * wide, c)
        )
        made.append(_encoded(whole[:, :, 0] if c == 1 else np.ascontiguousarray(whole), exact, quality))
    return {"sheets": made, "n": n, "h": h, "w": w, "cell": [tall, wide], "across": across, "down": down}


def _encoded(sheet: np.ndarray, exact: bool, quality: int) -> str:
    from PIL import Image

    out = io.BytesIO()
    picture = Image.fromarray(sheet)
    if exact:
        picture.save(out, format="PNG")
        return page.data_uri(out.getvalue())
    picture.save(out, format="JPEG", quality=quality)
    return page.data_uri(out.getvalue(), "image/jpeg")


def _seen(facts: Report, quality: int) -> dict[str, Any]:
    assert facts.seen is not None
    seen = facts.seen
    images, versions, c, h, w = seen.pixels.shape
    return {
        "sheet": sheets(seen.pixels.numpy().reshape(images * versions, c, h, w), quality),
        "names": seen.names,
        "labels": seen.labels,
        "versions": seen.versions,
    }


def _grey(pixels: np.ndarray) -> np.ndarray:
    """[c, h, w] as [1, h, w], for heat to lie on."""
    if len(pixels) == 1:
        return pixels
    return np.tensordot((0.299, 0.587, 0.114), pixels, 1).round().astype(np.uint8)[None]


def heat(look: Look, values: np.ndarray) -> np.ndarray:
    """An attribution as RGBA uint8 [h, w, 4] of the look's size: blue for the class, orange against it, clear where nothing speaks."""
    from PIL import Image

    _, h, w = look.pixels.shape
    smooth = np.asarray(Image.fromarray(values.astype(np.float32)).resize((w, h), Image.Resampling.BILINEAR))
    share = smooth / (np.abs(smooth).max() or 1.0)
    colours = np.where(share[..., None] >= 0, np.array(ABOVE), np.array(BELOW))
    alpha = 210 * np.sqrt(np.abs(share))
    return np.concatenate((colours, alpha[..., None]), 2).astype(np.uint8)


def _filters(row: Filters) -> dict[str, Any]:
    """The filters' tiles, RGBA one pixel per weight: three kernels as one colour picture, others blue above zero, orange below."""
    weight = row.weight.numpy()
    count, kernels, r, s = weight.shape
    limit = float(np.abs(weight).max()) or 1.0
    if kernels == 3:
        colours = (weight / limit + 1) * 127.5
        tiles = np.concatenate((colours, np.full((count, 1, r, s), 255.0)), 1).transpose(0, 2, 3, 1)
    else:
        share = weight.reshape(-1, r, s) / limit
        ends = np.where(share[..., None] >= 0, np.array((0, 114, 178)), np.array((213, 94, 0)))
        tiles = np.concatenate((ends, 255 * np.abs(share)[..., None]), 3)
    column = tiles.round().astype(np.uint8).reshape(-1, s, 4)
    return {
        "layer": row.layer,
        "picture": page.data_uri(page.png(column)),
        "tiles": len(tiles),
        "h": r,
        "w": s,
        "shown": [count, kernels],
        "total": row.total,
        "colour": kernels == 3,
        "limit": limit,
    }
