"""How widely magnitudes range, block by block: a transform asks before it is applied, since its error is global.

Traffic: the input is read once.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE

ARGUMENTS = (
    "x", "found",  # addresses; FOUND numbers of each thread
    "x_n", "x_c", "x_h", "batch", "channels", "blocks_h", "blocks_w", "block_h", "block_w",
    "shares",  # of a row of blocks
)  # fmt: skip
FOUND = 3
"""Of the blocks' mean magnitudes: the largest, the smallest above 0 or infinity, and their sum, which a NaN spoils."""


def source() -> str:
    """The kernel that takes the mean, over blocks of a map, of the largest magnitude among the channels, in float32."""
    return f"""
def kernel(arguments):
{PREAMBLE}
{chr(10).join(f"    {name} = arguments[{HEADER + i}]" for i, name in enumerate(ARGUMENTS))}
    x, found = float32_pointer(x), shift(float64_pointer(found), thread * {FOUND})
    largest, smallest, together = 0.0, 1e300 * 1e300, 0.0
    share = 1.0 / (block_h * block_w)
    tasks = batch * blocks_h * shares
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        part, rest = task % shares, task // shares
        row = shift(x, rest // blocks_h * x_n + rest % blocks_h * block_h * x_h)
        for j in range(part * blocks_w // shares, (part + 1) * blocks_w // shares):
            here, mean = shift(row, j * block_w), zero()
            for i in range(block_h):
                for w in range(0, block_w, LANES):
                    left = block_w - w
                    if left >= LANES:
                        most = absolute(load_single(here, w))
                        for c in range(1, channels):
                            most = larger(most, absolute(load_single(here, w + c * x_c)))
                    else:
                        most = absolute(load_single_between(here, w, 0, left))
                        for c in range(1, channels):
                            most = larger(most, absolute(load_single_between(here, w + c * x_c, 0, left)))
                    mean = add(mean, most)
                here = shift(here, x_h)
            one = total(mean) * share
            together += one
            largest = max(largest, one)
            if 0 < one and one < smallest:
                smallest = one
    found[0], found[1], found[2] = largest, smallest, together
"""


def kernel() -> Kernel:
    return Kernel("magnitudes", "float64", source, lambda: "")


def every(dtype: str) -> list[Kernel]:
    return [kernel()] if dtype == "float32" else []
