"""`convolve export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json, Network, Workers


def export(
    model: Path,
    /,
    *,
    to: str = "onnx",
    out: Annotated[Path | None, Parameter(("--out", "-o"))] = None,
    data: str | None = None,
    network: Network = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Export a trained model to one file for other programs, checked on real images.

    Parameters
    ----------
    model
        The file model.safetensors of a run, or the run's folder.
    to
        onnx; torch: a .pt2 program that torch runs without convolve; safetensors: the plain weights. A program takes uint8
        pictures of the model's size and holds the normalisation; classes and preprocessing are in each file's metadata.
    out
        The file to write. [default: model.onnx, model.pt2 or model.weights.safetensors beside the model]
    data
        Real images to check the file on: a folder of them, or a data set as for `convolve train`. [default: digits or sample photos]
    """
    from convolve.jobs.export import export as job

    made = job(model, to, out=out, data=data, network=network, workers=workers)
    if json:
        output.document("export", made.to_json())
        return
    output.result("\n".join(made.lines()))
    if made.to == "onnx":
        output.message("use it    docs/export.md has an example with onnxruntime alone")
