"""Examine a data set before training: `convolve.data_check(data)` and `convolve data check DATA` are this function."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from pathlib import Path

from convolve.data.check import Check, kept_together, look, summed
from convolve.data.findings import likenesses
from convolve.data.look import Facts
from convolve.data.split_file import write_split
from convolve.draw.data_check import Thumbnails, page_of
from convolve.draw.page import write
from convolve.errors import InputError
from convolve.training.records import Observer, Silent

THUMBNAIL = 96  # pixels of the longer side
THUMBNAIL_BYTES = 1_000_000  # of a page, before they are written as text


def data_check(
    data: str | os.PathLike[str] | None = None,
    *,
    html: str | os.PathLike[str] | None = None,
    split: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    observer: Observer | None = None,
) -> Check:
    """Count and examine `data` (whatever `convolve.train` takes, and image folders that it would refuse).

    The Check that returns lists what was found, the worst first, each with what to do. `html` is a page to write, with
    thumbnails of what was found; `split` a file to write, which `convolve.train(data, split=...)` takes: a split into training
    and validation that keeps near duplicates on one side. Nothing else is written, and the data is only read.
    Raises InputError when there is nothing to examine.

    >>> import convolve
    >>> found = convolve.data_check("digits")
    >>> found.images, len(found.classes), [finding.kind for finding in found.worse]
    (1797, 10, [])
    """
    started = time.perf_counter()
    facts = look(None if data is None else str(data), workers=workers, progress=(observer or Silent()).reading)
    alike = likenesses(facts)
    found = summed(facts, alike, started)
    if split is not None:
        write_split(Path(split), kept_together(facts, alike))
    if html is not None:
        write(page_of(found, _thumbnails(facts, found)), html)
    return found


def _thumbnails(facts: Facts, found: Check) -> Thumbnails:
    """JPEG bytes of the pictures that findings name, some of every finding, as many as a page can hold."""
    waiting = [[name for group in finding.groups for name in group] for finding in found.findings]
    uses = Counter(name for names in waiting for name in names)  # a page holds a picture once for every finding
    taken: Thumbnails = {}
    used, turn = 0, 0
    known = {picture.name for picture in facts.seen}
    while used < THUMBNAIL_BYTES and any(turn < len(names) for names in waiting):
        for names in waiting:
            if turn < len(names) and names[turn] in known and names[turn] not in taken and used < THUMBNAIL_BYTES:
                content = _thumbnail(facts, names[turn])
                if content:
                    taken[names[turn]] = content
                    used += uses[names[turn]] * len(content)
        turn += 1
    return taken


def _thumbnail(facts: Facts, name: str) -> bytes:
    from convolve.data.picture import to_colours

    try:
        picture = to_colours(facts.picture(name), 3)
    except InputError:  # it was there when it was looked at
        return b""
    scale = min(1.0, THUMBNAIL / max(picture.size))
    h, w = (max(1, round(side * scale)) for side in (picture.height, picture.width))
    out = io.BytesIO()
    picture.resize((w, h), reducing_gap=2.0).save(out, "JPEG", quality=80)
    return out.getvalue()
