"""`convolve data get` and `convolve data check`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json, Quiet, Workers
from convolve.errors import CheckFailedError


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


def check(
    data: str | None = None,
    /,
    *,
    html: Path | None = None,
    split: Path | None = None,
    strict: Annotated[bool, Parameter(negative=())] = False,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find what is wrong with a data set, before training does: the worst first, each with what to do.

    Counts and balance, sizes and colours, files that cannot be read, copies and near duplicates within and across classes and
    parts, folders that are not what they seem. The data is only read. Exit code 0 whatever is found, unless --strict;
    3 when there is nothing to examine.

    Parameters
    ----------
    data
        As for `convolve train`, also folders that it refuses. [default: digits]
    html
        Write a page with thumbnails of what was found.
    split
        Write a split into training and validation that keeps near duplicates on one side; for `convolve train --split`.
    strict
        Exit with 4 when anything was found that stops or harms training.
    """
    from convolve.draw.data_check import text
    from convolve.draw.progress import progress
    from convolve.jobs.data_check import data_check as job

    with progress(quiet) as observer:
        found = job(data, html=html, split=split, workers=workers, observer=observer)
    if json:
        output.document("data-check", found.to_json())
    else:
        output.result(text(found))
    for path, what in ((html, "page"), (split, "split")):
        if path is not None:
            output.message(f"{what:<9} {path}")
    if strict and found.worse:
        received = f"{len(found.worse)} findings: {', '.join(finding.kind for finding in found.worse)}"
        if json:
            raise SystemExit(CheckFailedError.exit_code)  # the one document is printed already
        raise CheckFailedError("nothing that stops or harms training may be found", received, "see above")
