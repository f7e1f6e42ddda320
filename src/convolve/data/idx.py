"""IDX files, the format of MNIST: two zero bytes, a type code, the number of dimensions, their sizes as big-endian
32-bit integers, then the values (Y. LeCun, C. Cortes, C. Burges, "The MNIST database"). Plain or gzipped.

Everything that the header claims is checked before memory is taken for it: nothing is read past the declared length,
and a length that the compressed bytes cannot honestly hold is refused.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from convolve.errors import InputError

UBYTE = 0x08
TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
LARGEST = 4 * 2**30  # bytes of values
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 200  # MNIST's own ratio is 5

_NAME = re.compile(r"(train|t10k|test|val|valid|validation)-(images|labels)[-.]idx[13]-ubyte(\.gz)?", re.IGNORECASE)
_PART = {"train": "train", "t10k": "test", "test": "test"}


@dataclass(frozen=True)
class IdxPair:
    """The two files of one part."""

    images: Path
    labels: Path


def find(folder: Path) -> dict[str, IdxPair]:
    """The parts "train", "validation", "test" whose IDX files lie in `folder`; empty when it holds no IDX file at all.

    Raises InputError when a part has images without labels or labels without images, or when there is no training part.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match:
            pair = found.setdefault(_PART.get(match[1].lower(), "validation"), {})
            pair.setdefault(match[2].lower(), path)  # the plain file sorts before its .gz twin
    for part, both in found.items():
        for kind, other in (("images", "labels"), ("labels", "images")):
            if kind not in both:
                received = f"{both[other].name} has no {part} {kind} beside it in {folder}"
                raise InputError(f"IDX {other} need their {kind}", received, f"add the {kind} file")
    if found and "train" not in found:
        raise InputError(
            "an IDX folder needs training files",
            f"{folder} has only {', '.join(found)}",
            "add train-images and -labels",
        )
    order = [part for part in ("train", "validation", "test") if part in found]
    return {part: IdxPair(found[part]["images"], found[part]["labels"]) for part in order}


def read_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """The sizes that the header of an IDX file declares, checked, without reading the values."""
    with _opened(path) as file:
        return _header(path, file, dimensions)


def read(path: Path, dimensions: int) -> np.ndarray:
    """All values of an IDX file of bytes, as uint8 of the declared sizes. Raises InputError naming the file and the fault."""
    with _opened(path) as file:
        sizes = _header(path, file, dimensions)
        expected = math.prod(sizes)
        content = bytearray(file.read(expected + 1))
        if len(content) < expected:
            received = f"{path} declares {_by(sizes)} = {expected:,} bytes of values and has {len(content):,}"
            raise InputError(
                "an IDX file must be as long as its header says", received, "it is truncated: get it again"
            )
        if len(content) > expected:
            received = f"{path} goes on after its {_by(sizes)} = {expected:,} bytes of values"
            raise InputError("an IDX file must be as long as its header says", received, "get it again")
    return np.frombuffer(content, np.uint8).reshape(sizes)


def read_pair(pair: IdxPair) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, h, w] and labels uint8 [n]."""
    check_pair(pair)
    return read(pair.images, 3), read(pair.labels, 1)


def check_pair(pair: IdxPair) -> tuple[int, int, int]:
    """The (n, h, w) that the two headers agree on."""
    n, h, w = read_shape(pair.images, 3)
    (labels,) = read_shape(pair.labels, 1)
    if n != labels:
        received = f"{n:,} images in {pair.images} but {labels:,} labels in {pair.labels}"
        raise InputError("every image needs one label", received, "use two files that belong together")
    if n == 0 or h == 0 or w == 0:
        raise InputError("an IDX file needs images", f"{pair.images} declares {_by((n, h, w))}", "get it again")
    return n, h, w


def _header(path: Path, file: IO[bytes], dimensions: int) -> tuple[int, ...]:
    start = file.read(4)
    if len(start) < 4:
        raise InputError("an IDX file starts with a magic number", f"{path} has {len(start)} bytes", "get it again")
    zero, code, ndim = struct.unpack(">HBB", start)
    magic = f"{path} starts with 0x{start.hex()}"
    if zero or code not in TYPES:
        remedy = f"images start with 0x00000803 and labels with 0x00000801; is {path.name} really an IDX file?"
        raise InputError("an IDX file starts with a magic number", magic, remedy)
    if code != UBYTE:
        raise InputError("IDX values must be bytes (uint8)", f"{magic}: {TYPES[code]}", "convert it to uint8")
    if ndim != dimensions:
        what = "labels have one dimension" if dimensions == 1 else "images have three: count, height, width"
        swapped = " (images and labels swapped?)" if ndim in (1, 3) else ""
        raise InputError(f"IDX {what}", f"{magic}: {ndim} dimensions{swapped}", "name the right file")
    raw = file.read(4 * ndim)
    if len(raw) < 4 * ndim:
        received = f"{path} ends inside its header"
        raise InputError("an IDX header holds the size of every dimension", received, "get it again")
    sizes = struct.unpack(f">{ndim}I", raw)
    expected, stored = math.prod(sizes), path.stat().st_size
    if expected > LARGEST:
        received = f"{path} declares {_by(sizes)} = {expected:,} bytes"
        raise InputError(f"an IDX file may hold up to {LARGEST:,} bytes", received, "use an image folder instead")
    if _gzipped(path) and expected > max(BOMB_BYTES, BOMB_RATIO * stored):
        received = f"{path} has {stored:,} bytes and declares {expected:,}"
        raise InputError("a decompression bomb is refused", received, "unzip it yourself if you trust it")
    return sizes


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The unzipped bytes of a file, with the errors of reading it turned into ours."""
    try:
        if _gzipped(path):
            with gzip.open(path, "rb") as file:
                yield cast(IO[bytes], file)
        else:
            with path.open("rb") as file:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError("a .gz file must be whole", f"{path}: {error}", "it is damaged: get it again") from error
    except OSError as error:
        raise InputError("cannot read a data file", f"{path}: {error.strerror or error}", "check the file") from error


def _gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
