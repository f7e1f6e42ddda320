"""How to train: the resolved choices of one run, all of them plain values that go into the run's config file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from convolve.errors import UnknownNameError, UsageError
from convolve.training.augment import Movement
from convolve.training.measure import ACCURACY, BALANCED

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "onecycle")


@dataclass(frozen=True)
class Options:
    """The choices of one run; raises UsageError for one that is out of range."""

    epochs: int
    batch_size: int
    optimizer: str
    lr: float  # the peak, where the schedule varies it
    weight_decay: float
    label_smoothing: float
    schedule: str
    seed: int
    device: str
    movement: Movement = field(default_factory=Movement)
    metric: str = ACCURACY  # of the validation images: it chooses the best epoch

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch-size", self.batch_size)):
            if value < 1:
                raise UsageError(f"{name} must be at least 1", f"got {value}", "use 1 or more")
        if not 0 < self.lr < float("inf"):
            raise UsageError("lr must be a positive number", f"got {self.lr}", "try 0.01 for sgd, 0.001 for adam")
        if self.weight_decay < 0 or not 0 <= self.label_smoothing < 1:
            received = f"got weight decay {self.weight_decay}, label smoothing {self.label_smoothing}"
            raise UsageError("weight decay must be >= 0, label smoothing in [0, 1)", received, "use 0 for none")
        for kind, name, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("metric", self.metric, (ACCURACY, BALANCED)),
        ):
            if name not in known:
                raise UnknownNameError.of(kind, name, known)


def optimizer_of(options: Options, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """torch's optimizer; weight decay spares biases and normalisation (one-dimensional parameters)."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One fused kernel for all parameters: for a small network the loop over them is a tenth of a step.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in trainable)
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9, nesterov=True, fused=fused)
    make = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    return make(groups, lr=options.lr, fused=fused)


def schedule_of(options: Options, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """torch's learning-rate schedule over `steps` optimizer steps in all."""
    from torch.optim import lr_scheduler

    if options.schedule == "onecycle":
        # One step is not a cycle: torch divides by the length of a phase, which must not be zero.
        return lr_scheduler.OneCycleLR(optimizer, max_lr=options.lr, total_steps=max(steps, 8), pct_start=0.3)
    if options.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps, 1))
    return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
