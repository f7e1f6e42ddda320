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
from convolve.kernels.winograd import ARGUMENTS as DRIVER

STRIDES = (2, 3, 4)

ARGUMENTS = (
    "x", "z", "batch", "groups", "channels",  # channels of one group
    "x_n", "x_c", "x_h", "x_w", "size_h", "size_w", "before_h", "before_w",
    "rows", "columns",  # of z
)  # fmt: skip
IMAGES = (
    *DRIVER[: DRIVER.index("forward")],  # addresses; flags: of each image
    "maps", "driver",  # addresses of kernels
    "batch", "x_n", "y_n",
    "maps_size", "thread_size",  # of the maps of an image; of each thread's scratch
)  # fmt: skip
"""What `images` is told, in this order; then what the other two are, behind their addresses."""

TOLD = -(-(2 * HEADER + len(ARGUMENTS) + len(DRIVER)) // 8) * 8
"""Numbers that hold what the two are told, in whole lines."""


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


def images_source() -> str:
    """The kernel that takes a thread's images from x to y, one after the other: its phases, and the convolution over them."""
    first = HEADER + len(IMAGES)
    to_maps = {name: HEADER + i for i, name in enumerate(ARGUMENTS)}
    to_driver = {name: HEADER + i for i, name in enumerate(DRIVER)}
    own, others = len(ARGUMENTS) - 2, len(DRIVER) - DRIVER.index("forward")
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(IMAGES, "arguments", HEADER, 4)}
    z = shift(pointer(scratch), thread * thread_size)
    of_maps = int64_pointer(address(shift(z, maps_size)))
    of_driver = shift(of_maps, {HEADER + len(ARGUMENTS)})
    for i in range({HEADER}):
        of_maps[i], of_driver[i] = i // {HEADER - 1}, i // {HEADER - 1}  # the first thread of one
    for i in range({own}):
        of_maps[{HEADER + 2} + i] = arguments[{first} + i]
    for i in range({others}):
        of_driver[{HEADER + len(DRIVER) - others} + i] = arguments[{first + own} + i]
    of_maps[{to_maps["z"]}], of_driver[{to_driver["x"]}] = address(z), address(z)
    of_driver[{to_driver["u"]}], of_driver[{to_driver["bias"]}] = u, bias
    of_driver[{to_driver["scratch"]}] = address(shift(of_maps, {TOLD}))
    for n in range(thread * batch // threads, (thread + 1) * batch // threads):
        of_maps[{to_maps["x"]}] = address(shift(pointer(x), n * x_n))
        of_driver[{to_driver["y"]}] = address(shift(pointer(y), n * y_n))
        of_driver[{to_driver["flags"]}] = address(shift(pointer(flags), n))
        call(maps, of_maps)
        call(driver, of_driver)
"""


def images(dtype: str) -> Kernel:
    return Kernel(f"dense-phases-{dtype}-images", dtype, images_source, lambda: "")


def kernel(stride: int, dtype: str) -> Kernel:
    assert stride in STRIDES
    return Kernel(f"dense-phases-{dtype}-{stride}", dtype, lambda: source(stride), lambda: "")


def every(dtype: str) -> list[Kernel]:
    """This family's rows of the table."""
    return [images(dtype), *(kernel(stride, dtype) for stride in STRIDES)]
