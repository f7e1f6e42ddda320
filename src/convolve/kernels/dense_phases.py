"""The phases of few channels, side by side: a strided convolution seen as one of stride 1 over maps that fill the vectors.

Idea. Every s-th input along both axes, from each of the first s on, is a phase. A convolution of stride s sums its s^2 phases, each with
every s-th tap, at stride 1 (kernels/winograd.py reads phases of many channels where they lie). Of three channels, a vector of
channels would be mostly empty; so phases and channels become the lanes of one pixel, beside each other:

    z[n][i][j][group][phase_h][c][phase_w]  =  x[n][group, c][s i + phase_h - before_h][s j + phase_w - before_w]

with zeros where there is no such input, so that the convolution over z has no padding. AlexNet's first layer, 11x11 at stride 4 of three
channels, is then 3x3 at stride 1 of 48.

Traffic: x is read once and z written once; where columns lie side by side in x, s of them move together.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import unpack

STRIDES = (2, 3, 4)

ARGUMENTS = (
    "x", "z", "batch", "groups", "channels",  # channels of one group
    "x_n", "x_c", "x_h", "x_w", "size_h", "size_w", "before_h", "before_w",
    "rows", "columns",  # of z
)  # fmt: skip


def source(stride: int) -> str:
    """The kernel of one stride."""

    def moved(step: str) -> str:
        lines = [f"a{v} = here[{v} * {step}]" for v in range(stride)] + [f"to[{v}] = a{v}" for v in range(stride)]
        return "\n".join(" " * 28 + line for line in lines)

    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    tasks = batch * rows
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        n, i = task // rows, task % rows
        h = i * {stride} - before_h
        to = shift(pointer(z), task * columns * groups * channels * {stride**2})
        for j in range(columns):
            w = j * {stride} - before_w
            corner = shift(pointer(x), n * x_n + h * x_h + w * x_w)
            inside = h >= 0 and h + {stride} <= size_h and w >= 0 and w + {stride} <= size_w
            for g in range(groups):
                for phase_h in range({stride}):
                    here = shift(corner, g * channels * x_c + phase_h * x_h)
                    if inside and x_w == 1:
                        for c in range(channels):
{moved("1")}
                            here, to = shift(here, x_c), shift(to, {stride})
                    elif inside:
                        for c in range(channels):
{moved("x_w")}
                            here, to = shift(here, x_c), shift(to, {stride})
                    else:
                        for c in range(channels):
                            for v in range({stride}):
                                to[v] = number(0)
                                if 0 <= h + phase_h and h + phase_h < size_h and 0 <= w + v and w + v < size_w:
                                    to[v] = here[v * x_w]
                            here, to = shift(here, x_c), shift(to, {stride})
"""


def kernel(stride: int, dtype: str) -> Kernel:
    assert stride in STRIDES
    return Kernel(f"dense-phases-{dtype}-{stride}", dtype, lambda: source(stride), lambda: "")


def every(dtype: str) -> list[Kernel]:
    """This family's rows of the table."""
    return [kernel(stride, dtype) for stride in STRIDES]
