"""What a measurement is worth: its interval, each class, how honest its probabilities are, and which labels look wrong.

interval      Wilson 1927: the true accuracies p for which `right` of `images` is no surprise, |right/images - p| <= 1.96 sd(p)
calibration   Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks": images in bins of equal width
              by their probability; ECE = sum over bins of (images in bin / images) |accuracy - mean probability|
suspects      Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels": an image of
              label i counts as of class j when p_j is at least t_j, the mean p_j of the images labelled j (of several such
              j the most likely). It is a suspect when j is not i, and, as in the authors' software, when i is not the
              network's answer either. The paper's guarantees are for probabilities of images that were not trained on;
              among training images fewer wrong labels show.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

BINS = 15  # Guo et al.'s number
SURE = 1.959964  # the normal distribution's 97.5 % point: a 95 % interval


@dataclass(frozen=True)
class Interval:
    """Where the accuracy on endlessly many such images lies, with 95 % confidence; fractions 0..1."""

    low: float
    high: float


@dataclass(frozen=True)
class ClassCounts:
    """How one class fared: `images` of it, how often it was `predicted`, and `right` of both. Rates are None where undefined."""

    images: int
    predicted: int
    right: int

    @property
    def recall(self) -> float | None:
        return self.right / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        return self.right / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both: 2 right / (images + predicted)."""
        return 2 * self.right / (self.images + self.predicted) if self.images + self.predicted else None


@dataclass(frozen=True)
class Bin:
    """The images whose probability lies in (low, high]: how many, how many of them right, and their mean probability (None without any)."""

    low: float
    high: float
    images: int
    right: int
    probability: float | None

    @property
    def accuracy(self) -> float | None:
        return self.right / self.images if self.images else None

    @property
    def interval(self) -> Interval:
        return interval(self.right, self.images)


@dataclass(frozen=True)
class Calibration:
    """The reliability diagram's bins, the expected calibration error and the mean probability claimed, fractions 0..1."""

    bins: tuple[Bin, ...]
    error: float
    claimed: float


def interval(right: int, images: int) -> Interval:
    """Wilson's 95 % interval.

    >>> found = interval(9, 10)
    >>> round(found.low, 4), round(found.high, 4)
    (0.5958, 0.9821)
    """
    if not images:
        return Interval(0.0, 1.0)
    share, spread = right / images, SURE**2 / images
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def class_counts(confusion: torch.Tensor) -> tuple[ClassCounts, ...]:
    """Per class, from counts [classes, classes] (row = true class, column = predicted class).

    >>> class_counts(torch.tensor([[3, 1], [0, 2]]))[1].precision
    0.6666666666666666
    """
    columns = (confusion.sum(1), confusion.sum(0), confusion.diagonal())
    return tuple(ClassCounts(*row) for row in zip(*(column.tolist() for column in columns), strict=True))


def balanced_accuracy(counts: tuple[ClassCounts, ...]) -> float:
    """The mean recall of the classes that have images: what counts when some classes are much larger than others."""
    recalls = [row.recall for row in counts if row.recall is not None]
    return sum(recalls) / len(recalls) if recalls else math.nan


def calibration(probabilities: torch.Tensor, labels: torch.Tensor, bins: int = BINS) -> Calibration:
    """Of probabilities [n, classes] and labels [n]: the probability of each image is its predicted class's.

    >>> calibration(torch.tensor([[0.8, 0.2], [0.3, 0.7]]), torch.tensor([0, 0]), bins=2).error
    0.25
    """
    share, guess = probabilities.double().max(1)
    right = (guess == labels).double()
    place = ((share * bins).ceil().long() - 1).clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins)
    shares, rights = (torch.bincount(place, values, minlength=bins) for values in (share, right))
    error = ((rights - shares).abs().sum() / max(1, len(labels))).item()
    found = tuple(
        Bin(number / bins, (number + 1) / bins, n, round(hits), total / n if n else None)
        for number, (n, total, hits) in enumerate(zip(count.tolist(), shares.tolist(), rights.tolist(), strict=True))
    )
    return Calibration(found, error, share.mean().item() if len(labels) else math.nan)


def suspects(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The images whose label confident learning doubts: int64 indices, the largest lead of another class over the label first."""
    n, classes = probabilities.shape
    if n == 0:
        return torch.empty(0, dtype=torch.int64)
    shares = probabilities.double()
    own = shares.gather(1, labels[:, None])[:, 0]
    totals = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels, own)
    counts = torch.bincount(labels, minlength=classes)
    threshold = torch.where(counts > 0, totals / counts.clamp(min=1), math.inf)
    confident = torch.where(shares >= threshold, shares, -math.inf)
    top, counted_as = confident.max(1)
    disagrees = (counted_as != labels) & (shares.argmax(1) != labels)
    doubted = ((top > -math.inf) & disagrees).nonzero()[:, 0]
    lead = (shares[doubted].scatter(1, labels[doubted, None], -math.inf)).amax(1) - own[doubted]
    return doubted[lead.argsort(descending=True, stable=True)]
