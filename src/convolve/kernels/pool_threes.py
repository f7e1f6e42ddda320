"""Pooling by 3 x 3 windows at stride 1 or 2, forward, over maps stored channels first.

Idea. Each row of the input is reduced along the width once, in registers, and meets the rows above it at once; what the next windows need
of it is kept as a line. So a row is a few dozen instructions, where pool_rows.py pads it, splits it, reduces it and comes back to it.

The first and the last vector of a row reach over its ends. There masked loads bring zeros, and `rims` hold what is added to them: -0, which
changes nothing, or -inf in the padding of a maximum. Rows above and below the map are read from a blank one.

Order, codes and rounding are those of pool_rows.py. Traffic: everything is read once and written once.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.pool_small import AHEAD, indented
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import unpack

# All int64. Strides, sizes and offsets count elements; *_at are places in the table.
FORWARD = (
    "x", "y", "codes", "indices", "table", "scratch",  # addresses; codes and indices may be 0
    "scratch_bytes", "batch", "channels", "x_n", "x_c", "x_h", "size_h", "size_w", "outputs_h", "outputs_w", "width",
    "before_h", "before_w",  # 0 or 1
    "block_rows", "blocks",  # rows of results
    "blank",  # length of a blank row
    "depths_at", "heights_at", "columns_at",  # what an average divides by: for the map, for each row, for each column
)  # fmt: skip

KINDS = ("max", "codes", "average")
SIZE, STRIDES = 3, (1, 2)

_LOADS = {1: ("0", "1", "2"), 2: ("0", "LANES", "1", "LANES + 1")}
"""By stride, where the loads of a vector of windows begin; nothing behind the last window is touched."""


def _reduced(kind: str, stride: int, row: str, name: str, end: str) -> list[str]:
    """The row's windows of a vector, reduced along the width: `name`, and with codes `name`_code.

    `end`: it is the "first", the "last" or "any" vector of the row; "": one between, which reads nothing beyond the row.
    """
    lines = []
    for i, at in enumerate(_LOADS[stride]):
        if end:
            place = f"{row}, from_w + {at}, -from_w - ({at}), size_w - from_w - ({at})"
            lines += [f"x{i} = load_between({place})"]
            if kind != "average":
                lines += [f"x{i} = add(x{i}, load({end}_rims, {i} * LANES))"]
        else:
            lines += [f"x{i} = load({row}, from_w + {at})"]
    if stride == 2:
        lines += ["x0, x1, x2 = evens(x0, x1), evens(x2, x3), odds(x2, x3)"]
    if kind == "average":
        return [*lines, f"{name} = add(add(x0, x1), x2)"]
    if kind == "codes":
        lines += [f"{name}_code = {'load(first_codes, j)' if end in ('first', 'any') else 'zero()'}"]
        lines += [f"{name}_code = where_larger(x0, x1, {name}_code, tap1)", "x0 = larger(x0, x1)"]
        return [*lines, f"{name}_code = where_larger(x0, x2, {name}_code, tap2)", f"{name} = larger(x0, x2)"]
    return [*lines, f"{name} = larger(larger(x0, x1), x2)"]


def _results(kind: str, stride: int, end: str) -> list[str]:
    """One vector of results from the lines kept of the rows above and `stride` new rows."""
    lines = [f"from_w = {stride} * j - before_w", f"prefetch(out, j + {AHEAD})"]
    for i in range(stride):
        lines += [f"prefetch(row{i}, {stride} * j + {v} * LANES + {AHEAD})" for v in range(stride)]
    above = SIZE - stride
    for i in range(stride):
        lines += _reduced(kind, stride, f"row{i}", f"s{above + i}", end)
    for i in range(above):
        lines += [f"s{i} = load(kept{i}, j)"]
        if kind == "codes":
            lines += [f"s{i}_code = load(kept{i}_codes, j)"]
    lines += [f"store(kept0, j, s{SIZE - 1})"]  # its row is not needed any more
    if kind == "codes":
        lines += [f"store(kept0_codes, j, s{SIZE - 1}_code)"]
    if kind == "average":
        lines += ["s = div(add(add(s0, s1), s2), mul(divided, load(columns, j)))"]
    else:
        if kind == "codes":
            lines += ["code = where_larger(s0, s1, s0_code, add(s1_code, tap3))"]
        lines += ["s = larger(s0, s1)"]
        if kind == "codes":
            lines += ["code = where_larger(s, s2, code, add(s2_code, tap6))", "store_bytes(row_code, j, code)"]
        lines += ["s = larger(s, s2)"]
    return [*lines, "store_first(out, j, s, outputs_w - j)" if end else "store(out, j, s)"]


_CODES = f"""
            if indices != 0:
                to = int64_pointer(indices + 8 * place * outputs_w)
                for w in range(outputs_w):
                    tap = row_code[w]
                    to[w] = (from_h + tap // {SIZE}) * size_w + STRIDE * w - before_w + tap % {SIZE}"""


def forward_source(kind: str, stride: int) -> str:
    above = SIZE - stride
    coded = kind == "codes"
    loads = len(_LOADS[stride])
    step = 2 if coded else 1
    kept = [name for i in range(above) for name in ((f"kept{i}", f"kept{i}_codes") if coded else (f"kept{i}",))]
    places = [f"{name} = shift(kept, {i} * width)" for i, name in enumerate(kept)]
    rims = [
        line
        for number, at in enumerate(_LOADS[stride])
        for line in (
            f"at = from_w + {at} + i",
            "outside = which != 1 and (at < 0 or at >= size_w)",
            f"rims[{number} * LANES + i] = -1e999 if outside else -1.0 / 1e999",
        )
    ]
    begin = _reduced(kind, stride, "row", "s", "any")
    begin += ["store(to, j, s)"]
    begin += ["store(shift(to, width), j, add(s_code, skipped))"] if coded else []
    rows = []
    for i in range(stride):
        at = f"from_h + {above + i}"
        rows += [f"row{i} = blank_row", f"if {at} < size_h:", f"    row{i} = shift(here, ({at}) * x_h)"]
    turn = []
    if above == 2:
        turn += ["kept0, kept1 = kept1, kept0"]
        if coded:
            turn += ["kept0_codes, kept1_codes = kept1_codes, kept0_codes"]
    divided = "divided = splat(table[depths_at + 3] * table[heights_at + 4 * h + 3])"
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(FORWARD, "arguments", HEADER, 4)}
    table = int64_pointer(table)
    scratch += thread * scratch_bytes
    blank_row = pointer(scratch)
    first_rims = shift(blank_row, blank)
    middle_rims = shift(first_rims, {loads} * LANES)
    last_rims = shift(middle_rims, {loads} * LANES)
    first_codes = shift(last_rims, {loads} * LANES)
    columns = shift(first_codes, width)
    kept = shift(columns, width)
    row_code = byte_pointer(address(shift(kept, {len(kept)} * width)))
    for i in range(blank):
        blank_row[i] = {"0.0" if kind == "average" else "-1e999"}
    for w in range(width):
        first_codes[w] = 0.0
        columns[w] = table[columns_at + 4 * min(w, outputs_w - 1) + 3]
    first_codes[0] = before_w
    for which in range(3):  # of the first vector, one in the middle, the last
        rims = shift(first_rims, which * {loads} * LANES)
        from_w = (0 if which == 0 else width - LANES) * {stride} - before_w
        for i in range(LANES):
{indented(rims, 12)}
    tap1, tap2, tap3, tap6 = splat(1), splat(2), splat({SIZE}), splat({2 * SIZE})
    tasks = batch * channels * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block, plane = task % blocks, task // blocks
        n, c = plane // channels, plane % channels
        here = shift(pointer(x), n * x_n + c * x_c)
        start = block * block_rows
        from_h = {stride} * start - before_h
{indented(places, 8)}
        for i in range({above}):
            row = blank_row
            if from_h + i >= 0 and from_h + i < size_h:
                row = shift(here, (from_h + i) * x_h)
            to = shift(kept, {step} * i * width)
            skipped = splat({SIZE} * max(-from_h - i, 0))  # a window above the map has its first tap below
            for j in range(0, width, LANES):
                from_w = {stride} * j - before_w
                any_rims = middle_rims
                if j == 0:
                    any_rims = first_rims
                elif j + LANES == width:
                    any_rims = last_rims
{indented(begin, 16)}
        for h in range(start, min(start + block_rows, outputs_h)):
            from_h = {stride} * h - before_h
{indented(rows, 12)}
            place = plane * outputs_h + h
            out = shift(pointer(y), place * outputs_w)
            {"if codes != 0: row_code = byte_pointer(codes + place * width)" if coded else ""}
            {divided if kind == "average" else ""}
            j = 0
{indented(_results(kind, stride, "first"), 12)}
            for j in range(LANES, width - LANES, LANES):
{indented(_results(kind, stride, ""), 16)}
            if width > LANES:
                j = width - LANES
{indented(_results(kind, stride, "last"), 16)}
{indented(turn, 12)}
{_CODES.replace("STRIDE", str(stride)) if coded else ""}
"""


def forward(kind: str, stride: int, dtype: str) -> Kernel:
    """`kind` is one of KINDS, `stride` one of STRIDES."""
    return Kernel(f"pool_threes-{kind}-{stride}-{dtype}", dtype, lambda: forward_source(kind, stride), lambda: "")


def every(dtype: str) -> list[Kernel]:
    return [forward(kind, stride, dtype) for kind in KINDS for stride in STRIDES]
