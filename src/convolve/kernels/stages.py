"""A stage of a small network in one piece, whose vectors run along images: convolution of stride 1, bias, ReLU, 2x2 maximum.

Idea. The maps of LANES images are turned into the scratch, as kernels/images.py has it, and the loops are its loops; but between them the
numbers stay where they are, and what ReLU and maximum let through is kept as a byte.

    forward     rows of TILE pixels of some filters in registers; two rows make a row of maxima; a byte says which of four won
    input       the gradient is spread over the four pixels and convolved with the kernels turned around, by the same tile
    weights     some filters times some taps in registers: a vector of partial sums each, over all pixels of LANES images

A code of 4 means: ReLU let nothing through. As in torch a maximum's gradient goes to the first of equals; NaN goes through both.

Traffic. The maps of LANES images stay in the second-level cache from the first loop to the last; an image is read once and a result written
once.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.images import GROUPS, TURNS, multiply, tap_tiles, tiles, weight_tile, write_totals
from convolve.kernels.machine import machine
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import unpack

_SIZES = (
    "batch", "channels", "size_h", "size_w", "filters", "kernel_h", "kernel_w", "before_h", "before_w",
    "padded_h", "padded_w",  # of the input
    "rows", "columns",  # of maxima
    "scratch_size",  # elements of one thread
)  # fmt: skip

# All int64. Sizes count elements.
FORWARD = ("x", "w", "bias", "y", "codes", "scratch", *_SIZES)  # codes may be 0
INPUT = ("g", "codes", "w", "dx", "scratch", *_SIZES, "spread_h", "spread_w")  # spread: the gradient, with its borders
WEIGHTS = ("g", "codes", "x", "dw", "db", "table", "scratch", *_SIZES, "taps")
# dw and db are those of each thread, one after the other; the table has the taps' offsets, and the last again to fill a tile

SPREAD = """
def spread(g, codes, filters, rows, columns, to, width, height, first_h, first_w):
    none, one, two, three = zero(), splat(1), splat(2), splat(3)
    for k in range(filters):
        for p in range(rows):
            upper = shift(to, ((k * height + first_h + 2 * p) * width + first_w) * LANES)
            lower = shift(upper, width * LANES)
            at = (k * rows + p) * columns * LANES
            for q in range(columns):
                code, value = load_bytes(codes, at), load(g, at)
                store(upper, 2 * q * LANES, where_equal(code, none, value))
                store(upper, (2 * q + 1) * LANES, where_equal(code, one, value))
                store(lower, 2 * q * LANES, where_equal(code, two, value))
                store(lower, (2 * q + 1) * LANES, where_equal(code, three, value))
                at += LANES

def all_of(x, count):  # a multiple of 4; four sums, since an addition waits for the one before
    a, b, c, d = zero(), zero(), zero(), zero()
    for i in range(0, count * LANES, 4 * LANES):
        a, b = add(a, load(x, i)), add(b, load(x, i + LANES))
        c, d = add(c, load(x, i + 2 * LANES)), add(d, load(x, i + 3 * LANES))
    return add(add(a, b), add(c, d))
"""


MAXIMA = """
def maxima(lines, width, columns, count, out, out_k, codes, kept):
    none, one, two, three, four = zero(), splat(1), splat(2), splat(3), splat(4)
    for k in range(count):
        upper = shift(lines, 2 * k * width * LANES)
        lower = shift(upper, width * LANES)
        for q in range(columns):
            a, b = load(upper, 2 * q * LANES), load(upper, (2 * q + 1) * LANES)
            c, d = load(lower, 2 * q * LANES), load(lower, (2 * q + 1) * LANES)
            m, n = larger(a, b), larger(c, d)
            best = larger(m, n)
            store(out, k * out_k + q * LANES, larger(none, best))
            if kept != 0:
                code = where_larger(m, n, where_larger(a, b, none, one), where_larger(c, d, two, three))
                store_bytes(codes, k * out_k + q * LANES, where_larger(none, best, four, code))
"""


def forward_source(tile: int, width: int) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(FORWARD, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
    x_h, x_c = padded_w * LANES, padded_h * padded_w * LANES
    wide, places, taps = 2 * columns, filters * rows * columns, channels * kernel_h * kernel_w
    lines = shift(scratch, channels * x_c)
    out = shift(lines, {width} * 2 * wide * LANES)
    clear(scratch, channels * x_c)
{GROUPS}
        here = shift(pointer(x), first * channels * size_h * size_w)
        turn_images(here, images, channels, size_h, size_w, padded_h, padded_w, before_h, before_w, scratch)
        for p in range(rows):
            for k in range(0, filters, {width}):
                count = min({width}, filters - k)
                for row in range(2):
                    for start in range(0, wide, {tile}):
                        q = min(start, wide - {tile})
                        multiply(
                            shift(lines, (row * wide + q) * LANES), 2 * wide * LANES,
                            shift(scratch, (2 * p + row) * x_h + q * LANES), x_c, x_h,
                            shift(pointer(w), k * taps), taps, count, shift(pointer(bias), k),
                            channels, 0, kernel_h, kernel_h, kernel_w,
                        )
                at = (k * rows + p) * columns * LANES
                to = byte_pointer(codes + group * places * LANES + at)
                maxima(lines, wide, columns, count, shift(out, at), rows * columns * LANES, to, codes)
        turn_out(out, places, images, shift(pointer(y), first * places), places)
"""


