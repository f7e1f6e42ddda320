"""The ten targets of LeNet-5's output: 7x12 pictures of the digits, +1 for ink and -1 for paper.

Source: LeCun, Bottou, Bengio, Haffner 1998, figure 3 (the stylised ASCII set that the output units are set to). This is a
transcription of the figure, made by fitting a grid of 7x12 cells to a scan in which a grey frame covers part of each
outer cell. What one cannot see there, and the rule used: an outer cell counts as ink when its visible part does. The bar over
0, 2, 4 and 5, which tells them from the letters O, Z, y and S, is in the figure.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = """
.#####.  ...##..  .#####.  #######  .#####.  .#####.  ..####.  #######  .#####.  .#####.
.......  ..###..  .......  .....##  .......  .......  .##....  .....##  ##...##  ##..###
..###..  .####..  .#####.  ....##.  .......  #######  ##.....  .....##  ##...##  ##...##
.##.##.  ...##..  ##...##  ...##..  .##..##  ##.....  ##.....  ....##.  ##...##  ##...##
##...##  ...##..  #....##  ..####.  .##..##  ##.....  ######.  ...##..  .#####.  ##..###
##...##  ...##..  ....##.  .....##  ###..##  .####..  ###..##  ...##..  ##...##  .######
##...##  ...##..  ..###..  .....##  ##...##  ..####.  ##...##  ..##...  ##...##  .....##
##...##  ...##..  .##....  .....##  ##...##  .....##  ##...##  ..##...  ##...##  .....##
.##.##.  ...##..  ##.....  ##...##  ##..###  ##...##  ###..##  ..##...  ##...##  ....##.
..###..  .######  #######  .#####.  .######  .#####.  .#####.  ..##...  .#####.  .####..
.......  .......  .......  .......  .....##  .......  .......  .......  .......  .......
.......  .......  .......  .......  .....##  .......  .......  .......  .......  .......
"""


def digit_bitmaps() -> Tensor:
    """The bitmaps as a (10, 84) tensor of ±1: digit, then its 12 rows of 7 one after the other.

    >>> print(*("".join(".#"[int(cell > 0)] for cell in row) for row in digit_bitmaps()[7].view(12, 7)[:4]), sep="\\n")
    #######
    .....##
    .....##
    ....##.
    """
    lines = [line.split() for line in _ROWS.split("\n") if line]
    return torch.tensor([[1.0 if cell == "#" else -1.0 for row in lines for cell in row[digit]] for digit in range(10)])
