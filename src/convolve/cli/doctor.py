"""`convolve doctor`"""

from __future__ import annotations

from convolve.cli import output
from convolve.cli.arguments import Json


def doctor(*, json: Json = False) -> None:
    """Print versions, CPU, threads and folders, and what looks wrong."""
    from convolve.draw.tables import health
    from convolve.jobs.doctor import doctor as job

    found = job()
    if json:
        output.document("doctor", found.to_json())
        return
    output.result(health(found))
    for warning in found.warnings:
        output.message(f"warning   {warning}")
