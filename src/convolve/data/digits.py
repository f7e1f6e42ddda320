"""scikit-learn's 1,797 handwritten digits of 8x8 pixels (from the UCI set of Alpaydin and Kaynak, 1998), the data set
that needs no file. Its levels 0..16 become 0..255.

The three-way split is fixed and stratified: within a class the images are ordered by the digest of their pixels; the
first fifth is test, the next tenth validation, the rest training.
"""

from __future__ import annotations

import torch

from convolve.data.records import Split
from convolve.data.source import Progress, Survey, Want, fitted, relabel, same_sizes
from convolve.data.split import content_digest
from convolve.errors import UsageError


class Digits:
    """The Source of scikit-learn's digits."""

    name = "digits"
    origin = "scikit-learn's load_digits"
    classes = tuple("0123456789")

    def __init__(self) -> None:
        self._pixels, self._labels, self._parts = read()
        self.counts = {part: len(indices) for part, indices in self._parts.items()}

    def names(self, part: str) -> list[str]:
        return [f"digits/{i:05d}" for i in self._parts[part].tolist()]

    def survey(self, workers: int | None, progress: Progress | None) -> Survey:  # noqa: ARG002
        return Survey((8, 8), 1, ("scikit-learn's digits: 1,797 grey pictures of 8x8, 10 classes; its split is fixed",))

    def hold_out(self, val_split: float | None, seed: int) -> tuple[torch.Tensor, str]:
        raise UsageError("the split of digits is fixed", f"got val_split={val_split}, seed={seed}", "leave it out")

    def read(self, part: str, want: Want, classes: tuple[str, ...], chosen: torch.Tensor | None = None) -> Split:
        indices = self._parts[part] if chosen is None else self._parts[part][chosen]
        labels = relabel(self._labels[indices].numpy(), self.classes, classes, "digits")
        ids = [f"digits/{i:05d}" for i in indices.tolist()]
        return Split(part, fitted(self._pixels[indices], want), labels, ids, same_sizes(len(ids), 8, 8))


def read() -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Pixels uint8 [1797, 1, 8, 8], labels int64 [1797], and the sorted indices of "train", "validation" and "test"."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (torch.from_numpy(bunch.images) * 255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)

    digests = [content_digest(image.numpy().tobytes()) for image in pixels]
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in range(10):
        ordered = sorted((labels == label).nonzero()[:, 0].tolist(), key=digests.__getitem__)
        n = len(ordered)
        parts["test"] += ordered[: round(n * 0.2)]
        parts["validation"] += ordered[round(n * 0.2) : round(n * 0.3)]
        parts["train"] += ordered[round(n * 0.3) :]
    return pixels, labels, {name: torch.tensor(sorted(indices)) for name, indices in parts.items()}
