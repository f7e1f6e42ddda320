"""Direct convolution of one filter at a time, for image filters and depthwise layers: an input row is read once for several output rows.

Idea. With one filter there is nothing to share a loaded vector among but other rows: input row i, at column offset s, meets output row o
with the weight of kernel row i - o. A tile of TALL output rows and WIDE vectors reads kernel + TALL - 1 rows; per row and column offset
WIDE loads and TALL broadcasts feed TALL x WIDE multiply-adds. The first and the last TALL - 1 rows meet fewer outputs and are written
out one by one, so that no product is computed that the definition does not have (0 x Inf would be NaN).

Loads that run over two cache lines cost double, and most of them do: reading them less often is what this kernel is for.

Traffic. A result that is larger than the caches is streamed: written without being read first.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import Tiles, tiles_for
from convolve.kernels.planes import ARGUMENTS
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import PART, SHARED, fill_call, unpack

# (output rows, vectors of positions)
_MANY = ((4, 4), (3, 6), (2, 8), (4, 2), (4, 1), (3, 1))
_FEW = ((3, 3), (2, 4), (3, 1))


def tiles() -> Tiles:
    return tiles_for(_MANY, _FEW)


def kernel(tall: int, wide: int, dtype: str) -> Kernel:
    assert (tall, wide) in tiles()
    return Kernel(f"rows-{dtype}-{tall}x{wide}", dtype, lambda: source(tall, wide), lambda: SHARED)


def source(tall: int, wide: int) -> str:
    """The kernel of one register tile; it needs at least `tall` kernel rows, neighbours without stride or dilation."""
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    table = int64_pointer(table)
{unpack(PART, "table", 0, 4)}
    scratch = shift(pointer(scratch), thread * (scratch_size + flat_size + packed_size))
    weights = shift(scratch, scratch_size + flat_size)
    constants = shift(weights, packed_size - 1)
    planes = channels * slices
    kernel_h = phase_rows - rows + 1
    kernel_w = taps // (planes * kernel_h)
    plane_size = stride_w * phase_rows * pitch
    tasks = groups * batch * positions_d * blocks_h * blocks_w
    packed_last = -1
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block_w, rest = task % blocks_w, task // blocks_w
        block_h, rest = rest % blocks_h, rest // blocks_h
        slice, rest = rest % positions_d, rest // positions_d
        n, g = rest % batch, rest // batch
        first_row, first_column = block_h * rows, block_w * columns
        if packed_last != g:
            packed_last = g
            pack(shift(pointer(w), g * w_g), w_k, table, parts, 1, 1, weights)
            pack_bias(bias, g, 1, 1, constants)
{fill_call(8)}
        some_rows, some_columns = min(rows, count_h - first_row), min(columns, count_w - first_column)
        out = shift(pointer(y), n * y_n + g * y_k + slice * step_d + first_row * step_h + first_column)
        for row in range(0, some_rows, {tall}):
            for column in range(0, some_columns, {wide} * LANES):
                there = shift(out, row * step_h + column)
{_tile(tall, wide, " " * 16)}
    if streamed != 0:
        fence()
"""


def _tile(tall: int, wide: int, indent: str) -> str:
    """The sums of `tall` rows and `wide` vectors."""
    sums = [(o, v) for o in range(tall) for v in range(wide)]
    lines = ["b = broadcast(constants, 0)"] + [f"s{o}_{v} = b" for o, v in sums]
    lines += ["for plane in range(planes):"]
    lines += ["    here = shift(scratch, plane * plane_size + row * pitch + column)"]
    lines += ["    w_plane = shift(weights, plane * kernel_h * kernel_w)"]

    def meet(outputs: range, indent: str) -> list[str]:
        """Input row `i` of the tile meets these output rows."""
        body = [
            f"{indent}for s in range(kernel_w):",
            f"{indent}    place = shift(here, i * pitch + table[offsets + s])",
        ]
        body += [f"{indent}    x{v} = load(place, {v} * LANES)" for v in range(wide)]
        for o in outputs:
            body += [f"{indent}    b = broadcast(w_plane, (i - {o}) * kernel_w + s)"]
            body += [f"{indent}    s{o}_{v} = fma(b, x{v}, s{o}_{v})" for v in range(wide)]
        return body

    for i in range(tall - 1):
        lines += [f"    i = {i}", *meet(range(i + 1), "    ")]
    lines += [f"    for i in range({tall - 1}, kernel_h):", *meet(range(tall), "        ")]
    for i in range(tall - 1):
        lines += [f"    i = kernel_h + {i}", *meet(range(i + 1, tall), "    ")]
    lines += [f"if row + {tall} <= some_rows and column + {wide} * LANES <= some_columns:", "    if streamed != 0:"]
    lines += [f"        stream(there, {o} * step_h + {v} * LANES, s{o}_{v})" for o, v in sums]
    lines += ["    else:"]
    lines += [f"        store(there, {o} * step_h + {v} * LANES, s{o}_{v})" for o, v in sums]
    lines += ["else:"]
    for o in range(tall):
        lines += [f"    if row + {o} < some_rows:"]
        rest = "some_columns - column"
        lines += [
            f"        store_first(there, {o} * step_h + {v} * LANES, s{o}_{v}, {rest} - {v} * LANES)"
            for v in range(wide)
        ]
    return "\n".join(indent + line for line in lines)
