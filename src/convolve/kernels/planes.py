"""Direct convolution whose vectors run along the positions of a map: for few channels, any kernel, any number of axes.

Idea. The input of a block of output rows is copied once into a small padded scratch, in such an order that one step to the next
output position is one step in memory, whatever the stride, padding, dilation or layout. Then a convolution is one loop over taps
(channel x kernel element), each no more than an offset into the scratch:

    for tap:  for vector of positions:  x = scratch[position + offset[tap]];  for filter of the tile:  sum += weight[tap, filter] x

TILE filters times WIDTH vectors of positions stay in registers: per tap WIDTH loads and TILE broadcasts feed TILE x WIDTH
multiply-adds. A row of the scratch is `pitch` elements long, and positions run on from row to row ("flat"), so that small maps fill
vectors too; the few positions between the rows are computed and dropped. Wide maps go row by row, straight into the result.

Traffic. The input is read once per block of rows (plus kernel - stride rows), the result written once; the scratch stays in the L2 cache.

The order of the scratch for stride s: position i of an axis is element i // s of phase i mod s, so a tap reads one phase at stride
one. A transposed convolution with stride e is e x e convolutions with stride 1 over one scratch, each with the taps that
meet its phase; their results interleave ("parts").
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import machine
from convolve.kernels.preamble import HEADER, PREAMBLE

# What the kernel is told, in this order (all int64). Strides, sizes and offsets count elements.
ARGUMENTS = (
    "x", "w", "bias", "y", "scratch", "table",  # addresses; bias may be 0
    "scratch_size", "flat_size", "packed_size",  # of each thread's three areas, which lie one after the other
    "batch", "groups", "channels", "filters",  # channels and filters of one group
    "x_n", "x_c", "x_d", "x_h", "x_w", "size_d", "size_h", "size_w",
    "y_n", "y_k",
    "w_g", "w_k",
    "stride_d", "stride_h", "stride_w", "before_d", "before_h", "before_w",
    "slices", "slice_step",  # input slices that one output slice reads, and their distance
    "positions_d",  # of the largest part
    "rows", "columns",  # outputs of a block
    "phase_rows", "pitch",  # rows of one phase in the scratch, and their length
    "blocks_h", "blocks_w", "chunks",  # blocks of a slice; shares of the filters
    "direct",  # 1: row by row into the result; 0: flat
    "parts",
)  # fmt: skip

# The table holds PART numbers for each part, then for each part its taps' offsets into the scratch and its taps' places in w.
PART = (
    "taps", "offsets", "sources",  # how many; where in the table the two lists begin
    "count_d", "count_h", "count_w", "step_d", "step_h", "step_w",  # its outputs and their distance in y
    "origin",  # its first output in y
    "packed",  # where its packed weights begin
)  # fmt: skip

# (filters of the tile, vectors of positions): their product in accumulators, the vectors and one weight fit the registers.
TILES = {
    "avx512": ((1, 8), (1, 4), (1, 2), (2, 8), (3, 8), (4, 6), (4, 4), (6, 4), (8, 3), (12, 2), (16, 1)),
    "avx2": ((1, 8), (1, 4), (1, 2), (2, 5), (3, 4), (4, 3), (6, 2), (8, 1), (12, 1)),
    "neon": ((1, 8), (1, 4), (1, 2), (2, 8), (3, 8), (4, 6), (4, 4), (6, 4), (8, 3), (12, 2), (16, 1)),
    "other": ((1, 8), (1, 4), (1, 2), (2, 5), (3, 4), (4, 3), (6, 2), (8, 1), (12, 1)),
}


SHARED = """
def copy_row(x, x_step, y, count):
    if x_step == 1:
        i = 0
        while i < count:
            store_first(y, i, load_first(x, i, count - i), count - i)
            i += LANES
    elif x_step == 2:
        for i in range(0, count, LANES):
            left = 2 * (count - i) - 1  # up to the last that is wanted: no further
            a, b = load_first(x, 2 * i, left), load_first(x, 2 * i + LANES, left - LANES)
            store_first(y, i, evens(a, b), count - i)
    else:
        for i in range(count):
            y[i] = x[i * x_step]