def input_source(tile: int, width: int) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(INPUT, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
    places, taps = filters * rows * columns, kernel_h * kernel_w
    pixels = size_h * size_w
    z_h, z_c = spread_w * LANES, spread_h * spread_w * LANES
    maps = shift(scratch, filters * z_c)
    out = shift(maps, (places + LANES) * LANES)
    weights = shift(out, channels * pixels * LANES)
    nothing = shift(weights, channels * filters * taps)
    clear(scratch, filters * z_c)
    for c in range(channels):
        nothing[c] = 0
        for k in range(filters):
            for t in range(taps):
                weights[(c * filters + k) * taps + t] = pointer(w)[(k * channels + c + 1) * taps - 1 - t]
{GROUPS}
        turn_in(shift(pointer(g), first * places), places, images, places, maps)
        from_codes = byte_pointer(codes + group * places * LANES)
        spread(maps, from_codes, filters, rows, columns, scratch, spread_w, spread_h, kernel_h - 1, kernel_w - 1)
        for c in range(0, channels, {width}):
            for h in range(size_h):
                z = h + before_h
                first_r, last_r = max(0, kernel_h - 1 - z), min(kernel_h, kernel_h - 1 + 2 * rows - z)
                for start in range(0, size_w, {tile}):
                    q = min(start, size_w - {tile})
                    multiply(
                        shift(out, (c * pixels + h * size_w + q) * LANES), pixels * LANES,
                        shift(scratch, z * z_h + (q + before_w) * LANES), z_c, z_h,
                        shift(weights, c * filters * taps), filters * taps, min({width}, channels - c), nothing,
                        filters, first_r, last_r, kernel_h, kernel_w,
                    )
        turn_out(out, channels * pixels, images, shift(pointer(dx), first * channels * pixels), channels * pixels)
"""


def weights_source(tile: int, width: int, lanes: int) -> str:
    room = -(-tile * width // lanes)
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(WEIGHTS, "arguments", HEADER, 4)}
    table = int64_pointer(table)
    scratch = shift(pointer(scratch), thread * scratch_size)
    places, high, wide = filters * rows * columns, 2 * rows, 2 * columns
    x_h, x_c, z_k = padded_w * LANES, padded_h * padded_w * LANES, high * wide * LANES
    gradient = shift(scratch, channels * x_c)
    maps = shift(gradient, filters * z_k)
    sums = shift(maps, (places + LANES) * LANES)
    tap_tiles = (taps + {width - 1}) // {width}
    sums_size = (filters + {tile - 1}) // {tile} * channels * tap_tiles * {room} * LANES
    bias_sums = shift(sums, sums_size)
    clear(scratch, channels * x_c)
    clear(sums, sums_size + filters * LANES)
{GROUPS}
        here = shift(pointer(x), first * channels * size_h * size_w)
        turn_images(here, images, channels, size_h, size_w, padded_h, padded_w, before_h, before_w, scratch)
        turn_in(shift(pointer(g), first * places), places, images, places, maps)
        from_codes = byte_pointer(codes + group * places * LANES)
        spread(maps, from_codes, filters, rows, columns, gradient, wide, high, 0, 0)
        for k in range(filters):
            store(bias_sums, k * LANES, add(load(bias_sums, k * LANES), all_of(shift(gradient, k * z_k), high * wide)))
        into = sums
        for k in range(0, filters, {tile}):
            for c in range(channels):
                for t in range(0, taps, {width}):
{weight_tile(tile, width, lanes, " " * 20)}
                    into = shift(into, {room} * LANES)
    total_w, total_b = shift(pointer(dw), thread * filters * channels * taps), shift(pointer(db), thread * filters)
{write_totals(tile, width, room, "total_w", "    ")}
    for k in range(filters):
        total_b[k] = total(load(bias_sums, k * LANES))
"""


def forward(tile: int, width: int, dtype: str) -> Kernel:
    """A row of the list: one of tiles()."""
    return Kernel(
        f"stages-{dtype}-{tile}x{width}",
        dtype,
        lambda: forward_source(tile, width),
        lambda: TURNS + MAXIMA + multiply(tile, width),
    )


def input_gradient(tile: int, width: int, dtype: str) -> Kernel:
    """One of tiles()."""
    return Kernel(
        f"stages_input-{dtype}-{tile}x{width}",
        dtype,
        lambda: input_source(tile, width),
        lambda: TURNS + SPREAD + multiply(tile, width),
    )


def weight_gradient(tile: int, width: int, dtype: str) -> Kernel:
    """One of tap_tiles()."""
    name = f"stages_weights-{dtype}-{tile}x{width}"
    return Kernel(name, dtype, lambda: weights_source(tile, width, machine().lanes(dtype)), lambda: TURNS + SPREAD)


def every(dtype: str) -> list[Kernel]:
    found = [make(*tile, dtype) for tile in tiles() for make in (forward, input_gradient)]
    return found + [weight_gradient(*tile, dtype) for tile in tap_tiles()]
