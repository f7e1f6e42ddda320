"""What the processes of tests/training/test_processes.py do, each for itself: nursery.py starts them."""

from __future__ import annotations

import os
import signal
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convolve.training.fit import fit
from convolve.training.layers import exchanged
from convolve.training.measure import measure
from convolve.training.processes import joined
from convolve.training.records import Silent, State
from training_support import normalise, options_with, split_of

CPU = torch.device("cpu")


class Net(nn.Module):
    """With everything that a division of the batch could change: batch statistics of maps and of vectors, dropout, a loss of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(80, 8), nn.BatchNorm1d(8, momentum=None), nn.Dropout(0.3), nn.Linear(8, 2))
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.body(x))

    def loss(self, output: torch.Tensor, labels: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        hits = nn.functional.one_hot(labels, 2).to(output.dtype)
        return (output.softmax(1) - hits).square().sum(1).mean() + 0.1 * nn.functional.cross_entropy(output, labels)


def net_of(seed: int) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def train(folder: str, optimizer: str = "sgd") -> None:
    """Two epochs of batches of 16, the last of two images: parts of 6, 5 and 5, and of 1, 1 and none."""
    with joined() as processes:
        net = net_of(processes.rank)  # the first one's weights count
        states: list[State] = []
        history = fit(
            net,
            split_of("train", 98, 0),
            split_of("validation", 41, 1),
            normalise,
            options_with(epochs=2, optimizer=optimizer),
            Silent(),
            save_best=lambda record: None,
            save_state=states.append,
            processes=processes,
        )
        few = measure(net, split_of("few", 2, 3), normalise, CPU, processes)
        content = {
            "net": net.state_dict(),
            "history": [astuple(record)[:6] for record in history],
            "optimizer": {name: t for name, t in states[-1].tensors.items() if name.startswith("optimizer.")},
            "few": few.probabilities,
            "threads": torch.get_num_threads(),
        }
        torch.save(content, Path(folder) / f"{processes.size}-{processes.rank}.pt")


def gradients(folder: str) -> None:
    """One step's gradients in float64, of a batch that is divided unevenly."""
    with joined() as processes:
        net = net_of(0).double()
        few = split_of("x", 7, 4)
        images, labels = normalise(few.images.batch(torch.arange(7))).double(), few.labels
        with exchanged(net, processes) as step:
            part = processes.share(torch.arange(7))
            step.begin(1, 2, part)
            output = net(images[part.indices].requires_grad_())
            (net.loss(output, labels[part.indices], 0.0) * part.fraction).backward()
            processes.sum_gradients(net.parameters())
        found = {name: p.grad for name, p in net.named_parameters()}
        torch.save(found | dict(net.named_buffers()), Path(folder) / f"gradients-{processes.size}-{processes.rank}.pt")


def lose(folder: str) -> None:
    """The last process ends without a word; the others say how they noticed."""
    from convolve.training.processes import LostProcessError

    with joined() as processes:
        processes.sums([1.0])
        if processes.rank == processes.size - 1:
            os._exit(3)
        try:
            processes.sums([2.0])
        except LostProcessError as error:
            (Path(folder) / f"lost-{processes.rank}").write_text(str(error), encoding="utf-8")


def disagree(folder: str) -> None:
    """An error of one process is every process's; one that only the first meets is told to all; data must be the same."""
    from convolve.errors import ConvolveError, InputError, UsageError

    said = []
    with joined() as processes:
        try:
            with processes.all_or_none():
                if processes.rank == 1:
                    raise UsageError("a rule", "received", "a remedy")
        except UsageError as error:
            said.append((str(error), error.told))

        def make() -> int:
            raise InputError("cannot", "why", "fix")

        try:
            processes.from_first(make)
        except InputError as error:
            said.append((str(error), error.told))
        try:
            processes.same("data", {"train": "a" if processes.first else "b"})
        except ConvolveError as error:
            said.append((str(error), error.told))
        said.append((str(processes.from_first(lambda: processes.rank + 10)), False))
        said.append((str(processes.largest(processes.rank, -processes.rank)), False))
    torch.save(said, Path(folder) / f"said-{processes.rank}.pt")


def stream(folder: str, data: str, budget: str, name: str, how: str = "") -> None:
    """A run on the pictures of `data`, of which each part may take `budget` bytes of memory; `how` is "dies" where this process is killed
    while it decodes the first picture behind a saved state, or "resumes"."""
    import convolve
    from convolve.data import image_folder
    from convolve.jobs import train as job

    image_folder.BUDGET = int(budget)
    for picture in ("report_run", "curves", "confusion", "write", "picture_filters", "picture_movement"):
        setattr(job, picture, lambda *_: None)  # most of what such a short run takes
    model = "conv 6 3, relu, dropout 0.2, max 2, conv 8 3, relu, gap, fc classes"
    run = Path(folder) / name
    if how == "resumes":
        convolve.resume(run)
        return
    if how == "dies":
        real = image_folder.to_pixels

        def decode(image: Any) -> Any:
            if (run / "last/state.safetensors").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            return real(image)

        image_folder.to_pixels = decode
    convolve.train(data, model=model, opt="sgd", img_size=20, epochs=2, batch_size=10, out=run)


def remember(folder: str, data: str, budget: str, name: str) -> None:
    """Read every picture of `data` once, in batches of 8; how many bytes of memory that took at most is written down."""
    import resource

    from convolve.data import image_folder
    from convolve.data.image_folder import prefetched
    from convolve.data.load import load

    image_folder.BUDGET = int(budget)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train = load(data).train
    pixels = sum(batch.numel() for batch in prefetched(train.images, list(torch.arange(len(train)).split(8))))
    took = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    torch.save({"took": took, "pixels": pixels}, Path(folder) / f"{name}.pt")
