"""Convolution of stride 1 in vectors along images, by Winograd's minimal filtering along the rows: 8 products for 20, or 6 for 12.

Idea. Vectors run along images (kernels/images.py), so that a transform is a few additions of whole vectors and nothing is ever shuffled.
F(4, 5) makes four pixels from a tile of 8, F(4, 3) from one of 6. With the matrices A, G and B of kernels/minimal_filtering.py,

    results        y  = A^T [ sum over channels and rows of the kernel of  (G g) * (B^T x) ]
    input          dx = B   [ sum over filters and rows of the kernel of   (G g) * (A dy)  ]         tiles overlap and are added
    weights        dg = G^T [ sum over images, rows and tiles of           (B^T x) * (A dy) ]

The gradients are the derivatives of the first line: their tiles are those of the forward pass, so that columns of padding, which a
direct sum of the input gradient multiplies like the others, cost nothing.

Registers. Half of the elements of a tile and WIDTH filters at a time: 4 loads for 4 WIDTH multiply-adds, whose weights LLVM takes from
memory. NaN and Inf would reach a neighbour's result: `flags` notes for each thread whether every result is finite.

Layouts. A channels-last image is one channel whose pixels are `channels` numbers wide: it is turned as it lies, and read at another step.

Traffic. V of a column of tiles stays near while all filters pass over it; everything else in the second-level cache.
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

OUTPUTS = 4
"""Pixels of a tile."""
TAPS = (3, 5)
"""Of a row of a kernel."""

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

# Filters whose products are summed together, at half of the points of a tile; (filters, rows of the kernel) whose weight gradients are.
_WIDTHS = {6: (((8, 3), (6, 3)), ((3, 3), (2, 3))), 8: (((6, 4), (4, 4)), ((2, 4),))}
_MANY_TAPS, _FEW_TAPS = ((4, 5), (6, 3)), ((2, 5), (2, 3))


def widths_of(points: int) -> tuple[int, ...]:
    return tuple(width for width, _ in tiles_for(*_WIDTHS[points]))


def tap_tiles() -> Tiles:
    return tiles_for(_MANY_TAPS, _FEW_TAPS)


def points_of(taps: int, outputs: int = OUTPUTS) -> int:
    """Elements of a tile."""
    return outputs + taps - 1


def turned(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def scaled(row: tuple[Fraction, ...], name: str) -> str:
    """The sum of a row's numbers times name0, name1, …"""
    return " + ".join(f"{float(a)!r} * {name}{i}" for i, a in enumerate(row) if a != 0) or "0.0"


# -- pieces, shared with kernels/stages_winograd.py


def _points(name: str, matrix: Matrix) -> str:
    """A tile's elements from neighbours `x_step` apart: the first half at `to`, `step` apart, the others `half` further on."""
    half = len(matrix) // 2
    return f"""
def {name}(x, x_step, to, step, half):
{chr(10).join(f"    i{i} = load(x, {i} * x_step)" for i in range(len(matrix[0])))}
{transform(matrix, "i", "o", 4)}
{chr(10).join(f"    store(to, {i // half} * half + {i % half} * step, o{i})" for i in range(len(matrix)))}
"""


def to_points(outputs: int, taps: int) -> str:
    """B^T of a tile of the input."""
    return _points("to_points", matrices(outputs, taps)[2])


def gradient_to_points(outputs: int, taps: int) -> str:
    """A of a tile of the output's gradient, of which `count` pixels are there; `room` takes a copy of others."""
    return (
        _points("whole_to_points", turned(matrices(outputs, taps)[0]))
        + f"""
def gradient_to_points(x, x_step, count, room, to, step, half):
    if count >= {outputs}:
        whole_to_points(x, x_step, to, step, half)
    else:
        for i in range({outputs}):
            store(room, i * LANES, zero())
        for i in range(count):
            store(room, i * LANES, load(x, i * x_step))
        whole_to_points(room, LANES, to, step, half)
"""
    )


