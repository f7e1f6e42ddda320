"""A split that is given: a CSV file with the columns `image` and `part` (train, validation or test), as every run writes one.

It divides the images of the training part. Every one of them must be in it, so that nothing is decided silently; rows of
images that are gone, and of those that a run left out, are passed over.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from convolve.data.layout import PARTS
from convolve.errors import InputError
from convolve.files import atomic_write

LEFT_OUT = "left out"
LOOKS = "write `image,part` with a row such as cat/1.jpg,train for each image; a run's split.csv is one"


def read_split(path: Path) -> dict[str, str]:
    """The part of every image by its name. Raises InputError saying which line is wrong."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not {"image", "part"} <= set(rows.fieldnames or ()):
                received = f"{path} has {', '.join(rows.fieldnames or ()) or 'nothing'}"
                raise InputError("a split file has the columns image and part", received, LOOKS)
            found: dict[str, str] = {}
            for row in rows:
                name, word = row["image"], row["part"] or ""
                part = "train" if word.startswith(LEFT_OUT) else PARTS.get(word.lower())
                if part is None:
                    received = f"{path}, line {rows.line_num}: {word!r}"
                    raise InputError("a part is train, validation or test", received, LOOKS)
                if found.setdefault(name, part) != part:
                    received = f"{path}, line {rows.line_num}: {name} is {found[name]} and {part}"
                    raise InputError("an image has one part", received, "remove one of the rows")
            return found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("cannot read a split file", f"{path}: {error}", LOOKS) from error


def masks(names: Sequence[str], parts: Mapping[str, str], path: str) -> dict[str, torch.Tensor]:
    """Of each part, a bool per training image. Raises InputError for images that the file does not name, or without a part."""
    missing = [name for name in names if name not in parts]
    if missing:
        received = f"{path} does not name {len(missing):,} of {len(names):,}: {', '.join(missing[:3])}"
        raise InputError("a split file names every training image", received, "add them, or leave --split out")
    found = {
        part: torch.tensor([parts[name] == part for name in names], dtype=torch.bool)
        for part in ("train", "validation", "test")
    }
    for part in ("train", "validation"):
        if not found[part].any():
            received = f"{path} has no {part} image that is there"
            raise InputError("training and validation need an image each", received, "give some images that part")
    return found


def write_split(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write (image, class, part) rows."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image", "class", "part"))
        writer.writerows(rows)
