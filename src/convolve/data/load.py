"""`load`: from what a person names (nothing, "digits", a folder, a .zip) to a Dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convolve.data import digits, idx
from convolve.data.picture import fit, to_pixels
from convolve.data.records import Dataset, ResidentImages, Split
from convolve.data.split import choose_validation, content_digest
from convolve.errors import InputError, UsageError

Progress = Callable[[str, int, int], None]  # (what, done, of how many)
VALIDATION = 0.2  # of the training images, where nothing else says
IDX_TAIL, IDX_TAIL_FROM = (
    5_000,
    30_000,
)  # MNIST's habit: the last 5,000 training images, where there are at least 30,000


def load(
    source: str | Path | None = None,
    *,
    img_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    val_split: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Read a data set: nothing or "digits", or a folder of IDX files.

    `img_size` is a side or (h, w) and `channels` 1 or 3, both chosen from the data when absent. `val_split` is the part
    of the training images that is held out, decided by (seed, content), where the data brings no validation of its own.
    Raises InputError when the data cannot be used, UsageError when an argument is wrong.

    >>> data = load("digits")
    >>> len(data.train), len(data.validation), data.test_count, data.size, data.train.images.batch(torch.arange(2)).shape
    (1258, 180, 359, (8, 8), torch.Size([2, 1, 8, 8]))
    """
    del workers, progress  # of image folders, which come next
    size = _size(img_size)
    if channels not in (None, 1, 3):
        raise UsageError("pictures have 1 channel (grey) or 3 (RGB)", f"got channels={channels}", "use 1 or 3")
    if val_split is not None and not 0 < val_split < 1:
        raise UsageError("val_split is a part between 0 and 1", f"got {val_split}", "use 0.2 for a fifth")
    if source is None or str(source) == "digits":
        return _digits(size, channels)
    path = Path(source)
    if not path.exists():
        raise InputError("the data must exist", f"there is no {source}", "name a folder, or `digits`")
    parts = idx.find(path)
    if parts:
        return _idx(path, parts, size, channels, val_split, seed)
    raise InputError("a folder must hold IDX files", f"{path} holds none", "name another folder")


def _digits(size: tuple[int, int] | None, channels: int | None) -> Dataset:
    pixels, labels, parts = digits.read()

    def split(name: str) -> Split:
        chosen = parts[name]
        sizes = torch.full((len(chosen), 2), 8, dtype=torch.int32)
        ids = [f"digits/{i:05d}" for i in chosen.tolist()]
        return Split(name, _fitted(pixels[chosen], size, channels), labels[chosen], ids, sizes)

    train, validation, tested = split("train"), split("validation"), len(parts["test"])
    said = ["scikit-learn's digits: 1,797 grey images of 8x8, 10 classes", *_said_fit((8, 8), size, 1, channels)]
    said.append(f"split {len(train):,} train / {len(validation):,} validation / {tested:,} test (fixed)")
    return Dataset(
        name="digits",
        origin="scikit-learn's load_digits",
        classes=digits.CLASSES,
        channels=channels or 1,
        size=size or (8, 8),
        train=train,
        validation=validation,
        read_test=lambda: split("test"),
        test_count=tested,
        said=tuple(said),
    )


