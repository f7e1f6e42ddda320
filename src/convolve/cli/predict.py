"""`convolve predict`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json, Network


def predict(
    model: Path,
    /,
    *images: Path,
    invert: Annotated[bool, Parameter(negative=())] = False,
    network: Network = None,
    json: Json = False,
) -> None:
    """Classify images with a trained model.

    Parameters
    ----------
    model
        The file model.safetensors of a run; nothing else of the run is needed.
    images
        Image files, or folders of them.
    invert
        Turn light into dark first: for dark digits on white paper, when the model learned light ones on black.
    """
    from convolve.draw.tables import predictions
    from convolve.errors import UsageError
    from convolve.jobs.predict import predict as job

    if not images:
        raise UsageError("predict needs at least one image", "got none", "convolve predict MODEL IMAGE ...")
    found, errors = job(model, images, invert=invert, network=network)
    for error in errors:
        output.message(f"left out  {error}")
    for prediction in found:
        for note in prediction.notes:
            output.message(f"note      {prediction.image}: {note}")
    if json:
        left_out = [{"error": error.rule, "why": error.received, "fix": error.remedy} for error in errors]
        output.document("predict", {"predictions": [row.to_json() for row in found], "left_out": left_out})
        return
    output.result(predictions(found))
