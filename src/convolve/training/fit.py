"""Train a network: the loop, and nothing else.

Exactness. The order of the images derives from (seed, epoch), their movements and what dropout draws from (seed, epoch, image), and
what other random layers draw from (seed, epoch, step, process); nothing depends on global random state, so a run that was stopped
and resumed equals an uninterrupted one, and the caller's state comes back as it was. Several processes divide each batch and
each measurement among them (processes.py). The best epoch is chosen by validation accuracy (balanced, where
`options.metric` says so), then by validation loss; the test images are not seen here.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from convolve.data.image_folder import prefetched
from convolve.data.records import Split
from convolve.errors import InterruptedRunError
from convolve.training.finite import check_loss, check_validation, check_weights
from convolve.training.freeze import begin_training
from convolve.training.gradients import finish_gradients, forget_gradients
from convolve.training.layers import exchanged
from convolve.training.measure import BALANCED, Normalise, measure
from convolve.training.objective import is_cross_entropy, objective
from convolve.training.options import Options, optimizer_of, schedule_of
from convolve.training.patience import finished
from convolve.training.precision import forward
from convolve.training.processes import ALONE, Processes
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

    def add(self, loss_sum: float, correct: float) -> None:
        """Count one batch."""
        self.loss_sum += loss_sum
        self.correct += int(correct)

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
    processes: Processes = ALONE,
) -> list[Epoch]:
    """Train `net` in place and return one record per epoch; `save_best` is called while `net` holds the best weights so far.

    `after_step` is called with the number of steps that the whole run has done: 0 before the first one, then after each, and before
    the state is saved; a resumed run goes on counting.

    With several `processes` all of them call this with the same arguments, and everything that is called back is called in each:
    the callbacks decide who writes. They see the same records and states.

    Raises InterruptedRunError after saving, when Ctrl-C or SIGTERM asked to stop; NotFiniteError, before the step, when an
    input, a weight, the loss or a gradient is not finite.
    """
    device = torch.device(options.device)
    batches = _batch_bounds(len(train.labels), options.batch_size)
    optimizer = optimizer_of(options, net.parameters())
    schedule = schedule_of(options, optimizer, options.epochs * len(batches))
    progress = Progress()
    if resume is not None:
        progress = _restore(resume, net, optimizer, schedule)
    processes.spread(net)
    parameters = list(net.parameters())
    saved_at = time.monotonic()

    done = progress.epoch * len(batches) + progress.step
    if after_step is not None and done == 0:
        after_step(0)

    with (
        _forked_random_state(device),
        StopSignals(patient=processes.size > 1) as signals,
        exchanged(net, processes) as now,
    ):
        while not finished(progress.history, options):
            order = epoch_order(options.seed, progress.epoch, len(train.labels))
            begin_training(net, options.freeze)
            parts = [processes.share(order[first:last]) for first, last in batches]
            pictures = prefetched(train.images, [part.indices for part in parts[progress.step :]])
            for step in range(progress.step, len(batches)):
                started = time.perf_counter()
                part = parts[step]
                now.begin(options.seed, progress.epoch, part)
                _seed_random_layers(device, _seed(options.seed, progress.epoch, step) + processes.rank)
                labels = train.labels[part.indices].to(device)
                images = normalise(next(pictures).to(device))
                images = options.movement.apply(images, options.seed, progress.epoch, part.indices)
                output = forward(net, images, options)
                loss, logits = objective(net, output, labels, options.label_smoothing)
                if part.fraction != 1:
                    loss = loss * part.fraction  # the parts of a batch add up to it
                mean = loss.item()
                known = mean if part.fraction == 1 and is_cross_entropy(net, options.label_smoothing) else None
                counted = _counted(logits.detach(), labels, known) if part.counts else (0.0, 0.0)
                value, *counted_by_all = processes.sums((mean, *counted))
                here = (options, progress.epoch + 1, step + 1)
                names = partial(_names, train, part.indices)
                check_loss(value, net, images, names, logits.shape[1], *here, alone=processes.size == 1)
                forget_gradients(parameters)
                loss.backward()  # type: ignore[no-untyped-call]
                processes.sum_gradients(parameters)
                finish_gradients(net, parameters, *here)
                optimizer.step()
                schedule.step()
                progress.add(*counted_by_all)
                progress.step = step + 1
                progress.seconds += time.perf_counter() - started
                done += 1
                if after_step is not None:
                    after_step(done)
                observer.step(progress.epoch + 1, step + 1, len(batches), value)
                due = processes.first and time.monotonic() - saved_at > SAVE_SECONDS
                stop, save = processes.largest(signals.requested or 0, due)
                if stop or save:
                    check_weights(net, *here)
                    save_state(_state(net, optimizer, schedule, progress))
                    saved_at = time.monotonic()
                if stop:
                    stopped = InterruptedRunError(
                        f"stopped after epoch {progress.epoch + 1}, step {step + 1}, and saved"
                    )
                    stopped.exit_code = 128 + stop  # as a shell says it: 130 after Ctrl-C, 143 after SIGTERM
                    raise stopped
            check_weights(net, options, progress.epoch + 1, len(batches))
            record = _finish_epoch(
                net,
                validation,
                normalise,
                progress,
                len(train.labels),
                optimizer.param_groups[0]["lr"],
                options,
                processes,
            )
            check_validation(record.val_loss, options, record.epoch, len(batches))
            if record.best:
                save_best(record)
            save_state(_state(net, optimizer, schedule, progress))
            saved_at = time.monotonic()
            observer.epoch(record, options.epochs, _remaining(progress, options.epochs))
    return progress.history


@dataclass(frozen=True)
class Trial:
    """What a few steps of a copy of the network showed."""

    seconds_per_epoch: float
    loss: float
    """Of the last step."""


def seconds_per_epoch(
    net: torch.nn.Module, train: Split, normalise: Normalise, options: Options, processes: Processes = ALONE
) -> float:
    """An estimate, by a `trial`."""
    return trial(net, train, normalise, options, processes).seconds_per_epoch


def trial(
    net: torch.nn.Module, train: Split, normalise: Normalise, options: Options, processes: Processes = ALONE
) -> Trial:
    """Train a copy for a few steps: the network, its gradients and the random state stay as they are.

    Each of several processes tries its part of a batch by itself."""
    device = torch.device(options.device)
    tried = copy.deepcopy(net).train()
    optimizer = optimizer_of(options, tried.parameters())
    batches = _batch_bounds(len(train.labels), options.batch_size)
    seconds: list[float] = []
    first_steps = [batches[0], *batches[:TRIAL_STEPS]]  # the first one warms up
    with _forked_random_state(device):
        for first, last in first_steps:
            started = time.perf_counter()
            indices = torch.arange(first, max(first + min(2, last - first), first + (last - first) // processes.size))
            images = options.movement.apply(normalise(train.images.batch(indices).to(device)), 0, 0, indices)
            loss, _ = objective(tried, forward(tried, images, options), train.labels[indices].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            value = loss.item()
            seconds.append(time.perf_counter() - started)
            if sum(seconds) > TRIAL_SECONDS and len(seconds) > 1:
                break
    return Trial(statistics.median(seconds[1:]) * len(batches), value)


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
    processes: Processes,
) -> Epoch:
    """Measure the validation images, append the epoch's record to the history and start the next epoch's sums."""
    measured = measure(net, validation, normalise, torch.device(options.device), processes)
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


def _counted(logits: torch.Tensor, labels: torch.Tensor, mean: float | None) -> tuple[float, float]:
    """The losses, summed, and how many are right. The loss is the plain cross-entropy, without label smoothing: it compares
    with validation's. `mean` is theirs where it is known."""
    total = F.cross_entropy(logits, labels, reduction="sum").item() if mean is None else mean * len(labels)
    return total, (logits.argmax(1) == labels).sum().item()


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
    trace in every call, for the day when one appears."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _names(train: Split, indices: torch.Tensor) -> list[str]:
    return [train.ids[index] for index in indices.tolist()]


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
