"""`convolve why`"""

from __future__ import annotations

from convolve.cli import output
from convolve.cli.arguments import Json


def why(problem: str, /, *, precision: str = "default", json: Json = False) -> None:
    """Print which algorithm computes a convolution, and why not each of the others.

    Parameters
    ----------
    problem
        "8x64x56x56 k64 3x3 s1 p1": batch x channels x size, filters, kernel, stride, padding; then, where they are not the
        default, d (dilation), g (groups), psame, transposed, a dtype, channels_last, input_gradient, weight_gradient, cuda.
    precision
        default, exact or reproducible.
    """
    from convolve.jobs.why import why as job

    found = job(problem, precision)
    if json:
        output.document("why", found.to_json())
        return
    output.result(str(found))
