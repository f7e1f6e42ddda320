"""The records that `load` returns: a Dataset of Splits; a Split is images, labels and one stable name per image."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

IMBALANCED = 1.5  # from here on: so many times the training images of the smallest class has the largest one


class Images(Protocol):
    """Pictures of one size as uint8, in memory or decoded when a batch asks for them."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of every picture."""

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        """The pictures of int64 `indices` [b], as uint8 [b, c, h, w]."""

    def content(self) -> str:
        """A short text that another picture, or another order, changes."""


@dataclass(frozen=True, eq=False)
class ResidentImages:
    """All pictures as one uint8 tensor [n, c, h, w]: a batch is an indexing."""

    pixels: torch.Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        _, c, h, w = self.pixels.shape
        return c, h, w

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        return self.pixels.index_select(0, indices)  # copies whole pictures, which indexing does not

    def content(self) -> str:
        # A checksum and not a digest: against accidents, at the speed of memory.
        return f"{zlib.crc32(self.pixels.reshape(-1).numpy().data):08x} of {list(self.pixels.shape)}"


def sample(n: int, most: int) -> torch.Tensor:
    """Up to `most` of the indices 0..n-1, in order, always the same ones.

    They are drawn, not taken at even steps: data sets have rhythms (MNIST alternates between its two sources, and every
    sixth picture of it is 6 % darker than the mean of all).
    """
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return drawn[:most].sort().values


@dataclass(frozen=True)
class Quarantined:
    """A file that could not be used, and why. It is named and left out; it is never replaced by another."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Split:
    """One part of the data.

    `labels` is int64 [n], an index into the dataset's classes. `ids` names every image for good: its path relative to the
    data's root, or "train/00017". `sizes` is int32 [n, 2], the height and width of each picture before it was fitted.
    """

    name: str
    images: Images
    labels: torch.Tensor
    ids: Sequence[str]
    sizes: torch.Tensor
    quarantined: tuple[Quarantined, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What `load` found: classes, the size that the pictures are given (and the one they were found in), and up to three splits.

    The test split is not read until `read_test()` is called (None when there is no test split), so that a run which
    reads it once, after training, is provably honest. `said` holds, in plain words, every choice that was made from the
    data; `origin` is where the data came from.
    """

    name: str
    origin: str
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    found: tuple[int, int]
    train: Split
    validation: Split
    read_test: Callable[[], Split] | None
    test_count: int
    said: tuple[str, ...]
    resample: str = "bilinear"
    fit: str = "stretch"

    @property
    def quarantined(self) -> tuple[Quarantined, ...]:
        """The files left out of training and validation; those of the test split are in what `read_test()` returns."""
        return self.train.quarantined + self.validation.quarantined
