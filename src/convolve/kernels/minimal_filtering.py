"""The matrices of Winograd's minimal filtering F(m, r), from exact fractions.

    y = A^T [ (G g) * (B^T d) ]          m outputs of a kernel g of r taps from a tile d of m + r - 1 inputs, with as many products

Interpolation at the points 0, +-a, ... and infinity gives them (Toom-Cook, transposed). Sources: Winograd 1980; Lavin & Gray 2015
(arXiv 1509.09308). The points decide the error: those of a tile of 6, 0, +-5/8, +-3/2, are five times more accurate than the usual 0, +-1,
+-2. They belong to the tile, and so does B^T: F(5, 2), F(4, 3), F(3, 4) and F(2, 5) transform the same tiles of 6 inputs alike.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

POINTS: dict[int, tuple[Fraction, ...]] = {
    4: (Fraction(0), Fraction(1), Fraction(-1)),
    6: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
    8: (Fraction(0), *(sign * a for a in (Fraction(1), Fraction(1, 2), Fraction(2)) for sign in (1, -1))),
}
"""By the tile's size."""
TAPS = {4: (2, 3), 6: (2, 3, 4, 5), 8: (2, 3)}
"""Of the kernels that a tile serves, along an axis, by its size: at least two outputs are left."""

Matrix = tuple[tuple[Fraction, ...], ...]


@lru_cache(maxsize=16)
def matrices(m: int, taps: int = 3) -> tuple[Matrix, Matrix, Matrix]:
    """A^T (m, tile), G (tile, taps) and B^T (tile, tile), exactly; tile = m + taps - 1.

    >>> [[str(number) for number in row] for row in matrices(2)[0]]
    [['1', '1', '1', '0'], ['0', '1', '-1', '1']]
    """
    size = m + taps - 1
    points = POINTS[size]
    assert len(points) == size - 1, "all points but the one at infinity"

    def power_rows(count: int) -> list[list[Fraction]]:
        return [[a**i for a in points] + [Fraction(int(i == count - 1))] for i in range(count)]

    scale = [math.prod((a - b for b in points if b != a), start=Fraction(1)) for a in points] + [Fraction(1)]
    g = zip(*power_rows(taps), strict=True)
    g_scaled = tuple(tuple(entry / divisor for entry in row) for row, divisor in zip(g, scale, strict=True))
    without = [_polynomial([b for b in points if b != a]) for a in points]
    b_rows = [(*coefficients, *[Fraction(0)] * (size - len(coefficients))) for coefficients in without]
    return tuple(map(tuple, power_rows(m))), g_scaled, (*b_rows, tuple(_polynomial(list(points))))


def _polynomial(roots: list[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of the product of (z - root), lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [high - root * low for high, low in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return tuple(coefficients)
