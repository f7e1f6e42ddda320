"""Convolution of stride 1 in vectors along images, by Winograd's minimal filtering along the rows: 6 products for 10, or for 12.

Idea. Vectors run along images (kernels/images.py), so that a transform is a few additions of whole vectors and nothing is ever shuffled.
F(2, 5) makes two pixels from a tile of 6, F(4, 3) four, with the same points: kernels of 5 and of 3 columns are products of the same
elements. With the matrices A, G and B of kernels/minimal_filtering.py, for each row of a kernel,

    results        y  = A^T [ sum over channels and rows of  (G g) * (B^T x) ]
    input          dx = B   [ sum over filters and rows of   (G g) * (A dy)  ]         tiles overlap and are added
    weights        dg = G^T [ sum over images and tiles of   (B^T x) * (A dy) ]

The gradients are the derivatives of the first line: they transform the tiles of the forward pass, so that columns of padding, which a
direct sum of the input gradient multiplies like the others, cost nothing.

Registers. Three of the six elements and WIDTH filters at a time: 3 loads for 3 WIDTH multiply-adds, whose weights LLVM takes from memory.
NaN and Inf would reach a neighbour's result: `flags` notes for each thread whether every result is finite.

Layouts. A channels-last image is one channel whose pixels are `channels` numbers wide: it is turned as it lies, and read at another step.

Traffic. V of a column of tiles stays in the first-level cache while all filters pass over it; everything else in the second.
"""

from __future__ import annotations

from fractions import Fraction

from convolve.kernels.cache import Kernel
from convolve.kernels.images import GROUPS, TURNS
from convolve.kernels.machine import Tiles, tiles_for
from convolve.kernels.minimal_filtering import Matrix, matrices
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import ADDRESSES, unpack
from convolve.kernels.winograd import transform

OUTPUTS = {5: 2, 3: 4}
"""Pixels of a tile, by the taps of a row."""
POINTS = 6
HALF = POINTS // 2

# All int64. Sizes, strides and places count elements; those of the maps are the forward pass's, whatever the role. Where ADDRESSES has
# the table, `flags` is. Of the input gradient, x is the output's gradient and y the input's; of the weight gradient, w are the gradients
# of each thread, one after the other, and y the output's gradient.
ARGUMENTS = (
    *ADDRESSES[:-1], "flags",
    "batch", "channels", "size_h", "size_w", "filters", "kernel_h", "before_h", "before_w",
    "padded_h", "padded_w",  # of the input, and what the last tile reads behind it
    "out_h", "out_w", "tiles",
    "last",  # 1: images are channels-last
    "w_k", "w_c", "w_r", "w_s",
    "scratch_size",  # elements of one thread
)  # fmt: skip

# Filters whose products are summed together; (filters, rows of the kernel) whose weight gradients are.
_MANY, _FEW = ((8, HALF), (6, HALF)), ((3, HALF), (2, HALF))
_MANY_TAPS, _FEW_TAPS = ((4, 5), (6, 3)), ((2, 5), (2, 3))


def widths() -> tuple[int, ...]:
    return tuple(width for width, _ in tiles_for(_MANY, _FEW))


def tap_tiles() -> Tiles:
    return tiles_for(_MANY_TAPS, _FEW_TAPS)


