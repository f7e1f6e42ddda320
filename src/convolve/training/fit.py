"""Train a network: the loop, and nothing else.

Exactness. The order of the images derives from (seed, epoch), their movements from (seed, epoch, image), and what random layers
draw from (seed, epoch, step); nothing depends on global random state, so a run that was stopped and resumed equals an
uninterrupted one, and the caller's state comes back as it was. The best epoch is chosen by validation accuracy (balanced,
where `options.metric` says so), then by validation loss; the test images are not seen here.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from convolve.data.image_folder import prefetched
from convolve.data.records import Split
from convolve.errors import ConvolveError, InterruptedRunError
from convolve.training.measure import BALANCED, Normalise, measure
from convolve.training.objective import objective
from convolve.training.options import Options, optimizer_of, schedule_of
from convolve.training.records import Epoch, Observer, State
from convolve.training.stop import StopSignals

SAVE_SECONDS = 30.0  # a crash loses at most this much work
TRIAL_STEPS, TRIAL_SECONDS = 20, 1.0  # what the estimate of the time may cost


@dataclass
class Progress:
    """How far a run has come; all of it goes into the saved state."""

    epoch: int = 0  # epochs finished
    step: int = 0  # steps finished in the current epoch
    loss_sum: float = 0.0  # over the images of the current epoch
    correct: int = 0
    seconds: float = 0.0  # spent in the current epoch
    best_epoch: int = 0
    history: list[Epoch] = field(default_factory=list)

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Count one batch. The loss is the plain cross-entropy, without label smoothing: it compares with validation's."""
        self.loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
        self.correct += int((logits.argmax(1) == labels).sum().item())

    @property
    def best(self) -> Epoch | None:
        return self.history[self.best_epoch - 1] if self.best_epoch else None


def fit(
    net: torch.nn.Module,
    train: Split,
    validation: Split,
    normalise: Normalise,
    options: Options,
    observer: Observer,
    *,
    save_best: Callable[[Epoch], None],
    save_state: Callable[[State], None],
    resume: State | None = None,
    after_step: Callable[[int], None] | None = None,
) -> list[Epoch]:
    """Train `net` in place and return one record per epoch; `save_best` is called while `net` holds the best weights so far.

    `after_step` is called with the number of steps that the whole run has done: 0 before the first one, then after each, and before
    the state is saved; a resumed run goes on counting.

    Raises InterruptedRunError after saving, when Ctrl-C or SIGTERM asked to stop; ConvolveError when the loss is not finite.
    """
    device = torch.device(options.device)
    batches = _batch_bounds(len(train.labels), options.batch_size)
    optimizer = optimizer_of(options, net.parameters())
    schedule = schedule_of(options, optimizer, options.epochs * len(batches))
    progress = Progress()
    if resume is not None:
        progress = _restore(resume, net, optimizer, schedule)
    saved_at = time.monotonic()

    done = progress.epoch * len(batches) + progress.step
    if after_step is not None and done == 0:
        after_step(0)

    with _forked_random_state(device), StopSignals() as signals:
        while progress.epoch < options.epochs:
            order = epoch_order(options.seed, progress.epoch, len(train.labels))
            net.train()
            parts = [order[first:last] for first, last in batches]
            pictures = prefetched(train.images, parts[progress.step :])
            for step in range(progress.step, len(batches)):
                started = time.perf_counter()
                _seed_random_layers(device, _seed(options.seed, progress.epoch, step))
                indices = parts[step]
                labels = train.labels[indices].to(device)
                images = normalise(next(pictures).to(device))
                output = net(options.movement.apply(images, options.seed, progress.epoch, indices))
                loss, logits = objective(net, output, labels, options.label_smoothing)
                value = loss.item()
                if not math.isfinite(value):
                    raise _diverged(value, progress.epoch + 1, step + 1, options)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                progress.add(logits.detach(), labels)
                progress.step = step + 1
                progress.seconds += time.perf_counter() - started
                done += 1
                if after_step is not None:
                    after_step(done)
                observer.step(progress.epoch + 1, step + 1, len(batches), value)
                if signals.requested is not None or time.monotonic() - saved_at > SAVE_SECONDS:
                    save_state(_state(net, optimizer, schedule, progress))
                    saved_at = time.monotonic()
                if signals.requested is not None:
                    raise InterruptedRunError(f"stopped after epoch {progress.epoch + 1}, step {step + 1}, and saved")
            record = _finish_epoch(
                net, validation, normalise, progress, len(train.labels), optimizer.param_groups[0]["lr"], options
            )
            if record.best:
                save_best(record)
            save_state(_state(net, optimizer, schedule, progress))
            saved_at = time.monotonic()
            observer.epoch(record, options.epochs, _remaining(progress, options.epochs))
    return progress.history


