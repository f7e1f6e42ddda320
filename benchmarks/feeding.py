"""What feeding a network costs: the augmentation's share of a training step, and pictures decoded per second.

    python -m benchmarks.feeding [--augmentation | --decoding] [--rounds 15] [--quick]

`--augmentation`: a step of `fit`'s loop (index, normalise, move, forward, backward, optimizer) with and without the movement, in turn; the
share is the part of the step with it that it takes (promised: at most 20 %). `--decoding`: JPEG files made of scikit-learn's two photos,
427 x 640 and twice that, decoded into 64x64 pictures as a folder of images is, by one thread and by two, with Pillow's `draft` (decoding at
a half, a quarter or an eighth, which JPEG offers) and without. Results: results/feeding.json.
"""

from __future__ import annotations

import argparse
import io
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

import convolve
from benchmarks.record import DATA, in_turn, spread, write
from convolve.data.image_folder import each
from convolve.data.load import load
from convolve.data.picture import fit, open_picture, to_pixels
from convolve.data.preprocess import measure, normalise
from convolve.data.samples import SAMPLES, sample_photo
from convolve.jobs.augmentation import read
from convolve.models import MODELS, create
from convolve.training.augment import Movement
from convolve.training.objective import objective
from convolve.training.options import Options, optimizer_of

PICTURES, SIDE = 64, 64
GENTLE = read("gentle")

Run = Callable[[], Any]


def augmentation(rounds: int) -> dict[str, Any]:
    data = load(DATA / "mnist")
    rule, gentle = measure(data), read("gentle")
    found: dict[str, Any] = {}
    for model in ("lenet_relu", "smallnet"):
        recipe = MODELS[model].recipe
        options = Options(
            1, recipe.batch_size, recipe.optimizer, recipe.lr, recipe.weight_decay, 0.0, "constant", 0, "cpu"
        )
        net = create(model, in_channels=1, img_size=28).train()
        optimizer = optimizer_of(options, net.parameters())
        indices = torch.randperm(len(data.train))[: recipe.batch_size]
        labels = data.train.labels[indices]

        def step(
            movement: Movement,
            net: torch.nn.Module = net,
            optimizer: torch.optim.Optimizer = optimizer,
            indices: torch.Tensor = indices,
            labels: torch.Tensor = labels,
        ) -> None:
            images = movement.apply(normalise(data.train.images.batch(indices), rule), 0, 0, indices)
            loss, _ = objective(net, net(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        seconds = in_turn({"moved": lambda: step(gentle), "plain": lambda: step(Movement())}, rounds)
        shares = [1 - plain / moved for moved, plain in zip(seconds["moved"], seconds["plain"], strict=True)]
        found[model] = {"batch": recipe.batch_size, "share": spread(shares)}
        found[model] |= {f"{name} step (ms)": spread([1e3 * s for s in taken]) for name, taken in seconds.items()}
        print(f"{model}: {statistics.median(shares):.1%} of a step", flush=True)
    return found


def jpegs(scale: int) -> list[bytes]:
    """The photos, `scale` times as large, a few pixels of each cut so that no two files are the same."""
    files = []
    for number in range(PICTURES):
        with Image.open(io.BytesIO(sample_photo(list(SAMPLES)[number % len(SAMPLES)]))) as photo:
            cut = photo.crop((number % 8, number // 8, photo.width - 8, photo.height - 8))
            image = cut.resize((cut.width * scale, cut.height * scale), Image.Resampling.BICUBIC)
        held = io.BytesIO()
        image.save(held, "JPEG", quality=90)
        files.append(held.getvalue())
    return files


def decoding(rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for scale in (1, 2):
        files = {f"{number}.jpg": content for number, content in enumerate(jpegs(scale))}

        def all_of(threads: int, draft: bool, files: dict[str, bytes] = files) -> Run:
            def decode(file: str) -> np.ndarray:
                image = open_picture(files[file], (SIDE, SIDE) if draft else None, file)
                return to_pixels(fit(image, 3, (SIDE, SIDE)))

            return lambda: list(each(decode, list(files), threads))

        ways = [(threads, draft) for threads in (1, 2) for draft in (False, True)]
        runs = {f"{t} thread{'s' * (t > 1)}, {'draft' if d else 'whole'}": all_of(t, d) for t, d in ways}
        seconds = in_turn(runs, rounds)
        rates = {name: spread([PICTURES / s for s in taken]) for name, taken in seconds.items()}
        found[f"{427 * scale - 8 * scale}x{640 * scale - 8 * scale}"] = {"pictures_per_s": rates}
        for name, rate in rates.items():
            print(f"{scale}x, {name}: {rate['median']:,.0f} pictures/s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--augmentation", action="store_true")
    parser.add_argument("--decoding", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="nothing is written")
    given = parser.parse_args()
    both = given.augmentation == given.decoding
    convolve.tune_memory()
    figures: dict[str, Any] = {}
    if given.augmentation or both:
        figures["augmentation"] = augmentation(given.rounds)
    if given.decoding or both:
        figures["decoding"] = decoding(max(3, given.rounds // 5))
    if not given.quick and both:
        write("feeding", figures)


if __name__ == "__main__":
    main()
