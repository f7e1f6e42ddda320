"""Depthwise convolution, one filter (or two) for each channel: channels last in all roles, and the weight gradient channels first.

Channels last, vectors run along channels: each lane is a channel of its own. The input of a block of output rows is copied, two vectors of
channels wide, into a small scratch with its padding written out; weights lie packed as [tap][channel]. Then

    for tap:  w = weights[tap];  for position of the tile:  sum[position] += w x[position + offset[tap]]

TILE positions times two vectors stay in registers, so a multiply-add costs one load. With two filters for each channel a vector of
inputs is spread over two of outputs. A transposed convolution with stride e is e x e convolutions over one scratch, as in planes.py.

The weight gradient is the same loop inside out: sums of a tile of taps stay in registers while the positions pass. Channels first,
its vectors run along the positions of a row, and the lanes are added up once at the end. Images are divided into `shares` with sums
of their own, added afterwards in order: as many, whatever the threads, so that the bits do not depend on them.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import machine
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import SHARED

# All int64. Strides, sizes and offsets count elements; a chunk is two vectors of outputs.
LANES_ARGUMENTS = (
    "x", "w", "bias", "y", "scratch", "table",  # addresses; bias may be 0
    "scratch_size", "packed_size",  # of each thread's two areas
    "batch", "channels", "filters",
    "x_n", "x_h", "x_w", "size_h", "size_w", "y_n", "w_k",
    "stride_h", "stride_w", "before_h", "before_w",
    "rows", "blocks", "block_inputs", "pitch",  # outputs and inputs of a block; positions of a scratch row
    "parts",
    "kept",  # how many chunks' weights stay packed: all, and then chunks follow one another in memory, or one
)  # fmt: skip

# The table holds PART numbers for each part, then for each its taps' offsets into the scratch and places in w.
PART = ("taps", "offsets", "sources", "count_h", "count_w", "step_h", "step_w", "origin", "packed")

WEIGHT_ARGUMENTS = (
    "x", "g", "sums", "scratch", "table",
    "scratch_size",
    "batch", "channels", "filters",
    "x_n", "x_c", "x_h", "x_w", "size_h", "size_w", "g_n", "g_k", "g_h", "g_w", "outputs_h", "outputs_w",
    "stride_h", "stride_w", "before_h", "before_w",
    "rows", "blocks", "block_inputs", "pitch",
    "taps", "shares", "room",  # room: filters in a row of the sums (lanes)
    "group",  # how many chunks (lanes) or filters (rows) pass together, so that what follows in memory follows in time
)  # fmt: skip

# Positions of a tile (lanes), taps of a tile (lanes and rows): times two vectors, or one, they fit the registers.
POSITIONS = {"avx512": (14, 7, 4), "avx2": (5, 4), "neon": (14, 7, 4), "other": (5, 4)}
TAPS = {"avx512": (9, 7), "avx2": (5,), "neon": (9, 7), "other": (5,)}
ROW_TAPS = {"avx512": (9, 7), "avx2": (9, 7), "neon": (9, 7), "other": (9, 7)}

_LANES_SHARED = """
def clear(y, count):
    for i in range(0, count, LANES):
        store_first(y, i, zero(), count - i)

def copy_lanes(x, x_h, x_w, first_h, count_h, size_h, size_w, before_w, pitch, width, channels, scratch):
    first, last = max(before_w, 0), min(size_w + before_w, pitch)
    for i in range(first_h, first_h + count_h):
        if i < 0 or i >= size_h:
            clear(scratch, pitch * width)
        else:
            here, to = shift(x, i * x_h + (first - before_w) * x_w), shift(scratch, first * width)
            for q in range(first, last):
                for c in range(0, width, LANES):
                    prefetch(here, width + c)  # the next chunk's
                    store(to, c, load_first(here, c, channels - c))
                here, to = shift(here, x_w), shift(to, width)
        scratch = shift(scratch, pitch * width)

