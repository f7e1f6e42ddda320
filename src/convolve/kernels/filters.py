"""Direct convolution whose vectors run along the filters: for small maps, and wherever channels lie innermost.

Idea. As kernels/planes.py, with the two sides exchanged: each lane is a filter, and a position of the scratch is broadcast to all lanes.

    for tap:  for vector of filters:  w = weight[tap, filters];  for position of the tile:  sum += scratch[position + offset[tap]] w

TILE positions of one row times WIDTH vectors of filters stay in registers. No lane is wasted on the end of a row, however short
it is, if the filters fill vectors. A last tile that would run over the end of a row begins earlier and computes some positions twice.
With channels innermost in the result, vectors are stored as they are (a large result past the caches); otherwise each tile is turned
on its way out.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import Tiles, tiles_for
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import INPUT, PART, SHARED, fill_call, unpack

ARGUMENTS = (
    *INPUT,
    "w_g", "w_k", "y_n", "y_k",
    "tile_size", "packed_size",  # of one thread, behind its scratch
    "chunks",  # shares of the filters
    "streamed",  # 1: with channels innermost, whole vectors of the result are written past the caches
)  # fmt: skip

# (positions of the tile, vectors of filters)
_MANY = ((14, 2), (10, 2), (7, 4), (14, 1), (10, 1), (7, 1))
_FEW = ((6, 2), (5, 2), (7, 1), (10, 1))


def tiles() -> Tiles:
    return tiles_for(_MANY, _FEW)


def kernel(tile: int, width: int, dtype: str) -> Kernel:
    assert (tile, width) in tiles()
    return Kernel(f"filters-{dtype}-{tile}x{width}", dtype, lambda: source(tile, width), lambda: SHARED + _TURN)


_TURN = """
def turn(tile, lanes, filters, positions, y, y_k, step_w):
    for k in range(filters):
        for i in range(positions):
            y[k * y_k + i * step_w] = tile[i * lanes + k]
"""


def source(tile: int, width: int) -> str:
    """The kernel of one register tile."""
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    lanes = {width} * LANES
    table = int64_pointer(table)
    scratch = shift(pointer(scratch), thread * (scratch_size + tile_size + packed_size))
    turned = shift(scratch, scratch_size)
    weights = shift(turned, tile_size)
    tiles = (filters + lanes - 1) // lanes
    constants = shift(weights, packed_size - tiles * lanes)
    tasks = chunks * groups * batch * positions_d * blocks_h * blocks_w
    packed_last = -1
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block_w, rest = task % blocks_w, task // blocks_w
        block_h, rest = rest % blocks_h, rest // blocks_h
        slice, rest = rest % positions_d, rest // positions_d
        n, rest = rest % batch, rest // batch
        g, chunk = rest % groups, rest // groups
        first_filter = chunk * tiles // chunks * lanes
        some_filters = min((chunk + 1) * tiles // chunks * lanes, filters) - first_filter
        first_row, first_column = block_h * rows, block_w * columns
        if packed_last != rest:
            packed_last = rest
            pack(shift(pointer(w), g * w_g + first_filter * w_k), w_k, table, parts, some_filters, lanes, weights)
            pack_bias(bias, g * filters + first_filter, some_filters, tiles * lanes, constants)
{fill_call(8)}
        y_here = shift(pointer(y), n * y_n + (g * filters + first_filter) * y_k)
        for part in range(parts):
{unpack(PART, "table", f"part * {len(PART)}", 12)}
            some_rows, some_columns = min(rows, count_h - first_row), min(columns, count_w - first_column)
            if slice >= count_d or some_rows <= 0 or some_columns <= 0:
                continue
            out = shift(y_here, origin + slice * step_d + first_row * step_h + first_column * step_w)
            w_tile = shift(weights, packed)
            for first in range(0, some_filters, lanes):
                count = min(lanes, some_filters - first)
                for row in range(some_rows):
                    for start in range(0, some_columns, {tile}):
                        column = max(0, min(start, some_columns - {tile}))
                        positions = min({tile}, some_columns - column)
                        here = shift(scratch, row * pitch + column)
                        there = shift(out, first * y_k + row * step_h + column * step_w)
{_tile(tile, width, " " * 24)}
                w_tile = shift(w_tile, taps * lanes)
    if streamed != 0:
        fence()
"""


def _tile(tile: int, width: int, indent: str) -> str:
    """The sums of `tile` positions for `width` vectors of filters, from `here` in the scratch to `there`."""
    sums = [(i, v) for i in range(tile) for v in range(width)]
    lines = []
    for v in range(width):
        lines += [f"b = load(constants, first + {v} * LANES)"] + [f"s{i}_{v} = b" for i in range(tile)]
    lines += ["for t in range(taps):", "    place = shift(here, table[offsets + t])"]
    lines += [f"    w{v} = load(w_tile, t * lanes + {v} * LANES)" for v in range(width)]
    for i in range(tile):
        lines += [f"    b = broadcast(place, {i})"]
        lines += [f"    s{i}_{v} = fma(b, w{v}, s{i}_{v})" for v in range(width)]
    lines += [f"if y_k == 1 and count == lanes and positions == {tile}:", "    if streamed != 0:"]
    lines += [f"        stream(there, {i} * step_w + {v} * LANES, s{i}_{v})" for i, v in sums]
    lines += ["    else:"]
    lines += [f"        store(there, {i} * step_w + {v} * LANES, s{i}_{v})" for i, v in sums]
    lines += ["else:"]
    lines += [f"    store(turned, {i} * lanes + {v} * LANES, s{i}_{v})" for i, v in sums]
    lines += ["    turn(turned, lanes, count, positions, there, y_k, step_w)"]
    return "\n".join(indent + line for line in lines)
