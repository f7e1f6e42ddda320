"""The table of algorithms. Adding one is one file beside this one, and one line here."""

from __future__ import annotations

from convolve.ops.algorithm import Algorithm
from convolve.ops.algorithms import reference, torch_row

# Ordered: where two rows promise the same time, the upper one is taken.
ALGORITHMS: tuple[Algorithm, ...] = (
    torch_row.ALGORITHM,
    reference.ALGORITHM,
)
