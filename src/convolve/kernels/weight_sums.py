"""The weight gradient by dot products along positions: for few channels, any kernel, any number of axes.

Idea. Over the padded scratch (kernels/scratch.py) the gradient of one weight is one dot product of a map of gradients and the scratch:

    dw[filter, tap]  =  sum over positions of  dy[filter, position] scratch[position + offset[tap]]

TILE filters times WIDTH taps stay in registers, each a vector of partial sums along the positions of a row: per vector of positions
TILE + WIDTH loads feed TILE x WIDTH multiply-adds. The end of a row is masked on both sides, so that a zero never meets an Inf that the
definition does not pair it with. After a block the lanes are summed as a balanced tree and added to the thread's own gradient,
which begins as zeros.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import Tiles, tiles_for
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import INPUT, PART, SHARED, fill_call, unpack

ARGUMENTS = (
    *INPUT,
    "gradient_size",  # of one thread; those of all threads lie one after the other at `w`
    "y_n", "y_k",
    "maps_size",  # of one thread's copy of dy, behind its scratch; 0 where the rows of dy are read in place
)  # fmt: skip

# (filters of the tile, taps)
_MANY = ((6, 4), (4, 6), (3, 8), (2, 10), (1, 10))
_FEW = ((3, 3), (2, 5), (1, 9))


def tiles() -> Tiles:
    return tiles_for(_MANY, _FEW)


def kernel(tile: int, width: int, dtype: str) -> Kernel:
    assert (tile, width) in tiles()
    return Kernel(f"weight_sums-{dtype}-{tile}x{width}", dtype, lambda: source(tile, width), lambda: SHARED)


def source(tile: int, width: int) -> str:
    """The kernel of one register tile. The table holds one part: its offsets are padded to a multiple of the tile's taps."""
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    table = int64_pointer(table)
{unpack(PART, "table", 0, 4)}
    scratch = shift(pointer(scratch), thread * (scratch_size + maps_size))
    maps = shift(scratch, scratch_size)
    mine = shift(pointer(w), thread * gradient_size)
    tasks = groups * batch * positions_d * blocks_h * blocks_w
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block_w, rest = task % blocks_w, task // blocks_w
        block_h, rest = rest % blocks_h, rest // blocks_h
        slice, rest = rest % positions_d, rest // positions_d
        n, g = rest % batch, rest // batch
        first_row, first_column = block_h * rows, block_w * columns
        some_rows, some_columns = min(rows, count_h - first_row), min(columns, count_w - first_column)
{fill_call(8)}
        dy = shift(
            pointer(y), n * y_n + g * filters * y_k + slice * step_d + first_row * step_h + first_column * step_w
        )
        dy_k, dy_h = y_k, step_h
        if maps_size != 0:
            for k in range(filters):
                for row in range(some_rows):
                    place = shift(maps, (k * rows + row) * columns)
                    copy_row(shift(dy, k * y_k + row * step_h), step_w, place, some_columns)
            dy, dy_k, dy_h = maps, rows * columns, columns
        for first in range(0, filters, {tile}):
            count = min({tile}, filters - first)
            for t in range(0, taps, {width}):
{_tile(tile, width, " " * 16)}
"""


def _tile(tile: int, width: int, indent: str) -> str:
    """The sums of `tile` filters and `width` taps over one block."""
    sums = [(k, t) for k in range(tile) for t in range(width)]
    # A filter beyond the last is the last one again, and a tap likewise; neither is kept.
    lines = [f"y{k}_at = shift(dy, min(first + {k}, filters - 1) * dy_k)" for k in range(tile)]
    lines += [f"x{t}_at = shift(scratch, table[offsets + t + {t}])" for t in range(width)]
    lines += [f"s{k}_{t} = zero()" for k, t in sums]
    lines += ["for row in range(some_rows):"]
    lines += ["    whole = some_columns // LANES * LANES", "    for i in range(0, whole, LANES):"]
    lines += [f"        y{k} = load(y{k}_at, row * dy_h + i)" for k in range(tile)]
    for t in range(width):
        lines += [f"        v = load(x{t}_at, row * pitch + i)"]
        lines += [f"        s{k}_{t} = fma(v, y{k}, s{k}_{t})" for k in range(tile)]
    lines += ["    if whole < some_columns:", "        rest = some_columns - whole"]
    lines += [f"        y{k} = load_first(y{k}_at, row * dy_h + whole, rest)" for k in range(tile)]
    for t in range(width):
        lines += [f"        v = load_first(x{t}_at, row * pitch + whole, rest)"]
        lines += [f"        s{k}_{t} = fma(v, y{k}, s{k}_{t})" for k in range(tile)]
    lines += ["into = shift(mine, (g * filters + first) * taps + t)"]
    for k, t in sums:
        lines += [f"if {k} < count and t + {t} < taps:", f"    into[{k} * taps + {t}] += total(s{k}_{t})"]
    return "\n".join(indent + line for line in lines)
