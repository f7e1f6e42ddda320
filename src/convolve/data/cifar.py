"""CIFAR-10's binary version as a Source: records of one label byte and 3,072 bytes of red, green and blue 32x32 planes
(A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009). No pickle is involved; only the six known
members of the archive are read, and nothing is extracted."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch

from convolve.data.records import Split
from convolve.data.source import Progress, Survey, Want, fitted, hold_out_arrays, relabel, same_sizes
from convolve.errors import InputError

ARCHIVE = "cifar-10-binary.tar.gz"
PER_FILE = 10_000
RECORD = 1 + 3 * 32 * 32
FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}


class Cifar10:
    """`path` is the .tar.gz or the folder of the .bin files."""

    name = "cifar10"

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        self.origin, self._path, self._per_file = str(path), path, PER_FILE
        self.classes = classes
        self.counts = {part: PER_FILE * len(files) for part, files in FILES.items()}
        self._train: tuple[np.ndarray, np.ndarray] | None = None

    def names(self, part: str) -> list[str]:
        return [f"{part}/{i:05d}" for i in range(self.counts[part])]

    def survey(self, workers: int | None, progress: Progress | None) -> Survey:  # noqa: ARG002
        said = f"CIFAR-10 (binary) in {self.origin}: {self.counts['train']:,} train pictures of 32x32, RGB, 10 classes"
        return Survey((32, 32), 3, (said,))

    def hold_out(self, val_split: float | None, seed: int) -> tuple[torch.Tensor, str]:
        return hold_out_arrays(*self._values("train"), val_split, seed)

    def read(self, part: str, want: Want, classes: tuple[str, ...], chosen: torch.Tensor | None = None) -> Split:
        pixels, labels = self._values(part)
        index = np.arange(len(labels)) if chosen is None else np.flatnonzero(chosen.numpy())
        found = relabel(labels[index], self.classes, classes, self.origin)
        ids = [f"{part}/{i:05d}" for i in index.tolist()]
        return Split(part, fitted(torch.from_numpy(pixels[index]), want), found, ids, same_sizes(len(ids), 32, 32))

    def _values(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        if part == "train" and self._train is not None:
            return self._train
        records = np.concatenate([self._records(name, content) for name, content in self._contents(FILES[part])])
        values = records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
        if part == "train":
            self._train = values
        return values

    def _contents(self, names: list[str]) -> list[tuple[str, bytes]]:
        longest = self._per_file * RECORD + 1  # one byte more than there may be
        try:
            if self._path.is_dir():
                found = {}
                for name in names:
                    with (self._path / name).open("rb") as file:
                        found[name] = file.read(longest)
            else:
                with tarfile.open(self._path, "r:gz") as archive:
                    found = {
                        Path(member.name).name: stored.read(longest)
                        for member in archive
                        if member.isreg()
                        and Path(member.name).name in names
                        and (stored := archive.extractfile(member))
                    }
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            received = f"{self._path}: {error}"
            raise InputError("cannot read CIFAR-10", received, "get it again: convolve data get cifar10") from error
        missing = [name for name in names if name not in found]
        if missing:
            received = f"{self._path} has no {', '.join(missing)}"
            raise InputError("CIFAR-10 has six .bin files", received, "get it again: convolve data get cifar10")
        return [(name, found[name]) for name in names]

    def _records(self, name: str, content: bytes) -> np.ndarray:
        if len(content) != self._per_file * RECORD:
            received = (
                f"{name} in {self._path} has {'more' if len(content) > self._per_file * RECORD else len(content)}"
            )
            raise InputError(f"a CIFAR-10 file has {self._per_file * RECORD:,} bytes", received, "get it again")
        records = np.frombuffer(bytearray(content), np.uint8).reshape(self._per_file, RECORD)
        if records[:, 0].max() >= len(self.classes):
            received = f"{name} in {self._path} has {records[:, 0].max()}"
            raise InputError(f"a CIFAR-10 label is below {len(self.classes)}", received, "get it again")
        return records
