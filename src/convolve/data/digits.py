"""scikit-learn's 1,797 handwritten digits of 8x8 pixels (from the UCI set of Alpaydin and Kaynak, 1998), the data set
that needs no file. Its levels 0..16 become 0..255.

The three-way split is fixed and stratified: within a class the images are ordered by the digest of their pixels; the
first fifth is test, the next tenth validation, the rest training.
"""

from __future__ import annotations

import torch

from convolve.data.split import content_digest

CLASSES = tuple("0123456789")


def read() -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Pixels uint8 [1797, 1, 8, 8], labels int64 [1797], and the sorted indices of "train", "validation" and "test"."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (torch.from_numpy(bunch.images) * 255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)

    digests = [content_digest(image.numpy().tobytes()) for image in pixels]
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in range(len(CLASSES)):
        ordered = sorted((labels == label).nonzero()[:, 0].tolist(), key=digests.__getitem__)
        n = len(ordered)
        parts["test"] += ordered[: round(n * 0.2)]
        parts["validation"] += ordered[round(n * 0.2) : round(n * 0.3)]
        parts["train"] += ordered[round(n * 0.3) :]
    return pixels, labels, {name: torch.tensor(sorted(indices)) for name, indices in parts.items()}