def settle(outputs: int, taps: int) -> str:
    """A^T of the products of `count` filters; `some` pixels are wanted."""
    points = points_of(taps, outputs)
    stores = ["        store(to, k * to_k, o0)"]
    for i in range(1, outputs):
        stores += [f"        if some > {i}:", f"            store(to, k * to_k + {i} * to_step, o{i})"]
    return f"""
def settle(m, count, bias, to, to_k, to_step, some, finite):
    good = load(finite, 0)
    for k in range(count):
        constant = broadcast(bias, k)
{chr(10).join(f"        i{i} = load(m, (k * {points} + {i}) * LANES)" for i in range(points))}
{transform(matrices(outputs, taps)[0], "i", "o", 8)}
{chr(10).join(f"        o{i} = add(o{i}, constant)" for i in range(outputs))}
{chr(10).join(stores)}
{chr(10).join(f"        good = fma(o{i}, zero(), good)" for i in range(outputs))}
    store(finite, 0, good)
"""


def overlap(outputs: int, taps: int) -> str:
    """B of the products of `count` channels, added to what the tile's neighbours gave."""
    points = points_of(taps, outputs)
    return f"""
def overlap(m, count, to, to_c):
    for c in range(count):
        here = shift(to, c * to_c)
{chr(10).join(f"        i{i} = load(m, (c * {points} + {i}) * LANES)" for i in range(points))}
{transform(turned(matrices(outputs, taps)[2]), "i", "o", 8)}
{chr(10).join(f"        store(here, {i} * LANES, add(load(here, {i} * LANES), o{i}))" for i in range(points))}
"""


def prepare(outputs: int, taps: int, width: int) -> str:
    """Transforms the weights: in double precision, for the numbers of Python are."""
    half = points_of(taps, outputs) // 2
    points = "\n".join(
        f"                    u[place + {e // half} * half + {e % half}] = {scaled(row, 't')}"
        for e, row in enumerate(matrices(outputs, taps)[1])
    )
    return f"""
def float64_of(w, i):
    return w[i] * 1.0

def prepare(w, outs, w_out, ins, w_in, rows, w_r, w_s, u):
    half = ins * rows * {width * half}
    for o in range((outs + {width - 1}) // {width} * {width}):
        block = o // {width} * 2 * half + o % {width} * {half}
        for i in range(ins):
            for r in range(rows):
                place = block + (r * ins + i) * {width * half}
                for e in range({half}):
                    u[place + e] = 0
                    u[place + half + e] = 0
                if o < outs:
                    at = o * w_out + i * w_in + r * w_r
{chr(10).join(f"                    t{s} = float64_of(w, at + {s} * w_s)" for s in range(taps))}
{points}
"""


def products(width: int, half: int) -> str:
    """`width` filters at `half` points of a tile, and at the next; `count` rows of the kernel times channels, one after the other."""
    sums = [(k, e) for k in range(width) for e in range(half)]
    lines = [f"s{k}_{e} = zero()" for k, e in sums]
    lines += ["for i in range(count):"]
    lines += [f"    v{e} = load(x, {e} * LANES)" for e in range(half)]
    lines += [f"    s{k}_{e} = fma(broadcast(w, {k * half + e}), v{e}, s{k}_{e})" for k, e in sums]
    lines += [f"    x, w = shift(x, {half} * LANES), shift(w, {width * half})"]
    lines += [f"store(to, ({k} * {2 * half} + {e}) * LANES, s{k}_{e})" for k, e in sums]
    body = "\n".join("    " + line for line in lines)
    return f"""
def half_products(to, x, w, count):
{body}

def products(to, x, x_half, w, w_half, count):
    half_products(to, x, w, count)
    half_products(shift(to, {half} * LANES), shift(x, x_half), shift(w, w_half), count)
"""


def weight_sums(tile: int, rows: int) -> str:
    """The sums of `tile` filters and `rows` of the kernel at one point, added to those at `into`."""
    sums = [(k, r) for k in range(tile) for r in range(rows)]
    lines = [f"s{k}_{r} = load(into, {k * rows + r} * LANES)" for k, r in sums]
    lines += ["for i in range(0, count * LANES, LANES):"]
    lines += [f"    y{k} = load(y, {k} * y_k + i)" for k in range(tile)]
    for r in range(rows):
        lines += [f"    v = load(x, {r} * x_r + i)"]
        lines += [f"    s{k}_{r} = fma(v, y{k}, s{k}_{r})" for k in range(tile)]
    lines += [f"store(into, {k * rows + r} * LANES, s{k}_{r})" for k, r in sums]
    body = "\n".join("    " + line for line in lines)
    return f"""
def weight_sums(into, x, x_r, y, y_k, count):
{body}
"""


