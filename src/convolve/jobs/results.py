"""What the training jobs return: frozen records that serialise to JSON and show themselves in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convolve.jobs.classifier import Classifier
    from convolve.training.records import Epoch


@dataclass(frozen=True)
class Score:
    """Accuracy (fraction 0..1), mean cross-entropy (nats) and number of images of one split, and the mean recall of its classes."""

    accuracy: float
    loss: float
    images: int
    balanced_accuracy: float

    def headline(self, part: str, metric: str) -> str:
        """The accuracy that may be quoted, with the right words for it; where it is the balanced one, the plain one too."""
        balanced = metric == "balanced accuracy"
        value = self.balanced_accuracy if balanced else self.accuracy
        plain = f" (classes are imbalanced; plain accuracy {self.accuracy:.2%})" if balanced else ""
        return f"{part} {metric} {value:.2%} on {self.images:,} images{plain}"


@dataclass(frozen=True)
class Run:
    """A finished training run: its folder, its scores, and how it got there.

    `test` is None when the data has no test split; the headline is then the validation accuracy, by that name.
    """

    folder: Path
    model: str
    classes: tuple[str, ...]
    validation: Score
    test: Score | None
    best_epoch: int
    history: tuple[Epoch, ...]
    seconds: float
    files: Mapping[str, str]
    metric: str = "accuracy"  # or "balanced accuracy", where the classes of the training images are imbalanced

    @property
    def headline(self) -> str:
        """The accuracy that may be quoted, with the right word for it."""
        word, score = ("test", self.test) if self.test is not None else ("validation", self.validation)
        return score.headline(word, self.metric)

    def load(self) -> Classifier:
        """The trained network, as `convolve.load(run.files["model"])` returns it."""
        from convolve.jobs.classifier import load

        return load(self.files["model"])

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        return {
            "folder": str(self.folder),
            "model": self.model,
            "classes": list(self.classes),
            "validation": asdict(self.validation),
            "test": None if self.test is None else asdict(self.test),
            "metric": self.metric,
            "best_epoch": self.best_epoch,
            "epochs": [asdict(record) for record in self.history],
            "seconds": self.seconds,
            "files": dict(self.files),
        }

    def _repr_html_(self) -> str:
        rows = [
            ("model", self.model),
            ("result", self.headline),
            ("best epoch", f"{self.best_epoch} of {len(self.history)}"),
        ]
        rows += [("seconds", f"{self.seconds:.1f}"), ("folder", str(self.folder))]
        return html_table(("", "run"), rows)


@dataclass(frozen=True)
class ClassScore:
    """How one class fared: `recall` of its images found, `precision` of its predictions right (None where undefined)."""

    name: str
    images: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class Evaluation:
    """A model measured on labelled images; `confusion` counts rows = true class, columns = predicted class."""

    model: str
    data: str
    split: str
    score: Score
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    seconds: float
    quarantined: tuple[tuple[str, str], ...] = ()
    metric: str = "accuracy"  # or "balanced accuracy", where the classes of the model's training images were imbalanced

    @property
    def headline(self) -> str:
        """The accuracy that may be quoted, with the right words for it."""
        return self.score.headline(self.split, self.metric)

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        return {
            "model": self.model,
            "data": self.data,
            "split": self.split,
            **asdict(self.score),
            "metric": self.metric,
            "classes": [asdict(row) for row in self.classes],
            "confusion": [list(row) for row in self.confusion],
            "quarantined": [{"path": path, "reason": reason} for path, reason in self.quarantined],
            "seconds": self.seconds,
        }

    def _repr_html_(self) -> str:
        rows = [(row.name, f"{row.images:,}", _share(row.recall), _share(row.precision)) for row in self.classes]
        head = f"<p><b>{html.escape(self.headline)}</b></p>"
        return head + html_table(("class", "images", "recall", "precision"), rows)


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image: the classes with their probabilities, most likely first, and what to beware of."""

    image: str
    probabilities: tuple[tuple[str, float], ...]
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return self.probabilities[0][0]

    @property
    def confidence(self) -> float:
        return self.probabilities[0][1]

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        return {
            "image": self.image,
            "label": self.label,
            "confidence": self.confidence,
            "probabilities": dict(self.probabilities),
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        return html_table(("class", "probability"), [(name, f"{share:.1%}") for name, share in self.probabilities[:5]])


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain HTML table, every cell escaped."""
    cells = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    cells += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
