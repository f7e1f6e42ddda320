"""The stages of kernels/stages.py by Winograd's minimal filtering along the rows: 6 products for two pixels of a 5x5 kernel's row, not 10.

Idea. Vectors run along images, so that a transform is a few additions of whole vectors and nothing is ever shuffled:

    V[c][row][tile][e] = B^T x      of tiles of 6 neighbouring pixels, two apart
    M[k][e]            = the sum over channels and rows of the kernel of  U[k][c][r][e] V[c][row + r][tile][e]
    two results        = A^T M      F(2, 5); of the weight gradient, which sums over the pixels: five taps, F(5, 2)

The input gradient is the same over the spread gradient with the kernels turned around. Of the columns of its padding a direct sum
multiplies as many as of the others; here they are tiles like the rest, and 1.7 times fewer.

Registers. Three of the six elements and WIDTH filters at a time: 3 loads for 3 WIDTH multiply-adds, whose weights LLVM takes from memory.
NaN and Inf would reach a neighbour's result: `flags` notes for each thread whether every result is finite (ops/stages.py).

Traffic. V of a column of tiles stays in the first-level cache while all filters pass over it; everything else in the second.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.images import GROUPS, TURNS
from convolve.kernels.images_winograd import (
    points_of,
    prepare,
    products,
    settle,
    to_points,
    weight_sums,
    widths_of,
    write_taps,
)
from convolve.kernels.machine import tiles_for
from convolve.kernels.minimal_filtering import matrices
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import unpack
from convolve.kernels.stages import FORWARD as _FORWARD
from convolve.kernels.stages import INPUT as _INPUT
from convolve.kernels.stages import MAXIMA, SPREAD
from convolve.kernels.stages import WEIGHTS as _WEIGHTS
from convolve.kernels.winograd import transform

TAPS = 5
"""Of a kernel, along both axes."""
OUTPUTS = 2
"""Pixels of a tile."""
POINTS = points_of(TAPS, OUTPUTS)
_HALF = POINTS // 2

FORWARD = (*_FORWARD, "flags", "tiles")
INPUT = (*_INPUT, "flags", "tiles")
WEIGHTS = (*_WEIGHTS, "flags", "tiles")

FILTERS = 4
"""Filters whose weight gradients are summed together, in AVX-512's registers; with fewer registers one."""


def widths() -> tuple[int, ...]:
    """Filters whose products are summed together."""
    return widths_of(POINTS)


def weight_width() -> int:
    return tiles_for(((FILTERS, TAPS),), ((1, TAPS),))[0][0]


_PAIRS = f"""
def pairs_to_points(x, to, step):
{chr(10).join(f"    i{i} = load(x, {i} * LANES)" for i in range(OUTPUTS))}
{transform(matrices(TAPS, OUTPUTS)[1], "i", "o", 4)}
{chr(10).join(f"    store(to, {i} * step, o{i})" for i in range(POINTS))}
"""


