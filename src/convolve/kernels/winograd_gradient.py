"""The weight gradient by minimal filtering F(r x r, m x m): a tile of m x m gradients is the kernel, and r x r taps are its outputs.

Idea. Over one tile of (m + r - 1)^2 inputs x and m x m gradients dy, the taps of dw are a convolution of x with dy as its kernel. The
transforms are linear, so tiles are summed before the last one:

    dw  =  A^T [ sum over tiles  (B^T x B) * (G dy G^T) ] A          36 products in the place of 144, r = 3 and m = 4

B is that of the forward pass (kernels/winograd.py), G and A^T are those of F(r, m). Over all channels and filters, element e of a
tile is one matrix product, summed over tiles:

    inputs      V[e][block of c][tile][lane of c]  = B^T x B         kernel `forward`, for a chunk of tiles
    gradients   D[e][block of k][tile][lane of k]  = G dy G^T        the same text, by another matrix
    sums        U[e][panel of k][c][k of the panel] += V[e]^T D[e]   `rows` channels times a panel of filters in registers
    taps        dw = A^T U A                                         once, after the last chunk

At a stride of 2 the inputs go by phases, as in the forward pass: every second one along both axes is a map of its own, and its taps are
every second one of dw. There are four times as many channels then, each with half the taps, and D is the same for all.

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
from convolve.kernels.minimal_filtering import TAPS, matrices
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.winograd import ARGUMENTS as TRANSFORM
from convolve.kernels.winograd import (
    BLOCK,
    PART,
    SHARED,
    TILES,
    each,
    forward_source,
    scratch_elements,
    transform,
    unpacked,
)

VECTORS = 2
"""Vectors of filters in a panel."""

# What the driver is told, in this order (all int64); then, for each of the two transforms, what kernels/winograd.py tells one.
ARGUMENTS = (
    "x", "dy", "dw", "flags", "scratch",  # addresses; flags: of each thread, 0 or NaN
    "forward", "gradients", "sums", "taps",  # addresses of kernels
    "elements", "thread_size", "groups", "channels", "filters",  # channels and filters of one group
    "x_c", "y_k",  # from a channel of x, and a filter of dy, to the next
    "w_k", "w_c", "w_r", "w_s", "share_size",  # strides of dw; from the gradient of one share of tiles to the next
    "kernel_h", "kernel_w", "down", "tile",  # taps of dw; phases of x, and inputs of a tile, along an axis
    "all_tiles", "tiles",  # of a chunk
    "tile_parts", "channel_parts", "filter_parts",  # shares
    "group_channels", "group_panels",  # of a group of U
    "v_element", "d_element", "u_element", "u_size",  # from one element to the next; of the groups of U together
)  # fmt: skip
SUMS_ARGUMENTS = ("v", "d", "u", "count", "v_block", "d_block", "channels", "onto")
TAPS_ARGUMENTS = (
    "u", "dw", "finite", "temp", "u_element", "u_part", "channels", "filters",
    "w_k", "w_c", "w_r", "w_s", "kernel_h", "kernel_w", "down",
)  # fmt: skip


def rows(dtype: str) -> int:
    """Channels of the register tile: rows x VECTORS sums, VECTORS gradients and one input fit the registers; it divides a vector."""
    return min(machine().lanes(dtype), 8 if machine().instruction_set == "avx512" else 4)


def scratch(tile: int, kernel: int, lanes: int) -> int:
    """Of a thread, besides V, D and U: what transforms need, `kernel` taps of a square, and what the kernels are told."""
    told = 2 * len(TRANSFORM + BLOCK) + len(SUMS_ARGUMENTS + TAPS_ARGUMENTS) + 4 * HEADER
    return scratch_elements(tile, lanes) + (kernel * lanes + tile * TAPS[tile][-1] + 1) * lanes + 2 * told + 16


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
    of_taps[{taps["kernel_h"]}], of_taps[{taps["kernel_w"]}], of_taps[{taps["down"]}] = kernel_h, kernel_w, down
    phases, u_part = down * down, group_channels * panel_size
    of_taps[{taps["u_part"]}] = u_part
    blocks, panels = (channels + LANES - 1) // LANES, (filters + panel_size - 1) // panel_size
    tasks = groups * tile_parts * channel_parts * filter_parts
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        part, rest = task % filter_parts, task // filter_parts
        first_k, end_k = part * panels // filter_parts * panel_size, (part + 1) * panels // filter_parts * panel_size
        part, rest = rest % channel_parts, rest // channel_parts
        first_c, end_c = part * blocks // channel_parts * LANES, (part + 1) * blocks // channel_parts * LANES
        share, g = rest % tile_parts, rest // tile_parts
        some_c, some_k = min(end_c, channels) - first_c, min(end_k, filters) - first_k
        v_part = (some_c + LANES - 1) // LANES * LANES * tiles
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
                        begin_part, end_part = 0, phases  # as in the forward pass, those that have a last tap
                        if down > 1 and kernel_h % 2 > 0 and e >= elements - tile:
                            begin_part, end_part = 1, 3
                        if down > 1 and kernel_w % 2 > 0 and e % tile == tile - 1:
                            end_part = 2
                        for part in range(begin_part, end_part):
                            of_sums[{sums["v"]}] = address(shift(v, e * v_element + part * v_part + c * tiles))
                            u_here = shift(group, e * u_element + part * u_part)
                            for p in range(0, here_k, panel_size):
                                of_sums[{sums["d"]}] = address(shift(d, e * d_element + (k + p) * tiles))
                                # Of a panel's second vector that there is not, the first one again.
                                of_sums[{sums["d_block"]}] = tiles * LANES if here_k - p > LANES else 0
                                of_sums[{sums["u"]}] = address(shift(u_here, p * phases * group_channels))
                                call(sums, of_sums)
                    if t + count == end:
                        of_taps[{taps["channels"]}] = here_c
                        for p in range(0, here_k, panel_size):
                            of_taps[{taps["u"]}] = address(shift(group, p * phases * group_channels))
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


def taps_source(taps: int, tile: int) -> str:
    """The kernel that makes taps of the sums of a panel and some channels, and notes whether all are finite."""
    transformed = transform(matrices(taps, tile - taps + 1)[0], "i", "o", 28)
    keeps = "\n".join(
        f"""{" " * 28}if {s} < taps_w:
{" " * 32}good = fma(o{s}, zero(), good)
{" " * 32}store(to, down * {s} * strip_tap, o{s})"""
        for s in range(taps)
    )
    return f"""
