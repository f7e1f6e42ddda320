"""One line that says how training images are changed: "flip, crop 4, noise 0.05", one change after the other.

CHANGES are the rows: a word, the field of Movement that it sets, what it does, its number where none is written, and the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from convolve.errors import UnknownNameError, UsageError
from convolve.training.augment import Movement


@dataclass(frozen=True)
class Change:
    """A row: what may be written, and what it means. `usual` None: the number must be written."""

    word: str
    field: str
    what: str
    unit: str
    usual: float | None
    largest: float


CHANGES = (
    Change("flip", "flip", "mirrored left to right, with this probability", "probability", 0.5, 1.0),
    Change("crop", "crop", "cut out again after widening by so many pixels", "pixels", None, 10_000),
    Change("shift", "shift", "moved by up to this part of the side", "part of the side", None, 1.0),
    Change("rotate", "turn", "turned by up to so many degrees", "degrees", None, 180.0),
    Change("scale", "scale", "made smaller or larger by up to this part", "part", None, 0.9),
    Change("noise", "noise", "normal noise of this deviation, black to white being 1", "deviation", None, 1.0),
    Change("colour", "colour", "brightness, contrast and saturation changed by up to this part", "part", None, 1.0),
    Change("pca", "pca", "AlexNet's colour: so many deviations along the pixels' components", "deviations", 0.1, 2.0),
)
SPELLINGS = {"color": "colour", "turn": "rotate"}
BY_WORD = {change.word: change for change in CHANGES}


def parse(text: str) -> Movement:
    """The Movement that one line describes; UsageError names the part that is wrong.

    >>> parse("flip, crop 4")
    Movement(shift=0.0, scale=0.0, turn=0.0, flip=0.5, crop=4, noise=0.0, colour=0.0, pca=0.0, mean=(), std=(), axes=())
    """
    values: dict[str, float | int] = {}
    for part in text.split(","):
        words = part.split()
        if not words:
            raise UsageError("changes of the images are separated by single commas", f"got {text!r}", usage())
        word = SPELLINGS.get(words[0].lower(), words[0].lower())
        if word not in BY_WORD:
            raise UnknownNameError.of("change of the images", words[0], BY_WORD)
        change = BY_WORD[word]
        if change.field in values:
            raise UsageError("each change of the images is written once", f"got {word} twice", "leave one out")
        values[change.field] = _number(change, words[1:], part.strip())
    return Movement(**values)  # type: ignore[arg-type]


def describe(movement: Movement) -> str:
    """The line that `parse` reads, in the table's order; "none" where nothing changes.

    >>> describe(parse("noise 0.05, flip")), describe(Movement())
    ('flip, noise 0.05', 'none')
    """
    parts = []
    for change in CHANGES:
        value = getattr(movement, change.field)
        if value:
            parts.append(change.word if value == change.usual else f"{change.word} {value:g}")
    return ", ".join(parts) or "none"


def fitting(movement: Movement, channels: int, size: tuple[int, int]) -> Movement:
    """`movement`, where it can be done to pictures of so many channels and this size (h, w); else UsageError."""
    if movement.pca and channels != 3:
        raise UsageError(
            "pca moves colours: it needs RGB pictures", f"got {channels} channel", "leave it out: colour 0.2"
        )
    if movement.crop >= min(size):
        received = f"got crop {movement.crop} for pictures of {size[0]}x{size[1]}"
        raise UsageError("crop must be smaller than the pictures", received, f"use {max(1, min(size) // 8)}")
    return movement


def usage() -> str:
    """What may be written, in one line.

    >>> usage()
    'write for example: flip, crop 4, shift 0.1, rotate 10, scale 0.1, noise 0.05, colour 0.2, pca'
    """
    return "write for example: flip, crop 4, shift 0.1, rotate 10, scale 0.1, noise 0.05, colour 0.2, pca"


def with_pixels(
    movement: Movement, mean: tuple[float, ...], std: tuple[float, ...], axes: tuple[tuple[float, ...], ...]
) -> Movement:
    """`movement` with what it must know of the training pixels; unchanged where it only moves them about."""
    if not (movement.noise or movement.colour or movement.pca):
        return movement
    return replace(movement, mean=mean, std=std, axes=axes if movement.pca else ())


def _number(change: Change, words: list[str], part: str) -> float | int:
    rule = f"{change.word} takes one number, 0 to {change.largest:g} ({change.unit})"
    if not words and change.usual is not None:
        return change.usual
    try:
        (word,) = words
        value = float(word)
    except ValueError:
        raise UsageError(rule, f"got {part!r}", usage()) from None
    if not math.isfinite(value) or not 0 <= value <= change.largest:
        raise UsageError(rule, f"got {part!r}", f"it is {change.what}")
    if change.field != "crop":
        return value
    if value != int(value):
        raise UsageError("crop is in whole pixels", f"got {part!r}", "write for example: crop 4")
    return int(value)
