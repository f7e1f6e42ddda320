"""Claims that only training decides: small networks, trained by `convolve.training.fit` from several seeds, on any data set.

Accuracies are in percent, of images that training did not see, after the last epoch (no epoch is chosen by them); "±" is the
standard deviation over the seeds. The embedded digits serve unless other data are named.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convolve.data.preprocess import measure as measured_preprocessing
from convolve.data.preprocess import normalise
from convolve.data.records import Dataset, ResidentImages, Split
from convolve.jobs.claims.record import Fact, true
from convolve.models.source import build
from convolve.ops.named_kernels import gabor, named_kernel
from convolve.training.augment import Movement
from convolve.training.fit import fit
from convolve.training.measure import measure
from convolve.training.options import Options
from convolve.training.records import Silent

SEEDS, MORE_SEEDS = 3, 5
FEW = 1_000  # training images where overfitting is the question
MANY, TESTED = 4_000, 5_000  # where it is not: at most
SEEN = 40_000  # images in all: as many epochs as that takes, 40 at most
PLAIN = Options(1, 64, "adam", 2e-3, 0.0, 0.0, "cosine", 0, "cpu")
MOVED = Movement(shift=0.08, scale=0.12, turn=10.0)  # what `convolve train --augment gentle` does


@dataclass(frozen=True)
class Score:
    """Accuracies over the seeds, in percent: of the training images, and of images that training did not see."""

    seen: list[float]
    unseen: list[float]

    @property
    def gap(self) -> list[float]:
        return [a - b for a, b in zip(self.seen, self.unseen, strict=True)]


def learned_against_designed(data: Dataset) -> list[Fact]:
    """Twelve 5x5 filters, pooling and a linear classifier: with designed, random and learned filters; and two learned layers."""
    pooling = max(2, data.size[0] // 7)
    words = f"conv 12 5 p2, relu, avg {pooling}, fc classes"
    deeper = f"conv 12 5 p2, relu, avg 2, conv 24 3 p1, relu, avg {max(1, pooling // 2)}, fc classes"

    def designed(net: nn.Module) -> None:
        bank = hand_designed(data.channels)
        _freeze(net, bank)

    def random(net: nn.Module) -> None:
        _freeze(net, None)

    scores = {
        "twelve designed filters (Sobel and Gabor, both signs)": _train(data, words, MANY, prepare=designed),
        "twelve random filters, not trained": _train(data, words, MANY, prepare=random),
        "twelve learned filters": _train(data, words, MANY),
        "two learned layers": _train(data, deeper, MANY),
    }
    by_hand, _, one, two = (score.unseen for score in scores.values())
    return [
        *(_measured(data, name, score.unseen) for name, score in scores.items()),
        _found(data, "the learned filters are ahead of the designed ones", _ahead(one, by_hand)),
        _found(data, "the two learned layers are", _ahead(two, by_hand)),
    ]


def against_overfitting(data: Dataset) -> list[Fact]:
    """A small network on FEW images: the gap between seen and unseen ones, with and without dropout and movement."""
    words = "conv 8 3 p1, relu, max 2, conv 16 3 p1, relu, max 2, fc 128, relu, dropout {}, fc classes"
    moved = replace(PLAIN, movement=MOVED)
    kinds = {"neither": (0, PLAIN), "dropout": (0.5, PLAIN), "augmentation": (0, moved), "both": (0.5, moved)}
    scores = {
        name: _train(data, words.format(rate), FEW, options, seeds=MORE_SEEDS)
        for name, (rate, options) in kinds.items()
    }
    facts = []
    for name, score in scores.items():
        facts.append(_measured(data, f"unseen, with {name}", score.unseen))
        facts.append(_measured(data, f"gap between seen and unseen, with {name}", score.gap))
    narrower = {name: _ahead(scores["neither"].gap, scores[name].gap) for name in ("dropout", "augmentation")}
    return [*facts, *(_found(data, f"{name} narrows the gap", yes) for name, yes in narrower.items())]


def neighbours_matter(data: Dataset) -> list[Fact]:
    """A convolutional and a fully connected network, on the pictures and on the same pictures with all pixels in one other order."""
    _, h, w = data.train.images.shape
    order = torch.randperm(h * w, generator=torch.Generator().manual_seed(0))
    networks = {
        "convolutional": "conv 8 3 p1, relu, max 2, conv 16 3 p1, relu, max 2, fc classes",
        "fully connected": "fc 128, relu, fc classes",
    }
    facts, lost = [], {}
    for name, words in networks.items():
        plain, mixed = _train(data, words, MANY), _train(data, words, MANY, order=order)
        facts += [_measured(data, name, plain.unseen), _measured(data, f"{name}, pixels permuted", mixed.unseen)]
        lost[name] = statistics.fmean(plain.unseen) - statistics.fmean(mixed.unseen)
        if name == "convolutional":
            facts.append(_found(data, "permuting the pixels costs it", _ahead(plain.unseen, mixed.unseen)))
    worse = lost["convolutional"] > lost["fully connected"]
    return [*facts, true(f"{data.name}: permuting costs the convolutional network more than the other", worse)]


def batch_sizes(data: Dataset) -> list[Fact]:
    """One network, equally many epochs, one rate: only the batch size differs."""
    words = "conv 8 3 p1, relu, max 2, conv 16 3 p1, relu, max 2, fc classes"
    facts = []
    for size in (8, 32, 128, 512):
        score = _train(data, words, FEW, replace(PLAIN, batch_size=size))
        facts.append(_measured(data, f"unseen, batches of {size}", score.unseen))
        facts.append(_measured(data, f"gap between seen and unseen, batches of {size}", score.gap))
    return facts


def hand_designed(channels: int) -> Tensor:
    """Twelve 5x5 filters [12, channels, 5, 5]: Sobel in two directions and Gabor in four, each with both signs, read from the light."""
    sobel = [nn.functional.pad(named_kernel(name).kernels[0].float(), (1, 1, 1, 1)) for name in ("sobel-x", "sobel-y")]
    bank = torch.stack([*sobel, *(gabor(angle, wavelength=4.0, size=5) for angle in (0, 45, 90, 135))])
    bank = bank * (2**0.5 / bank.flatten(1).norm(dim=1))[:, None, None]
    light = torch.tensor([1.0] if channels == 1 else [0.299, 0.587, 0.114])  # ITU-R 601-2
    return torch.cat([bank, -bank])[:, None] * light[:, None, None]


def _freeze(net: nn.Module, weight: Tensor | None) -> None:
    layer = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    if weight is not None:
        layer.weight.data.copy_(weight)
    if layer.bias is not None:
        layer.bias.data.zero_()
    layer.requires_grad_(False)


def _train(
    data: Dataset,
    words: str,
    images: int,
    options: Options = PLAIN,
    order: Tensor | None = None,
    prepare: Callable[[nn.Module], None] = lambda _: None,
    seeds: int | None = None,
) -> Score:
    """The score of the network `words`, trained from `seeds` seeds, each on `images` images that it draws."""
    assert data.read_test is not None
    rule = measured_preprocessing(data)
    c, h, w = data.train.images.shape
    unseen = _some(data.read_test(), TESTED, 0, order)
    score = Score([], [])
    for seed in range(SEEDS if seeds is None else seeds):
        trained = _some(data.train, images, seed, order)
        chosen = replace(options, seed=seed, epochs=min(40, max(1, SEEN // len(trained))))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            net = build(words, num_classes=len(data.classes), in_channels=c, img_size=(h, w))
        prepare(net)
        fit(
            net, trained, _some(unseen, 1, 0, None), lambda batch: normalise(batch, rule), chosen, Silent(),
            save_best=lambda _: None, save_state=lambda _: None,
        )  # fmt: skip
        for split, values in ((trained, score.seen), (unseen, score.unseen)):
            values.append(100 * measure(net, split, lambda batch: normalise(batch, rule), torch.device("cpu")).accuracy)
    return score


def _some(split: Split, most: int, seed: int, order: Tensor | None) -> Split:
    """At most so many images of a split, drawn by `seed`, their pixels in another `order`."""
    chosen = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:most].sort().values
    pixels = split.images.batch(chosen)
    if order is not None:
        pixels = pixels.flatten(2)[:, :, order].reshape(pixels.shape)
    ids = [split.ids[int(index)] for index in chosen]
    return Split(split.name, ResidentImages(pixels), split.labels[chosen], ids, split.sizes[chosen])


def _measured(data: Dataset, what: str, values: Sequence[float]) -> Fact:
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    return Fact(f"{data.name}: {what}, %", f"{mean:.1f} ± {spread:.1f}", "measured", True)


def _found(data: Dataset, what: str, yes: bool) -> Fact:
    """A measured yes or no: the means differ by more than both spreads, or do not."""
    return Fact(f"{data.name}: {what} by more than the spread", "yes" if yes else "no", "measured", True)


def _ahead(better: Sequence[float], worse: Sequence[float]) -> bool:
    """Whether the means differ by more than both spreads."""
    return statistics.fmean(better) - statistics.fmean(worse) > max(statistics.stdev(better), statistics.stdev(worse))
