"""The weight gradient by minimal filtering F(3x3, m x m): a tile of m x m gradients is the kernel, and 3x3 taps are its outputs.

Idea. Over one tile of (m + 2)^2 inputs x and m x m gradients dy, the 3x3 taps of dw are a convolution of x with dy as its kernel. The
transforms are linear, so tiles are summed before the last one:

    dw  =  A^T [ sum over tiles  (B^T x B) * (G dy G^T) ] A          36 products in the place of 144, m = 4

B is that of the forward pass (kernels/winograd.py), G and A^T are those of F(3, m). Over all channels and filters, element e of a
tile is one matrix product, summed over tiles:

    inputs      V[e][block of c][tile][lane of c]  = B^T x B         kernel `forward`, for a chunk of tiles
    gradients   D[e][block of k][tile][lane of k]  = G dy G^T        the same text, by another matrix
    sums        U[e][panel of k][c][k of the panel] += V[e]^T D[e]   `rows` channels times a panel of filters in registers
    taps        dw = A^T U A                                         once, after the last chunk

Each thread has a share of tiles, channels and filters of its own, so that nobody waits for anybody: what it reads it has transformed
itself. U is cut into groups of channels and filters that stay in the second-level cache. Shares of tiles give gradients of their
own, which the caller adds. No more than a chunk of tiles is summed one by one, and then the chunks: a long sum of small terms
would lose digits.

Traffic per tile: 36 vectors of V and of D written for each vector of channels and of filters, and read once for each group; U is read and
written once for each chunk. The products do 36 multiply-adds of vectors per channel and vector of filters.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import machine
from convolve.kernels.minimal_filtering import matrices
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.winograd import ARGUMENTS as TRANSFORM
from convolve.kernels.winograd import BLOCK, SHARED, TILES, each, forward_source, scratch_elements, transform, unpacked

VECTORS = 2
"""Vectors of filters in a panel."""
TAPS = 3
"""Of the weight, along an axis."""

# What the driver is told, in this order (all int64); then, for each of the two transforms, what kernels/winograd.py tells one.
ARGUMENTS = (
    "x", "dy", "dw", "flags", "scratch",  # addresses; flags: of each thread, 0 or NaN
    "forward", "gradients", "sums", "taps",  # addresses of kernels
    "elements", "thread_size", "groups", "channels", "filters",  # channels and filters of one group
    "x_c", "y_k",  # from a channel of x, and a filter of dy, to the next
    "w_k", "w_c", "w_r", "w_s", "share_size",  # strides of dw; from the gradient of one share of tiles to the next
    "all_tiles", "tiles",  # of a chunk
    "tile_parts", "channel_parts", "filter_parts",  # shares
    "group_channels", "group_panels",  # of a group of U
    "v_element", "d_element", "u_element", "u_size",  # from one element to the next; of the groups of U together
)  # fmt: skip
SUMS_ARGUMENTS = ("v", "d", "u", "count", "v_block", "d_block", "channels", "onto")
TAPS_ARGUMENTS = ("u", "dw", "finite", "temp", "u_element", "channels", "filters", "w_k", "w_c", "w_r", "w_s")


def rows(dtype: str) -> int:
    """Channels of the register tile: rows x VECTORS sums, VECTORS gradients and one input fit the registers; it divides a vector."""
    return min(machine().lanes(dtype), 8 if machine().instruction_set == "avx512" else 4)


def scratch(tile: int, lanes: int) -> int:
    """Of a thread, besides V, D and U: what transforms need, the taps of a square, and what the kernels are told."""
    told = 2 * len(TRANSFORM + BLOCK) + len(SUMS_ARGUMENTS + TAPS_ARGUMENTS) + 4 * HEADER
    return scratch_elements(tile, lanes) + (TAPS**2 * lanes + tile * TAPS + 1) * lanes + 2 * told + 16


def driver_source() -> str:
    """The kernel that takes a thread's shares from x and dy to dw."""
    block = {name: HEADER + i for i, name in enumerate((*TRANSFORM, *BLOCK))}
    sums = {name: HEADER + i for i, name in enumerate(SUMS_ARGUMENTS)}
    taps = {name: HEADER + i for i, name in enumerate(TAPS_ARGUMENTS)}
    first = HEADER + len(ARGUMENTS)
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpacked(ARGUMENTS)}
    panel_size = {VECTORS} * LANES
    v = shift(pointer(scratch), thread * thread_size)
    d = shift(v, elements * v_element)
    u = shift(d, elements * d_element)
    finite = shift(u, u_size)
    of_x = int64_pointer(address(shift(finite, LANES)))
    of_y = shift(of_x, {len(block) + HEADER})
    of_sums = shift(of_y, {len(block) + HEADER})
    of_taps = shift(of_sums, {len(sums) + HEADER})
    temp = address(shift(of_taps, {len(taps) + HEADER}))
    temp = (temp + 63) // 64 * 64
    store(finite, 0, zero())
    for i in range({len(TRANSFORM)}):
        of_x[{HEADER} + i] = arguments[{first} + i]
        of_y[{HEADER} + i] = arguments[{first + len(TRANSFORM)} + i]
    of_x[{block["v"]}], of_y[{block["v"]}] = address(v), address(d)
    of_x[{block["temp"]}], of_y[{block["temp"]}] = temp, temp
    of_x[{block["group"]}], of_y[{block["group"]}] = 0, 0
    of_sums[{sums["v_block"]}] = tiles * LANES
    of_taps[{taps["finite"]}], of_taps[{taps["temp"]}] = address(finite), temp
    of_taps[{taps["u_element"]}] = u_element
    of_taps[{taps["w_k"]}], of_taps[{taps["w_c"]}] = w_k, w_c
    of_taps[{taps["w_r"]}], of_taps[{taps["w_s"]}] = w_r, w_s
    blocks, panels = (channels + LANES - 1) // LANES, (filters + panel_size - 1) // panel_size
    tasks = groups * tile_parts * channel_parts * filter_parts
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        part, rest = task % filter_parts, task // filter_parts
        first_k, end_k = part * panels // filter_parts * panel_size, (part + 1) * panels // filter_parts * panel_size
        part, rest = rest % channel_parts, rest // channel_parts
        first_c, end_c = part * blocks // channel_parts * LANES, (part + 1) * blocks // channel_parts * LANES
        share, g = rest % tile_parts, rest // tile_parts
        some_c, some_k = min(end_c, channels) - first_c, min(end_k, filters) - first_k
        of_x[{block["x"]}] = address(shift(pointer(x), (g * channels + first_c) * x_c))
        of_y[{block["x"]}] = address(shift(pointer(dy), (g * filters + first_k) * y_k))
        of_x[{block["channels"]}], of_y[{block["channels"]}] = some_c, some_k
        result = shift(pointer(dw), share * share_size + (g * filters + first_k) * w_k + first_c * w_c)
        begin, end = share * all_tiles // tile_parts, (share + 1) * all_tiles // tile_parts
        for t in range(begin, end, tiles):
            count = min(tiles, end - t)
            of_x[{block["first_tile"]}], of_y[{block["first_tile"]}] = t, t
            of_x[{block["count"]}], of_y[{block["count"]}] = count, count
            call(forward, of_x)
            call(gradients, of_y)
            of_sums[{sums["count"]}], of_sums[{sums["onto"]}] = count, t - begin
            group = u
            for k in range(0, some_k, group_panels * panel_size):
                here_k = min(group_panels * panel_size, some_k - k)
                for c in range(0, some_c, group_channels):
                    here_c = min(group_channels, some_c - c)
                    of_sums[{sums["channels"]}] = here_c
                    for e in range(elements):
                        of_sums[{sums["v"]}] = address(shift(v, e * v_element + c * tiles))
                        for p in range(0, here_k, panel_size):
                            of_sums[{sums["d"]}] = address(shift(d, e * d_element + (k + p) * tiles))
                            # Of a panel's second vector that there is not, the first one again.
                            of_sums[{sums["d_block"]}] = tiles * LANES if here_k - p > LANES else 0
                            of_sums[{sums["u"]}] = address(shift(group, e * u_element + p * group_channels))
                            call(sums, of_sums)
                    if t + count == end:
                        of_taps[{taps["channels"]}] = here_c
                        for p in range(0, here_k, panel_size):
                            of_taps[{taps["u"]}] = address(shift(group, p * group_channels))
                            of_taps[{taps["dw"]}] = address(shift(result, (k + p) * w_k + c * w_c))
                            of_taps[{taps["filters"]}] = min(panel_size, here_k - p)
                            call(taps, of_taps)
                    if end - begin > tiles:
                        group = shift(group, elements * u_element)
    pointer(flags)[thread] = total(load(finite, 0))
