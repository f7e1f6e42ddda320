"""A stage of a small network in one piece, whose vectors run along images: convolution of stride 1, bias, ReLU, 2x2 maximum.

Idea. Layers of 1 to 32 maps fill no vector with channels, and rows of 10 or 28 pixels fill few; a batch has images enough. So the maps of
LANES images are turned into the scratch, one image in each lane, [channel][row][column][lane], and from there on every loop is a loop over
numbers that happen to be vectors: any window, size and padding, no masks, no wasted lane but those of the last images.

    forward     rows of TILE pixels of some filters in registers; two rows make a row of maxima; a byte says which of four won
    input       the gradient is spread over the four pixels and convolved with the kernels turned around, by the same tile
    weights     some filters times some taps in registers: a vector of partial sums each, over all pixels of LANES images

A code of 4 means: ReLU let nothing through. As in torch a maximum's gradient goes to the first of equals; NaN goes through both.

Traffic. The maps of LANES images stay in the second-level cache from the first loop to the last; an image is read once and a result written
once. A tile of 3 filters times 7 pixels loads 10 vectors for 21 multiply-adds.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import Tiles, machine, tiles_for
from convolve.kernels.preamble import HEADER, PREAMBLE

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


_SHARED = """
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
"""


def _multiply(tile: int, width: int) -> str:
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


_MAXIMA = """
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


def _unpack(names: tuple[str, ...]) -> str:
    return "\n".join(f"    {name} = arguments[{HEADER + i}]" for i, name in enumerate(names))


def forward_source(tile: int, width: int) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(FORWARD)}
    scratch = shift(pointer(scratch), thread * scratch_size)
    x_h, x_c = padded_w * LANES, padded_h * padded_w * LANES
    wide, places, taps = 2 * columns, filters * rows * columns, channels * kernel_h * kernel_w
    lines = shift(scratch, channels * x_c)
    out = shift(lines, {width} * 2 * wide * LANES)
    clear(scratch, channels * x_c)
    groups = (batch + LANES - 1) // LANES
    for group in range(thread * groups // threads, (thread + 1) * groups // threads):
        first = group * LANES
        images = min(LANES, batch - first)
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
{_unpack(INPUT)}
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
    groups = (batch + LANES - 1) // LANES
    for group in range(thread * groups // threads, (thread + 1) * groups // threads):
        first = group * LANES
        images = min(LANES, batch - first)
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
{_unpack(WEIGHTS)}
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
    groups = (batch + LANES - 1) // LANES
    for group in range(thread * groups // threads, (thread + 1) * groups // threads):
        first = group * LANES
        images = min(LANES, batch - first)
        here = shift(pointer(x), first * channels * size_h * size_w)
        turn_images(here, images, channels, size_h, size_w, padded_h, padded_w, before_h, before_w, scratch)
        turn_in(shift(pointer(g), first * places), places, images, places, maps)
        from_codes = byte_pointer(codes + group * places * LANES)
        spread(maps, from_codes, filters, rows, columns, gradient, wide, high, 0, 0)
        for k in range(filters):
            s = load(bias_sums, k * LANES)
            for i in range(high * wide):
                s = add(s, load(gradient, k * z_k + i * LANES))
            store(bias_sums, k * LANES, s)
        into = sums
        for k in range(0, filters, {tile}):
            for c in range(channels):
                for t in range(0, taps, {width}):
{_weight_tile(tile, width, lanes, " " * 20)}
                    into = shift(into, {room} * LANES)
    total_w, total_b = shift(pointer(dw), thread * filters * channels * taps), shift(pointer(db), thread * filters)
    into = sums
    for k in range(0, filters, {tile}):
        for c in range(channels):
            for t in range(0, taps, {width}):
                for i in range(min({tile}, filters - k)):
                    for j in range(min({width}, taps - t)):
                        total_w[((k + i) * channels + c) * taps + t + j] = into[i * {width} + j]
                into = shift(into, {room} * LANES)
    for k in range(filters):
        total_b[k] = total(load(bias_sums, k * LANES))
"""


def _weight_tile(tile: int, width: int, lanes: int, indent: str) -> str:
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


def forward(tile: int, width: int, dtype: str) -> Kernel:
    """A row of the list: one of tiles()."""
    return Kernel(
        f"stages-{dtype}-{tile}x{width}",
        dtype,
        lambda: forward_source(tile, width),
        lambda: _SHARED + _MAXIMA + _multiply(tile, width),
    )


def input_gradient(tile: int, width: int, dtype: str) -> Kernel:
    """One of tiles()."""
    return Kernel(
        f"stages_input-{dtype}-{tile}x{width}",
        dtype,
        lambda: input_source(tile, width),
        lambda: _SHARED + _multiply(tile, width),
    )


def weight_gradient(tile: int, width: int, dtype: str) -> Kernel:
    """One of tap_tiles()."""
    name = f"stages_weights-{dtype}-{tile}x{width}"
    return Kernel(name, dtype, lambda: weights_source(tile, width, machine().lanes(dtype)), lambda: _SHARED)


def every(dtype: str) -> list[Kernel]:
    found = [make(*tile, dtype) for tile in tiles() for make in (forward, input_gradient)]
    return found + [weight_gradient(*tile, dtype) for tile in tap_tiles()]
