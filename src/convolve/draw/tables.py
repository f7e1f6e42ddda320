"""Results of jobs as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from convolve.jobs.doctor import Health
    from convolve.jobs.results import Evaluation, Prediction


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Table:
    """A quiet table: bold head, no frame, the columns in `right` flush right; cells are plain text, never markup."""
    drawing = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for index, title in enumerate(head):
        drawing.add_column(Text(title), justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        drawing.add_row(*(Text(cell) for cell in row))
    return drawing


def classes(result: Evaluation) -> Table:
    """Per class: images, how many were found (recall), how many predictions were right (precision)."""
    rows = [(row.name, f"{row.images:,}", _percent(row.recall), _percent(row.precision)) for row in result.classes]
    return table(("class", "images", "recall", "precision"), rows, right=(1, 2, 3))


def predictions(found: Sequence[Prediction]) -> Table:
    """Per image: its class, how sure, and the next two."""
    rows = [
        (
            prediction.image,
            prediction.label,
            f"{prediction.confidence:.1%}",
            ", ".join(f"{name} {share:.1%}" for name, share in prediction.probabilities[1:3]),
        )
        for prediction in found
    ]
    return table(("image", "class", "probability", "then"), rows, right=(2,))


def health(found: Health) -> Table:
    """What `convolve doctor` found."""
    rows = [*found.versions.items(), ("system", found.system)]
    rows += [("processor", f"{found.processor} ({found.capability})"), ("cores", str(found.cores))]
    rows += [("threads", str(found.threads)), ("accelerator", found.accelerator or "none")]
    rows += [(f"{name} folder", path) for name, path in found.folders.items()]
    rows += [("free here", f"{found.free_bytes / 2**30:,.1f} GiB")]
    return table(("", "this machine"), rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
