"""What training minimises: the cross-entropy of the scores, or the loss that a network brings along.

A network with a method `loss(output, targets, label_smoothing)` has the last word: LeNet-5 has its own criterion, GoogLeNet adds
its auxiliary heads'. What such a network returns while training may be a tuple; the scores come first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def objective(net: torch.nn.Module, output: Any, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The loss to minimise, a scalar, and the scores (n, classes) of a training step's `output`."""
    scores: Tensor = output[0] if isinstance(output, tuple) else output
    if _has_own(net):
        loss: Tensor = net.loss(output, labels, label_smoothing)  # type: ignore[operator]
        return loss, scores
    return F.cross_entropy(scores, labels, label_smoothing=label_smoothing), scores


def is_cross_entropy(net: torch.nn.Module, label_smoothing: float = 0.0) -> bool:
    """Whether `objective` is the mean cross-entropy and nothing else."""
    return not label_smoothing and not _has_own(net)


def _has_own(net: torch.nn.Module) -> bool:
    return callable(getattr(net, "loss", None))
