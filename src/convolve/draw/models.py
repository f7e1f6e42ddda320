"""The list of networks as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from convolve.draw.tables import table

if TYPE_CHECKING:
    from convolve.jobs.models import ModelList

HEAD = ("name", "input", "classes", "parameters", "macs", "field", "what", "paper")


def model_table(found: ModelList) -> Table:
    """One line per network; numbers in full, so that they can be compared with a paper's."""
    rows = [
        (
            model.name,
            f"{model.channels}x{model.size[0]}x{model.size[1]}",
            f"{model.num_classes:,}",
            f"{model.parameters:,}" + (f" + {model.fixed:,} fixed" if model.fixed else ""),
            f"{model.macs:,}",
            f"{model.receptive_field}",
            model.summary,
            model.paper,
        )
        for model in found.models
    ]
    return table(HEAD, rows, right=(2, 3, 4, 5))
