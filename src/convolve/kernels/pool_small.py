"""Pooling by small windows that are known when the kernel is compiled: 2 x 2 and 3 x 3 over maps stored channels first.

Idea. pool_rows.py serves any window and pays for it by calls, tables and copies for every row, which in a map of 28 columns cost more than
the numbers do. Here the taps are written out and a row is a few dozen instructions.

Forward, 2 x 2 windows that do not overlap: two rows of the input are split into even and odd columns in registers, and compared or added.

Backward, of a maximum: a line is a row of gradients between zeros, beside it the codes as numbers; rows outside the map are lines of zeros.
Each row of windows adds to its rows of inputs, from the same number of windows everywhere: two loads serve all taps of a column. What the
next row of windows adds to is kept as unfinished sums, so that each input's sum has the windows' order, as torch adds them. The inputs of
even and of odd columns meet different taps and are interleaved in registers.

Order, codes and rounding are those of pool_rows.py. Traffic: everything is read once and written once.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import unpack

# All int64. Strides, sizes and offsets count elements.
FORWARD = (
    "x", "y", "codes", "indices", "table", "scratch",  # addresses; codes and indices may be 0; the table is empty
    "scratch_bytes", "batch", "channels", "x_n", "x_c", "x_h", "size_w", "outputs_h", "outputs_w", "width",
    "block_rows", "blocks",  # rows of results
    "divisor",
)  # fmt: skip

BACKWARD = (
    "g", "codes", "x", "table", "scratch",
    "scratch_bytes", "planes", "size_h", "size_w", "outputs_h", "outputs_w", "width", "before_h", "before_w",
    "block_rows", "blocks",  # rows of inputs
    "line", "lines_size", "group",  # lengths of a line and of all; how many lines are written before one is read
    "sums_size",
)  # fmt: skip

KINDS = ("max", "codes", "average")
HALVES = (2, 2, 0)  # size, stride, padding modulo the stride
WINDOWS = (HALVES, (3, 2, 0), (3, 2, 1), (3, 1, 0))  # of the backward kernels


AHEAD = 1024
"""How many elements ahead memory is asked for: rows are short, and the processor sees no long stream."""


def _pair(kind: str, rest: str) -> list[str]:
    """One vector of results; `rest`: how many of them there are, if not all."""
    load, store, count = ("load_first", "store_first", f", {rest}") if rest else ("load", "store", "")
    both = (f", 2 * {rest}", f", 2 * {rest} - LANES") if rest else ("", "")
    lines = [
        f"{a}, {b} = {load}({row}, 2 * j{both[0]}), {load}({row}, 2 * j + LANES{both[1]})"
        for a, b, row in (("a", "b", "top"), ("c", "d", "bottom"))
    ]
    lines += ["s, t, u, v = evens(a, b), odds(a, b), evens(c, d), odds(c, d)"]
    if kind == "average":
        lines += ["s = div(add(add(s, t), add(u, v)), divided)"]
    else:
        if kind == "codes":
            lines += ["code = zero()"]
        for tap, other in enumerate("tuv", start=1):
            if kind == "codes":
                lines += [f"code = where_larger(s, {other}, code, tap{tap})"]
            lines += [f"s = larger(s, {other})"]
    lines += [f"{store}(out, j, s{count})"]
    return lines + (["store_bytes(row_code, j, code)"] if kind == "codes" else [])


def indented(lines: list[str], indent: int) -> str:
    """The lines as part of a kernel's text."""
    return "\n".join(" " * indent + line for line in lines)


_CODES = """
            if indices != 0:
                to = int64_pointer(indices + 8 * place * outputs_w)
                for w in range(outputs_w):
                    tap = row_code[w]
                    to[w] = (2 * h + (tap >> 1)) * size_w + 2 * w + (tap & 1)"""


