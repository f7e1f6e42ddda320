"""Measure a network on a split: one pass without gradients, every image counted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from convolve.data.image_folder import prefetched
from convolve.data.records import IMBALANCED, Split
from convolve.training.processes import ALONE, Processes

BATCH = 512
ACCURACY, BALANCED = "accuracy", "balanced accuracy"

Normalise = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Measured:
    """What a network said of a split. `probabilities` is float32 [n, classes]; `loss` the mean cross-entropy in nats."""

    loss: float
    accuracy: float
    probabilities: torch.Tensor
    labels: torch.Tensor

    @property
    def predictions(self) -> torch.Tensor:
        return self.probabilities.argmax(1)

    @property
    def balanced_accuracy(self) -> float:
        """The mean, over the classes that have images, of the share of their images that were found (recall)."""
        counts = self.confusion()
        images = counts.sum(1)
        return (counts.diagonal()[images > 0] / images[images > 0]).mean().item()

    def by(self, metric: str) -> float:
        """The accuracy of that name."""
        return self.balanced_accuracy if metric == BALANCED else self.accuracy

    def confusion(self) -> torch.Tensor:
        """Counts, int64 [classes, classes]: row = true class, column = predicted class."""
        classes = self.probabilities.shape[1]
        return torch.bincount(self.labels * classes + self.predictions, minlength=classes**2).reshape(classes, classes)


def metric_of(labels: torch.Tensor) -> str:
    """The accuracy that chooses the best epoch and is quoted first, of the training images' labels int64 [n].

    >>> metric_of(torch.tensor([0, 0, 0, 1, 1])), metric_of(torch.tensor([0, 0, 0, 0, 1, 1]))
    ('accuracy', 'balanced accuracy')
    """
    counts = labels.bincount()
    present = counts[counts > 0]
    return BALANCED if len(present) and present.max() > IMBALANCED * present.min() else ACCURACY


def measure(
    net: torch.nn.Module, split: Split, normalise: Normalise, device: torch.device, processes: Processes = ALONE
) -> Measured:
    """Run `net` in evaluation mode over `split`; its mode is put back. `normalise` turns uint8 batches into network input.

    Several processes divide the images among them, each image to one, and all get the whole result.
    """
    if not len(split):
        return Measured(float("nan"), float("nan"), torch.empty(0, 0), split.labels)
    part = processes.share(torch.arange(len(split)))
    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            pictures = prefetched(split.images, torch.split(part.indices, BATCH))
            pieces = [net(normalise(batch.to(device))).float().cpu() for batch in pictures]
    finally:
        net.train(was_training)
    ours = torch.cat(pieces).clone()  # cloned: an inference tensor could not be used in autograd later
    logits = processes.gather_rows(ours if part.counts else ours[:0], int(part.indices[0]), len(split))
    correct = (logits.argmax(1) == split.labels).sum().item()
    loss = F.cross_entropy(logits, split.labels).item()
    return Measured(loss, correct / len(split.labels), logits.softmax(1), split.labels)
