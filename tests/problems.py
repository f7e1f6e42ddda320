"""Named convolution problems, shared by tests and benchmarks: the odd ones first, then layers of the classic networks."""

from __future__ import annotations

from convolve.ops.algorithms import ALGORITHMS
from convolve.problem import ConvProblem

ODD = {
    "primes": "3x5x11x13 k7 3x2 s2x3 p1x2",
    "one pixel": "2x3x1x1 k4 1x1",
    "kernel is the input": "1x4x5x7 k3 5x7",
    "kernel larger than the input": "1x2x3x2 k2 5x4 p1:2x1",
    "stride larger than the kernel": "2x3x17x19 k2 2x1 s5x4",
    "unequal sides": "1x3x7x8 k4 3x3 p0:2x3:1",
    "dilated, larger than the input": "1x2x6x6 k2 3x3 p4 d4",
    "one axis": "2x6x29 k4 5 s3 p2:1 d2 g2",
    "three axes": "1x4x5x6x7 k6 2x3x1 s1x2x2 p1x0x0 g2",
    "depthwise": "2x6x9x8 k6 3x3 p1 g6",
    "depthwise with multiplier": "1x3x9x8 k6 3x3 p1 g3",
    "groups": "2x6x7x7 k9 3x3 p1 g3",
    "one channel": "1x1x31x37 k1 3x3 p1",
    "even kernel, same": "1x2x9x9 k2 4x2 psame",
    "transposed": "2x4x5x6 k3 4x3 s2 p1 transposed",
    "transposed, gaps": "1x2x5x5 k2 2x2 s3 transposed",
}
LAYERS = {
    "lenet c1": "2x1x32x32 k6 5x5",
    "lenet c3": "2x6x14x14 k16 5x5",
    "alexnet 1": "1x3x64x64 k8 11x11 s4 p2",
    "vgg": "1x16x20x20 k16 3x3 p1",
    "mobilenet depthwise": "1x32x14x14 k32 3x3 s2 p1 g32",
    "pointwise": "1x24x9x9 k16 1x1",
}
NAMED = {**ODD, **LAYERS}


def rows_for(text: str) -> list[str]:
    """The names of the rows that serve a problem, whatever their operands' values."""
    return [row.name for row in ALGORITHMS if row.why_not(ConvProblem.parse(text)) is None]


DENSE = rows_for("1x4x9x9 k4 3x3 p1")
INTEGERS = rows_for("1x4x9x9 k4 3x3 p1 int64")
