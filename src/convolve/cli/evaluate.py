"""`convolve evaluate`"""

from __future__ import annotations

from pathlib import Path

from convolve.cli import output
from convolve.cli.arguments import Json, Network, Quiet, Workers


def evaluate(
    model: Path,
    data: str | None = None,
    /,
    *,
    part: str | None = None,
    html: Path | None = None,
    network: Network = None,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a trained model on labelled images.

    Parameters
    ----------
    model
        The file model.safetensors of a run; nothing else of the run is needed.
    data
        As for `convolve train`; its classes must be among the model's. [default: digits]
    part
        test, validation or train. [default: test where there is one, else all images]
    html
        Write a report into this file: the confusion matrix and the images behind it, the worst mistakes, likely wrong labels.
    """
    from convolve.draw.progress import progress
    from convolve.draw.tables import classes
    from convolve.jobs.evaluate import evaluate as job

    with progress(quiet) as observer:
        result = job(model, data, part=part, html=html, network=network, workers=workers, observer=observer)
    for path, reason in result.quarantined:
        output.message(f"left out  {path}: {reason}")
    if json:
        output.document("evaluate", result.to_json())
        return
    output.result(classes(result))
    output.result(f"{result.headline}, loss {result.score.loss:.4f}")
