"""Direct convolution whose vectors run along the positions of a map: for few channels, any kernel, any number of axes.

Idea. Over the padded scratch (kernels/scratch.py) a convolution is one loop over taps, channel x kernel element:

    for tap:  for vector of positions:  x = scratch[position + offset[tap]];  for filter of the tile:  sum += weight[tap, filter] x

TILE filters times WIDTH vectors of positions stay in registers: per tap WIDTH loads and TILE broadcasts feed TILE x WIDTH
multiply-adds. Positions run on from row to row of the scratch ("flat"), so that small maps fill vectors too; the few positions between
the rows are computed and dropped. Or ("direct") the vectors of a tile are `across` of each of some rows, and go straight into the
result, masked at the end of a row.

Traffic. The input is read once per block of rows (plus kernel - stride rows), the result written once, past the caches where it is
larger than they are; the scratch stays in the L2 cache.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import Tiles, tiles_for
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import INPUT, PART, SHARED, fill_call, unpack

ARGUMENTS = (
    *INPUT,
    "w_g", "w_k", "y_n", "y_k",
    "flat_size", "packed_size",  # of one thread, behind its scratch
    "chunks",  # shares of the filters
    "across",  # vectors of a tile that lie in one row, when it goes straight into the result (a divisor of WIDTH); 0: flat
    "streamed",  # 1: whole vectors of the result are written past the caches (rows.py)
)  # fmt: skip

# (filters of the tile, vectors of positions): their product in accumulators, the vectors and one weight fit the registers.
_MANY = ((1, 8), (1, 4), (2, 8), (3, 8), (4, 6), (6, 4), (8, 3), (8, 2), (12, 2))
_FEW = ((1, 8), (1, 4), (2, 5), (3, 4), (4, 3), (6, 2), (8, 1), (12, 1))


def tiles() -> Tiles:
    return tiles_for(_MANY, _FEW)


def layouts(straight: bool) -> list[tuple[int, int, int]]:
    """Every register tile, flat (0), and where sums may go straight into the result, with as many of its vectors in one row as may be."""
    across = {width: [n for n in range(1, width + 1) if straight and width % n == 0] for _, width in tiles()}
    return [(tile, width, n) for tile, width in tiles() for n in (0, *across[width])]


def kernel(tile: int, width: int, dtype: str) -> Kernel:
    assert (tile, width) in tiles()
    return Kernel(f"planes-{dtype}-{tile}x{width}", dtype, lambda: source(tile, width), lambda: SHARED)


def source(tile: int, width: int) -> str:
    """The kernel of one register tile."""
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    table = int64_pointer(table)
    scratch = shift(pointer(scratch), thread * (scratch_size + flat_size + packed_size))
    flat = shift(scratch, scratch_size)
    flat_k = flat_size // {tile}
    weights = shift(flat, flat_size)
    tiles = (filters + {tile} - 1) // {tile}
    constants = shift(weights, packed_size - tiles * {tile})
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
            pack(shift(pointer(w), g * w_g + first_filter * w_k), w_k, table, parts, some_filters, {tile}, weights)
            pack_bias(bias, g * filters + first_filter, some_filters, tiles * {tile}, constants)
{fill_call(8)}
        y_here = shift(pointer(y), n * y_n + (g * filters + first_filter) * y_k)
        for part in range(parts):
{unpack(PART, "table", f"part * {len(PART)}", 12)}
            some_rows, some_columns = min(rows, count_h - first_row), min(columns, count_w - first_column)
            if slice >= count_d or some_rows <= 0 or some_columns <= 0:
                continue
            out = shift(y_here, origin + slice * step_d + first_row * step_h + first_column * step_w)
            w_tile = shift(weights, packed)
            for first in range(0, some_filters, {tile}):
                count = min({tile}, some_filters - first)
                if across != 0:
                    down, length, to, to_row, to_k = {width} // across, some_columns, shift(out, first * y_k), step_h, y_k
                    passes = some_rows
                else:
                    down, length, to, to_row, to_k = 1, (some_rows - 1) * pitch + some_columns, flat, 0, flat_k
                    passes = 1
                vectors_across = max(across, {width} * (1 - across))
{_places(width, " " * 16)}
                for row in range(0, passes, down):
                    for column in range(0, length, vectors_across * LANES):
                        here = shift(scratch, row * pitch + column)
                        there = shift(to, row * to_row + column)
{_tile(tile, width, " " * 24)}
                if across == 0:
                    for k in range(count):
                        copy_out(
                            shift(flat, k * flat_k), pitch, some_rows, some_columns,
                            shift(out, (first + k) * y_k), step_h, step_w,
                        )
                w_tile = shift(w_tile, taps * {tile})
    if streamed != 0:
        fence()
"""


def _places(width: int, indent: str) -> str:
    """Where the vectors of a tile lie, counted from its first one."""
    lines = []
    for v in range(width):
        lines += [f"row{v}, column{v} = {v} // vectors_across, {v} % vectors_across * LANES"]
        lines += [f"x{v}_at, y{v}_at = row{v} * pitch + column{v}, row{v} * to_row + column{v}"]
    return "\n".join(indent + line for line in lines)


def _tile(tile: int, width: int, indent: str) -> str:
    """The sums of `tile` filters at `width` vectors of positions, from `here` in the scratch to `there`."""
    sums = [(k, v) for k in range(tile) for v in range(width)]
    lines = []
    for k in range(tile):
        lines += [f"b = broadcast(constants, first + {k})"] + [f"s{k}_{v} = b" for v in range(width)]
    lines += ["for t in range(taps):", "    place = shift(here, table[offsets + t])"]
    lines += [f"    x{v} = load(place, x{v}_at)" for v in range(width)]
    for k in range(tile):
        lines += [f"    b = broadcast(w_tile, t * {tile} + {k})"]
        lines += [f"    s{k}_{v} = fma(b, x{v}, s{k}_{v})" for v in range(width)]
    whole = f"row + down <= passes and column + vectors_across * LANES <= length and count == {tile}"
    lines += [f"if across == 0 or ({whole}):", "    if streamed != 0:"]
    lines += [f"        stream(there, {k} * to_k + y{v}_at, s{k}_{v})" for k, v in sums]
    lines += ["    else:"]
    lines += [f"        store(there, {k} * to_k + y{v}_at, s{k}_{v})" for k, v in sums]
    lines += ["else:"]
    for v in range(width):
        lines += [f"    some = length - column - column{v} if row + row{v} < passes else 0"]
        for k in range(tile):
            lines += [f"    if {k} < count:", f"        store_first(there, {k} * to_k + y{v}_at, s{k}_{v}, some)"]
    return "\n".join(indent + line for line in lines)
