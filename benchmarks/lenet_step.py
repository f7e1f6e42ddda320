"""Where the time of a LeNet training step goes, part by part, in eager PyTorch and here; what an epoch takes; and what the machine allows.

    python -m benchmarks.lenet_step [--parts | --epochs] [--batch 256] [--rounds 15] [--quick]

`--parts`: each operator alone, forward and backward, on resident tensors of its real shape; contestants in turn, medians; with its
multiply-adds and the milliseconds that they take at the FMA peak of the threads used, measured in the same process. `--epochs`:
lenet_relu of the table, an epoch of MNIST (60,000 images), three ways:

    ours        `fit`, the loop behind `convolve train`, on uint8 images in memory
    resident    a plain eager loop over float32 images already normalised in memory
    dataset     what tutorials write: a Dataset of PIL images, ToTensor and Normalize (as torchvision has them), a DataLoader

The dataset's epoch is measured on a tenth of the images and multiplied: its cost is the same for every image; workers are started
before. The peak is the best of many tries, since other processes disturb it. What is not asked for keeps its figures.
Results: results/lenet_step.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import convolve
from benchmarks.limits import fma_per_second
from benchmarks.record import DATA, RESULTS, in_turn, spread, write
from benchmarks.training import lenet as plain_lenet
from convolve.data.load import load
from convolve.data.preprocess import measure, normalise
from convolve.data.records import Split
from convolve.models import create
from convolve.ops.stages import stage
from convolve.training.fit import fit
from convolve.training.options import Options
from convolve.training.records import Silent

RATE, DECAY = 4e-3, 5e-2
TENTH = 6_000
SAMPLE = 0.004  # seconds that one sample of a part lasts at least

Run = Callable[[], Any]


# -- the parts of a step


def _both(make: Callable[..., Tensor], *leaves: Tensor) -> tuple[Run, Run]:
    """Forward under autograd, and the gradients of all leaves that want one."""
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    result = make(*leaves)
    g = torch.randn_like(result) if result.dim() else torch.ones_like(result)
    return lambda: make(*leaves), lambda: torch.autograd.grad(result, wanted, g, retain_graph=True)


def parts(n: int) -> dict[str, dict[str, Any]]:
    """By name: multiply-adds of the batch, and the contestants."""
    chance = torch.Generator().manual_seed(0)

    def leaf(*shape: int, grad: bool = True) -> Tensor:
        return torch.randn(shape, generator=chance).requires_grad_(grad)

    found: dict[str, dict[str, Any]] = {}

    def add(name: str, macs: int, backward_macs: int, theirs: tuple[Run, Run], ours: tuple[Run, Run] | None) -> None:
        for way, amount, index in (("forward", macs, 0), ("gradients", backward_macs, 1)):
            runs = {"torch": theirs[index]} | ({} if ours is None else {"ours": ours[index]})
            found[f"{name} {way}"] = {"macs": amount * n, "runs": runs}

    x, w, b = leaf(n, 1, 28, 28, grad=False), leaf(6, 1, 5, 5), leaf(6)
    pair = [_both(lambda x, w, b, f=f: f(x, w, b, padding=2), x, w, b) for f in (F.conv2d, convolve.conv2d)]
    add("C1 1->6 5x5", 117_600, 117_600, *pair)
    first = leaf(n, 6, 28, 28)
    wide = ((2, 2), (2, 2))
    ours = _both(lambda x, w, b: stage(x, w, b, wide), x, w, b)
    whole = _both(lambda x, w, b: F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=2)), 2), x, w, b)
    add("stage 1: C1, ReLU, max", 117_600, 117_600, whole, ours)
    add("ReLU 6x28x28", 0, 0, _both(F.relu, first), None)
    add("max 6x28x28", 0, 0, *(_both(lambda x, f=f: f(x, 2), first) for f in (F.max_pool2d, convolve.max_pool2d)))
    x, w, b = leaf(n, 6, 14, 14), leaf(16, 6, 5, 5), leaf(16)
    pair = [_both(lambda x, w, b, f=f: f(x, w, b), x, w, b) for f in (F.conv2d, convolve.conv2d)]
    add("C2 6->16 5x5", 240_000, 480_000, *pair)
    second = leaf(n, 16, 10, 10)
    none = ((0, 0), (0, 0))
    ours = _both(lambda x, w, b: stage(x, w, b, none), x, w, b)
    whole = _both(lambda x, w, b: F.max_pool2d(F.relu(F.conv2d(x, w, b)), 2), x, w, b)
    add("stage 2: C2, ReLU, max", 240_000, 480_000, whole, ours)
    add("ReLU 16x10x10", 0, 0, _both(F.relu, second), None)
    add("max 16x10x10", 0, 0, *(_both(lambda x, f=f: f(x, 2), second) for f in (F.max_pool2d, convolve.max_pool2d)))
    head = nn.Sequential(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    labels, flat = torch.randint(0, 10, (n,), generator=chance), leaf(n, 400)
    weights = list(head.parameters())
    run = _both(lambda x, *_: F.cross_entropy(head(x), labels), flat, *weights)
    add("3 linear layers, cross-entropy", 58_920, 117_840, run, None)
    net = plain_lenet()
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=chance)
    step = torch.optim.AdamW(net.parameters(), RATE, fused=True).step
    slow = torch.optim.AdamW(net.parameters(), RATE).step
    found["AdamW"] = {"macs": 0, "runs": {"torch": slow, "ours": step}}
    return found


def step_of(net: nn.Module, x: Tensor, y: Tensor, fused: bool) -> Run:
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY, fused=fused)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return run


def measure_parts(batch: int, rounds: int) -> dict[str, Any]:
    peak = max(fma_per_second(torch.get_num_threads()) for _ in range(12))
    table: dict[str, Any] = {}
    for name, part in parts(batch).items():
        seconds = in_turn(part["runs"], rounds, SAMPLE)
        row = {who: statistics.median(taken) * 1e3 for who, taken in seconds.items()}
        limit = part["macs"] / peak * 1e3
        table[name] = {"macs": part["macs"], "limit_ms": limit, "ms": row}
        words = ", ".join(f"{who} {ms:.3f} ms ({limit / ms:.0%})" for who, ms in row.items())
        print(f"{name:<40} limit {limit:.3f}   {words}", flush=True)
    torch.manual_seed(0)
    x, y = torch.randn(batch, 1, 28, 28), torch.randint(0, 10, (batch,))
    runs = {"torch": step_of(plain_lenet(), x, y, False), "torch, fused AdamW": step_of(plain_lenet(), x, y, True)}
    runs["ours"] = step_of(create("lenet_relu"), x, y, True)
    seconds = in_turn(runs, rounds, SAMPLE)
    ratios = [theirs / mine for theirs, mine in zip(seconds["torch"], seconds["ours"], strict=True)]
    arithmetic = sum(row["limit_ms"] for name, row in table.items() if not name.startswith("stage"))
    whole = {who: spread([1e3 * s for s in taken]) for who, taken in seconds.items()}
    return {
        "batch": batch,
        "fma_per_s": peak,
        "parts": table,
        "step_ms": whole,
        "torch_over_ours": spread(ratios),
        "limit_ms": arithmetic,
        "largest_ratio_at_the_limit": whole["torch"]["median"] / arithmetic,
    }


# -- an epoch


class Pictures(Dataset[tuple[Tensor, int]]):
    """torchvision.datasets.MNIST with Compose([ToTensor(), Normalize(…)]), step for step."""

    def __init__(self, pixels: np.ndarray, labels: list[int]) -> None:
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.pixels[index])
        array = torch.from_numpy(np.array(image, copy=True)).view(image.size[1], image.size[0], 1)
        tensor = array.permute(2, 0, 1).contiguous().to(torch.get_default_dtype()).div(255)
        mean, std = (torch.as_tensor(value, dtype=tensor.dtype).view(-1, 1, 1) for value in ((0.1307,), (0.3081,)))
        return tensor.clone().sub_(mean).div_(std), self.labels[index]


def measure_epochs(batch: int, rounds: int) -> dict[str, Any]:
    data = load(DATA / "mnist")
    rule = measure(data)
    pixels = torch.cat([part.images.batch(torch.arange(len(part))) for part in (data.train, data.validation)])
    labels = torch.cat([data.train.labels, data.validation.labels])
    n = len(labels)
    whole = Split("train", type(data.train.images)(pixels), labels, [""] * n, torch.empty(n, 2, dtype=torch.int32))
    few = Split("validation", type(data.train.images)(pixels[:10]), labels[:10], [""] * 10, whole.sizes[:10])
    images = normalise(pixels, rule)
    options = Options(1, batch, "adamw", RATE, DECAY, 0.1, "onecycle", 0, "cpu")

    made = create("lenet_relu")

    def ours() -> None:
        fit(
            copy.deepcopy(made),
            whole,
            few,
            lambda x: normalise(x, rule),
            options,
            Silent(),
            save_best=id,
            save_state=id,
        )

    def plainly(batches: Callable[[], Any], count: int) -> None:
        net = plain_lenet()
        optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=-(-count // batch))
        total, correct = 0.0, 0
        for x, y in batches():
            scores = net(x)
            loss = F.cross_entropy(scores, y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(y)
            correct += int((scores.argmax(1) == y).sum())

    def resident() -> None:
        plainly(lambda: ((images[i], labels[i]) for i in torch.randperm(n).split(batch)), n)

    pictures = Pictures(pixels[:TENTH, 0].numpy(), labels[:TENTH].tolist())

    def dataset(workers: int) -> Run:
        loader = DataLoader(pictures, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        return lambda: plainly(lambda: loader, TENTH)

    runs = {"ours": ours, "resident": resident, "dataset, 0 workers": dataset(0), "dataset, 2 workers": dataset(2)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    chance, order = random.Random(0), list(runs)
    for name, run in runs.items():
        if name != "resident":  # kernels are loaded, workers started
            run()
    for _ in range(rounds):
        chance.shuffle(order)
        for name in order:
            started = time.perf_counter()
            runs[name]()
            seconds[name].append((time.perf_counter() - started) * (n / TENTH if "dataset" in name else 1))
    return {
        "batch": batch,
        "images": n,
        "epoch_s": {name: spread(taken) for name, taken in seconds.items()},
        "over_ours": {
            name: spread([theirs / mine for theirs, mine in zip(taken, seconds["ours"], strict=True)])
            for name, taken in seconds.items()
            if name != "ours"
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--epochs", action="store_true")
    parser.add_argument("--batch", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="nothing is written")
    given = parser.parse_args()
    both = given.parts == given.epochs
    convolve.tune_memory()
    kept = RESULTS / "lenet_step.json"
    figures: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))["figures"] if kept.exists() else {}
    for batch in given.batch:
        if given.parts or both:
            figures[f"parts, batch {batch}"] = measure_parts(batch, given.rounds or 9)
        if given.epochs or both:
            figures[f"epochs, batch {batch}"] = measure_epochs(batch, given.rounds or 3)
            for name, taken in figures[f"epochs, batch {batch}"]["epoch_s"].items():
                print(f"epoch, batch {batch}, {name}: {taken['median']:.2f} s", flush=True)
    if not given.quick:
        write("lenet_step", figures)


if __name__ == "__main__":
    main()
