"""`convolve measure`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json

Flag = Parameter(negative=())


def measure(
    *what: str,
    input: Annotated[str | None, Parameter(("--input", "-i"))] = None,  # noqa: A002
    batch: Annotated[int, Parameter(("--batch", "-b"))] = 1,
    train: Annotated[bool, Flag] = False,
    freeze: Annotated[bool, Flag] = False,
    seconds: float = 0.3,
    file: Path | None = None,
    json: Json = False,
) -> None:
    """Time the algorithms on this machine and remember the fastest: `auto` then goes by measured times.

    Parameters
    ----------
    what
        Problems ("8x64x56x56 k64 3x3 s1 p1", as for `convolve why`), or one network: a name, file.py:Class, a saved model.
        [default: two dozen everyday problems]
    input
        A network's input without the batch: 3x224x224. [default: its own]
    batch
        Images at a time.
    train
        A network's backward pass too.
    freeze
        As for inference with frozen weights: transformed copies are made once.
    seconds
        About how long one problem may take.
    file
        The file that remembers. [default: this machine's, in the cache]
    """
    from convolve.jobs.measure import measure_here

    found = measure_here(what, input=input, batch=batch, train=train, freeze=freeze, seconds=seconds, path=file)
    if json:
        output.document("measure", found.to_json())
        return
    output.result(str(found))