def forward_source(width: int) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(FORWARD, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
    x_c, wide, places = padded_h * padded_w * LANES, 2 * columns, filters * rows * columns
    v_h = channels * {_HALF} * LANES
    v_half = padded_h * v_h
    v = shift(scratch, channels * x_c)
    blocks = (filters + {width - 1}) // {width}
    lines = shift(v, tiles * 2 * v_half)
    line_k = 2 * wide * LANES
    out = shift(lines, blocks * {width} * line_k)
    m = shift(out, (places + LANES) * LANES)
    finite = shift(m, {width * POINTS} * LANES)
    weights = shift(finite, LANES)
    prepare(pointer(w), filters, channels * {TAPS * TAPS}, channels, {TAPS * TAPS}, {TAPS}, {TAPS}, 1, weights)
    store(finite, 0, zero())
    clear(scratch, channels * x_c)
{GROUPS}
        here = shift(pointer(x), first * channels * size_h * size_w)
        turn_images(here, images, channels, size_h, size_w, padded_h, padded_w, before_h, before_w, scratch)
        for c in range(channels):
            for row in range(padded_h):
                from_row = shift(scratch, (c * padded_h + row) * padded_w * LANES)
                to = shift(v, row * v_h + c * {_HALF} * LANES)
                for t in range(tiles):
                    to_points(shift(from_row, t * {OUTPUTS} * LANES), LANES, shift(to, t * 2 * v_half), LANES, v_half)
        for p in range(rows):
            for t in range(tiles):
                for block in range(blocks):
                    k = block * {width}
                    for row in range(2):
                        products(
                            m, shift(v, t * 2 * v_half + (2 * p + row) * v_h), v_half,
                            shift(weights, k * channels * {TAPS * POINTS}), channels * {TAPS * width * _HALF}, channels * {TAPS},
                        )
                        to = shift(lines, k * line_k + (row * wide + t * {OUTPUTS}) * LANES)
                        settle(m, min({width}, filters - k), shift(pointer(bias), k), to, line_k, LANES, {OUTPUTS}, finite)
            at = p * columns * LANES
            kept = byte_pointer(codes + group * places * LANES + at)
            maxima(lines, wide, columns, filters, shift(out, at), rows * columns * LANES, kept, codes)
        turn_out(out, places, images, shift(pointer(y), first * places), places)
    pointer(flags)[thread] = total(load(finite, 0))
"""


def input_source(width: int) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(INPUT, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
    places, pixels, high = filters * rows * columns, size_h * size_w, 2 * rows
    z_h, z_k = spread_w * LANES, high * spread_w * LANES
    maps = shift(scratch, filters * z_k)
    out = shift(maps, (places + LANES) * LANES)
    v = shift(out, (channels * pixels + LANES) * LANES)
    v_h = filters * {_HALF} * LANES
    v_half = high * v_h
    m = shift(v, 2 * v_half)
    finite = shift(m, {width * POINTS} * LANES)
    nothing = shift(finite, LANES)
    weights = shift(nothing, LANES * ((channels + LANES - 1) // LANES))
    last_w = shift(pointer(w), {TAPS * TAPS - 1})  # each kernel is read turned around
    prepare(last_w, channels, {TAPS * TAPS}, filters, channels * {TAPS * TAPS}, {TAPS}, 0 - {TAPS}, 0 - 1, weights)
    store(finite, 0, zero())
    clear(nothing, channels)
    clear(scratch, filters * z_k)
{GROUPS}
        turn_in(shift(pointer(g), first * places), places, images, places, maps)
        from_codes = byte_pointer(codes + group * places * LANES)
        spread(maps, from_codes, filters, rows, columns, scratch, spread_w, high, 0, {TAPS - 1})
        for t in range(tiles):
            q = t * {OUTPUTS}
            for k in range(filters):
                for row in range(high):
                    from_row = shift(scratch, k * z_k + row * z_h + (before_w + q) * LANES)
                    to_points(from_row, LANES, shift(v, row * v_h + k * {_HALF} * LANES), LANES, v_half)
            for h in range(size_h):
                z = h + before_h - {TAPS - 1}
                first_r, last_r = max(0, -z), min({TAPS}, high - z)
                for c in range(0, channels, {width}):
                    products(
                        m, shift(v, (z + first_r) * v_h), v_half,
                        shift(weights, c * filters * {TAPS * POINTS} + first_r * filters * {width * _HALF}),
                        filters * {TAPS * width * _HALF}, filters * (last_r - first_r),
                    )
                    to = shift(out, (c * pixels + h * size_w + q) * LANES)
                    settle(m, min({width}, channels - c), shift(nothing, c), to, pixels * LANES, LANES, size_w - q, finite)
        turn_out(out, channels * pixels, images, shift(pointer(dx), first * channels * pixels), channels * pixels)
    pointer(flags)[thread] = total(load(finite, 0))
"""


def weights_source(width: int) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(WEIGHTS, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
    places, high, wide = filters * rows * columns, 2 * rows, 2 * columns
    x_c, z_k = padded_h * padded_w * LANES, high * wide * LANES
    x_e, y_k = channels * padded_h * tiles * LANES, high * tiles * LANES
    y_e = {width} * y_k
    blocks = (filters + {width - 1}) // {width}
    sums_e = blocks * channels * {width * TAPS} * LANES
    gradient = shift(scratch, channels * x_c)
    v = shift(gradient, blocks * {width} * z_k)
    d = shift(v, {POINTS} * x_e)
    maps = shift(d, {POINTS} * y_e)
    sums = shift(maps, (places + LANES) * LANES)
    bias_sums = shift(sums, {POINTS} * sums_e)
    clear(scratch, channels * x_c + blocks * {width} * z_k)
    clear(sums, {POINTS} * sums_e + filters * LANES)
{GROUPS}
        here = shift(pointer(x), first * channels * size_h * size_w)
        turn_images(here, images, channels, size_h, size_w, padded_h, padded_w, before_h, before_w, scratch)
        for row in range(channels * padded_h):
            for t in range(tiles):
                from_row = shift(scratch, (row * padded_w + t * {OUTPUTS}) * LANES)
                to_points(from_row, LANES, shift(v, (row * tiles + t) * LANES), x_e, {_HALF} * x_e)
        turn_in(shift(pointer(g), first * places), places, images, places, maps)
        from_codes = byte_pointer(codes + group * places * LANES)
        spread(maps, from_codes, filters, rows, columns, gradient, wide, high, 0, 0)
        for k in range(filters):
            store(bias_sums, k * LANES, add(load(bias_sums, k * LANES), all_of(shift(gradient, k * z_k), high * wide)))
        for block in range(blocks):
            for i in range({width} * high * tiles):
                pair = shift(gradient, block * {width} * z_k + i * {OUTPUTS} * LANES)
                pairs_to_points(pair, shift(d, i * LANES), y_e)
            for e in range({POINTS}):
                y_here = shift(d, e * y_e)
                for c in range(channels):
                    x_here = shift(v, e * x_e + c * padded_h * tiles * LANES)
                    into = shift(sums, e * sums_e + (block * channels + c) * {width * TAPS} * LANES)
                    weight_sums(into, x_here, tiles * LANES, y_here, y_k, high * tiles)
    total_w, total_b = shift(pointer(dw), thread * filters * channels * {TAPS * TAPS}), shift(pointer(db), thread * filters)
    good = zero()
    for k in range(filters):
        total_b[k] = total(load(bias_sums, k * LANES))
        for c in range(channels):
            for r in range({TAPS}):
                at = ((k // {width} * channels + c) * {width} + k % {width}) * {TAPS} + r
                here = shift(sums, at * LANES)
                place = shift(total_w, ((k * channels + c) * {TAPS} + r) * {TAPS})
{write_taps(matrices(TAPS, OUTPUTS)[0], "here", "place", " " * 16)}
    pointer(flags)[thread] = total(good)
"""


def forward(width: int, dtype: str) -> Kernel:
    """`width`: one of widths()."""
    return Kernel(
        f"stages_winograd-{dtype}-{width}",
        dtype,
        lambda: forward_source(width),
        lambda: _shared(width) + MAXIMA + settle(OUTPUTS, TAPS),
    )


def _shared(width: int) -> str:
    return TURNS + to_points(OUTPUTS, TAPS) + prepare(OUTPUTS, TAPS, width) + products(width, _HALF)


def input_gradient(width: int, dtype: str) -> Kernel:
    """`width`: one of widths()."""
    return Kernel(
        f"stages_winograd_input-{dtype}-{width}",
        dtype,
        lambda: input_source(width),
        lambda: _shared(width) + SPREAD + settle(OUTPUTS, TAPS),
    )


def weight_gradient(dtype: str) -> Kernel:
    width = weight_width()
    return Kernel(
        f"stages_winograd_weights-{dtype}-{width}",
        dtype,
        lambda: weights_source(width),
        lambda: TURNS + SPREAD + to_points(OUTPUTS, TAPS) + _PAIRS + weight_sums(width, TAPS),
    )


def every(dtype: str) -> list[Kernel]:
    found = [make(width, dtype) for width in widths() for make in (forward, input_gradient)]
    return [*found, weight_gradient(dtype)]
