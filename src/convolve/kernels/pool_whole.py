"""The average of whole maps stored channels first, and its gradient: global pooling.

Idea. A map lies in one piece, so its numbers are added in the order of memory, a vector at a time, whatever its width; the lanes are added
last, as a balanced tree. (pool_rows.py would begin anew at every row of seven.) Backward, a map is filled with one number.

Traffic. Forward reads the input once, backward writes it once.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import unpack

# All int64. Strides and sizes count elements.
FORWARD = (
    "x", "y", "codes", "indices", "table", "scratch",  # addresses; only the first two are used
    "batch", "channels", "x_n", "x_c", "size", "divisor",
)  # fmt: skip
BACKWARD = ("g", "codes", "x", "table", "scratch", "planes", "size", "divisor")

_CHAINS = 4  # sums at once


def forward_source() -> str:
    sums = ", ".join(f"s{v}" for v in range(_CHAINS))
    more = "\n".join(f"            s{v} = add(s{v}, load(here, i + {v} * LANES))" for v in range(_CHAINS))
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(FORWARD, "arguments", HEADER, 4)}
    y = pointer(y)
    whole = size // LANES * LANES
    many = size // ({_CHAINS} * LANES) * ({_CHAINS} * LANES)
    planes = batch * channels
    first = thread * planes // threads
    n, c = first // channels, first % channels
    for plane in range(first, (thread + 1) * planes // threads):
        here = shift(pointer(x), n * x_n + c * x_c)
        c += 1
        if c == channels:
            n, c = n + 1, 0
        {sums} = {", ".join(["zero()"] * _CHAINS)}
        for i in range(0, many, {_CHAINS} * LANES):
{more}
        for i in range(many, whole, LANES):
            s0 = add(s0, load(here, i))
        s1 = add(s1, load_first(here, whole, size - whole))
        y[plane] = total(add(add(s0, s1), add(s2, s3))) / divisor
"""


def backward_source() -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(BACKWARD, "arguments", HEADER, 4)}
    g = pointer(g)
    for plane in range(thread * planes // threads, (thread + 1) * planes // threads):
        to, s = shift(pointer(x), plane * size), splat(g[plane] / divisor)
        if size >= LANES:
            for i in range(0, size - LANES, LANES):
                store(to, i, s)
            store(to, size - LANES, s)
        else:
            store_first(to, 0, s, size)
"""


def forward(dtype: str) -> Kernel:
    return Kernel(f"pool_whole-{dtype}", dtype, forward_source, lambda: "")


def backward(dtype: str) -> Kernel:
    return Kernel(f"pool_whole_back-{dtype}", dtype, backward_source, lambda: "")


def every(dtype: str) -> list[Kernel]:
    return [forward(dtype), backward(dtype)]
