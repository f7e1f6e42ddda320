"""`convolve report`"""

from __future__ import annotations

from pathlib import Path

from convolve.cli import output
from convolve.cli.arguments import Json, Network, Quiet, Workers


def report(
    folder: Path,
    /,
    *,
    network: Network = None,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make report.html of a finished run again, from its folder and the data that it was trained on.

    Every `convolve train` writes one; this is for runs of an older version, or after the page was deleted.

    Parameters
    ----------
    folder
        The folder of a run.
    """
    from convolve.draw.progress import progress
    from convolve.jobs.report import report as job

    with progress(quiet) as observer:
        path = job(folder, network=network, workers=workers, observer=observer)
    if json:
        output.document("report", {"folder": str(folder), "file": str(path)})
        return
    output.result(str(path))
