"""Convolution by a connection table: each output map sees only the input maps that the table names.

LeNet-5's C3 is the classic (LeCun et al. 1998, table I): it breaks symmetry and keeps the count of connections low. Only
the kernels of connected pairs exist, as `weight` (pairs, r, s) in the table's order, so that counting parameters is right.
The sum is run as one dense convolution with zeros elsewhere: at these sizes faster than sixteen small ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from convolve.errors import ShapeError, UsageError
from convolve.nn.conv import Conv2d
from convolve.ops.conv import conv2d

# Table I of the paper, by output map: the maps of S2 that it takes.
LENET5_TABLE: tuple[tuple[int, ...], ...] = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


class TableConv2d(nn.Module):
    """2-D convolution of (n, in_channels, h, w) in which output map k takes the input maps `table[k]`.

    Raises UsageError for a table with an empty row, a repeated map, or one outside the input.

    >>> layer = TableConv2d(6, LENET5_TABLE, 5)
    >>> sum(parameter.numel() for parameter in layer.parameters())
    1516
    """

    outputs: Tensor
    inputs: Tensor

    def __init__(self, in_channels: int, table: Sequence[Sequence[int]], kernel_size: int, padding: int = 0) -> None:
        super().__init__()
        for maps in table:
            if not maps or len(set(maps)) != len(maps) or not set(maps) <= set(range(in_channels)):
                raise UsageError(
                    f"a row of a connection table names different maps of 0 to {in_channels - 1}, at least one",
                    f"got {tuple(maps)}",
                    "correct the row",
                )
        self.in_channels, self.table, self.padding = in_channels, tuple(map(tuple, table)), padding
        pairs = [(output, source) for output, maps in enumerate(table) for source in maps]
        self.weight = nn.Parameter(torch.empty(len(pairs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(len(table)))
        outputs, inputs = torch.tensor(pairs).T
        self.register_buffer("outputs", outputs.contiguous(), persistent=False)
        self.register_buffer("inputs", inputs.contiguous(), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """LeNet-5's rule: uniform within ± 2.4 / fan-in, the fan-in being that of the output map. Bias zero."""
        size = self.weight.shape[1] * self.weight.shape[2]
        bounds = [2.4 / (len(maps) * size) for maps in self.table for _ in maps]
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(self.weight.new_tensor(bounds).view(-1, 1, 1))
            self.bias.zero_()

    def dense_weight(self) -> Tensor:
        """The weight (k, c, r, s) of the ordinary convolution that computes the same: zero where nothing is connected."""
        _, r, s = self.weight.shape
        dense = self.weight.new_zeros(len(self.table), self.in_channels, r, s)
        return dense.index_put((self.outputs, self.inputs), self.weight)

    @torch.no_grad()
    def plain(self) -> Conv2d:
        """The ordinary layer that computes the same, with a copy of the weights: for programs that know no tables."""
        dense = self.dense_weight()
        layer = Conv2d(dense.shape[1], dense.shape[0], dense.shape[2], padding=self.padding).to(dense)
        layer.weight.copy_(dense)
        assert layer.bias is not None
        layer.bias.copy_(self.bias)
        return layer.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ShapeError(
                f"TableConv2d takes (n, {self.in_channels}, h, w)", f"got {tuple(x.shape)}", "check the layer before"
            )
        return conv2d(x, self.dense_weight(), self.bias, padding=self.padding)

    def extra_repr(self) -> str:
        pairs, r, s = self.weight.shape
        return f"{self.in_channels}, {len(self.table)}, kernel_size=({r}, {s}), connected={pairs}"
