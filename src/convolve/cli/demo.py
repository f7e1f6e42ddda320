"""`convolve demo`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output

CLAIMS = ("S000-3", "S000-4", "S002-2", "S004-6")  # edges found, a kernel learned, (3,6,6) to (64,2,2), the 9x25 matrix


def demo(*, out: Annotated[Path | None, Parameter(("--out", "-o"))] = None) -> None:
    """Recompute four claims about convolution, train on scikit-learn's 1,797 small digits (embedded), predict a few of them.

    Parameters
    ----------
    out
        The run's folder, which must not exist yet. [default: runs/digits-lenet_relu, then -2, -3, …]
    """
    from convolve.draw.claims import as_text
    from convolve.draw.progress import progress
    from convolve.draw.tables import predictions
    from convolve.jobs import demo as job
    from convolve.jobs.claims import check_claims

    for claim in check_claims(CLAIMS):
        output.result(as_text(claim))
    with progress(quiet=False) as observer:
        result = job.demo(out, observer=observer)
    output.result(f"\n{result.run.headline}\n")
    output.result(predictions(result.predictions))
    output.result("\nwhere things are")
    for name, path in result.run.files.items():
        output.result(f"  {name:<14}{path}")
    output.result(f"  {'digits':<14}{result.images}")
    output.result(
        f"\nnext: convolve predict {result.run.files['model']} YOUR-IMAGE.png   or   convolve train YOUR-PHOTOS/"
    )