def write_taps(matrix: Matrix, sums: str, place: str, indent: str) -> str:
    """The taps that the matrix makes of the totals of the vectors at `sums`, sums_e apart; `good` learns whether they are finite."""
    lines = [f"m{e} = total(load({sums}, {e} * sums_e)) * 1.0" for e in range(len(matrix[0]))]
    lines += [f"{place}[{s}] = {scaled(row, 'm')}" for s, row in enumerate(matrix)]
    lines += [f"for s in range({len(matrix)}):", f"    good = fma(broadcast({place}, s), zero(), good)"]
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
    points = points_of(taps)
    half = points // 2
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
{_STEPS}
    v_h = channels * {half} * LANES
    v_half = padded_h * v_h
    blocks = (filters + {width - 1}) // {width}
    v = shift(scratch, images_size)
    out = shift(v, 2 * v_half)
    m = shift(out, (places + LANES) * LANES)
    finite = shift(m, {width * points} * LANES)
    weights = shift(finite, LANES)
    biases = shift(weights, blocks * channels * kernel_h * {width * points})
    prepare(pointer(w), filters, w_k, channels, w_c, kernel_h, w_r, w_s, weights)
    take_bias(bias, filters, blocks * {width}, biases)
    store(finite, 0, zero())
    clear(scratch, images_size)
{GROUPS}
{_TURN_INPUT}
        for t in range(tiles):
            q = t * {OUTPUTS}
            for row in range(padded_h):
                for c in range(channels):
                    from_row = shift(scratch, c * x_c + row * x_h + q * x_w)
                    to_points(from_row, x_w, shift(v, row * v_h + c * {half} * LANES), LANES, v_half)
            for p in range(out_h):
                for k in range(0, filters, {width}):
                    products(
                        m, shift(v, p * v_h), v_half,
                        shift(weights, k * channels * kernel_h * {points}), channels * kernel_h * {width * half},
                        channels * kernel_h,
                    )
                    to = shift(out, k * y_k + p * y_h + q * y_w)
                    settle(m, min({width}, filters - k), shift(biases, k), to, y_k, y_w, out_w - q, finite)
        turn_out(out, places, images, shift(pointer(y), first * places), places)
    pointer(flags)[thread] = total(load(finite, 0))