def turned(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def scaled(row: tuple[Fraction, ...], name: str) -> str:
    """The sum of a row's numbers times name0, name1, …"""
    return " + ".join(f"{float(a)!r} * {name}{i}" for i, a in enumerate(row) if a != 0) or "0.0"


# -- pieces, shared with kernels/stages_winograd.py


def _points(name: str, matrix: Matrix) -> str:
    """A tile's elements: those of neighbours `x_step` apart; three at `to`, `step` apart, and three `half` further on."""
    return f"""
def {name}(x, x_step, to, step, half):
{chr(10).join(f"    i{i} = load(x, {i} * x_step)" for i in range(len(matrix[0])))}
{transform(matrix, "i", "o", 4)}
{chr(10).join(f"    store(to, {i // HALF} * half + {i % HALF} * step, o{i})" for i in range(POINTS))}
"""


def to_points(taps: int) -> str:
    """B^T of a tile of the input."""
    return _points("to_points", matrices(OUTPUTS[taps], taps)[2])


def gradient_to_points(taps: int) -> str:
    """A of a tile of the output's gradient."""
    return _points("gradient_to_points", turned(matrices(OUTPUTS[taps], taps)[0]))


def settle(taps: int) -> str:
    """A^T of the products of `count` filters."""
    outputs = OUTPUTS[taps]
    return f"""
def settle(m, count, bias, to, to_k, to_step, finite):
    good = load(finite, 0)
    for k in range(count):
        constant = broadcast(bias, k)
{chr(10).join(f"        i{i} = load(m, (k * {POINTS} + {i}) * LANES)" for i in range(POINTS))}
{transform(matrices(outputs, taps)[0], "i", "o", 8)}
{chr(10).join(f"        o{i} = add(o{i}, constant)" for i in range(outputs))}
{chr(10).join(f"        store(to, k * to_k + {i} * to_step, o{i})" for i in range(outputs))}
{chr(10).join(f"        good = fma(o{i}, zero(), good)" for i in range(outputs))}
    store(finite, 0, good)
"""


def overlap(taps: int) -> str:
    """B of the products of `count` channels, added to what the tile's neighbours gave."""
    return f"""
def overlap(m, count, to, to_c):
    for c in range(count):
{chr(10).join(f"        i{i} = load(m, (c * {POINTS} + {i}) * LANES)" for i in range(POINTS))}
{transform(turned(matrices(OUTPUTS[taps], taps)[2]), "i", "o", 8)}
{chr(10).join(f"        store(to, c * to_c + {i} * LANES, add(load(to, c * to_c + {i} * LANES), o{i}))" for i in range(POINTS))}
"""


def prepare(taps: int, width: int) -> str:
    """Transforms the weights: in double precision, for the numbers of Python are."""
    points = "\n".join(
        f"                    u[place + {e // HALF} * half + {e % HALF}] = {scaled(row, 't')}"
        for e, row in enumerate(matrices(OUTPUTS[taps], taps)[1])
    )
    return f"""
def float64_of(w, i):
    return w[i] * 1.0

def prepare(w, outs, w_out, ins, w_in, rows, w_r, w_s, u):
    half = ins * rows * {width * HALF}
    for o in range((outs + {width - 1}) // {width} * {width}):
        block = o // {width} * 2 * half + o % {width} * {HALF}
        for i in range(ins):
            for r in range(rows):
                place = block + (r * ins + i) * {width * HALF}
                for e in range({HALF}):
                    u[place + e] = 0
                    u[place + half + e] = 0
                if o < outs:
                    at = o * w_out + i * w_in + r * w_r
{chr(10).join(f"                    t{s} = float64_of(w, at + {s} * w_s)" for s in range(taps))}
{points}
"""


def products(width: int) -> str:
    """`width` filters at three points of a tile, and at the next three; `count` rows of the kernel times channels, one after the other."""
    sums = [(k, e) for k in range(width) for e in range(HALF)]
    lines = [f"s{k}_{e} = zero()" for k, e in sums]
    lines += ["for i in range(count):"]
    lines += [f"    v{e} = load(x, {e} * LANES)" for e in range(HALF)]
    lines += [f"    s{k}_{e} = fma(broadcast(w, {k * HALF + e}), v{e}, s{k}_{e})" for k, e in sums]
    lines += [f"    x, w = shift(x, {HALF} * LANES), shift(w, {width * HALF})"]
    lines += [f"store(to, ({k} * {POINTS} + {e}) * LANES, s{k}_{e})" for k, e in sums]
    body = "\n".join("    " + line for line in lines)
    return f"""
def half_products(to, x, w, count):
{body}

def products(to, x, x_half, w, w_half, count):
    half_products(to, x, w, count)
    half_products(shift(to, {HALF} * LANES), shift(x, x_half), shift(w, w_half), count)
"""


def weight_sums(tile: int, rows: int, indent: str) -> str:
    """The sums of `tile` filters and `rows` of the kernel at one point, added to those at `into`.

    y_here and x_here: where the vectors of the first filter and row begin, those of the next ones y_k and x_r further on; `count` of each.
    """
    sums = [(k, r) for k in range(tile) for r in range(rows)]
    lines = [f"s{k}_{r} = load(into, {k * rows + r} * LANES)" for k, r in sums]
    lines += ["for i in range(0, count * LANES, LANES):"]
    lines += [f"    y{k} = load(y_here, {k} * y_k + i)" for k in range(tile)]
    for r in range(rows):
        lines += [f"    v = load(x_here, {r} * x_r + i)"]
        lines += [f"    s{k}_{r} = fma(v, y{k}, s{k}_{r})" for k in range(tile)]
    lines += [f"store(into, {k * rows + r} * LANES, s{k}_{r})" for k, r in sums]
    return "\n".join(indent + line for line in lines)


def write_taps(taps: int, sums: str, place: str, indent: str) -> str:
    """G^T of the totals of the vectors at `sums`, sums_e apart; `good` learns whether they are finite."""
    lines = [f"m{e} = total(load({sums}, {e} * sums_e)) * 1.0" for e in range(POINTS)]
    lines += [f"{place}[{s}] = {scaled(row, 'm')}" for s, row in enumerate(turned(matrices(OUTPUTS[taps], taps)[1]))]
    lines += [f"for s in range({taps}):", f"    good = fma(broadcast({place}, s), zero(), good)"]
    return "\n".join(indent + line for line in lines)


# -- kernels

_STEPS = """
    x_step, y_step = channels if last != 0 else 1, filters if last != 0 else 1
    x_w, y_w = x_step * LANES, y_step * LANES
    x_h, y_h = padded_w * x_w, out_w * y_w
    x_c, y_k = LANES if last != 0 else padded_h * x_h, LANES if last != 0 else out_h * y_h
    images_size, places = channels * padded_h * padded_w * LANES, filters * out_h * out_w
""".strip("\n")
"""Where the maps of LANES images lie in the scratch, in the order in which they lie in memory."""

_TURN_INPUT = """
        here = shift(pointer(x), first * channels * size_h * size_w)
        turn_images(
            here, images, channels // x_step, size_h, size_w * x_step, padded_h, padded_w * x_step,
            before_h, before_w * x_step, scratch,
        )
""".strip("\n")

_BIASES = """
def take_bias(bias, count, room, to):
    for k in range(room):
        to[k] = 0
        if bias != 0 and k < count:
            to[k] = pointer(bias)[k]
"""


def forward_source(taps: int, width: int) -> str:
    outputs = OUTPUTS[taps]
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
{_STEPS}
    v_h = channels * {HALF} * LANES
    v_half = padded_h * v_h
    blocks = (filters + {width - 1}) // {width}
    v = shift(scratch, images_size)
    out = shift(v, 2 * v_half)
    m = shift(out, (places + LANES) * LANES)
    finite = shift(m, {width * POINTS} * LANES)
    weights = shift(finite, LANES)
    biases = shift(weights, blocks * channels * kernel_h * {width * POINTS})
    prepare(pointer(w), filters, w_k, channels, w_c, kernel_h, w_r, w_s, weights)
    take_bias(bias, filters, blocks * {width}, biases)
    store(finite, 0, zero())
    clear(scratch, images_size)
{GROUPS}
{_TURN_INPUT}
        for t in range(tiles):
            q = min(t * {outputs}, out_w - {outputs})
            for row in range(padded_h):
                for c in range(channels):
                    from_row = shift(scratch, c * x_c + row * x_h + q * x_w)
                    to_points(from_row, x_w, shift(v, row * v_h + c * {HALF} * LANES), LANES, v_half)
            for p in range(out_h):
                for k in range(0, filters, {width}):
                    products(
                        m, shift(v, p * v_h), v_half,
                        shift(weights, k * channels * kernel_h * {POINTS}), channels * kernel_h * {width * HALF},
                        channels * kernel_h,
                    )
                    to = shift(out, k * y_k + p * y_h + q * y_w)
                    settle(m, min({width}, filters - k), shift(biases, k), to, y_k, y_w, finite)
        turn_out(out, places, images, shift(pointer(y), first * places), places)
    pointer(flags)[thread] = total(load(finite, 0))
"""


def input_source(taps: int, width: int) -> str:
    outputs = OUTPUTS[taps]
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
{_STEPS}
    pixels = size_h * size_w
    v_h = filters * {HALF} * LANES
    v_half = out_h * v_h
    blocks = (channels + {width - 1}) // {width}
    lines_h = padded_w * LANES
    lines_c = size_h * lines_h
    lines = shift(scratch, (places + LANES) * LANES)
    v = shift(lines, channels * lines_c)
    out = shift(v, 2 * v_half)
    m = shift(out, (channels * pixels + LANES) * LANES)
    weights = shift(m, {width * POINTS} * LANES)
    biases = shift(weights, blocks * filters * kernel_h * {width * POINTS})
    to_c, to_w = LANES if last != 0 else pixels * LANES, x_step * LANES
    # The weight is read turned around, row by row: the rows of gradients that meet a row of the input then follow one another.
    from_w = shift(pointer(w), (kernel_h - 1) * w_r)
    prepare(from_w, channels, w_c, filters, w_k, kernel_h, 0 - w_r, w_s, weights)
    take_bias(bias, channels, channels, biases)
    good = zero()
{GROUPS}
        turn_in(shift(pointer(x), first * places), places, images, places, scratch)
        clear(lines, channels * lines_c)
        for t in range(tiles):
            for p in range(out_h):
                for k in range(filters):
                    from_row = shift(scratch, k * y_k + p * y_h + t * {outputs} * y_w)
                    to = shift(v, p * v_h + k * {HALF} * LANES)
                    if (t + 1) * {outputs} <= out_w:
                        gradient_to_points(from_row, y_w, to, LANES, v_half)
                    else:
                        for i in range({outputs}):
                            some = zero()
                            if t * {outputs} + i < out_w:
                                some = load(from_row, i * y_w)
                            store(m, i * LANES, some)
                        gradient_to_points(m, LANES, to, LANES, v_half)
            for h in range(size_h):
                z = h + before_h - kernel_h + 1
                first_r, last_r = max(0, 0 - z), min(kernel_h, out_h - z)
                for c in range(0, channels, {width}):
                    products(
                        m, shift(v, (z + first_r) * v_h), v_half,
                        shift(weights, (c * kernel_h * 2 + first_r * {width}) * filters * {HALF}),
                        filters * kernel_h * {width * HALF}, filters * (last_r - first_r),
                    )
                    to = shift(lines, c * lines_c + h * lines_h + t * {outputs} * LANES)
                    overlap(m, min({width}, channels - c), to, lines_c)
        for c in range(channels):
            constant = broadcast(biases, c)
            for h in range(size_h):
                line = shift(lines, c * lines_c + h * lines_h + before_w * LANES)
                to = shift(out, c * to_c + h * size_w * to_w)
                for i in range(size_w):
                    value = add(load(line, i * LANES), constant)
                    store(to, i * to_w, value)
                    good = fma(value, zero(), good)
        turn_out(out, channels * pixels, images, shift(pointer(y), first * channels * pixels), channels * pixels)
    pointer(flags)[thread] = total(good)
"""


def weights_source(taps: int, tile: int, rows: int) -> str:
    outputs = OUTPUTS[taps]
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
{_STEPS}
    blocks, row_blocks = (filters + {tile - 1}) // {tile}, (kernel_h + {rows - 1}) // {rows}
    x_r, y_all = tiles * LANES, out_h * tiles * LANES
    v_c = (padded_h + {rows - 1}) * x_r
    v_e, d_e = channels * v_c, {tile} * y_all
    sums_e = blocks * channels * row_blocks * {tile * rows} * LANES
    gradient = shift(scratch, images_size)
    v = shift(gradient, (places + LANES) * LANES)
    d = shift(v, {POINTS} * v_e)
    sums = shift(d, {POINTS} * d_e)
    tail = shift(sums, {POINTS} * sums_e)
    clear(scratch, images_size)
    clear(v, {POINTS} * v_e)
    clear(sums, {POINTS} * sums_e)
{GROUPS}
{_TURN_INPUT}
        turn_in(shift(pointer(y), first * places), places, images, places, gradient)
        for c in range(channels):
            for row in range(padded_h):
                for t in range(tiles):
                    from_row = shift(scratch, c * x_c + row * x_h + t * {outputs} * x_w)
                    to_points(from_row, x_w, shift(v, c * v_c + row * x_r + t * LANES), v_e, {HALF} * v_e)
        for block in range(blocks):
            for k in range(min({tile}, filters - block * {tile})):
                for p in range(out_h):
                    for t in range(tiles):
                        from_row = shift(gradient, (block * {tile} + k) * y_k + p * y_h + t * {outputs} * y_w)
                        to = shift(d, k * y_all + (p * tiles + t) * LANES)
                        if (t + 1) * {outputs} <= out_w:
                            gradient_to_points(from_row, y_w, to, d_e, {HALF} * d_e)
                        else:
                            for i in range({outputs}):
                                some = zero()
                                if t * {outputs} + i < out_w:
                                    some = load(from_row, i * y_w)
                                store(tail, i * LANES, some)
                            gradient_to_points(tail, LANES, to, d_e, {HALF} * d_e)
            for e in range({POINTS}):
                for c in range(channels):
                    for r in range(row_blocks):
                        x_here = shift(v, e * v_e + c * v_c + r * {rows} * x_r)
                        y_here = shift(d, e * d_e)
                        into = shift(sums, e * sums_e + ((block * channels + c) * row_blocks + r) * {tile * rows} * LANES)
                        add_sums(into, x_here, x_r, y_here, y_all, out_h * tiles)
    shares = shift(pointer(w), thread * filters * channels * kernel_h * {taps})
    good = zero()
    for k in range(filters):
        for c in range(channels):
            for r in range(kernel_h):
                at = ((k // {tile} * channels + c) * row_blocks + r // {rows}) * {tile * rows} + k % {tile} * {rows} + r % {rows}
                here = shift(sums, at * LANES)
                place = shift(shares, ((k * channels + c) * kernel_h + r) * {taps})
{write_taps(taps, "here", "place", " " * 16)}
    pointer(flags)[thread] = total(good)
"""


def _add_sums(tile: int, rows: int) -> str:
    return f"""
def add_sums(into, x_here, x_r, y_here, y_k, count):
{weight_sums(tile, rows, "    ")}
"""


def forward(taps: int, width: int, dtype: str) -> Kernel:
    """`width`: one of widths()."""
    return Kernel(
        f"images_winograd-{dtype}-{taps}-{width}",
        dtype,
        lambda: forward_source(taps, width),
        lambda: TURNS + to_points(taps) + settle(taps) + prepare(taps, width) + products(width) + _BIASES,
    )


def input_gradient(taps: int, width: int, dtype: str) -> Kernel:
    """`width`: one of widths()."""
    return Kernel(
        f"images_winograd_input-{dtype}-{taps}-{width}",
        dtype,
        lambda: input_source(taps, width),
        lambda: TURNS + gradient_to_points(taps) + overlap(taps) + prepare(taps, width) + products(width) + _BIASES,
    )


def weight_gradient(taps: int, tile: int, rows: int, dtype: str) -> Kernel:
    """(tile, rows): one of tap_tiles()."""
    return Kernel(
        f"images_winograd_weights-{dtype}-{taps}-{tile}x{rows}",
        dtype,
        lambda: weights_source(taps, tile, rows),
        lambda: TURNS + to_points(taps) + gradient_to_points(taps) + _add_sums(tile, rows),
    )


def every(dtype: str) -> list[Kernel]:
    found = [make(taps, width, dtype) for taps in OUTPUTS for width in widths() for make in (forward, input_gradient)]
    return found + [weight_gradient(taps, *tile, dtype) for taps in OUTPUTS for tile in tap_tiles()]
