"""What a report consists of: frozen records, gathered by this folder, drawn by `draw.report`, read by tests.

Classes are numbers, places in `Report.classes`; shares and accuracies are fractions 0..1; a picture is a place in `Report.pictures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from convolve.explain.records import Attribution, Filters
    from convolve.training.judge import Calibration, ClassCounts, Interval
    from convolve.training.records import Epoch


@dataclass(frozen=True)
class Part:
    """One measured part of the data."""

    name: str
    images: int
    right: int
    interval: Interval
    loss: float


@dataclass(frozen=True)
class Picture:
    """One image that the page can show: what it is called, its label, and the network's most likely answers, with their shares."""

    part: str
    name: str
    label: int
    own: float  # the share of the label
    answers: tuple[tuple[int, float], ...]

    @property
    def lead(self) -> float:
        """How far the answer is ahead of the label; above 0 where the answer is wrong."""
        return self.answers[0][1] - self.own


@dataclass(frozen=True)
class Doubts:
    """Likely wrong labels, the strongest first; `counts` says of each part how many were found among how many."""

    pictures: tuple[int, ...]
    counts: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, eq=False)
class Seen:
    """Training images as the network gets them: uint8 [image, version, c, h, w]; the first version is the image as it is."""

    pixels: Tensor
    names: tuple[str, ...]
    labels: tuple[int, ...]
    versions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Look:
    """What spoke for an answer: the image, uint8 [c, h, w], and one map for its answer and, where that is wrong, one for its label."""

    picture: int
    pixels: Tensor
    maps: tuple[Attribution, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that report.html shows. What was not there to gather (an evaluation has no history) is empty or None.

    confusion   counts that are not 0, as (true, predicted, images)      matrix   the classes that the matrix shows
    thumbnails  uint8 [pictures, c, h, w]      asked   the request and all choices by group, as words
    """

    model: str
    data: str
    classes: tuple[str, ...]
    parts: tuple[Part, ...]  # the first is the one that all else is about
    balanced: float
    confusion: tuple[tuple[int, int, int], ...]
    counts: tuple[ClassCounts, ...]
    matrix: tuple[int, ...]
    calibration: Calibration
    pictures: tuple[Picture, ...]
    thumbnails: Tensor
    worst: tuple[int, ...]
    doubts: Doubts
    history: tuple[Epoch, ...] = ()
    seen: Seen | None = None
    looks: tuple[Look, ...] = ()
    filters: Filters | None = None
    said: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    findings: tuple[Mapping[str, object], ...] = ()
    choices: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    repeat: str = ""
    commands: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def main(self) -> Part:
        return self.parts[0]

    @property
    def pairs(self) -> tuple[tuple[int, int, int], ...]:
        """The mistakes by (true, predicted, images), the most frequent first."""
        return tuple(sorted((cell for cell in self.confusion if cell[0] != cell[1]), key=lambda cell: -cell[2]))
