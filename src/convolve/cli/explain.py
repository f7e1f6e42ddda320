"""`convolve explain`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json


def explain(
    model: str,
    image: str,
    /,
    *,
    layer: Annotated[list[str] | None, Parameter(("--layer", "-l"), negative=())] = None,
    unit: Annotated[list[str] | None, Parameter(("--unit", "-u"), negative=())] = None,
    target: Annotated[str | None, Parameter(("--class", "-c"))] = None,
    attribution: Annotated[list[str] | None, Parameter(("--attribution", "-a"), negative=())] = None,
    cam_layer: str | None = None,
    input: Annotated[str | None, Parameter(("--input", "-i"))] = None,  # noqa: A002
    invert: Annotated[bool, Parameter(negative=())] = False,
    seed: int = 0,
    out: Annotated[Path | None, Parameter(("--out", "-o"))] = None,
    json: Json = False,
) -> None:
    """See what a network makes of an image: its maps, what each unit sees, and what speaks for its answer.

    Writes one page that opens by double click, and pictures of it. A run that was trained with --snapshots gets a slider
    from random weights to trained.

    Parameters
    ----------
    model
        The file model.safetensors of a run; or a name (`convolve models`), file.py:Class or a spec in one line, with random
        weights.
    image
        An image file, or sample:china or sample:flower.
    layer
        Show this layer (give it again for more), as `convolve inspect` calls it. [default: all, up to 24]
    unit
        Measure the gradient of this unit: LAYER:MAP,ROW,COLUMN, counted from 0, as the page names it; again for more. [default:
        the strongest ones, and as many others as the page can hold]
    target
        The class that attribution explains, by name or number. [default: the most likely one]
    attribution
        grad-cam, saliency, input-x-gradient, integrated-gradients, occlusion or none; again for more. [default: those that
        take seconds]
    cam_layer
        The layer that Grad-CAM looks at. [default: the last map with more than one position]
    input
        The input for a network that takes several sizes: 3x224x224.
    invert
        Turn light into dark first: for dark digits on white paper, when the model learned light ones on black.
    seed
        Of the random weights.
    out
        The folder to write, which must not exist yet. [default: runs/IMAGE-explained, then -2, -3, …]
    """
    from convolve.jobs.explain import explain_image

    found = explain_image(
        model,
        image,
        layers=tuple(layer or ()),
        units=tuple(unit or ()),
        target=target,
        attribution=tuple(attribution or ()),
        cam_layer=cam_layer,
        input=input,
        invert=invert,
        seed=seed,
        out=out,
    )
    for note in found.notes:
        output.message(f"note      {note}")
    if json:
        output.document("explain", found.to_json())
        return
    for name, share in found.findings.last.probabilities[:3]:
        output.result(f"{share:>6.1%}  {name}")
    output.result(found.files["page"])
    output.message(f"open it   {len(found.findings.layers)} layers, {found.seconds:.1f} s; pictures beside it")
