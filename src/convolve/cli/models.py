"""`convolve models`"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json


def models(
    pattern: str = "*",
    /,
    *,
    variants: Annotated[bool, Parameter(("--variants", "-a"), negative=())] = False,
    json: Json = False,
) -> None:
    """List the networks that can be trained, with their size and cost.

    Parameters
    ----------
    pattern
        Names to list, for example "vgg*".
    variants
        List every definition of each network, not only its default.
    """
    from convolve.draw.models import model_table
    from convolve.jobs.models import models as job

    found = job(pattern, variants)
    if json:
        output.document("models", found.to_json())
        return
    output.result(model_table(found))
    output.message("macs: multiply-adds of one image; field: what one unit of the last maps sees, in pixels")
    output.message(
        "accuracy: as its source says (measured: by this project, see docs/models.md); other data, other meaning"
    )
    if not variants:
        output.message(
            "more definitions of each: convolve models --variants; train one: convolve train DATA --model NAME"
        )