def pack_lanes(w, w_k, table, parts, part_length, filters, packed):
    for part in range(parts):
        taps, sources = table[part * part_length], table[part * part_length + 2]
        place = shift(packed, table[part * part_length + 8])
        for t in range(taps):
            for k in range(2 * LANES):
                if k < filters:
                    place[k] = w[k * w_k + table[sources + t]]
                else:
                    place[k] = 0
            place = shift(place, 2 * LANES)

def pack_bias(bias, filters, packed):
    for k in range(2 * LANES):
        if bias != 0 and k < filters:
            packed[k] = pointer(bias)[k]
        else:
            packed[k] = 0
"""


def _unpack(names: tuple[str, ...]) -> str:
    return "\n".join(f"    {name} = arguments[{HEADER + i}]" for i, name in enumerate(names))


def _indented(lines: list[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)


def _inputs(place: str, at: str, multiplier: int) -> list[str]:
    """Two vectors of inputs, one for each lane of outputs."""
    if multiplier == 1:
        return [f"x0, x1 = load({place}, {at}), load({place}, {at} + LANES)"]
    return [f"both = load({place}, {at})", "x0, x1 = zip_first(both, both), zip_last(both, both)"]


def lanes_source(tile: int, multiplier: int, unit: bool) -> str:
    """Forward and input gradient, channels last; `unit`: the stride is 1, and neighbours lie at constants that need no registers."""
    body = []
    for i in range(tile):
        body += [f"a{i}, b{i} = bias_0, bias_1"]
    body += ["for t in range(taps):", "    place = shift(here, table[offsets + t])"]
    body += ["    w0, w1 = load(weights, t * 2 * LANES), load(weights, t * 2 * LANES + LANES)"]
    for i in range(tile):
        body += [
            "    " + line
            for line in _inputs("place", f"{i} * {2 // multiplier} * LANES" if unit else f"{i} * step", multiplier)
        ]
        body += [f"    a{i}, b{i} = fma(w0, x0, a{i}), fma(w1, x1, b{i})"]
    for i in range(tile):
        body += [f"if column + {i} < count_w:", f"    to = shift(out, (column + {i}) * step_w)"]
        body += [f"    store_first(to, 0, a{i}, some)", f"    store_first(to, LANES, b{i}, some - LANES)"]
    unpart = "\n".join(f"            {name} = table[part * {len(PART)} + {i}]" for i, name in enumerate(PART))
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(LANES_ARGUMENTS)}
    table = int64_pointer(table)
    scratch = shift(pointer(scratch), thread * (scratch_size + kept * packed_size))
    all_packed = shift(scratch, scratch_size)
    width = {2 // multiplier} * LANES
    step = {f"{2 // multiplier} * LANES" if unit else "stride_w * width"}
    clear(scratch, scratch_size)
    chunks = (filters + 2 * LANES - 1) // (2 * LANES)
    tasks = chunks * batch * blocks
    for k in range(kept):
        all_packed[k * packed_size] = -1
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        if kept > 1:
            chunk, rest = task % chunks, task // chunks
            block, n = rest % blocks, rest // blocks
            constants = shift(all_packed, chunk * packed_size)
        else:
            block, rest = task % blocks, task // blocks
            n, chunk = rest % batch, rest // batch
            constants = all_packed
        packed_chunk, constants = constants, shift(constants, LANES)
        packed_weights = shift(constants, 2 * LANES)
        first_k = chunk * 2 * LANES
        some = min(filters - first_k, 2 * LANES)
        if packed_chunk[0] != chunk:
            packed_chunk[0] = chunk
            pack_lanes(shift(pointer(w), first_k * w_k), w_k, table, parts, {len(PART)}, some, packed_weights)
            pack_bias(bias + first_k * (address(shift(scratch, 1)) - address(scratch)) if bias != 0 else 0, some, constants)
        bias_0, bias_1 = load(constants, 0), load(constants, LANES)
        first_row = block * rows
        first_c = chunk * width
        copy_lanes(
            shift(pointer(x), n * x_n + first_c), x_h, x_w, first_row * stride_h - before_h, block_inputs, size_h, size_w,
            before_w, pitch, width, channels - first_c, scratch,
        )
        for part in range(parts):
{unpart}
            weights = shift(packed_weights, packed)
            for row in range(min(rows, count_h - first_row)):
                out = shift(pointer(y), n * y_n + first_k + origin + (first_row + row) * step_h)
                for column in range(0, count_w, {tile}):
                    here = shift(scratch, row * stride_h * pitch * width + column * step)
{_indented(body, 20)}
"""


