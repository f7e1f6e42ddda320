"""Every family learns: each at reduced width and size on MNIST, for a few epochs of its row's recipe on one CPU.

    python -m benchmarks.families [--images 10000] [--epochs 3] [NAME …]

The first IMAGES training images train, the last 5,000 validate; chance is 10 %. Results: benchmarks/results/families.json.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.record import DATA, write
from convolve.data.idx import find, read_pair
from convolve.models import MODELS, create
from convolve.training.objective import objective

HELD_OUT = 5_000


@dataclass(frozen=True)
class Small:
    """A network at the size at which it is tried."""

    name: str
    size: int
    options: dict[str, Any] = field(default_factory=dict)


FAMILIES = (
    Small("alexnet", 67, {"width_divisor": 8, "init": "kaiming"}),  # N(0, 0.01²) suits the full width only
    Small("vgg11", 32, {"width_divisor": 8, "hidden": 128}),
    Small("nin", 28, {"width_divisor": 4}),
    Small("googlenet", 64, {"width_divisor": 8}),
    Small("mobilenet_v1-0.25", 64),
    Small("shufflenet_v1", 48),
    Small("mobilenet_v2", 32),
    Small("resnet18", 32),
)


def run(small: Small, x: Tensor, y: Tensor, watch: tuple[Tensor, Tensor], epochs: int) -> dict[str, Any]:
    """Train one network and return its figures."""
    recipe = MODELS[small.name.partition("-")[0]].recipe
    torch.manual_seed(0)
    net = create(small.name, num_classes=10, in_channels=1, img_size=small.size, **small.options)
    optimizer = torch.optim.AdamW(net.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    steps = epochs * math.ceil(len(x) / 64)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps)
    started = time.perf_counter()
    for _ in range(epochs):
        net.train()
        for indices in torch.randperm(len(x)).split(64):
            loss, _ = objective(net, net(_resized(x[indices], small.size)), y[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    seconds = time.perf_counter() - started
    net.eval()
    with torch.no_grad():
        pairs = zip(watch[0].split(500), watch[1].split(500), strict=True)
        right = sum(int((net(_resized(part, small.size)).argmax(1) == labels).sum()) for part, labels in pairs)
    parameters = sum(p.numel() for p in net.parameters())
    return {
        "size": small.size,
        **small.options,
        "parameters": parameters,
        "accuracy": right / len(watch[1]),
        "seconds": seconds,
    }


def _resized(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    pixels, labels = read_pair(find(DATA / "mnist")["train"])
    x = (torch.from_numpy(pixels.copy()).view(-1, 1, 28, 28).float() / 255 - 0.1307) / 0.3081
    y = torch.from_numpy(labels.copy()).long()
    figures: dict[str, Any] = {"images": given.images, "epochs": given.epochs}
    for small in FAMILIES:
        if given.names and small.name not in given.names:
            continue
        first = slice(given.images)
        figures[small.name] = run(small, x[first], y[first], (x[-HELD_OUT:], y[-HELD_OUT:]), given.epochs)
        print(small.name, figures[small.name], flush=True)
        if not given.names:  # after each, so that a run which is cut off has lost nothing
            write("families", figures)


if __name__ == "__main__":
    main()
