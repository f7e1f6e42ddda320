"""`convolve inspect`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json

if TYPE_CHECKING:
    from convolve.jobs.inspection import Inspection

Flag = Parameter(negative=())


def inspect(
    model: str,
    /,
    *,
    input: Annotated[str | None, Parameter(("--input", "-i"))] = None,  # noqa: A002
    batch: Annotated[int, Parameter(("--batch", "-b"))] = 1,
    optimizer: str | None = None,
    wide: Annotated[bool, Flag] = False,
    strict: Annotated[bool, Flag] = False,
    data: Annotated[bool, Flag] = False,
    layer: str | None = None,
    index: str | None = None,
    smallest: Annotated[bool, Flag] = False,
    reach: int | None = None,
    size: str | None = None,
    profile: str | None = None,
    diff: str | None = None,
    like: str | None = None,
    max_macs: str | None = None,
    max_params: str | None = None,
    max_memory: str | None = None,
    time: Annotated[bool, Flag] = False,
    json: Json = False,
    markdown: Annotated[bool, Flag] = False,
    csv: Annotated[bool, Flag] = False,
    svg: Path | None = None,
    html: Path | None = None,
) -> None:
    """Shapes, receptive fields, cost and memory of a network, before it runs.

    Parameters
    ----------
    model
        A name (`convolve.models`), file.py:Class, file.py:function(), a saved model.safetensors, or a spec in one line:
        "conv 6 5 p2, relu, max 2, fc 10".
    input
        The input without the batch: 3x224x224; several: "3x224x224, 10". [default: the network's own]
    batch
        Images at a time.
    optimizer
        Trace a training step too, for its memory: sgd, sgd-momentum, adagrad, rmsprop, adam or adamw.
    wide
        All columns.
    strict
        Fail if any operator is not known exactly.
    data
        Run it once for real, for networks that look at the values of tensors.
    layer
        The receptive field of one element of this layer instead of the table.
    index
        Its position, as 3,4. [default: the middle]
    smallest
        The smallest square input that the network accepts.
    reach
        Single changes of stride or dilation after which the last map sees this many pixels, cheapest first.
    size
        The input sizes for which --layer has this size.
    profile
        What torchinfo, fvcore or torch count, and why it differs.
    diff
        Compare with another network (anything that MODEL may be).
    like
        Compare with the totals published by paper, torchvision, d2l, …; exit code 4 if they differ.
    max_macs
        Exit code 4 above this many MACs, as 600M.
    max_params
        Exit code 4 above this many parameters, as 5M.
    max_memory
        Exit code 4 above this peak memory in bytes, as 512MiB (of training with --optimizer, else of inference).
    time
        Run it: milliseconds per layer in torch and with our operators, interleaved.
    markdown
        Print a Markdown table.
    csv
        Print comma-separated values, every column.
    svg
        Write the diagram to this file.
    html
        Write a page with the diagram and the table to this file.
    """
    from convolve.jobs.inspection import Questions, inspection

    questions = Questions(
        batch=batch, optimizer=optimizer, strict=strict, data=data, layer=layer, index=index, smallest=smallest, reach=reach,
        size=size, profile=profile, diff=diff, like=like, max_macs=max_macs, max_params=max_params, max_memory=max_memory,
        time=time,
    )  # fmt: skip
    try:
        found = inspection(model, input, questions)
    except Exception as error:
        for note in getattr(error, "__notes__", ()):
            output.message(note + "\n")
        raise
    _write(found, svg, html)
    if json:
        output.document("inspect", found.data)
    elif markdown or csv:
        from convolve.draw import inspect as draw

        output.result(
            draw.markdown(found.wide if wide else found.sheet) if markdown else draw.csv(found.keys, found.values)
        )
    elif found.answer:
        output.result("\n".join(found.answer))
    else:
        from convolve.draw.inspect import terminal

        sheet = found.wide if wide else found.sheet
        output.result(f"{sheet.title}   {', '.join(sheet.inputs)}\n")
        output.result(terminal(sheet))
        output.result("\n" + "\n".join(sheet.summary))
    found.check()


def _write(found: Inspection, svg: Path | None, html: Path | None) -> None:
    if svg is None and html is None:
        return
    from convolve.draw.diagram import svg as drawn
    from convolve.draw.inspect import page
    from convolve.files import atomic_write

    diagram = drawn(found.sheet)
    for path, content in ((svg, diagram + "\n"), (html, page(found.sheet, diagram) if html else "")):
        if path is not None:
            with atomic_write(path) as file:
                file.write(content)
            output.message(f"wrote {path}")
