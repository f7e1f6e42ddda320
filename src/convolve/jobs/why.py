"""`convolve why`: every algorithm's answer to one problem."""

from __future__ import annotations

from convolve.ops.why import Why
from convolve.ops.why import why as answers


def why(problem: str, precision: str = "default") -> Why:
    """The answers to the problem that a text describes, for example "8x64x56x56 k64 3x3 s1 p1"."""
    return answers(problem, precision)