def forward_source(kind: str) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(FORWARD, "arguments", HEADER, 4)}
    row_code = byte_pointer(scratch + thread * scratch_bytes)
    tap1, tap2, tap3, divided = splat(1), splat(2), splat(3), splat(divisor)
    whole = outputs_w // LANES * LANES
    rest = outputs_w - whole
    tasks = batch * channels * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block, plane = task % blocks, task // blocks
        n, c = plane // channels, plane % channels
        here = shift(pointer(x), n * x_n + c * x_c)
        for h in range(block * block_rows, min((block + 1) * block_rows, outputs_h)):
            top = shift(here, 2 * h * x_h)
            bottom = shift(top, x_h)
            place = plane * outputs_h + h
            out = shift(pointer(y), place * outputs_w)
            {"if codes != 0: row_code = byte_pointer(codes + place * width)" if kind == "codes" else ""}
            for j in range(0, whole, LANES):
{indented(_pair(kind, ""), 16)}
            if rest > 0:
                j = whole
{indented(_pair(kind, "rest"), 16)}
{_CODES if kind == "codes" else ""}
"""


def _covering(size: int, stride: int, odd: int) -> list[list[tuple[int, int]]]:
    """For each column of `stride` neighbouring inputs: the windows that cover it, first to last, as (distance, tap)."""
    columns = []
    for column in range(stride):
        taps = [t for t in reversed(range(size)) if (column + odd - t) % stride == 0]
        columns.append([((column + odd - t) // stride, t) for t in taps])
    return columns


def _spread_row(size: int, stride: int, odd: int, masked: bool) -> list[str]:
    """What a vector of windows adds to its rows of inputs, `stride` vectors of each; the last rows wait for the next windows."""
    columns = _covering(size, stride, odd)
    lines = []
    for at in sorted({at for pairs in columns for at, _ in pairs}):
        lines += [f"g{size + at}, c{size + at} = load(here, u + {at}), load(here_codes, u + {at})"]
    for row in range(size):
        for column, pairs in enumerate(columns):
            name = "ab"[column]
            lines += [f"{name} = " + (f"load(kept_{row}_{column}, u)" if row < size - stride else "zero()")]
            for at, t in pairs:
                lines += [f"{name} = add_where_equal({name}, c{size + at}, tap{row * size + t}, g{size + at})"]
            if row >= stride:
                lines += [f"store(kept_{row - stride}_{column}, u, {name})"]
        if row < stride:
            for i, value in enumerate(["zip_first(a, b)", "zip_last(a, b)"] if stride == 2 else ["a"]):
                place = f"out_{row}, {stride} * u + {i} * LANES"
                lines += [f"prefetch({place} + {AHEAD})"]
                lines += [
                    f"store_first({place}, {value}, rest - {i} * LANES)" if masked else f"store({place}, {value})"
                ]
    return lines


def backward_source(size: int, stride: int, odd: int) -> str:
    taps = "\n".join(f"    tap{t} = splat({t})" for t in range(size * size))
    kept = [f"kept_{down}_{column}" for down in range(size - stride) for column in range(stride)]
    places = "\n".join(f"    {name} = shift(sums, {i} * sums_size)" for i, name in enumerate(kept))
    rows = []
    for down in range(stride):
        rows += [f"out_{down} = none", f"if i + {down} >= start and i + {down} < stop:"]
        rows += [f"    out_{down} = shift(pointer(x), (plane * size_h + i + {down}) * size_w)"]
    rows += ["for u in range(0, whole, LANES):"]
    rows += ["    " + line for line in _spread_row(size, stride, odd, False)]
    rows += ["if rest > 0:", "    u = whole"]
    rows += ["    " + line for line in _spread_row(size, stride, odd, True)]
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(BACKWARD, "arguments", HEADER, 4)}
    lines = pointer(scratch + thread * scratch_bytes)
    line_codes = shift(lines, lines_size)
    sums = shift(line_codes, lines_size)
{places}
    # Rows that are another block's, or above the map, go here, and with them whatever the sums hold at first.
    none = shift(sums, {len(kept)} * sums_size)
    for i in range(0, 2 * lines_size, LANES):
        store(lines, i, zero())
{taps}
    whole = size_w // ({stride} * LANES) * LANES
    rest = size_w - {stride} * whole
    copied = outputs_w // LANES * LANES
    tasks = planes * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block, plane = task % blocks, task // blocks
        start, stop = block * block_rows, min((block + 1) * block_rows, size_h)
        low = (start + before_h - {size - stride}) // {stride}
        high = (stop - 1 + before_h) // {stride} + 1
        for first in range(low, high, group):
            last = min(first + group, high)
            for h in range(first, last):
                to = shift(lines, (h - first) * line + LANES)
                if h < 0 or h >= outputs_h:
                    for i in range(0, copied, LANES):
                        store(to, i, zero())
                    store_first(to, copied, zero(), outputs_w - copied)
                else:
                    to_codes = shift(line_codes, (h - first) * line + LANES)
                    place = plane * outputs_h + h
                    from_g, from_codes = shift(pointer(g), place * outputs_w), byte_pointer(codes + place * width)
                    for i in range(0, copied, LANES):
                        prefetch(from_g, i + {AHEAD})
                        store(to, i, load(from_g, i))
                        store(to_codes, i, load_bytes(from_codes, i))
                    if copied < outputs_w:
                        store_first(to, copied, load_first(from_g, copied, outputs_w - copied), outputs_w - copied)
                        store(to_codes, copied, load_bytes(from_codes, copied))
            for h in range(first, last):
                i = {stride} * h - before_h
                at = (h - first) * line + LANES + before_w // {stride}
                here, here_codes = shift(lines, at), shift(line_codes, at)
{indented(rows, 16)}
"""