def lanes_weight_source(tile: int, multiplier: int) -> str:
    """The weight gradient, channels last: sums [share][tap][filter]."""
    body = [f"o{i} = table[first_tap + {i}]" for i in range(tile)]
    body += [f"a{i}, b{i} = zero(), zero()" for i in range(tile)]
    body += ["for row in range(some_rows):"]
    body += ["    here = shift(scratch, row * stride_h * pitch * width)"]
    body += ["    from_g = shift(g_here, row * g_h)", "    for column in range(outputs_w):"]
    body += ["        g0, g1 = load_first(from_g, 0, some), load_first(from_g, LANES, some - LANES)"]
    for i in range(tile):
        body += ["        " + line for line in _inputs("here", f"o{i}", multiplier)]
        body += [f"        a{i}, b{i} = fma(g0, x0, a{i}), fma(g1, x1, b{i})"]
    body += ["        here, from_g = shift(here, step), shift(from_g, g_w)"]
    for i in range(tile):
        body += [f"to = shift(total_here, (first_tap + {i}) * room)"]
        body += [f"store(to, 0, add(load(to, 0), a{i}))", f"store(to, LANES, add(load(to, LANES), b{i}))"]
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(WEIGHT_ARGUMENTS)}
    table = int64_pointer(table)
    scratch = shift(pointer(scratch), thread * scratch_size)
    width = {2 // multiplier} * LANES
    step = stride_w * width
    clear(scratch, scratch_size)
    chunks = (filters + 2 * LANES - 1) // (2 * LANES)
    tasks = (chunks + group - 1) // group * shares
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        share, first_chunk = task % shares, task // shares * group
        last_chunk = min(first_chunk + group, chunks)
        totals = shift(pointer(sums), share * taps * room)
        for t in range(taps):
            clear(shift(totals, t * room + first_chunk * 2 * LANES), (last_chunk - first_chunk) * 2 * LANES)
        items = batch * blocks
        for item in range(share * items // shares, (share + 1) * items // shares):
            block, n = item % blocks, item // blocks
            first_row = block * rows
            some_rows = min(rows, outputs_h - first_row)
            for chunk in range(first_chunk, last_chunk):
                first_k, first_c = chunk * 2 * LANES, chunk * width
                some = min(filters - first_k, 2 * LANES)
                total_here = shift(totals, first_k)
                copy_lanes(
                    shift(pointer(x), n * x_n + first_c), x_h, x_w, first_row * stride_h - before_h, block_inputs, size_h, size_w,
                    before_w, pitch, width, channels - first_c, scratch,
                )
                g_here = shift(pointer(g), n * g_n + first_row * g_h + first_k)
                for first_tap in range(0, taps, {tile}):
{_indented(body, 20)}
"""


def rows_weight_source(tile: int) -> str:
    """The weight gradient, channels first: sums [share][filter][tap]."""
    body = [f"o{i} = table[first_tap + {i}]" for i in range(tile)]
    body += [f"a{i} = load(lanes_here, (first_tap + {i}) * LANES)" for i in range(tile)]
    body += [
        "for row in range(some_rows):",
        "    from_g = shift(g_here, row * g_h)",
        "    here = shift(scratch, row * pitch)",
    ]
    body += ["    for column in range(0, whole, LANES):", "        g0 = load(from_g, column)"]
    body += [f"        a{i} = fma(g0, load(here, column + o{i}), a{i})" for i in range(tile)]
    body += [
        "    if whole < outputs_w:",
        "        rest = outputs_w - whole",
        "        g0 = load_first(from_g, whole, rest)",
    ]
    body += [f"        a{i} = fma(g0, load_first(here, whole + o{i}, rest), a{i})" for i in range(tile)]
    body += [f"store(lanes_here, (first_tap + {i}) * LANES, a{i})" for i in range(tile)]
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(WEIGHT_ARGUMENTS)}
    table = int64_pointer(table)
    scratch = shift(pointer(scratch), thread * scratch_size)
    phase_rows = (block_inputs + stride_h - 1) // stride_h
    all_lanes = shift(scratch, stride_h * stride_w * phase_rows * pitch + LANES)  # the last row is written in whole vectors
    whole = outputs_w // LANES * LANES
    multiplier = filters // channels
    room = (taps + {tile}) * LANES
    tasks = (filters + group - 1) // group * shares
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        share, first_k = task % shares, task // shares * group
        last_k = min(first_k + group, filters)
        clear(all_lanes, group * room)
        items = batch * blocks
        for item in range(share * items // shares, (share + 1) * items // shares):
            block, n = item % blocks, item // blocks
            first_row = block * rows
            some_rows = min(rows, outputs_h - first_row)
            for k in range(first_k, last_k):
                lanes_here = shift(all_lanes, (k - first_k) * room)
                fill(
                    shift(pointer(x), n * x_n + k // multiplier * x_c), 0, 0, x_h, x_w, 1, 1, size_h, size_w, stride_h, stride_w,
                    1, 0, 1, first_row * stride_h - before_h, before_w, scratch, phase_rows, pitch,
                )
                g_here = shift(pointer(g), n * g_n + k * g_k + first_row * g_h)
                for first_tap in range(0, taps, {tile}):
{_indented(body, 20)}
        for k in range(first_k, last_k):
            to = shift(pointer(sums), (share * filters + k) * taps)
            for t in range(taps):
                to[t] = total(load(all_lanes, (k - first_k) * room + t * LANES))
"""


def positions() -> tuple[int, ...]:
    return POSITIONS[machine().instruction_set]


def lanes_taps() -> tuple[int, ...]:
    return TAPS[machine().instruction_set]


def rows_taps() -> tuple[int, ...]:
    return ROW_TAPS[machine().instruction_set]


def lanes(tile: int, multiplier: int, unit: bool, dtype: str) -> Kernel:
    """A row of the list: `tile` of positions(), a multiplier of 1 or 2."""
    name = f"depthwise_lanes-{dtype}-{tile}-m{multiplier}{'-s1' if unit else ''}"
    return Kernel(name, dtype, lambda: lanes_source(tile, multiplier, unit), lambda: _LANES_SHARED)


def lanes_weight(tile: int, multiplier: int, dtype: str) -> Kernel:
    """A row of the list: `tile` of lanes_taps()."""
    name = f"depthwise_lanes_weight-{dtype}-{tile}-m{multiplier}"
    return Kernel(name, dtype, lambda: lanes_weight_source(tile, multiplier), lambda: _LANES_SHARED)


def rows_weight(tile: int, dtype: str) -> Kernel:
    """A row of the list: `tile` of rows_taps()."""
    return Kernel(f"depthwise_rows_weight-{dtype}-{tile}", dtype, lambda: rows_weight_source(tile), lambda: SHARED)


def every(dtype: str) -> list[Kernel]:
    found = [
        lanes(tile, multiplier, unit, dtype) for tile in positions() for multiplier in (1, 2) for unit in (True, False)
    ]
    found += [lanes_weight(tile, multiplier, dtype) for tile in lanes_taps() for multiplier in (1, 2)]
    return found + [rows_weight(tile, dtype) for tile in rows_taps()]
