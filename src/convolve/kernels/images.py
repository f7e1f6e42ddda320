"""Convolution of stride 1 whose vectors run along images: few maps, any window and size, no masks and no wasted lanes.

Idea. Layers of 1 to 32 maps fill no vector with channels, and rows of 10 or 28 pixels fill few; a batch has images enough. So the maps of
LANES images are turned into the scratch, one image in each lane, [channel][row][column][lane], and from there on every loop is a loop over
numbers that happen to be vectors. No lane is in vain but those of the last images. kernels/stages.py builds on the same loops.

    results     `tile` pixels of a row for `width` filters in registers, over all channels and taps; the input gradient is the same over a
                weight that is read turned around, and skips the rows of its padding
    weights     `tile` filters times `width` taps in registers: a vector of partial sums each, over all pixels of LANES images

Traffic. The maps of LANES images stay in the second-level cache; an image is read once and a result written once. A tile of 7 pixels for
3 filters loads 10 vectors for 21 multiply-adds.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import Tiles, machine, tiles_for
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import ADDRESSES, unpack

_SIZES = (
    "batch", "channels", "size_h", "size_w", "filters", "kernel_h", "kernel_w", "before_h", "before_w",
    "padded_h", "padded_w", "out_h", "out_w",
    "scratch_size",  # elements of one thread
)  # fmt: skip

# All int64. Sizes, strides and places count elements.
ARGUMENTS = (
    *ADDRESSES, *_SIZES,
    "w_first", "w_k", "w_c", "w_r", "w_s",  # the place of the first tap, and strides, which may be negative
    "skips",  # 1: rows of the padding are left out
)  # fmt: skip
WEIGHTS_ARGUMENTS = (*ADDRESSES, *_SIZES, "taps")
# Its w are the gradients of each thread, one after the other, its y the output's gradient; the table has the taps' offsets, and the
# last again to fill a tile.

# (pixels of the tile, filters). LLVM loads all pixels of a tap before it multiplies: a + b + a b must not exceed the registers, or sums go
# to the stack and the kernel to a fifth of its speed.
_MANY = ((10, 2), (8, 2), (7, 3), (6, 3), (5, 4), (4, 4), (2, 8), (1, 8))
_FEW = ((4, 2), (3, 3), (2, 4), (1, 4))

# (filters of the tile, taps)
_MANY_TAPS = ((4, 5), (3, 5), (2, 9))
_FEW_TAPS = ((2, 5), (1, 9))


def tiles() -> Tiles:
    return tiles_for(_MANY, _FEW)


def tap_tiles() -> Tiles:
    return tiles_for(_MANY_TAPS, _FEW_TAPS)


def best(tiles: Tiles, first: int, second: int, part: bool = True) -> tuple[int, int]:
    """The register tile that does the least in vain; with `part` not larger than `first`, so that a last one can begin earlier."""

    def cost(tile: tuple[int, int]) -> float:
        a, b = tile
        return -(-first // a) * a * -(-second // b) * b * a_step(tile)

    return min((tile for tile in tiles if tile[0] <= first or not part), key=cost)


def a_step(tile: tuple[int, int]) -> float:
    """Cycles of a multiply-add in a register tile: its loads may be more than its products."""
    a, b = tile
    return max(1.0, (a + b) / (a * b)) * (1 + 1 / (a * b))


GROUPS = """
    groups = (batch + LANES - 1) // LANES
    for group in range(thread * groups // threads, (thread + 1) * groups // threads):
        first = group * LANES
        images = min(LANES, batch - first)
""".strip("\n")
"""A thread's loop over its vectors of images."""

TURNS = """
def clear(to, count):
    for i in range(0, count, LANES):
        store(to, i, zero())

def turn_in(x, x_n, images, width, to):
    for j in range(0, width, LANES):
        if images == LANES and j + LANES <= width:
            transpose(shift(x, j), x_n, shift(to, j * LANES), LANES)
        else:
            transpose_first(shift(x, j), x_n, images, min(LANES, width - j), shift(to, j * LANES), LANES, LANES)

def turn_out(here, width, images, y, y_n):
    for j in range(0, width, LANES):
        if images == LANES and j + LANES <= width:
            transpose(shift(here, j * LANES), LANES, shift(y, j), y_n)
        else:
            some = min(LANES, width - j)
            transpose_first(shift(here, j * LANES), LANES, some, images, shift(y, j), y_n, some)

def turn_images(x, images, channels, size_h, size_w, padded_h, padded_w, before_h, before_w, to):
    x_n = channels * size_h * size_w
    if padded_h == size_h and padded_w == size_w:
        turn_in(x, x_n, images, x_n, to)
        return
    for c in range(channels):
        for h in range(size_h):
            row = shift(x, (c * size_h + h) * size_w)
            turn_in(row, x_n, images, size_w, shift(to, ((c * padded_h + before_h + h) * padded_w + before_w) * LANES))
"""


def multiply(tile: int, width: int) -> str:
    """`width` filters over `tile` neighbouring pixels; beyond the last of `count` filters it is the last again."""
    sums = [(k, q) for k in range(width) for q in range(tile)]
    lines = [f"k{k} = min({k}, count - 1)" for k in range(width)]
    lines += [f"w{k} = shift(w, k{k} * w_k)" for k in range(width)]
    lines += [f"b{k} = broadcast(bias, k{k})" for k in range(width)]
    lines += [f"s{k}_{q} = b{k}" for k, q in sums]
    lines += ["for c in range(channels):", "    for r in range(first_r, last_r):"]
    lines += ["        place, t = shift(x, c * x_c + r * x_h), (c * kernel_h + r) * kernel_w"]
    lines += ["        for s in range(kernel_w):"]
    lines += [f"            b{k} = broadcast(w{k}, t + s)" for k in range(width)]
    for q in range(tile):
        lines += [f"            v = load(place, {q} * LANES)"]
        lines += [f"            s{k}_{q} = fma(v, b{k}, s{k}_{q})" for k in range(width)]
    lines += ["            place = shift(place, LANES)"]
    lines += [f"store(out, k{k} * out_k + {q} * LANES, s{k}_{q})" for k, q in sums]
    body = "\n".join("    " + line for line in lines)
    return f"""
def multiply(out, out_k, x, x_c, x_h, w, w_k, count, bias, channels, first_r, last_r, kernel_h, kernel_w):
{body}
"""


def source(tile: int, width: int) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
    x_h, x_c = padded_w * LANES, padded_h * padded_w * LANES
    pixels, taps = out_h * out_w, channels * kernel_h * kernel_w
    out = shift(scratch, channels * x_c)
    weights = shift(out, ({width} * pixels + LANES) * LANES)
    biases = shift(weights, filters * taps)
    clear(scratch, channels * x_c)
    at = 0
    for k in range(filters):
        biases[k] = 0
        if bias != 0:
            biases[k] = pointer(bias)[k]
        for c in range(channels):
            for r in range(kernel_h):
                for s in range(kernel_w):
                    weights[at] = pointer(w)[w_first + k * w_k + c * w_c + r * w_r + s * w_s]
                    at += 1
{GROUPS}
        here = shift(pointer(x), first * channels * size_h * size_w)
        turn_images(here, images, channels, size_h, size_w, padded_h, padded_w, before_h, before_w, scratch)
        for k in range(0, filters, {width}):
            count = min({width}, filters - k)
            for p in range(out_h):
                first_r, last_r = 0, kernel_h
                if skips != 0:
                    first_r, last_r = max(0, before_h - p), min(kernel_h, before_h + size_h - p)
                for start in range(0, out_w, {tile}):
                    q = min(start, out_w - {tile})
                    multiply(
                        shift(out, (p * out_w + q) * LANES), pixels * LANES, shift(scratch, p * x_h + q * LANES), x_c, x_h,
                        shift(weights, k * taps), taps, count, shift(biases, k),
                        channels, first_r, last_r, kernel_h, kernel_w,
                    )
            turn_out(out, count * pixels, images, shift(pointer(y), (first * filters + k) * pixels), filters * pixels)
"""


def weights_source(tile: int, width: int, lanes: int) -> str:
    room = -(-tile * width // lanes)
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(WEIGHTS_ARGUMENTS, "arguments", HEADER, 4)}
    table = int64_pointer(table)
    scratch = shift(pointer(scratch), thread * scratch_size)
    places = filters * out_h * out_w
    high, wide = out_h, out_w
    x_h, x_c, z_k = padded_w * LANES, padded_h * padded_w * LANES, out_h * out_w * LANES
    gradient = shift(scratch, channels * x_c)
    sums = shift(gradient, (places + LANES) * LANES)
    tap_tiles = (taps + {width - 1}) // {width}
    sums_size = (filters + {tile - 1}) // {tile} * channels * tap_tiles * {room} * LANES
    clear(scratch, channels * x_c)
    clear(sums, sums_size)
{GROUPS}
        here = shift(pointer(x), first * channels * size_h * size_w)
        turn_images(here, images, channels, size_h, size_w, padded_h, padded_w, before_h, before_w, scratch)
        turn_in(shift(pointer(y), first * places), places, images, places, gradient)
        into = sums
        for k in range(0, filters, {tile}):
            for c in range(channels):
                for t in range(0, taps, {width}):
{weight_tile(tile, width, lanes, " " * 20)}
                    into = shift(into, {room} * LANES)
    shares = shift(pointer(w), thread * filters * channels * taps)
{write_totals(tile, width, room, "shares", "    ")}
"""


def weight_tile(tile: int, width: int, lanes: int, indent: str) -> str:
    """The sums of `tile` filters from k and `width` taps from t over the pixels of LANES images, added to those at `into`."""
    sums = [(k, t) for k in range(tile) for t in range(width)]
    lines = [f"y{k}_at = shift(gradient, min(k + {k}, filters - 1) * z_k)" for k in range(tile)]
    lines += [f"x{t}_at = shift(scratch, c * x_c + table[t + {t}])" for t in range(width)]
    lines += [f"s{k}_{t} = zero()" for k, t in sums]
    lines += ["for p in range(high):", "    i, j = p * wide * LANES, p * x_h", "    for q in range(wide):"]
    lines += [f"        y{k} = load(y{k}_at, i)" for k in range(tile)]
    for t in range(width):
        lines += [f"        v = load(x{t}_at, j)"] + [f"        s{k}_{t} = fma(v, y{k}, s{k}_{t})" for k in range(tile)]
    lines += ["        i += LANES", "        j += LANES"]
    names = [f"s{k}_{t}" for k, t in sums]
    for number, start in enumerate(range(0, len(names), lanes)):
        some, level = names[start : start + lanes], lanes
        # Neighbours are added pairwise, so that lane i of the last vector is the total of vector i: a balanced tree.
        while level > 1:
            level //= 2
            pairs = [(some[i], (*some, "zero()")[i + 1]) for i in range(0, len(some), 2)]
            lines += [f"{a} = add(evens({a}, {b}), odds({a}, {b}))" for a, b in pairs]
            some = [a for a, _ in pairs]
        lines += [f"store(into, {number} * LANES, add(load(into, {number} * LANES), {some[0]}))"]
    return "\n".join(indent + line for line in lines)


def write_totals(tile: int, width: int, room: int, to: str, indent: str) -> str:
    """The totals of all weight tiles, from `sums`, to their places in the gradient at `to`."""
    text = f"""
into = sums
for k in range(0, filters, {tile}):
    for c in range(channels):
        for t in range(0, taps, {width}):
            for i in range(min({tile}, filters - k)):
                for j in range(min({width}, taps - t)):
                    {to}[((k + i) * channels + c) * taps + t + j] = into[i * {width} + j]
            into = shift(into, {room} * LANES)"""
    return "\n".join(indent + line for line in text.splitlines() if line)


def kernel(tile: int, width: int, dtype: str) -> Kernel:
    """A row of the list: one of tiles()."""
    name = f"images-{dtype}-{tile}x{width}"
    return Kernel(name, dtype, lambda: source(tile, width), lambda: TURNS + multiply(tile, width))


def weight_gradient(tile: int, width: int, dtype: str) -> Kernel:
    """One of tap_tiles()."""
    name = f"images_weights-{dtype}-{tile}x{width}"
    return Kernel(name, dtype, lambda: weights_source(tile, width, machine().lanes(dtype)), lambda: TURNS)


def every(dtype: str) -> list[Kernel]:
    found = [kernel(*tile, dtype) for tile in tiles()]
    return found + [weight_gradient(*tile, dtype) for tile in tap_tiles()]