"""


def sums_source(rows: int) -> str:
    """The kernel that sums a chunk of tiles for a panel of filters and some channels, `rows` at a time."""
    sums = [(i, j) for i in range(rows) for j in range(VECTORS)]
    steps = [f"            y{j} = load(d_here, {'d_block' if j else 0})" for j in range(VECTORS)]
    for i in range(rows):
        steps += [f"            x = broadcast(v_here, {i})"]
        steps += [f"            s{i}_{j} = fma(x, y{j}, s{i}_{j})" for j in range(VECTORS)]
    at = {(i, j): (i * VECTORS + j) for i, j in sums}
    return f"""
def kernel(arguments):
{unpacked(SUMS_ARGUMENTS)}
    u, inside = pointer(u), 0
    v = pointer(v)
    for c in range(0, channels, {rows}):
        v_here, d_here = shift(v, inside), pointer(d)
{chr(10).join(f"        s{i}_{j} = zero()" for i, j in sums)}
        for t in range(count):
{chr(10).join(steps)}
            v_here, d_here = shift(v_here, LANES), shift(d_here, LANES)
        if onto != 0:
{chr(10).join(f"            s{i}_{j} = add(load(u, {at[i, j]} * LANES), s{i}_{j})" for i, j in sums)}
{chr(10).join(f"        store(u, {at[i, j]} * LANES, s{i}_{j})" for i, j in sums)}
        u, inside = shift(u, {rows * VECTORS} * LANES), inside + {rows}
        if inside == LANES:
            v, inside = shift(v, v_block), 0
