"""Pictures read at other places: each by an affine map of its own, or moved by whole pixels. The border is repeated.

Idea. An output pixel's place in the source, clamped to the picture, is found once for all channels:

    affine    x = m0 (j - cx) + m1 (i - cy) + m2 + cx,  y = m3 (j - cx) + m4 (i - cy) + m5 + cy;  four pixels, bilinear
    whole     x = j + right, or mirrored, y = i + down;  one pixel

Places are float64, values have the pictures' own type. Everything is plain arithmetic on one pixel, in one order and without fused
multiply-adds: the same bits in any batch, on any number of threads and with any vectors. Vectors would bring little: four loads
from scattered addresses are most of the work, and a gather of vectors takes as long as they do.

Traffic. Everything is read and written once; pictures of training lie in a core's cache.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import unpack

ARGUMENTS = (
    "x", "y", "maps", "batch", "channels", "height", "width",
    "x_n", "x_c", "x_h", "x_w", "y_n", "y_c", "y_h", "y_w",
)  # fmt: skip

KINDS = ("affine", "whole")


def every(dtype: str) -> list[Kernel]:
    return [kernel(kind, dtype) for kind in KINDS]


def kernel(kind: str, dtype: str) -> Kernel:
    assert kind in KINDS
    return Kernel(f"resample-{dtype}-{kind}", dtype, lambda: source(kind), lambda: "")


def source(kind: str) -> str:
    """The kernel of one kind. `maps` has six float64 (affine) or three int64 (down, right, mirrored) for each picture."""
    row, pixel = (_AFFINE_ROW, _AFFINE_PIXEL) if kind == "affine" else (_WHOLE_ROW, _WHOLE_PIXEL)
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    last_i, last_j = height - 1, width - 1
    edge_i, edge_j = 1.0 * last_i, 1.0 * last_j
    centre_i, centre_j = 0.5 * last_i, 0.5 * last_j
    tasks = batch * height
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        n, i = task // height, task % height
        here = shift(pointer(x), n * x_n)
        there = shift(pointer(y), n * y_n + i * y_h)
{row}
        for j in range(width):
{pixel}
"""


_AFFINE_ROW = """
        m = shift(float64_pointer(maps), 6 * n)
        step_j, step_i = m[0], m[3]
        start_j = (m[2] + centre_j) + m[1] * (i - centre_i) - step_j * centre_j
        start_i = (m[5] + centre_i) + m[4] * (i - centre_i) - step_i * centre_j
"""

_AFFINE_PIXEL = """
            place_i, place_j = start_i + step_i * j, start_j + step_j * j
            place_i = place_i if place_i > 0.0 else 0.0
            place_j = place_j if place_j > 0.0 else 0.0
            place_i = place_i if place_i < edge_i else edge_i
            place_j = place_j if place_j < edge_j else edge_j
            top, left = integer(place_i), integer(place_j)
            down, right = number(place_i - top), number(place_j - left)
            below = x_h if top < last_i else 0
            beside = x_w if left < last_j else 0
            p = shift(here, top * x_h + left * x_w)
            q = shift(p, below)
            for c in range(channels):
                upper = p[0] + right * (p[beside] - p[0])
                lower = q[0] + right * (q[beside] - q[0])
                there[c * y_c] = upper + down * (lower - upper)
                p, q = shift(p, x_c), shift(q, x_c)
            there = shift(there, y_w)
"""

_WHOLE_ROW = """
        m = shift(int64_pointer(maps), 3 * n)
        right, mirrored = m[1], m[2]
        here = shift(here, min(max(i + m[0], 0), last_i) * x_h)
"""

_WHOLE_PIXEL = """
            place = j + right
            place = place if place > 0 else 0
            place = place if place < last_j else last_j
            place = last_j - place if mirrored != 0 else place
            for c in range(channels):
                there[c * y_c] = here[place * x_w + c * x_c]
            there = shift(there, y_w)
"""