def clear(y, count):
    i = 0
    while i < count:
        store_first(y, i, zero(), count - i)
        i += LANES

def fill(
    x, x_c, x_d, x_h, x_w, channels, size_d, size_h, size_w,
    stride_h, stride_w, slices, first_d, slice_step, first_h, before_w, scratch, phase_rows, pitch,
):
    phase_size = phase_rows * pitch
    for c in range(channels):
        for s in range(slices):
            depth = first_d + s * slice_step
            if depth < 0 or depth >= size_d:
                clear(scratch, stride_h * stride_w * phase_size)
                scratch = shift(scratch, stride_h * stride_w * phase_size)
                continue
            here = shift(x, c * x_c + depth * x_d)
            for phase_h in range(stride_h):
                for phase in range(stride_w):
                    first = min(max((before_w - phase + stride_w - 1) // stride_w, 0), pitch)
                    last = max(min((size_w + before_w - phase + stride_w - 1) // stride_w, pitch), first)
                    from_w = (first * stride_w + phase - before_w) * x_w
                    for row in range(phase_rows):
                        i = first_h + row * stride_h + phase_h
                        if i < 0 or i >= size_h:
                            clear(scratch, pitch)
                        else:
                            clear(scratch, first)
                            copy_row(shift(here, i * x_h + from_w), x_w * stride_w, shift(scratch, first), last - first)
                            clear(shift(scratch, last), pitch - last)
                        scratch = shift(scratch, pitch)

def pack_parts(w, w_k, table, parts, part_length, filters, tile, packed):
    for part in range(parts):
        taps, sources = table[part * part_length], table[part * part_length + 2]
        place = shift(packed, table[part * part_length + 10])
        for first in range(0, filters, tile):
            count = min(tile, filters - first)
            for t in range(taps):
                source = table[sources + t] + first * w_k
                for k in range(count):
                    place[k] = w[source + k * w_k]
                for k in range(count, tile):
                    place[k] = 0
                place = shift(place, tile)

def pack_bias(bias, first, filters, room, packed):
    for k in range(room):
        if bias != 0 and k < filters:
            packed[k] = pointer(bias)[first + k]
        else:
            packed[k] = 0

def copy_out(flat, pitch, rows, columns, y, step_h, step_w):
    for row in range(rows):
        if step_w == 1:
            copy_row(shift(flat, row * pitch), 1, shift(y, row * step_h), columns)
        else:
            for column in range(columns):
                y[row * step_h + column * step_w] = flat[row * pitch + column]
"""


def source(tile: int, width: int) -> str:
    """The kernel of one register tile."""
    unpack = "\n".join(f"    {name} = arguments[{HEADER + i}]" for i, name in enumerate(ARGUMENTS))
    unpart = "\n".join(f"            {name} = table[part * {len(PART)} + {i}]" for i, name in enumerate(PART))
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack}
    table = int64_pointer(table)
    scratch = shift(pointer(scratch), thread * (scratch_size + flat_size + packed_size))
    flat = shift(scratch, scratch_size)
    flat_k = flat_size // {tile}
    weights = shift(flat, flat_size)
    tiles = (filters + {tile} - 1) // {tile}
    constants = shift(weights, packed_size - tiles * {tile})
    phase_size = phase_rows * pitch
    slice_size = stride_h * stride_w * phase_size
    tasks = chunks * groups * batch * positions_d * blocks_h * blocks_w
    packed_last = -1
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block_w, rest = task % blocks_w, task // blocks_w
        block_h, rest = rest % blocks_h, rest // blocks_h
        slice, rest = rest % positions_d, rest // positions_d
        n, rest = rest % batch, rest // batch
        g, chunk = rest % groups, rest // groups
        first_filter = chunk * tiles // chunks * {tile}
        some_filters = min((chunk + 1) * tiles // chunks * {tile}, filters) - first_filter
        first_row, first_column = block_h * rows, block_w * columns
        if packed_last != rest:
            packed_last = rest
            pack_parts(
                shift(pointer(w), g * w_g + first_filter * w_k), w_k, table, parts, {len(PART)}, some_filters, {tile}, weights
            )
            pack_bias(bias, g * filters + first_filter, some_filters, tiles * {tile}, constants)
        fill(
            shift(pointer(x), n * x_n + g * channels * x_c), x_c, x_d, x_h, x_w, channels, size_d, size_h, size_w,
            stride_h, stride_w, slices, slice * stride_d - before_d, slice_step, first_row * stride_h - before_h,
            before_w - first_column * stride_w,
            scratch, phase_rows, pitch,
        )
        y_here = shift(pointer(y), n * y_n + (g * filters + first_filter) * y_k)
        for part in range(parts):
{unpart}
            some_rows, some_columns = min(rows, count_h - first_row), min(columns, count_w - first_column)
            if slice >= count_d or some_rows <= 0 or some_columns <= 0:
                continue
            out = shift(y_here, origin + slice * step_d + first_row * step_h + first_column * step_w)
            w_tile = shift(weights, packed)
            for first in range(0, some_filters, {tile}):
                count = min({tile}, some_filters - first)
                straight = direct != 0 and count == {tile}
                if straight:
                    passes, length, to, to_row, to_k = some_rows, some_columns, shift(out, first * y_k), step_h, y_k
                else:
                    passes, length, to, to_row, to_k = 1, (some_rows - 1) * pitch + some_columns, flat, 0, flat_k
                for row in range(passes):
                    for column in range(0, length, {width} * LANES):
                        here = shift(scratch, row * pitch + column)
                        there = shift(to, row * to_row + column)
{_tile(tile, width, " " * 24)}
                if not straight:
                    for k in range(count):
                        copy_out(
                            shift(flat, k * flat_k), pitch, some_rows, some_columns, shift(out, (first + k) * y_k), step_h, step_w
                        )
                w_tile = shift(w_tile, taps * {tile})
"""


def _tile(tile: int, width: int, indent: str) -> str:
    """The sums of `tile` filters at `width` vectors of positions, from `here` in the scratch to `there`."""
    sums = [(k, v) for k in range(tile) for v in range(width)]
    lines = []
    for k in range(tile):
        lines += [f"b = broadcast(constants, first + {k})"] + [f"s{k}_{v} = b" for v in range(width)]
    lines += ["for t in range(taps):", "    place = shift(here, table[offsets + t])"]
    lines += [f"    x{v} = load(place, {v} * LANES)" for v in range(width)]
    for k in range(tile):
        lines += [f"    b = broadcast(w_tile, t * {tile} + {k})"]
        lines += [f"    s{k}_{v} = fma(b, x{v}, s{k}_{v})" for v in range(width)]
    lines += [f"if length - column >= {width} * LANES or not straight:"]
    lines += [f"    store(there, {k} * to_k + {v} * LANES, s{k}_{v})" for k, v in sums]
    lines += ["else:"]
    lines += [
        f"    store_first(there, {k} * to_k + {v} * LANES, s{k}_{v}, length - column - {v} * LANES)" for k, v in sums
    ]
    return "\n".join(indent + line for line in lines)


def tiles() -> tuple[tuple[int, int], ...]:
    return TILES[machine().instruction_set]


def kernel(tile: int, width: int, dtype: str) -> Kernel:
    """A row of the list."""
    assert (tile, width) in tiles()
    return Kernel(f"planes-{dtype}-{tile}x{width}", dtype, lambda: source(tile, width), lambda: SHARED)