def _spread(masked: bool) -> list[str]:
    """The gradients of two rows of inputs from one vector of results."""
    load, store = ("load_first", "store_first") if masked else ("load", "store")
    lines = [f"s, code = {load}(from_g, j{', outputs_w - j' * masked}), load_bytes(from_codes, j)"]
    lines += ["s = add(s, zero())"]  # -0 becomes 0, as in a sum
    for row, first in (("top", 0), ("bottom", 2)):
        lines += [f"{name} = where_equal(code, tap{first + i}, s)" for i, name in enumerate("ab")]
        for i, half in enumerate(("zip_first", "zip_last")):
            lines += [f"{store}({row}, 2 * j + {i} * LANES, {half}(a, b){f', rest - {i} * LANES' * masked})"]
    return lines


def halves_back_source() -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(BACKWARD, "arguments", HEADER, 4)}
    tap0, tap1, tap2, tap3 = zero(), splat(1), splat(2), splat(3)
    whole = outputs_w // LANES * LANES
    rest = size_w - 2 * whole
    tasks = planes * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block, plane = task % blocks, task // blocks
        start, stop = block * block_rows, min((block + 1) * block_rows, outputs_h)
        for h in range(start, stop):
            place = plane * outputs_h + h
            from_g, from_codes = shift(pointer(g), place * outputs_w), byte_pointer(codes + place * width)
            top = shift(pointer(x), (plane * size_h + 2 * h) * size_w)
            bottom = shift(top, size_w)
            for j in range(0, whole, LANES):
{indented(_spread(False), 16)}
            if rest > 0:
                j = whole
{indented(_spread(True), 16)}
        if stop == outputs_h:
            top = shift(pointer(x), plane * size_h * size_w)
            for i in range(2 * outputs_h * size_w, size_h * size_w, LANES):
                store_first(top, i, zero(), size_h * size_w - i)
"""


def forward(kind: str, dtype: str) -> Kernel:
    """2 x 2 windows at stride 2 without padding; `kind` is one of KINDS."""
    return Kernel(f"pool_small-{kind}-{dtype}", dtype, lambda: forward_source(kind), lambda: "")


def backward(window: tuple[int, int, int], dtype: str) -> Kernel:
    """The gradient of a maximum; `window` is one of WINDOWS."""
    assert window in WINDOWS
    name = "x".join(map(str, window))
    source = halves_back_source if window == HALVES else lambda: backward_source(*window)
    return Kernel(f"pool_small_back-{name}-{dtype}", dtype, source, lambda: "")


def every(dtype: str) -> list[Kernel]:
    return [*(forward(kind, dtype) for kind in KINDS), *(backward(window, dtype) for window in WINDOWS)]