def seconds_per_epoch(net: torch.nn.Module, train: Split, normalise: Normalise, options: Options) -> float:
    """An estimate, from a few steps of a copy: the network, its gradients and the random state stay as they are."""
    device = torch.device(options.device)
    trial = copy.deepcopy(net).train()
    optimizer = optimizer_of(options, trial.parameters())
    batches = _batch_bounds(len(train.labels), options.batch_size)
    seconds: list[float] = []
    first_steps = [batches[0], *batches[:TRIAL_STEPS]]  # the first one warms up
    with _forked_random_state(device):
        for first, last in first_steps:
            started = time.perf_counter()
            indices = torch.arange(first, last)
            images = options.movement.apply(normalise(train.images.batch(indices).to(device)), 0, 0, indices)
            loss, _ = objective(trial, trial(images), train.labels[indices].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
            seconds.append(time.perf_counter() - started)
            if sum(seconds) > TRIAL_SECONDS and len(seconds) > 1:
                break
    return statistics.median(seconds[1:]) * len(batches)


def steps_per_epoch(images: int, batch_size: int) -> int:
    """How many steps an epoch over `images` images has."""
    return len(_batch_bounds(images, batch_size))


def epoch_order(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The order in which epoch number `epoch` (from 0) visits `count` images: int64 [count], a function of its arguments only."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_seed(seed, epoch, -1)))


def _finish_epoch(
    net: torch.nn.Module,
    validation: Split,
    normalise: Normalise,
    progress: Progress,
    images: int,
    lr: float,
    options: Options,
) -> Epoch:
    """Measure the validation images, append the epoch's record to the history and start the next epoch's sums."""
    measured = measure(net, validation, normalise, torch.device(options.device))
    best = progress.best
    record = Epoch(
        epoch=progress.epoch + 1,
        loss=progress.loss_sum / images,
        acc=progress.correct / images,
        val_loss=measured.loss,
        val_acc=measured.accuracy,
        lr=lr,
        seconds=progress.seconds,
        images_per_s=images / progress.seconds,
        best=best is None or (measured.by(options.metric), -measured.loss) > (best.val_score, -best.val_loss),
        val_balanced=measured.balanced_accuracy if options.metric == BALANCED else None,
    )
    progress.history.append(record)
    if record.best:
        progress.best_epoch = record.epoch
    progress.epoch, progress.step, progress.loss_sum, progress.correct, progress.seconds = record.epoch, 0, 0.0, 0, 0.0
    return record


def _batch_bounds(count: int, size: int) -> list[tuple[int, int]]:
    """(first, last) of each batch; a last batch of one image joins the one before, since batch normalisation needs two."""
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))


def _remaining(progress: Progress, epochs: int) -> float:
    seconds = [record.seconds for record in progress.history]
    return sum(seconds) / len(seconds) * (epochs - progress.epoch)


def _seed(seed: int, epoch: int, step: int) -> int:
    """A 63-bit number from (seed, epoch, step): one round of splitmix64 per part, so that neighbours are unrelated."""
    value = 0
    for part in (seed, epoch, step):
        value = (value + part + 0x9E3779B97F4A7C15) & _MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value >> 1


_MASK = 2**64 - 1


def _forked_random_state(device: torch.device) -> Any:
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device.index or 0], device_type=device.type)


def _seed_random_layers(device: torch.device, seed: int) -> None:
    """Seed the generators that dropout and the like draw from. Not torch.manual_seed: without a GPU that formats a stack
    trace in every call, for the day when one appears (1.5 ms a step, measured)."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _diverged(value: float, epoch: int, step: int, options: Options) -> ConvolveError:
    received = f"it is {value} at epoch {epoch}, step {step}, with lr {options.lr:g}"
    remedy = f"try --lr {options.lr / 10:g}; the best weights of the epochs before are kept"
    return ConvolveError("the loss must stay finite", received, remedy)


def _state(
    net: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    progress: Progress,
) -> State:
    stored = optimizer.state_dict()
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    scalars: dict[str, Any] = {}
    for key, name, value in _entries(stored["state"]):
        if isinstance(value, torch.Tensor):
            tensors[f"optimizer.{key}.{name}"] = value
        else:
            scalars[f"{key}.{name}"] = value
    values = {
        "optimizer": {"groups": stored["param_groups"], "scalars": scalars},
        "schedule": {name: value for name, value in schedule.state_dict().items() if not callable(value)},
        "progress": asdict(progress),
    }
    return State(tensors, values)


def _restore(
    state: State, net: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler
) -> Progress:
    net.load_state_dict(
        {name.removeprefix("net."): tensor for name, tensor in state.tensors.items() if name.startswith("net.")}
    )
    moments: dict[int, dict[str, Any]] = {}
    for name, tensor in state.tensors.items():
        if name.startswith("optimizer."):
            _, key, moment = name.split(".", 2)
            moments.setdefault(int(key), {})[moment] = tensor
    for name, value in state.values["optimizer"]["scalars"].items():
        key, moment = name.split(".", 1)
        moments.setdefault(int(key), {})[moment] = value
    optimizer.load_state_dict({"state": moments, "param_groups": state.values["optimizer"]["groups"]})
    schedule.load_state_dict(dict(state.values["schedule"]))
    saved = dict(state.values["progress"])
    return Progress(**{**saved, "history": [Epoch(**record) for record in saved["history"]]})


def _entries(state: dict[int, dict[str, Any]]) -> Iterator[tuple[int, str, Any]]:
    for key, moments in state.items():
        for name, value in moments.items():
            yield key, name, value
