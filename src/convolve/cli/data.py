"""`convolve data get`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json


def get(
    name: str,
    *,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    json: Json = False,
) -> None:
    """Download a well-known data set into the cache: the one command that uses the network.

    The origin and the size are printed first, the files are checked against pinned sha256 digests, and a download that
    was cut off continues. Afterwards `convolve train NAME` finds it.

    Parameters
    ----------
    name
        mnist, fashion-mnist or cifar10.
    from_
        A folder that holds the files already; nothing is downloaded.
    """
    from convolve.draw.progress import progress
    from convolve.jobs.data_get import data_get as job

    with progress(quiet=False) as lines:
        got = job(name, from_, tell=lines.say, progress=lines.reading)
    if json:
        output.document("data-get", got.to_json())
        return
    how = ", ".join(
        f"{len(files)} {word}"
        for files, word in ((got.downloaded, "downloaded"), (got.taken, "copied"), (got.present, "there already"))
        if files
    )
    output.result(f"{got.name} is in {got.folder} ({how}; digests checked)\ntrain on it: convolve train {got.name}")
