"""`convolve animate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json


def animate(
    operator: str = "conv",
    /,
    *,
    input: Annotated[str | None, Parameter(("--input", "-i"))] = None,  # noqa: A002 - the flag's name
    kernel: Annotated[str | None, Parameter(("--kernel", "-k"))] = None,
    stride: Annotated[str | None, Parameter(("--stride", "-s"))] = None,
    padding: Annotated[str, Parameter(("--padding", "-p"))] = "0",
    dilation: str = "1",
    groups: int | None = None,
    group_order: Literal["contiguous", "interleaved"] = "contiguous",
    channels: int | None = None,
    filters: int | None = None,
    output_padding: str = "0",
    padding_mode: str = "zeros",
    bias: Annotated[bool, Parameter(negative=())] = False,
    flip: Annotated[bool, Parameter(negative=())] = False,
    ceil_mode: Annotated[bool, Parameter(negative=())] = False,
    count_include_pad: bool = True,
    resize: str | None = None,
    seed: int = 0,
    theme: Literal["auto", "light", "dark", "print"] = "auto",
    to: str = "html,gif,svg",
    step: int | None = None,
    out: Annotated[Path | None, Parameter(("--out", "-o"))] = None,
    json: Json = False,
) -> None:
    """Show an operator at work, step by step: a page that opens by double click, and pictures for slides.

    Parameters
    ----------
    operator
        conv, conv-transpose, max-pool, avg-pool, trainable-pool (LeNet-5's), grouped, depthwise, pointwise, separable, or
        compare (several on one input).
    input
        A size (7, 5x5, 3x5x5 with channels first) filled with small random integers; numbers ("1 2 3; 4 5 6", channels
        apart by |); or an image: a file, sample:china, sample:flower.
    kernel
        A size (3, 3x2), numbers ("0 1 2; 2 2 0; 0 1 2"), or a filter's name (sobel-x). [default: 3; pooling 2]
    stride
        One number, or one per axis (2x1). [default: 1; pooling: the kernel's size]
    padding
        One number, one per axis (1x2), before and after per axis (0:1x1:2), same, same_lower or valid.
    group_order
        Which channels a group reads: a block of them (contiguous), or every so many-th (interleaved).
    filters
        How many output maps.
    padding_mode
        zeros, reflect, replicate or circular.
    flip
        Turn the kernel around first: the convolution of mathematics.
    resize
        The size HxW to which an image is scaled. [default: 16 pixels on its longer side]
    to
        The kinds of files, apart by commas: html, gif, svg, png.
    step
        The step that svg and png show, counted from 1. [default: the last]
    out
        The files' name, with or without an ending. [default: what is shown, such as conv-k3-s2-p1]
    """
    from convolve.jobs.animate import FORMATS
    from convolve.jobs.animate import animate as job

    ending = out.suffix.removeprefix(".").lower() if out is not None else ""
    kinds = ending if ending in FORMATS and to == "html,gif,svg" else to
    shown = job(
        operator, input, kernel, stride, padding, dilation, groups, group_order=group_order, channels=channels, filters=filters,
        output_padding=output_padding, padding_mode=padding_mode, bias=bias, flip=flip, ceil_mode=ceil_mode,
        count_include_pad=count_include_pad, resize=resize, seed=seed, theme=theme, to=(kinds,), out=out, step=step,
    )  # fmt: skip
    if json:
        output.document("animate", shown.to_json())
        return
    output.result(shown.title)
    for scene in shown.scenes:
        for stage in scene.stages:
            named = f"{scene.name}: " if len(shown.scenes) > 1 else ""
            output.result(f"  {named}{stage.operator}  " + ", ".join(dict.fromkeys(stage.size_formulas)))
    output.result("wrote " + "  ".join(str(path) for path in shown.files))
    if any(path.suffix == ".gif" for path in shown.files) and shown.left_out_of_gif:
        output.message(f"the GIF leaves out {shown.left_out_of_gif:,} steps (it has up to 120); the page shows all")
    layer = next((line for line in shown.scenes[0].stages[0].code.splitlines() if line.startswith("layer = ")), None)
    if layer is not None and len(shown.scenes) == 1:
        output.result(f"in PyTorch:  {layer.removeprefix('layer = ')}")
