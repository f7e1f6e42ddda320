"""A folder of IDX files as a Source. The training files are read when it is surveyed; the test files only when asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from convolve.data import idx
from convolve.data.records import Split
from convolve.data.source import Progress, Survey, Want, fitted, hold_out_arrays, relabel, same_sizes
from convolve.errors import InputError

TAIL, TAIL_FROM = 5_000, 30_000  # MNIST's habit: the last 5,000 training images, where there are at least 30,000


class IdxFolder:
    """`names` gives the classes their names, label by label; without it a class is called by its number."""

    def __init__(self, folder: Path, parts: dict[str, idx.IdxPair], names: tuple[str, ...] | None = None) -> None:
        self.name, self.origin = folder.resolve().name, str(folder)
        self._parts = parts
        self._shapes = {part: idx.check_pair(pair) for part, pair in parts.items()}
        self.counts = {part: shape[0] for part, shape in self._shapes.items()}
        sizes = {shape[1:] for shape in self._shapes.values()}
        if len(sizes) > 1:
            received = ", ".join(f"{part} {h}x{w}" for part, (_, h, w) in self._shapes.items())
            raise InputError("all parts of an IDX folder have one size", received, "use files that belong together")
        self._names = names or tuple(map(str, range(256)))
        self._first = "train" if "train" in parts else next(iter(parts))
        self._cache: tuple[str, np.ndarray, np.ndarray] | None = None
        labels = idx.read(parts[self._first].labels, 1)
        if labels.max() >= len(self._names):
            received = f"{parts[self._first].labels} has {labels.max()}"
            raise InputError(f"a label must be below {len(self._names)}", received, "use files that belong together")
        self.classes = tuple(self._names[value] for value in np.unique(labels))

    def names(self, part: str) -> list[str]:
        return [f"{part}/{i:05d}" for i in range(self.counts[part])]

    def survey(self, workers: int | None, progress: Progress | None) -> Survey:  # noqa: ARG002
        n, h, w = self._shapes[self._first]
        said = f"IDX files in {self.origin}: {n:,} {self._first} pictures of {h}x{w}, grey, {len(self.classes)} classes"
        return Survey((h, w), 1, (said,))

    def hold_out(self, val_split: float | None, seed: int) -> tuple[torch.Tensor, str]:
        pixels, labels = self._values("train")
        if val_split is None and len(labels) >= TAIL_FROM:
            held = np.arange(len(labels)) >= len(labels) - TAIL
            if set(labels[held]) == set(labels[~held]):
                return torch.from_numpy(held), f"the last {TAIL:,} training images"
        return hold_out_arrays(pixels, labels, val_split, seed)

    def read(self, part: str, want: Want, classes: tuple[str, ...], chosen: torch.Tensor | None = None) -> Split:
        pixels, labels = self._values(part)
        index = np.arange(len(labels)) if chosen is None else np.flatnonzero(chosen.numpy())
        one_stretch = len(index) > 0 and index[-1] - index[0] == len(index) - 1  # then a view will do
        pixels = pixels[index[0] : index[-1] + 1] if one_stretch else pixels[index]
        ids = [f"{part}/{i:05d}" for i in index.tolist()]
        used = labels[index]
        names = self._names + tuple(map(str, range(len(self._names), 256)))
        found = relabel(used, names, classes, str(self._parts[part].labels))
        images = fitted(torch.from_numpy(pixels)[:, None], want)
        return Split(part, images, found, ids, same_sizes(len(ids), *self._shapes[part][1:]))

    def _values(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """The arrays of a part; the last one asked for is kept, so that a hold-out reads the training files once."""
        if self._cache is None or self._cache[0] != part:
            self._cache = (part, *idx.read_pair(self._parts[part]))
        return self._cache[1:]
