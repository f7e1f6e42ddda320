"""The facts of a report, from a network, what was measured with it, and the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from convolve.analysis.inspecting import examine
from convolve.analysis.report import Report as Inspection
from convolve.analysis.trace import Input
from convolve.data.records import Dataset, Images, Split, sample
from convolve.errors import ConvolveError
from convolve.explain import attribution, layers
from convolve.explain.activations import evaluating
from convolve.explain.filters import filters_of
from convolve.explain.records import Filters, Layer
from convolve.jobs.report import pictures
from convolve.jobs.report.records import Doubts, Look, Part, Picture, Report, Seen
from convolve.training.judge import balanced_accuracy, calibration, class_counts, interval, suspects
from convolve.training.measure import Measured, measure
from convolve.training.options import Options

NAMED_CLASSES, MOST_CONFUSED = 40, 30  # with more classes the matrix shows the most confused ones
ANSWERS = 3
WORST, DOUBTS = 48, 60
LOOKS = 5  # wrong images, and as many right ones
LOOK_MACS = 12_000_000_000  # for all of them; occlusion where it costs less, else Grad-CAM
TRAIN_MACS, TRAIN_PART = (
    25_000_000_000,
    0.01,
)  # for looking at training images: so many, or this part of what training took
FEWEST_TRAIN = 200  # fewer say nothing of a threshold
SEEN, SEEN_EPOCHS, SEEN_LARGE, SEEN_LARGE_EPOCHS = 8, 4, 4, 2  # images and epochs shown; of those above EXACT_SIDE

Outcome = tuple[Split, Measured]


@dataclass(frozen=True, eq=False)
class Subject:
    """The network that is reported on, and how it is fed."""

    net: nn.Module
    prepare: Callable[[torch.Tensor], torch.Tensor]
    device: torch.device
    model: str
    classes: tuple[str, ...]


def gather(
    subject: Subject,
    outcomes: Sequence[Outcome],
    *,
    data: str,
    train: Split | None = None,
    options: Options | None = None,
    epochs: int = 0,
    **given: Any,
) -> Report:
    """The report on the last of `outcomes`; `given` are fields of Report that need no gathering.

    With `train` its images are searched for wrong labels too, as far as that costs little beside training (`epochs`), and some
    are shown as `options` moved them.
    """
    notes: list[str] = []
    split, measured = outcomes[-1]
    inspection = _inspected(subject, split.images.shape, notes)
    searched = [outcomes[-1], *outcomes[:-1]]
    if train is not None:
        searched += _train_outcomes(subject, train, inspection, epochs, notes)
    chosen, doubts, worst = _pictures(searched)
    confusion = measured.confusion()
    numbers = {key: place for place, key in enumerate(chosen)}
    return Report(
        model=subject.model,
        data=data,
        classes=subject.classes,
        parts=tuple(_part(*outcome) for outcome in (outcomes[-1], *outcomes[:-1])),
        balanced=balanced_accuracy(class_counts(confusion)),
        confusion=_cells(confusion),
        counts=class_counts(confusion),
        matrix=_matrix(confusion),
        calibration=calibration(measured.probabilities, measured.labels),
        pictures=tuple(chosen.values()),
        thumbnails=_thumbnails(searched, list(chosen)),
        worst=tuple(numbers[0, index] for index in worst),
        doubts=doubts,
        seen=None if train is None or options is None else _seen(train, options),
        looks=_looks(subject, split, measured, inspection, numbers, notes),
        filters=_filters(subject, inspection),
        notes=tuple(notes),
        **given,
    )


def left_out(data: Dataset | None, outcomes: Sequence[Outcome]) -> tuple[tuple[str, str], ...]:
    """The files that could not be used, and why."""
    parts = [*([data.train] if data is not None else []), *(split for split, _ in outcomes)]
    return tuple((bad.path, bad.reason) for part in parts for bad in part.quarantined)


def _part(split: Split, measured: Measured) -> Part:
    right = int((measured.predictions == measured.labels).sum())
    return Part(split.name, len(split), right, interval(right, len(split)), measured.loss)


def _cells(confusion: torch.Tensor) -> tuple[tuple[int, int, int], ...]:
    places = confusion.nonzero()
    counts = confusion[places[:, 0], places[:, 1]]
    return tuple((*place, count) for place, count in zip(places.tolist(), counts.tolist(), strict=True))


def _matrix(confusion: torch.Tensor) -> tuple[int, ...]:
    """All classes, or of many those in the most mistakes, in their own order."""
    classes = len(confusion)
    if classes <= NAMED_CLASSES:
        return tuple(range(classes))
    mistakes = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    return tuple(sorted(mistakes.argsort(descending=True, stable=True)[:MOST_CONFUSED].tolist()))


# --- pictures: a key is (place in `searched`, number of the image) ----------------------------------------------------
Key = tuple[int, int]


def _pictures(searched: Sequence[Outcome]) -> tuple[dict[Key, Picture], Doubts, list[int]]:
    """What can be shown of the first outcome, and what is doubted in all."""
    split, measured = searched[0]
    _, h, w = split.images.shape
    worst = pictures.worst(measured, WORST)
    chosen = pictures.chosen(measured, pictures.places(h, w))
    looked_at = pictures.right_of_different_classes(measured, LOOKS)
    numbers = list(dict.fromkeys([*worst, *looked_at, *chosen]))
    known: dict[Key, Picture] = {(0, index): picture for index, picture in _paired(searched[0], numbers)}
    doubted: dict[Key, Picture] = {}
    counts = []
    for place, outcome in enumerate(searched):
        found = suspects(outcome[1].probabilities, outcome[1].labels).tolist()
        doubted |= {(place, index): picture for index, picture in _paired(outcome, found[:DOUBTS])}
        counts.append((outcome[0].name, len(found), len(outcome[0])))
    strongest = sorted(doubted, key=lambda key: -doubted[key].lead)[:DOUBTS]
    known |= {key: doubted[key] for key in strongest if key not in known}
    order = {key: number for number, key in enumerate(known)}
    return known, Doubts(tuple(order[key] for key in strongest), tuple(counts)), worst


def _paired(outcome: Outcome, numbers: Sequence[int]) -> list[tuple[int, Picture]]:
    return list(zip(numbers, _described(outcome, numbers), strict=True))


def _described(outcome: Outcome, numbers: Sequence[int]) -> list[Picture]:
    split, measured = outcome
    places = torch.tensor(numbers, dtype=torch.int64)
    shares, labels = measured.probabilities[places], split.labels[places]
    top = shares.topk(min(ANSWERS, shares.shape[1]))
    columns = (numbers, labels, shares.gather(1, labels[:, None])[:, 0], top.indices, top.values)
    rows = zip(*(column.tolist() if isinstance(column, torch.Tensor) else column for column in columns), strict=True)
    guesses = measured.predictions[places].tolist()  # the first of equals, which topk does not promise
    return [
        Picture(
            split.name,
            split.ids[number],
            label,
            own,
            tuple(sorted(zip(classes, values, strict=True), key=lambda row: (-row[1], row[0] != guess))),
        )
        for (number, label, own, classes, values), guess in zip(rows, guesses, strict=True)
    ]


def _thumbnails(searched: Sequence[Outcome], keys: Sequence[Key]) -> torch.Tensor:
    split = searched[0][0]
    c, h, w = split.images.shape
    made = torch.empty(len(keys), c, *pictures.thumb_size(h, w), dtype=torch.uint8)
    for place, (part, _) in enumerate(searched):
        rows = [row for row, key in enumerate(keys) if key[0] == place]
        if rows:
            made[rows] = pictures.thumbnails(part.images, [keys[row][1] for row in rows])
    return made


# --- training images ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Some:
    """Some images of others."""

    whole: Images
    numbers: torch.Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.whole.shape

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        return self.whole.batch(self.numbers[indices])

    def content(self) -> str:
        return f"{self.whole.content()}, {len(self.numbers)} of them"


def _train_outcomes(
    subject: Subject, train: Split, inspection: Inspection | None, epochs: int, notes: list[str]
) -> list[Outcome]:
    """The training images, all or a drawn part, measured like the others; by MACs, never by the clock, so that a report repeats."""
    if inspection is None or not inspection.totals.macs:
        return []
    macs = inspection.totals.macs
    budget = max(TRAIN_MACS, int(TRAIN_PART * 3 * epochs * len(train) * macs))  # a backward pass costs two forward ones
    numbers = sample(len(train), budget // macs)
    if len(numbers) < min(FEWEST_TRAIN, len(train)):
        notes.append("training images were not searched for wrong labels: this network takes too long for each")
        return []
    if len(numbers) < len(train):
        notes.append(f"{len(numbers):,} drawn ones of {len(train):,} training images were searched for wrong labels")
        ids = [train.ids[number] for number in numbers.tolist()]
        images = _Some(train.images, numbers)
        train = Split(train.name, images, train.labels[numbers], ids, train.sizes[numbers], train.quarantined)
    return [(train, measure(subject.net, train, subject.prepare, subject.device))]


def _seen(train: Split, options: Options) -> Seen:
    """Drawn training images as they are, and as the first epochs moved them."""
    _, h, w = train.images.shape
    large = max(h, w) > pictures.EXACT_SIDE
    numbers = sample(len(train), SEEN_LARGE if large else SEEN)
    images = train.images.batch(numbers).float()
    epochs = range((SEEN_LARGE_EPOCHS if large else SEEN_EPOCHS) if options.movement else 0)
    moved = [options.movement.apply(images, options.seed, epoch, numbers) for epoch in epochs]
    return Seen(
        torch.stack([images, *moved], 1).round().clamp(0, 255).to(torch.uint8).cpu(),
        tuple(train.ids[number] for number in numbers.tolist()),
        tuple(train.labels[numbers].tolist()),
        ("as it is", *(f"epoch {epoch + 1}" for epoch in epochs)),
    )


# --- looking inside -----------------------------------------------------------------------------------------------------
def _inspected(subject: Subject, shape: tuple[int, int, int], notes: list[str]) -> Inspection | None:
    try:
        return examine(subject.net, [Input((1, *shape))])
    except ConvolveError as error:
        notes.append(f"the network could not be inspected, so nothing of its inside is shown: {error}")
        return None


def _filters(subject: Subject, inspection: Inspection | None) -> Filters | None:
    if inspection is None or not any(row.op.startswith("conv") for row in inspection.rows):
        return None
    return next(iter(filters_of(subject.net, inspection)), None)


def _looks(
    subject: Subject,
    split: Split,
    measured: Measured,
    inspection: Inspection | None,
    numbers: dict[Key, int],
    notes: list[str],
) -> tuple[Look, ...]:
    """What spoke for the answers to some wrong and some right images."""
    if inspection is None:
        return ()
    images = [*pictures.worst(measured, LOOKS), *pictures.right_of_different_classes(measured, LOOKS)]
    rows = {row.name: row for row in attribution.METHODS}
    occlusion = rows["occlusion"]
    cheap = occlusion.passes * inspection.totals.macs * 1.5 * len(images) <= LOOK_MACS
    method = occlusion if cheap else rows["grad-cam"]
    try:
        layer = _layer(inspection, method.of_layer)
        with evaluating(subject.net), torch.enable_grad():
            return tuple(_look(subject, split, measured, index, numbers[0, index], layer, method) for index in images)
    except (
        ConvolveError,
        RuntimeError,
        NotImplementedError,
    ) as error:  # a network of a user's own may refuse gradients
        notes.append(f"what it looked at is not shown: {type(error).__name__}: {str(error).splitlines()[0]}")
        return ()


def _layer(inspection: Inspection, needs_places: bool) -> Layer:
    shown = layers.candidates(inspection)
    if not shown:
        raise ConvolveError("attribution needs a layer with maps", "this network has none")
    return attribution.cam_layer(shown) if needs_places else shown[-1]


def _look(
    subject: Subject,
    split: Split,
    measured: Measured,
    index: int,
    picture: int,
    layer: Layer,
    method: attribution.Method,
) -> Look:
    pixels = split.images.batch(torch.tensor([index]))
    image = subject.prepare(pixels.to(subject.device))
    targets = dict.fromkeys((int(measured.predictions[index]), int(split.labels[index])))
    maps = [
        attribution.attribute(subject.net, image, target, subject.classes[target], layer, [method])[0]
        for target in targets
    ]
    return Look(picture, pixels[0], tuple(maps))
