"""What training says and leaves behind: plain frozen records, and the observer that hears them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Epoch:
    """One finished epoch. Losses are mean cross-entropies in nats; accuracies are fractions in 0..1."""

    epoch: int  # from 1
    loss: float
    acc: float
    val_loss: float
    val_acc: float
    lr: float
    seconds: float
    images_per_s: float
    best: bool
    val_balanced: float | None = None  # the mean recall of the classes, where it chooses the best epoch

    @property
    def val_score(self) -> float:
        """The accuracy that chooses the best epoch."""
        return self.val_acc if self.val_balanced is None else self.val_balanced

    def line(self, epochs: int, eta: float) -> str:
        """The one line that every kind of progress display shows; `eta` in seconds."""
        best = " (best)" if self.best else ""
        balanced = "" if self.val_balanced is None else f"  val_balanced {self.val_balanced:.3f}"
        return (
            f"epoch {self.epoch}/{epochs}  loss {self.loss:.3f}  acc {self.acc:.3f}  val_loss {self.val_loss:.3f}  "
            f"val_acc {self.val_acc:.3f}{balanced}{best}  {self.seconds:.1f} s  eta {clock(eta)}"
        )


@dataclass(frozen=True)
class State:
    """Everything that a run needs to go on exactly where it stopped: tensors by name, and JSON-safe values."""

    tensors: Mapping[str, torch.Tensor]
    values: Mapping[str, Any]


class Observer(Protocol):
    """Hears a run as it happens; draws it, or writes it down."""

    def say(self, text: str) -> None:
        """A choice, an advice or a result, in one line."""

    def reading(self, what: str, done: int, total: int) -> None:
        """The data is being read: `done` of `total` of `what`."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """One optimizer step is done (`step` of `steps` in this epoch)."""

    def epoch(self, record: Epoch, epochs: int, eta: float) -> None:
        """One epoch of `epochs` is done; about `eta` seconds remain."""


class Silent:
    """An observer that says nothing."""

    def say(self, text: str) -> None:
        pass

    def reading(self, what: str, done: int, total: int) -> None:
        pass

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        pass

    def epoch(self, record: Epoch, epochs: int, eta: float) -> None:
        pass


def clock(seconds: float) -> str:
    """Seconds as people read them on a clock.

    >>> clock(408), clock(5 * 3600 + 61)
    ('6:48', '5:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
