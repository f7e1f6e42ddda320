"""Images per second of small networks: torch's layers in both layouts, and the same model after `convolve.accelerate`.

    python -m benchmarks.training [--rounds 15] [--model lenet …] [--quick]

Forward passes without gradients (frozen weights as a column of its own), and training steps (forward, loss, backward, SGD). The images and
labels are resident tensors, the same for all; models start from the same weights, and their outputs are compared before
anything is timed. Contestants run in turn in random order in one process that keeps freed memory. Results: results/training.json.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convolve
from benchmarks.record import in_turn, spread, write


def lenet() -> nn.Module:
    front = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    back = [nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*front, *back)


def small_vgg() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for width in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def separable() -> nn.Module:
    """A small MobileNet: depthwise 3x3, then 1x1."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    channels = 32
    for width, stride in ((64, 1), (128, 2), (128, 1), (256, 2)):
        layers += [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels), nn.ReLU()]
        layers += [nn.Conv2d(channels, width, 1), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (lenet, (256, 1, 28, 28)),
    "small_vgg": (small_vgg, (64, 3, 32, 32)),
    "separable": (separable, (64, 3, 32, 32)),
}


def contestants(name: str) -> dict[str, tuple[nn.Module, Tensor]]:
    """Each model with its images; the weights are equal."""
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model, x = make(), torch.randn(shape)
    last = torch.channels_last
    return {
        "torch": (model, x),
        "torch channels_last": (copy.deepcopy(model).to(memory_format=last), x.contiguous(memory_format=last)),
        "ours": (convolve.accelerate(copy.deepcopy(model)), x),
        "ours channels_last": (
            convolve.accelerate(copy.deepcopy(model)).to(memory_format=last),
            x.contiguous(memory_format=last),
        ),
        "ours frozen": (convolve.accelerate(copy.deepcopy(model), freeze=True), x),
    }


def step(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return run


def forward(model: nn.Module, x: Tensor) -> Callable[[], Any]:
    def run() -> Tensor:
        with torch.no_grad():
            result: Tensor = model(x)
            return result

    return run


def compared(runs: dict[str, Callable[[], Any]], images: int, rounds: int) -> dict[str, Any]:
    """Images per second, and the ratios to ours pair by pair."""
    seconds, chance = in_turn(runs, rounds), random.Random(0)
    ratios = {}
    for name in runs:
        if name != "ours":
            paired = [theirs / mine for theirs, mine in zip(seconds[name], seconds["ours"], strict=True)]
            medians = sorted(statistics.median(chance.choices(paired, k=rounds)) for _ in range(1000))
            ratios[name] = {"median": statistics.median(paired), "interval_95": [medians[25], medians[974]]}
    return {
        "images_per_s": {name: images / statistics.median(taken) for name, taken in seconds.items()},
        "seconds": {name: spread(taken) for name, taken in seconds.items()},
        "time_over_ours": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="5 rounds; nothing is written")
    given = parser.parse_args()
    rounds = 5 if given.quick else given.rounds
    convolve.tune_memory()
    figures: dict[str, Any] = {}
    for name in given.model:
        those = contestants(name)
        with torch.no_grad():
            results = {key: model(x) for key, (model, x) in those.items()}
        for key, result in results.items():
            torch.testing.assert_close(result, results["torch"], atol=1e-4, rtol=1e-4, msg=f"{name}: {key} differs")
        images = len(those["torch"][1])
        inference = compared({key: forward(*pair) for key, pair in those.items()}, images, rounds)
        del those["ours frozen"]
        labels = torch.randint(0, 10, (images,))
        training = compared({key: step(model, x, labels) for key, (model, x) in those.items()}, images, rounds)
        figures[name] = {"batch": images, "forward": inference, "training": training}
        for what in ("forward", "training"):
            rates = ", ".join(f"{k} {v:,.0f}" for k, v in figures[name][what]["images_per_s"].items())
            print(f"{name} {what}: images/s {rates}", flush=True)
    if not given.quick and set(given.model) == set(MODELS):
        write("training", figures)


if __name__ == "__main__":
    main()
