"""LeNet-5 (1998) on MNIST: the faithful network, its RBF output and its MAP loss, trained by a modern optimizer.

    python -m benchmarks.lenet5 validate [--seeds 3]       55,000 images train, the last 5,000 validate: for choosing RECIPE
    python -m benchmarks.lenet5 test [--seeds 10]          60,000 images train, the 10,000 test images are read once per seed
    … --distortions                                        random affine distortions of the training images, as in the paper

RECIPE was chosen by `validate` alone. The last epoch counts, never the best. Reported are each seed's error, the mean, the standard
deviation and the 95 % interval of the mean (Student's t); the test set's own standard error at 0.95 % is 0.10 points. Images are
28x28 centred in 32x32, background -0.1, ink 1.175 (paper, section II-B). Only the optimizer is not the paper's: AdamW, the rate rising for
a tenth of the steps and falling along a cosine, and an exponential average of the weights, which is what is measured.

A step is lenet5_step.py's kernel, one thread: four times as fast as torch's layers here, and the same numbers. Results are written
after every seed, so that a run that is cut off has lost nothing.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, dataclass, field

import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.lenet5_step import loss_and_gradients
from benchmarks.record import DATA, spread, write
from convolve.data.idx import find, read_pair
from convolve.models import create
from convolve.training.augment import Movement

PAPER = {False: 0.95, True: 0.80}  # test error in percent, without and with distortions
HELD_OUT = 5_000


@dataclass(frozen=True)
class Recipe:
    """How it is trained; `average` is the share of the running average of the weights that a step keeps."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    j: float
    average: float
    movement: Movement = field(default_factory=Movement)


RECIPE = {
    False: Recipe(epochs=20, batch_size=32, lr=4e-3, weight_decay=0.1, j=0.1, average=0.999),
    True: Recipe(20, 32, 4e-3, 0.02, 0.1, 0.999, Movement(shift=0.06, scale=0.1, turn=10)),
}


def load(train: bool) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 32, 32) at the paper's levels and their labels."""
    pixels, labels = read_pair(find(DATA / "mnist")["train" if train else "test"])
    x = F.pad(torch.from_numpy(pixels.copy()).view(-1, 1, 28, 28).float() / 255, (2, 2, 2, 2))
    return x * 1.275 - 0.1, torch.from_numpy(labels.copy()).long()


def train(
    x: Tensor, y: Tensor, recipe: Recipe, seed: int, watch: tuple[Tensor, Tensor] | None = None
) -> torch.nn.Module:
    """The averaged network of a training from `seed`; with `watch`, its error there is printed every fifth epoch."""
    torch.manual_seed(seed)
    net = create("lenet5", j=recipe.j)
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))
    decayed = [p for p in net.parameters() if p.dim() > 1]
    groups = [{"params": decayed}, {"params": [p for p in net.parameters() if p.dim() == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    steps = recipe.epochs * math.ceil(len(x) / recipe.batch_size)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    for epoch in range(recipe.epochs):
        started, total = time.perf_counter(), 0.0
        for many in torch.randperm(len(x)).split(
            32 * recipe.batch_size
        ):  # moved together: fewer calls, the same images
            moved = recipe.movement.apply(x[many], seed, epoch, many)
            for images, labels in zip(moved.split(recipe.batch_size), y[many].split(recipe.batch_size), strict=True):
                total += loss_and_gradients(net, images, labels) * len(labels)
                optimizer.step()
                rate.step()
                averaged.update_parameters(net)
        if watch is not None and ((epoch + 1) % 5 == 0 or epoch + 1 == recipe.epochs):
            seconds, wrong = time.perf_counter() - started, error(averaged.module, *watch)
            place = f"seed {seed} epoch {epoch + 1}/{recipe.epochs}"
            print(f"{place} loss {total / len(x):.4f} error {wrong:.2f} % {seconds:.1f} s", flush=True)
    return averaged.module


def _rate(done: float) -> float:
    """The share of the peak rate when the part `done` of the training is over."""
    return (done + 1e-4) / 0.1 if done < 0.1 else (1 + math.cos(math.pi * (done - 0.1) / 0.9)) / 2


def error(net: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of wrong answers, in percent."""
    net.eval()
    with torch.no_grad():
        right = sum(
            int((net(part).argmax(1) == labels).sum())
            for part, labels in zip(x.split(1000), y.split(1000), strict=True)
        )
    net.train()
    return 100 * (1 - right / len(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", choices=("validate", "test"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--distortions", action="store_true")
    for name, value in asdict(RECIPE[False]).items():
        if name != "movement":
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), help="for choosing; validate only")
    given = parser.parse_args()
    chosen = asdict(RECIPE[given.distortions]) | {"movement": RECIPE[given.distortions].movement}
    changed = {name: getattr(given, name) for name in chosen if getattr(given, name, None) is not None}
    if changed and given.images == "test":
        parser.error("the recipe is chosen by validate; test takes it as it stands in the file")
    recipe = Recipe(**{**chosen, **changed})
    x, y = load(train=True)
    if given.images == "validate":
        x, y, watch = x[:-HELD_OUT], y[:-HELD_OUT], (x[-HELD_OUT:], y[-HELD_OUT:])
    else:
        watch = None
    torch.set_flush_denormal(True)
    errors, seconds = [], []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        started = time.perf_counter()
        net = train(x, y, recipe, seed, watch)
        seconds.append(time.perf_counter() - started)
        errors.append(error(net, *(watch if watch is not None else load(train=False))))
        print(f"seed {seed}: {errors[-1]:.2f} % ({seconds[-1]:.0f} s)", flush=True)
        if given.images == "test":
            record(given.distortions, recipe, errors, seconds)
    print(f"{given.images}: mean {sum(errors) / len(errors):.3f} %; paper {PAPER[given.distortions]} %")


def record(distortions: bool, recipe: Recipe, errors: list[float], seconds: list[float]) -> None:
    """Write what the seeds so far gave."""
    values = spread(errors)
    half = stats.t.ppf(0.975, len(errors) - 1) * values["sd"] / math.sqrt(len(errors)) if len(errors) > 1 else None
    figures = {
        "model": "lenet5",
        "parameters": 60_000,
        "connections": 340_908,
        "distortions": distortions,
        "recipe": repr(recipe),
        "test_error_percent": errors,
        **values,
        "mean_95": None if half is None else [values["mean"] - half, values["mean"] + half],
        "paper_percent": PAPER[distortions],
        "seconds_per_seed_on_one_core": spread(seconds),
    }
    write("lenet5-distortions" if distortions else "lenet5", figures)


if __name__ == "__main__":
    main()
