"""Which images a report can show, and how small: all of a small set; of a large one every kind of mistake, and a sample of the rest."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from convolve.data.records import Images
from convolve.training.measure import Measured

MOST_PICTURES = 4_000
MOST_PIXELS = 6_000_000  # of all thumbnails together
EXACT_SIDE, THUMB_SIDE = 64, 96  # up to this side a thumbnail is the image itself; larger ones are shrunk to that side
WRONG_PART = 0.75  # of the places, where there are more wrong images than that


def thumb_size(h: int, w: int) -> tuple[int, int]:
    """The size of the thumbnails of h x w images."""
    if max(h, w) <= EXACT_SIDE:
        return h, w
    shrink = THUMB_SIDE / max(h, w)
    return max(1, round(h * shrink)), max(1, round(w * shrink))


def places(h: int, w: int) -> int:
    """How many thumbnails of h x w images a page holds."""
    rows, columns = thumb_size(h, w)
    return min(MOST_PICTURES, MOST_PIXELS // (rows * columns))


def chosen(measured: Measured, most: int) -> list[int]:
    """Up to `most` image numbers, the most telling first.

    Wrong ones: the most confident of every cell of the confusion matrix, then the second of every cell, …. Right ones, class by
    class in turn: the least certain, a drawn one, the next least certain, ….
    """
    share, guess = (values.numpy() for values in measured.probabilities.max(1))
    labels = measured.labels.numpy()
    classes = measured.probabilities.shape[1]
    numbers = np.arange(len(labels))

    wrong = numbers[guess != labels]
    wrong = wrong[np.argsort(-share[wrong], kind="stable")]
    wrong = wrong[np.argsort(_ranks(labels[wrong] * classes + guess[wrong]), kind="stable")]

    right = numbers[guess == labels]
    unsure = right[np.argsort(share[right], kind="stable")]
    drawn = right[np.random.default_rng(0).permutation(len(right))]
    both = np.concatenate((unsure, drawn))
    turns = np.concatenate((2 * _ranks(labels[unsure]), 2 * _ranks(labels[drawn]) + 1))
    both = both[np.argsort(turns, kind="stable")]
    right = np.fromiter(dict.fromkeys(both.tolist()), np.int64)
    right = right[
        np.argsort(_ranks(labels[right]), kind="stable")
    ]  # an image that was named twice made its class fall behind

    room = max(math.floor(most * WRONG_PART), most - len(right))
    taken = wrong[:room]
    return [*taken.tolist(), *right[: most - len(taken)].tolist()]


def worst(measured: Measured, most: int) -> list[int]:
    """The wrong images whose label got the smallest share (the largest loss), worst first."""
    own = measured.probabilities.gather(1, measured.labels[:, None])[:, 0]
    wrong = (measured.predictions != measured.labels).nonzero()[:, 0]
    ordered: list[int] = wrong[own[wrong].argsort(stable=True)][:most].tolist()
    return ordered


def thumbnails(images: Images, numbers: list[int]) -> torch.Tensor:
    """uint8 [len(numbers), c, h, w] of the images of these numbers."""
    c, h, w = images.shape
    size = thumb_size(h, w)
    made = torch.empty(len(numbers), c, *size, dtype=torch.uint8)
    for start in range(0, len(numbers), 256):
        batch = images.batch(torch.tensor(numbers[start : start + 256]))
        if size != (h, w):
            small = F.interpolate(batch.float(), size, mode="bilinear", antialias=True, align_corners=False)
            batch = small.round_().clamp_(0, 255).to(torch.uint8)
        made[start : start + len(batch)] = batch
    return made


def right_of_different_classes(measured: Measured, count: int) -> list[int]:
    """`count` right images, drawn, of as many classes as there are."""
    right = (measured.predictions == measured.labels).nonzero()[:, 0]
    drawn = right[torch.randperm(len(right), generator=torch.Generator().manual_seed(0))]
    order = np.argsort(_ranks(measured.labels[drawn].numpy()), kind="stable")
    found: list[int] = drawn[torch.from_numpy(order)][:count].tolist()
    return found


def _ranks(groups: np.ndarray) -> np.ndarray:
    """Of each element, how many of its group stand before it."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]] if len(groups) else np.empty(0, bool)
    starts = np.flatnonzero(first)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
    return ranks