def kernel(arguments):
{unpacked(TAPS_ARGUMENTS)}
    all_taps = kernel_h * kernel_w
    strip = pointer(temp)
    temp = shift(strip, all_taps * LANES * LANES)
    good = load(pointer(finite), 0)
    # Channels of a tap side by side, as w has them, or taps of a channel.
    strip_c, strip_tap = all_taps * LANES, LANES
    if w_c == 1:
        strip_c, strip_tap = LANES, LANES * LANES
    for j in range({VECTORS}):
        lanes = min(LANES, filters - j * LANES)
        if lanes <= 0:
            continue
        for c in range(0, channels, LANES):
            some = min(LANES, channels - c)
            for phase_h in range(down):
                for phase_w in range(down):
                    {PART.format(phases="down")}
                    taps_h = (kernel_h - phase_h + down - 1) // down
                    taps_w = (kernel_w - phase_w + down - 1) // down
                    for one in range(some):
                        here = shift(pointer(u), part * u_part + ((c + one) * {VECTORS} + j) * LANES)
                        for q in range({tile}):
{each(f"i# = load(here, (# * {tile} + q) * u_element)", tile, 28)}
{transformed}
{each(f"store(temp, (# * {tile} + q) * LANES, o#)", taps, 28)}
                        first = shift(strip, one * strip_c + (phase_h * kernel_w + phase_w) * strip_tap)
                        for r in range(taps_h):
                            to = shift(first, down * r * kernel_w * strip_tap)
{each(f"i# = load(temp, (r * {tile} + #) * LANES)", tile, 28)}
{transformed}
{keeps}
            out = shift(pointer(dw), j * LANES * w_k + c * w_c)
            if w_c == 1:
                for r in range(kernel_h):
                    for s in range(kernel_w):
                        square = shift(strip, (r * kernel_w + s) * strip_tap)
                        scatter(square, lanes, some, shift(out, r * w_r + s * w_s), w_k)
            else:
                scatter(strip, lanes, all_taps * some, out, w_k)
    store(pointer(finite), 0, good)
"""


def driver(dtype: str) -> Kernel:
    return Kernel(f"winograd-gradient-{dtype}", dtype, driver_source, lambda: "")


def gradients(taps: int, tile: int, dtype: str) -> Kernel:
    """The transform of a chunk of gradients, by G of F(taps, m)."""
    m = tile - taps + 1
    source = lambda: forward_source(matrices(taps, m)[1], machine().lanes(dtype))  # noqa: E731
    return Kernel(f"winograd-gradients-{dtype}-{taps}x{m}", dtype, source, lambda: SHARED)


def sums(dtype: str) -> Kernel:
    return Kernel(f"winograd-sums-{dtype}", dtype, lambda: sums_source(rows(dtype)), lambda: "")


def taps(taps: int, tile: int, dtype: str) -> Kernel:
    source = lambda: taps_source(taps, tile)  # noqa: E731
    return Kernel(f"winograd-taps-{dtype}-{taps}x{tile - taps + 1}", dtype, source, lambda: SHARED)


def every(dtype: str) -> list[Kernel]:
    """This family's rows of the table."""
    kinds = [kind(count, tile, dtype) for tile in TILES for count in TAPS[tile] for kind in (gradients, taps)]
    return [driver(dtype), sums(dtype), *kinds]
