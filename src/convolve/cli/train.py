"""`convolve train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Device, Json, Quiet, Workers
from convolve.errors import UsageError


def train(
    data: str | None = None,
    /,
    *,
    model: Annotated[str | None, Parameter(("--model", "-m"))] = None,
    epochs: int | None = None,
    batch_size: Annotated[int | None, Parameter(("--batch-size", "-b", "--batch"))] = None,
    lr: float | None = None,
    opt: str | None = None,
    img_size: Annotated[str | None, Parameter(("--img-size", "--imgsz"))] = None,
    seed: int | None = None,
    val_split: float | None = None,
    augment: str | None = None,
    snapshots: int | None = None,
    weights: str | None = None,
    stem: str | None = None,
    channels: int | None = None,
    freeze: str | None = None,
    dropout: float | None = None,
    weight_decay: float | None = None,
    l1: float | None = None,
    label_smoothing: float | None = None,
    schedule: str | None = None,
    warmup: float | None = None,
    patience: int | None = None,
    clip: float | None = None,
    amp: str | None = None,
    fit: str | None = None,
    split: Path | None = None,
    out: Annotated[Path | None, Parameter(("--out", "-o"))] = None,
    resume: Path | None = None,
    device: Device = "auto",
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on images and write a run folder.

    What is left out is chosen from the data and the model, and said.

    Parameters
    ----------
    data
        digits (the default), a name that `convolve data get` fetched, a folder of IDX files, a folder with one
        sub-folder of images per class (or with train/, val/, test/ holding such folders), or a .zip of one.
    model
        The network: a name (`convolve models` lists them), a line such as "conv 8 3, relu, gap, fc classes", or FILE.py:NAME, whose
        code then runs. [default: smallnet; for pictures below 28 pixels lenet_relu]
    epochs
        How often every training image is seen. [default: the model's]
    batch_size
        Images per step. [default: the model's, less for small data]
    lr
        Peak learning rate. [default: the model's]
    opt
        sgd, adam or adamw. [default: the model's]
    img_size
        Height and width in pixels: 64, or 48x64. [default: chosen from the data and the model]
    seed
        Decides initial weights, order and split. [default: 0]
    val_split
        Part of the training images held out for validation, 0 to 1. [default: the data's own, else 0.2]
    augment
        How images change in every epoch: a line such as "flip, crop 4, shift 0.1, rotate 10, scale 0.1, noise 0.05, colour 0.2, pca",
        the words gentle (shift, rotate, scale) or none, or auto: RGB pictures flip and crop, fewer than 20,000 grey ones gentle.
    snapshots
        Keep this many sets of weights, from random to trained, for `convolve explain`. [default: 0]
    weights
        Start from this .safetensors or .pth file (published under torchvision's names, or a state dict of yours), from an earlier run
        (its folder or model.safetensors), or from torchvision, which downloads the published file for --model.
    stem
        small: the network's first layers for small pictures, where it has such; paper: as published. [default: paper]
    channels
        1 makes the pictures grey, 3 RGB. [default: as they are]
    freeze
        Layers that keep their weights, by name or pattern: features, "conv1, layer[12]*", or all-but-last. [default: none]
    dropout
        The probability of every dropout layer of the network. [default: as the network was made]
    weight_decay
        L2, not on biases and normalisation. [default: the model's]
    l1
        Weight of the sum of absolute weights, not on biases and normalisation. [default: 0]
    label_smoothing
        0 to 1. [default: the model's]
    schedule
        constant, cosine or onecycle: how the learning rate goes. [default: the model's]
    warmup
        Epochs in which the rate rises to its peak. [default: 0; onecycle: three tenths of all]
    patience
        Stop after so many epochs that are not better; the best epoch's weights are kept anyway. [default: never]
    clip
        The largest norm of the gradients together. [default: not clipped]
    amp
        bf16, off, or auto: what a few timed steps show to be faster; it is stored with the run. [default: off on a CPU, so that
        runs repeat; auto elsewhere]
    fit
        Pictures of other proportions than the network's are: crop (the middle is kept), pad (all is kept, between plain borders)
        or stretch (distorted). [default: nothing to do, crop or pad, whichever the data needs]
    split
        Take this split: a CSV file with the columns image and part, such as split.csv of a run or what `convolve data check
        --split` wrote. [default: the data's own, else by content]
    out
        The run's folder, which must not exist yet. [default: runs/DATA-MODEL, then -2, -3, …]
    resume
        Go on with this run, from its folder alone.
    """
    from convolve.draw.progress import progress
    from convolve.jobs import train as job

    choices = {
        "model": model,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "opt": opt,
        "img_size": None if img_size is None else _size(img_size),
        "seed": seed,
        "val_split": val_split,
        "augment": augment,
        "snapshots": snapshots,
        "weights": weights,
        "stem": stem,
        "channels": channels,
        "freeze": freeze,
        "dropout": dropout,
        "weight_decay": weight_decay,
        "l1": l1,
        "label_smoothing": label_smoothing,
        "schedule": schedule,
        "warmup": warmup,
        "patience": patience,
        "clip": clip,
        "amp": amp,
        "fit": fit,
        "split": split,
        "out": out,
    }
    given = {name: value for name, value in choices.items() if value is not None}
    with progress(quiet or not job.is_first()) as observer:
        if resume is None:
            if data is not None and "=" in data:
                name, _, value = data.partition("=")
                raise UsageError("options begin with two dashes", f"got {data!r}", f"write --{name} {value}")
            run = job.train(data, **given, device=device, workers=workers, observer=observer)  # type: ignore[arg-type]
        else:
            if data is not None or given:
                received = ", ".join(
                    (["DATA"] if data is not None else []) + [f"--{name.replace('_', '-')}" for name in given]
                )
                raise UsageError(
                    "a resumed run keeps its own choices", f"got {received} too", "leave them out, or train anew"
                )
            run = job.resume(resume, device=device, workers=workers, observer=observer)
    if not job.is_first():
        return
    if json:
        output.document("train", run.to_json())
        return
    output.result(f"{run.headline}\n{run.files['model']}")
    output.message(f"try it    convolve predict {run.files['model']} IMAGE")


def _size(text: str) -> int | tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise UsageError("--img-size is a side or HEIGHTxWIDTH in pixels", f"got {text!r}", "use 64 or 48x64")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
