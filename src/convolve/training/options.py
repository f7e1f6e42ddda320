"""How to train: the resolved choices of one run, all of them plain values that go into the run's config file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from convolve.errors import UnknownNameError, UsageError
from convolve.training.augment import Movement
from convolve.training.measure import ACCURACY, BALANCED

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "onecycle")
AMPS = ("off", "bf16")
CYCLE_WARMUP = 0.3  # of the steps, where onecycle is not told


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
    dropout: float | None = None  # of every dropout layer; None: as the network was made
    l1: float = 0.0
    warmup: float | None = None  # epochs in which the rate rises; None: the schedule's own
    patience: int | None = None  # epochs without a better one after which training stops
    clip: float | None = None  # the largest norm of all gradients together
    amp: str = "off"
    freeze: tuple[str, ...] = ()  # patterns of layers that do not train
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
            ("amp", self.amp, AMPS),
            ("metric", self.metric, (ACCURACY, BALANCED)),
        ):
            if name not in known:
                raise UnknownNameError.of(kind, name, known)
        for rule, number, holds, remedy in _rules(self):
            if number is not None and not holds:
                raise UsageError(rule, f"got {number:g}", remedy)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for JSON and YAML."""
        plain: dict[str, Any] = _listed(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Options:
        """The inverse of `to_dict`."""
        values = {name: _tupled(value) for name, value in stored.items()}
        return cls(**{**values, "movement": Movement(**{k: _tupled(v) for k, v in stored["movement"].items()})})


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

    rising = warmup_steps(options, steps)
    if options.schedule == "onecycle":
        # One step is not a cycle: torch divides by the length of a phase, which must not be zero.
        total = max(steps, 8)
        part = CYCLE_WARMUP if options.warmup is None else min(max(rising, 2), total - 2) / total
        return lr_scheduler.OneCycleLR(optimizer, max_lr=options.lr, total_steps=total, pct_start=part)
    flat = options.schedule == "constant"
    after: lr_scheduler.LRScheduler = (
        lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=0)
        if flat
        else lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps - rising, 1))
    )
    if not rising:
        return after
    # The first step already moves: the rate rises from 1/(rising + 1) of its peak.
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / (rising + 1), total_iters=rising)
    return lr_scheduler.SequentialLR(optimizer, [rise, after], milestones=[rising])


def warmup_steps(options: Options, steps: int) -> int:
    """How many of all `steps` the warm-up has."""
    return round((options.warmup or 0.0) * steps / options.epochs)


def _rules(options: Options) -> tuple[tuple[str, float | None, bool, str], ...]:
    """(rule, value, whether it holds, remedy) of the choices that may be left out."""
    warmup, clip, dropout = options.warmup, options.clip, options.dropout
    cycle = options.schedule == "onecycle"
    return (
        ("dropout is a probability in [0, 1)", dropout, dropout is None or 0 <= dropout < 1, "use 0 for none"),
        ("l1 must be a number >= 0", options.l1, 0 <= options.l1 < math.inf, "use 0 for none"),
        ("patience must be at least 1 epoch", options.patience, (options.patience or 0) >= 1, "leave it out for none"),
        ("clip must be a norm above 0", clip, clip is None or 0 < clip < math.inf, "leave it out for none"),
        (
            f"warmup is less than all {options.epochs} epochs, and 0 or more",
            warmup,
            warmup is None or 0 <= warmup < options.epochs,
            f"use {max(0, min(3, options.epochs - 1))}",
        ),
        ("onecycle begins with a warm-up", warmup, not cycle or warmup != 0, "use the schedule cosine for none"),
    )


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(inner) for name, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, (tuple, list)) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(inner) for inner in value) if isinstance(value, (tuple, list)) else value