"""


def input_source(taps: int, width: int) -> str:
    points = points_of(taps)
    half = points // 2
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
{_STEPS}
    pixels = size_h * size_w
    v_h = filters * {half} * LANES
    v_half = out_h * v_h
    blocks = (channels + {width - 1}) // {width}
    lines_h = padded_w * LANES
    lines_c = size_h * lines_h
    lines = shift(scratch, (places + LANES) * LANES)
    v = shift(lines, channels * lines_c)
    out = shift(v, 2 * v_half)
    m = shift(out, (channels * pixels + LANES) * LANES)
    weights = shift(m, {width * points} * LANES)
    biases = shift(weights, blocks * filters * kernel_h * {width * points})
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
            q = t * {OUTPUTS}
            for p in range(out_h):
                for k in range(filters):
                    from_row = shift(scratch, k * y_k + p * y_h + q * y_w)
                    to = shift(v, p * v_h + k * {half} * LANES)
                    gradient_to_points(from_row, y_w, out_w - q, m, to, LANES, v_half)
            for h in range(size_h):
                z = h + before_h - kernel_h + 1
                first_r, last_r = max(0, 0 - z), min(kernel_h, out_h - z)
                for c in range(0, channels, {width}):
                    products(
                        m, shift(v, (z + first_r) * v_h), v_half,
                        shift(weights, (c * kernel_h * 2 + first_r * {width}) * filters * {half}),
                        filters * kernel_h * {width * half}, filters * (last_r - first_r),
                    )
                    to = shift(lines, c * lines_c + h * lines_h + q * LANES)
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
    points = points_of(taps)
    half = points // 2
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    scratch = shift(pointer(scratch), thread * scratch_size)
{_STEPS}
    blocks, row_blocks = (filters + {tile - 1}) // {tile}, (kernel_h + {rows - 1}) // {rows}
    x_r, y_all = tiles * LANES, out_h * tiles * LANES
    v_c = padded_h * x_r  # sums of rows beyond the kernel's last read further on, and are not kept
    v_e, d_e = channels * v_c, {tile} * y_all
    sums_e = blocks * channels * row_blocks * {tile * rows} * LANES
    gradient = shift(scratch, images_size)
    v = shift(gradient, (places + LANES) * LANES)
    d = shift(v, {points} * v_e)
    sums = shift(d, {points} * d_e)
    tail = shift(sums, {points} * sums_e)
    clear(scratch, images_size)
    clear(sums, {points} * sums_e)
{GROUPS}
{_TURN_INPUT}
        turn_in(shift(pointer(y), first * places), places, images, places, gradient)
        for c in range(channels):
            for row in range(padded_h):
                for t in range(tiles):
                    from_row = shift(scratch, c * x_c + row * x_h + t * {OUTPUTS} * x_w)
                    to_points(from_row, x_w, shift(v, c * v_c + row * x_r + t * LANES), v_e, {half} * v_e)
        for block in range(blocks):
            for k in range(min({tile}, filters - block * {tile})):
                for p in range(out_h):
                    for t in range(tiles):
                        from_row = shift(gradient, (block * {tile} + k) * y_k + p * y_h + t * {OUTPUTS} * y_w)
                        to = shift(d, k * y_all + (p * tiles + t) * LANES)
                        gradient_to_points(from_row, y_w, out_w - t * {OUTPUTS}, tail, to, d_e, {half} * d_e)
            for e in range({points}):
                for c in range(channels):
                    for r in range(row_blocks):
                        x_here = shift(v, e * v_e + c * v_c + r * {rows} * x_r)
                        y_here = shift(d, e * d_e)
                        into = shift(sums, e * sums_e + ((block * channels + c) * row_blocks + r) * {tile * rows} * LANES)
                        weight_sums(into, x_here, x_r, y_here, y_all, out_h * tiles)
    shares = shift(pointer(w), thread * filters * channels * kernel_h * {taps})
    good = zero()
    for k in range(filters):
        for c in range(channels):
            for r in range(kernel_h):
                at = ((k // {tile} * channels + c) * row_blocks + r // {rows}) * {tile * rows} + k % {tile} * {rows} + r % {rows}
                here = shift(sums, at * LANES)
                place = shift(shares, ((k * channels + c) * kernel_h + r) * {taps})
{write_taps(turned(matrices(OUTPUTS, taps)[1]), "here", "place", " " * 16)}
    pointer(flags)[thread] = total(good)
"""


def forward(taps: int, width: int, dtype: str) -> Kernel:
    """`width`: one of widths_of()."""
    return Kernel(
        f"images_winograd-{dtype}-{taps}-{width}",
        dtype,
        lambda: forward_source(taps, width),
        lambda: _shared(taps, width) + to_points(OUTPUTS, taps) + settle(OUTPUTS, taps),
    )


def input_gradient(taps: int, width: int, dtype: str) -> Kernel:
    """`width`: one of widths_of()."""
    return Kernel(
        f"images_winograd_input-{dtype}-{taps}-{width}",
        dtype,
        lambda: input_source(taps, width),
        lambda: _shared(taps, width) + gradient_to_points(OUTPUTS, taps) + overlap(OUTPUTS, taps),
    )


def _shared(taps: int, width: int) -> str:
    return TURNS + _BIASES + prepare(OUTPUTS, taps, width) + products(width, points_of(taps) // 2)


def weight_gradient(taps: int, tile: int, rows: int, dtype: str) -> Kernel:
    """(tile, rows): one of tap_tiles()."""
    return Kernel(
        f"images_winograd_weights-{dtype}-{taps}-{tile}x{rows}",
        dtype,
        lambda: weights_source(taps, tile, rows),
        lambda: TURNS + to_points(OUTPUTS, taps) + gradient_to_points(OUTPUTS, taps) + weight_sums(tile, rows),
    )


def every(dtype: str) -> list[Kernel]:
    found = [
        make(taps, width, dtype)
        for taps in TAPS
        for width in widths_of(points_of(taps))
        for make in (forward, input_gradient)
    ]
    return found + [weight_gradient(taps, *tile, dtype) for taps in TAPS for tile in tap_tiles()]