"""


def taps_source(tile: int) -> str:
    """The kernel that makes taps of the sums of a panel and some channels, and notes whether all are finite."""
    transformed = transform(matrices(TAPS, tile - TAPS + 1)[0], "i", "o", 24)
    return f"""
def kernel(arguments):
{unpacked(TAPS_ARGUMENTS)}
    strip = pointer(temp)
    temp = shift(strip, {TAPS**2} * LANES * LANES)
    good = load(pointer(finite), 0)
    # Channels of a tap side by side, as w has them, or taps of a channel.
    strip_c, strip_tap = {TAPS**2} * LANES, LANES
    if w_c == 1:
        strip_c, strip_tap = LANES, LANES * LANES
    for j in range({VECTORS}):
        lanes = min(LANES, filters - j * LANES)
        if lanes <= 0:
            continue
        for c in range(0, channels, LANES):
            some = min(LANES, channels - c)
            for one in range(some):
                here = shift(pointer(u), ((c + one) * {VECTORS} + j) * LANES)
                for q in range({tile}):
{each(f"i# = load(here, (# * {tile} + q) * u_element)", tile, 24)}
{transformed}
{each(f"store(temp, (# * {tile} + q) * LANES, o#)", TAPS, 24)}
                to = shift(strip, one * strip_c)
                for r in range({TAPS}):
{each(f"i# = load(temp, (r * {tile} + #) * LANES)", tile, 24)}
{transformed}
{each("good = fma(o#, zero(), good)", TAPS, 24)}
{each(f"store(to, (r * {TAPS} + #) * strip_tap, o#)", TAPS, 24)}
            out = shift(pointer(dw), j * LANES * w_k + c * w_c)
            if w_c == 1:
                for r in range({TAPS}):
                    for s in range({TAPS}):
                        square = shift(strip, (r * {TAPS} + s) * strip_tap)
                        scatter(square, lanes, some, shift(out, r * w_r + s * w_s), w_k)
            else:
                scatter(strip, lanes, {TAPS**2} * some, out, w_k)
    store(pointer(finite), 0, good)
"""


def driver(dtype: str) -> Kernel:
    return Kernel(f"winograd-gradient-{dtype}", dtype, driver_source, lambda: "")


def gradients(tile: int, dtype: str) -> Kernel:
    """The transform of a chunk of gradients, by G of F(3, m)."""
    matrix = matrices(TAPS, tile - TAPS + 1)[1]
    source = lambda: forward_source(matrix, machine().lanes(dtype))  # noqa: E731
    return Kernel(f"winograd-gradients-{dtype}-{tile}", dtype, source, lambda: SHARED)


def sums(dtype: str) -> Kernel:
    return Kernel(f"winograd-sums-{dtype}", dtype, lambda: sums_source(rows(dtype)), lambda: "")


def taps(tile: int, dtype: str) -> Kernel:
    return Kernel(f"winograd-taps-{dtype}-{tile}", dtype, lambda: taps_source(tile), lambda: SHARED)


def every(dtype: str) -> list[Kernel]:
    """This family's rows of the table."""
    return [driver(dtype), sums(dtype), *(kind(tile, dtype) for tile in TILES for kind in (gradients, taps))]
