"""Images per second of our training loop against a plain PyTorch loop: same network, batch, optimizer and resident images.

The plain loop is what a person writes by hand with torch's own layers and optimizer: float32 images already normalised in memory, a
permutation per epoch, forward, loss, backward, step, and the same running loss and accuracy. Ours keeps uint8 images,
normalises each batch, and observes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.record import DATA, paired, write
from convolve.data.load import load
from convolve.data.preprocess import measure, normalise
from convolve.data.records import Split
from convolve.models import MODELS, create
from convolve.training.fit import fit
from convolve.training.options import Options
from convolve.training.records import Silent

IMAGES = 10_240
ROUNDS = 15


def plain_lenet() -> nn.Sequential:
    """lenet_relu in torch's own layers."""
    front = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    back = [nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*front, *back)


def main() -> None:
    data = load(DATA / "mnist")
    rule = measure(data)
    recipe = MODELS["lenet_relu"].recipe
    choices = (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.label_smoothing, recipe.schedule, 0, "cpu")
    options = Options(1, recipe.batch_size, *choices)
    pixels, labels = data.train.images.batch(torch.arange(IMAGES)), data.train.labels[:IMAGES]
    train = Split("train", type(data.train.images)(pixels), labels, data.train.ids[:IMAGES], data.train.sizes[:IMAGES])
    tiny = Split(
        "validation", type(data.train.images)(pixels[:10]), labels[:10], data.train.ids[:10], data.train.sizes[:10]
    )
    images = normalise(pixels, rule)

    def ours() -> None:
        net = create("lenet_relu")
        fit(net, train, tiny, lambda x: normalise(x, rule), options, Silent(), save_best=id, save_state=id)

    def plain() -> None:
        net = plain_lenet()
        optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=IMAGES // recipe.batch_size)
        total, correct = 0.0, 0
        for indices in torch.randperm(IMAGES).split(options.batch_size):
            scores = net(images[indices])
            loss = F.cross_entropy(scores, labels[indices], label_smoothing=options.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(indices)
            correct += int((scores.argmax(1) == labels[indices]).sum())

    result = paired(ours, plain, ROUNDS)
    rates = {name: IMAGES / result[f"{name}_s"]["median"] for name in ("ours", "theirs")}
    write("training", {"model": "lenet_relu", "batch": options.batch_size, "images_per_s": rates, **result})


if __name__ == "__main__":
    main()
