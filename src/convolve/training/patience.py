"""When training ends: after all epochs, or when no epoch has been better for a while. It derives from the history alone."""

from __future__ import annotations

from collections.abc import Sequence

from convolve.training.options import Options
from convolve.training.records import Epoch


def finished(history: Sequence[Epoch], options: Options) -> bool:
    """Whether no epoch remains to be trained."""
    return len(history) >= options.epochs or out_of_patience(history, options.patience)


def out_of_patience(history: Sequence[Epoch], patience: int | None) -> bool:
    """Whether the last `patience` epochs all were worse than the best one before them; never with None."""
    best = max((record.epoch for record in history if record.best), default=0)
    return patience is not None and len(history) - best >= patience
