"""Which changes of the training images a run makes: as its user wrote them, or as the data suggest.

Words may stand in the line: "gentle, noise 0.05". "auto" is for grey pictures gentle below FEW_IMAGES and none above; for RGB pictures
a mirror and a crop by an eighth of the side. Nothing is mirrored whose meaning a mirror changes: grey pictures (digits, letters),
classes called by single characters, or by left and right.
"""

from __future__ import annotations

import re

from convolve.data.records import Dataset
from convolve.errors import UnknownNameError
from convolve.training.augment import Movement
from convolve.training.augment_spec import BY_WORD, fitting, parse

FEW_IMAGES = 20_000  # below, grey images are moved a little in every epoch, against overfitting
WORDS = {"gentle": "shift 0.08, rotate 10, scale 0.12", "none": ""}
AUTO = "auto"


def movement_of(text: str, data: Dataset) -> tuple[Movement, str]:
    """The changes that `text` asks for, and in a few words why where they were chosen. Raises UsageError."""
    if text.strip().lower() != AUTO:
        return fitting(read(text), data.channels, data.size), ""
    if data.channels == 1:
        few = len(data.train) < FEW_IMAGES
        return read("gentle" if few else "none"), "few grey images" if few else ""
    crop = f"crop {max(1, min(data.size) // 8)}" if min(data.size) > 1 else "none"
    keeps = _sides_matter(data.classes)
    return read(crop if keeps else f"flip, {crop}"), f"no mirror images: {keeps}" if keeps else "colour pictures"


def read(text: str) -> Movement:
    """The Movement of a line in which the words of WORDS may stand. Raises UsageError.

    >>> read("none"), read("gentle, crop 2").crop
    (Movement(shift=0.0, scale=0.0, turn=0.0, flip=0.0, crop=0, noise=0.0, colour=0.0, pca=0.0, mean=(), std=(), axes=()), 2)
    """
    parts = [WORDS.get(part.strip().lower(), part) for part in text.split(",")]
    line = ", ".join(part for part in parts if part) if any(part.strip() for part in parts) else ""
    if not line and text.strip().lower() in WORDS:
        return Movement()
    try:
        return parse(line)
    except UnknownNameError:
        alone = text.strip()
        if alone.isalpha():  # one word that is none of ours: name those that stand alone as well
            raise UnknownNameError.of("augmentation", alone, [AUTO, *WORDS, *BY_WORD]) from None
        raise


def _sides_matter(classes: tuple[str, ...]) -> str:
    """Why a mirror image would not be of the same class, as far as the classes' names tell; "" where they do not."""
    if all(len(name) == 1 for name in classes):
        return "the classes are called by single characters"
    named = [name for name in classes if re.search(r"(?<![a-z])(left|right)(?![a-z])", name.lower())]
    return f"a class is called {named[0]!r}" if named else ""