def _idx(
    folder: Path,
    parts: dict[str, idx.IdxPair],
    size: tuple[int, int] | None,
    channels: int | None,
    val_split: float | None,
    seed: int,
) -> Dataset:
    n, h, w = idx.check_pair(parts["train"])
    tested = 0
    if "test" in parts:
        tested, *test_size = idx.check_pair(parts["test"])
        if (h, w) != tuple(test_size):
            received = f"training {h}x{w}, test {test_size[0]}x{test_size[1]} in {folder}"
            raise InputError("all images of an IDX folder have one size", received, "use files that belong together")
    pixels, raw = idx.read_pair(parts["train"])
    values = np.unique(raw)
    if len(values) < 2:
        raise InputError(
            "training needs at least two classes", f"every label in {parts['train'].labels} is {values[0]}"
        )
    classes = tuple(str(value) for value in values)
    labels = np.searchsorted(values, raw)

    def split(name: str, part: str, chosen: torch.Tensor, images: np.ndarray, of: np.ndarray) -> Split:
        index = chosen.numpy()
        sizes = torch.tensor([h, w], dtype=torch.int32).expand(len(index), 2)
        ids = [f"{part}/{i:05d}" for i in index.tolist()]
        stored = torch.from_numpy(images[index])[:, None]
        return Split(name, _fitted(stored, size, channels), torch.from_numpy(of[index].astype(np.int64)), ids, sizes)

    def other(name: str) -> Split:
        images, found = idx.read_pair(parts[name])
        strange = np.flatnonzero(~np.isin(found, values))
        if len(strange):
            received = f"{parts[name].labels} has label {found[strange[0]]} at {strange[0]}, unknown to training"
            raise InputError("a label must be one of the training labels", received, "use files that belong together")
        return split(name, name, torch.arange(len(found)), images, np.searchsorted(values, found))

    if "validation" in parts:
        train, validation = split("train", "train", torch.arange(n), pixels, labels), other("validation")
        how = "its own files"
    else:
        held, how = _hold_out(pixels, labels, val_split, seed)
        train = split("train", "train", (~held).nonzero()[:, 0], pixels, labels)
        validation = split("validation", "train", held.nonzero()[:, 0], pixels, labels)

    said = [f"IDX files in {folder}: {n:,} training images of {h}x{w}, grey, {len(classes)} classes"]
    said += _said_fit((h, w), size, 1, channels)
    said.append(f"split {len(train):,} train / {len(validation):,} validation ({how}) / {tested or 'no'} test")
    return Dataset(
        name=folder.resolve().name,
        origin=str(folder),
        classes=classes,
        channels=channels or 1,
        size=size or (h, w),
        train=train,
        validation=validation,
        read_test=(lambda: other("test")) if "test" in parts else None,
        test_count=tested,
        said=tuple(said),
    )


def _hold_out(pixels: np.ndarray, labels: np.ndarray, val_split: float | None, seed: int) -> tuple[torch.Tensor, str]:
    """Which training images become validation: MNIST's last 5,000, or a part by content."""
    n = len(labels)
    if val_split is None and n >= IDX_TAIL_FROM:
        held = np.arange(n) >= n - IDX_TAIL
        if set(labels[held]) == set(labels[~held]):
            return torch.from_numpy(held), f"the last {IDX_TAIL:,} training images"
    fraction = VALIDATION if val_split is None else val_split
    chosen = choose_validation(labels.tolist(), [content_digest(image.data) for image in pixels], fraction, seed)
    return torch.tensor(chosen), f"{fraction:.0%} of the training images by content, seed {seed}"


def _fitted(pixels: torch.Tensor, size: tuple[int, int] | None, channels: int | None) -> ResidentImages:
    """Grey pictures [n, 1, h, w] in the size and channels asked for."""
    n, _, h, w = pixels.shape
    if size is not None and size != (h, w):
        resized = torch.empty(n, 1, *size, dtype=torch.uint8)
        for i, image in enumerate(pixels[:, 0].numpy()):
            resized[i] = torch.from_numpy(to_pixels(fit(Image.fromarray(image), 1, size)))
        pixels = resized
    return ResidentImages(pixels.expand(-1, 3, -1, -1) if channels == 3 else pixels.contiguous())


def _said_fit(found: tuple[int, int], size: tuple[int, int] | None, has: int, channels: int | None) -> list[str]:
    said = []
    if size is not None and size != found:
        said.append(f"resized from {found[0]}x{found[1]} to {size[0]}x{size[1]}")
    if channels is not None and channels != has:
        said.append("grey made RGB" if channels == 3 else "RGB made grey")
    return said


def _size(img_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if img_size is None:
        return None
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if len(size) != 2 or min(size) < 1:
        raise UsageError("img_size is a side or (height, width) in pixels", f"got {img_size}", "use 28 or (28, 28)")
    return size
