"""The padded scratch that the direct kernels read, and the functions that fill it: one step to the next output is one step in memory.

The inputs that a block of outputs reads are copied into the scratch once, padding written out as zeros. For a convolution of stride s,
position i of an axis is element i // s of phase i mod s, so that a tap reads one phase, at stride one; then every tap of every
output is one constant offset:

    scratch[channel][slice of the depth][phase of the height][phase of the width][row][column]

A transposed convolution with stride e is e x e convolutions of stride 1 over one scratch, each with the taps that meet its phase;
their results interleave ("parts"). Weights are packed beside it, tile by tile, in the order in which the kernel reads them.
"""

from __future__ import annotations

# What the direct kernels are told first, in this order (all int64). Strides, sizes and offsets count elements.
ADDRESSES = ("x", "w", "bias", "y", "scratch", "table")  # bias may be 0
INPUT = (
    *ADDRESSES,
    "x_n", "x_c", "x_d", "x_h", "x_w", "size_d", "size_h", "size_w",
    "batch", "groups", "channels", "filters",  # channels and filters of one group
    "stride_d", "stride_h", "stride_w", "before_d", "before_h", "before_w",
    "slices", "slice_step",  # input slices that one output slice reads, and their distance
    "positions_d",  # output slices of the largest part
    "rows", "columns",  # outputs of a block
    "phase_rows", "pitch",  # rows of one phase in the scratch, and their length
    "blocks_h", "blocks_w",  # blocks of a slice
    "parts",
    "scratch_size",  # of one thread
)  # fmt: skip

# The table holds PART numbers for each part, then for each part its taps' offsets into the scratch and its taps' places in w.
PART = (
    "taps", "offsets", "sources",  # how many; where in the table the two lists begin
    "count_d", "count_h", "count_w", "step_d", "step_h", "step_w",  # its outputs, and their distance in y
    "origin",  # its first output in y
    "packed",  # where its packed weights begin
)  # fmt: skip

SHARED = f"""
def copy_row(x, x_step, y, count):
    if x_step == 1:
        i = 0
        while i + LANES <= count:
            store(y, i, load(x, i))
            i += LANES
        if i < count:
            store_first(y, i, load_first(x, i, count - i), count - i)
    elif x_step == 2:
        for i in range(0, count, LANES):
            left = 2 * (count - i) - 1  # up to the last that is wanted: no further
            a, b = load_first(x, 2 * i, left), load_first(x, 2 * i + LANES, left - LANES)
            store_first(y, i, evens(a, b), count - i)
    elif x_step == 3:
        for i in range(0, count, LANES):
            left = 3 * (count - i) - 2
            a, b = load_first(x, 3 * i, left), load_first(x, 3 * i + LANES, left - LANES)
            store_first(y, i, thirds(a, b, load_first(x, 3 * i + 2 * LANES, left - 2 * LANES)), count - i)
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
                        elif x_w * stride_w == 1:
                            # Whole vectors: what runs over the end of a row is overwritten by the next row.
                            from_row = shift(here, i * x_h - before_w)
                            for at in range(0, pitch, LANES):
                                if first <= at and at + LANES <= last:
                                    store(scratch, at, load(from_row, at))
                                else:
                                    store(scratch, at, load_between(from_row, at, first - at, last - at))
                        else:
                            clear(scratch, first)
                            copy_row(shift(here, i * x_h + from_w), x_w * stride_w, shift(scratch, first), last - first)
                            clear(shift(scratch, last), pitch - last)
                        scratch = shift(scratch, pitch)

def pack(w, w_k, table, parts, filters, tile, packed):
    for part in range(parts):
        taps, sources = table[part * {len(PART)}], table[part * {len(PART)} + {PART.index("sources")}]
        place = shift(packed, table[part * {len(PART)} + {PART.index("packed")}])
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


def unpack(names: tuple[str, ...], array: str, first: str | int, indent: int) -> str:
    """Lines that name consecutive numbers of an array."""
    return "\n".join(f"{' ' * indent}{name} = {array}[{first} + {i}]" for i, name in enumerate(names))


def fill_call(indent: int) -> str:
    """The call of `fill` for the block (n, g, slice, first_row, first_column)."""
    lines = [
        "fill(",
        "    shift(pointer(x), n * x_n + g * channels * x_c), x_c, x_d, x_h, x_w, channels, size_d, size_h, size_w,",
        "    stride_h, stride_w, slices, slice * stride_d - before_d, slice_step, first_row * stride_h - before_h,",
        "    before_w - first_column * stride_w, scratch, phase_rows, pitch,",
        ")",
    ]
    return "\n".join(" " * indent + line for line in lines)
