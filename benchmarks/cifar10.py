"""CIFAR-10 (JPEG) with the small default network and with NiN: their curves, as far as the given epochs go on one CPU.

    python -m benchmarks.cifar10 smallnet --epochs 20
    python -m benchmarks.cifar10 nin --epochs 3 [--images 10000]

Convolutions run in bfloat16 (autocast) and channels-last memory, faster on a CPU with such instructions; weights, sums and loss stay
float32. The recipe is the network's row of MODELS but for the schedule, one cycle over the given epochs; images are mirrored and
moved by up to 12 % at random. Nine tenths of the training images train, one tenth validates after each epoch; the test images
are read once, after the last epoch. The JPEG set is not comparable digit for digit with figures on the original.
The results file is written after every epoch, so that a run which is cut off still leaves its curve.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.record import DATA, write
from convolve.data.load import load
from convolve.data.preprocess import measure, normalise
from convolve.data.records import Split
from convolve.models import MODELS, create
from convolve.training.augment import Movement, uniform

MOVEMENT = Movement(shift=0.12)


def augmented(images: Tensor, epoch: int, indices: Tensor) -> Tensor:
    """Half of the images mirrored, all shifted."""
    mirror = (uniform(1, epoch, indices, 1) < 0.5).view(-1, 1, 1, 1)
    return MOVEMENT.apply(torch.where(mirror, images.flip(3), images), 0, epoch, indices)


def scores(net: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        out: Tensor = net(images.contiguous(memory_format=torch.channels_last))
    return out.float()


def measured(net: nn.Module, split: Split, prepare: Any) -> tuple[float, float]:
    """Accuracy and mean cross-entropy."""
    net.eval()
    with torch.inference_mode():
        parts = torch.arange(len(split)).split(500)
        out = torch.cat([scores(net, prepare(split.images.batch(part))) for part in parts])
    net.train()
    return (out.argmax(1) == split.labels).float().mean().item(), F.cross_entropy(out, split.labels).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("smallnet", "nin"))
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument(
        "--images", type=int, help="train on so many of the training images, drawn once; all by default"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_flush_denormal(True)
    data = load(DATA / "cifar10-jpeg.zip", val_split=0.1, seed=given.seed)
    assert data.read_test is not None
    preprocessing = measure(data)

    def prepare(batch: Tensor) -> Tensor:
        return normalise(batch, preprocessing)

    recipe = MODELS[given.model].recipe
    torch.manual_seed(given.seed)
    used = torch.randperm(len(data.train))[: given.images]
    net = create(given.model, num_classes=10, in_channels=3, img_size=32).to(memory_format=torch.channels_last)
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, recipe.lr, fused=True)
    steps = len(used.split(recipe.batch_size))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps * given.epochs, pct_start=0.3)
    curve: list[dict[str, float]] = []
    figures = {
        "data": "CIFAR-10 (JPEG)", "model": given.model, "epochs": given.epochs, "seed": given.seed,
        "recipe": repr(recipe), "images": len(used), "curve": curve,
    }  # fmt: skip
    for epoch in range(given.epochs):
        started, total, right = time.perf_counter(), 0.0, 0
        for indices in used[torch.randperm(len(used))].split(recipe.batch_size):
            labels = data.train.labels[indices]
            out = scores(net, augmented(prepare(data.train.images.batch(indices)), epoch, indices))
            loss = F.cross_entropy(out, labels, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            total += loss.item() * len(indices)
            right += int((out.argmax(1) == labels).sum())
        seconds = time.perf_counter() - started
        accuracy, plain = measured(net, data.validation, prepare)
        count = len(used)
        row = {"loss": total / count, "accuracy": right / count, "val_accuracy": accuracy, "val_loss": plain}
        curve.append({"epoch": epoch + 1, **row, "seconds": seconds})
        print(curve[-1], flush=True)
        write(f"cifar10-{given.model}", figures)
    accuracy, plain = measured(net, data.read_test(), prepare)
    write(f"cifar10-{given.model}", {**figures, "test_accuracy": accuracy, "test_loss": plain})


if __name__ == "__main__":
    main()
