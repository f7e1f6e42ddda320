"""The list of networks as a table for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from convolve.draw.tables import table

if TYPE_CHECKING:
    from convolve.jobs.models import ModelList

HEAD = ("name", "input", "classes", "parameters", "macs", "field", "accuracy", "what", "paper")


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
            "-" if model.accuracy is None else str(model.accuracy),
            model.summary,
            model.paper,
        )
        for model in found.models
    ]
    return table(HEAD, rows, right=(2, 3, 4, 5))


def model_markdown(found: ModelList) -> str:
    """The same as a Markdown table, with the smallest input: docs/models.md holds it."""
    lines = [
        "| name | input | smallest | classes | parameters | macs | field | accuracy | what | paper |",
        "|---|---|---|--:|--:|--:|--:|---|---|---|",
    ]
    for model in found.models:
        fixed = f" + {model.fixed:,} fixed" if model.fixed else ""
        smallest = "x".join(map(str, model.smallest))
        accuracy = "-" if model.accuracy is None else str(model.accuracy)
        lines.append(
            f"| `{model.name}` | {model.channels}x{model.size[0]}x{model.size[1]} | {smallest} | {model.num_classes:,} "
            f"| {model.parameters:,}{fixed} | {model.macs:,} | {model.receptive_field} | {accuracy} | {model.summary} | {model.paper} |"
        )
    return "\n".join(lines)
