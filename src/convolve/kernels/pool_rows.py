"""Pooling whose vectors run along the positions of a map: channels first, maxima and averages, forward and backward.

Idea. A window is reduced axis by axis: each input row once along the width, then the rows (and slices) of each window with one another:
kernel_w + kernel_h operations for a kernel_h x kernel_w window. An input row is copied into a padded line first, split by the phase of the
stride (element i // s of phase i mod s), so that one tap of neighbouring windows is one load, whatever the stride.

The order of a maximum is torch's: along the width first, then down, and only a larger number or a NaN replaces what is there, so the first
of equal maxima in row-major order counts, also between 0 and -0. With it goes a code: the tap, counted row-major in the window, as a lane
of the same vector; stored as one byte. It is all that the gradient needs. An element without a larger one keeps its first real tap.

Backward, each input gathers from the windows that cover it: for a maximum the gradients whose code is the tap between the two;
for an average their sum along the width, then down. No two threads write one element, and each sum has one order.

Traffic. The input is read once, the result written once; a line and the reduced rows of a block stay in the L1 and L2 caches.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE

# All int64. Strides, sizes and offsets count elements; *_at are places in the table, which ops/algorithms does not share with others.
FORWARD = (
    "x", "y", "codes", "indices", "table", "scratch",  # addresses; codes and indices may be 0
    "scratch_bytes", "places_bytes", "rows_size",  # of each thread: all, its list of rows, its reduced rows
    "batch", "channels", "x_n", "x_c", "x_d", "x_h", "x_w",
    "size_h", "size_w", "outputs_d", "outputs_h", "outputs_w", "width",  # outputs_w, rounded up to whole vectors
    "kernel_h", "kernel_w", "stride_d", "stride_h", "stride_w", "before_d", "before_h", "before_w",
    "dilation_d", "dilation_h",
    "block_rows", "block_inputs", "blocks",  # outputs and inputs of a block
    "pitch", "phase_size", "group",  # lengths of a phase of one line and of all lines; how many lines are written before one is read
    "depths_at", "heights_at",  # for each output: first real tap, number of real taps, first input, divisor
    "columns_at",  # for each output: first real tap (maximum) or divisor (average)
    "taps_at", "used_at", "codes_at", "empties_at",
)  # fmt: skip

BACKWARD = (
    "g", "codes", "x", "table", "scratch",
    "scratch_bytes", "places_bytes", "lines_size",
    "planes", "size_d", "size_h", "size_w", "outputs_d", "outputs_h", "outputs_w", "width",
    "kernel_h", "kernel_w", "stride_w",
    "block_rows", "blocks", "pitch", "lead", "line",  # line: of a padded row of gradients, `lead` zeros first
    "depths_at", "heights_at",  # for each input: where its (output, tap) pairs are, and how many
    "blocks_at",  # for each block: its first output, and the one behind its last
    "phases_at",  # for each remainder of an input by the stride: where its (tap, offset) pairs are, how many, its first place
    "divisor",
)  # fmt: skip

KINDS = ("max", "codes", "average")  # codes: a maximum that says where it was

_LOWEST = "-1e999"  # Python reads it as -inf


def _loop(unrolled: int, body: list[str], indent: str = "    ") -> str:
    """A loop over `width`, `unrolled` vectors at a time and then one; {v} is the vector's number, {at} its place."""
    lines = ["j = 0"]
    for count in (unrolled, 1):
        lines.append(f"while j + {count - 1} * LANES < width:")
        for line in body:
            if "{v}" in line:
                lines += ["    " + line.format(v=v, at=f"(j + {v} * LANES)") for v in range(count)]
            else:
                lines.append("    " + line)
        lines.append(f"    j += {count} * LANES")
    return "\n".join(indent + line for line in lines)


def _unrolled(step: str, counts: tuple[int, ...], start: list[str], offset: str, end: list[str]) -> list[str]:
    """The loop for each number of taps in `counts` with its offsets in registers, and for any other."""
    lines = []
    for count in counts:
        lines.append(f"    if count == {count}:")
        lines.append(
            "        "
            + ", ".join(f"o{t}" for t in range(count))
            + " = "
            + ", ".join(offset.format(t=t) for t in range(count))
        )
        body = [*start, *(step.replace("{t}", str(t)) for t in range(1, count)), *end]
        lines += [_loop(2, body, " " * 8), "        return"]
    lines += [f"    o0 = {offset.format(t=0)}"]
    body = [
        *start,
        "for t in range(1, count):",
        f"    ot = {offset.format(t='t')}",
        "    " + step.replace("{t}", "t"),
        *end,
    ]
    return [*lines, _loop(2, body)]


def _width(name: str, more: str, step: str) -> str:
    """All lines at once: one after the other they are one long line."""
    start, end = ["s{v} = load(line, o0 + {at})"], ["store(y, {at}, s{v})"]
    return "\n".join(
        [f"def {name}(line, taps, count, y, width{more}):", *_unrolled(step, (2, 3), start, "taps[{t}]", end), ""]
    )


def _down(name: str, more: str, step: str, result: str, nothing: str) -> str:
    """One row of results from the rows at `places`; unrolling its taps won 5 % and cost half a second to compile."""
    start, end = ["s{v} = load(rows, o0 + {at})"], [f"store_first(y, {{at}}, {result}, width - {{at}})"]
    head = [
        f"def {name}(rows, places, count, y, width{more}):",
        "    if count == 0:",
        f"        fill(y, width, {nothing})",
        "        return",
    ]
    return "\n".join([*head, *_unrolled(step, (), start, "places[2 * {t}]", end), ""])


SHARED = f"""
def fill(y, count, number):
    for i in range(0, count, LANES):
        store_first(y, i, splat(number), count - i)

def copy_row(x, y, count):
    i = 0
    while i + LANES <= count:
        store(y, i, load(x, i))
        i += LANES
    if i < count:
        store_first(y, i, load_first(x, i, count - i), count - i)

def split_rows(x, x_h, step, size, before, stride, used, count, pitch, lines, phase_size):
    ahead = count * x_h  # while these rows are reduced, the next come from memory
    if stride == 1 and step == 1:
        length = min(size, pitch - before)
        whole = length // LANES * LANES
        for r in range(count):
            if used[r] != 0:
                to = shift(lines, r * pitch + before)
                for i in range(0, whole, LANES):
                    prefetch(x, i + ahead)
                    store(to, i, load(x, i))
                prefetch(x, whole + ahead)
                if whole < length:
                    store_first(to, whole, load_first(x, whole, length - whole), length - whole)
            x = shift(x, x_h)
    elif stride == 2 and step == 1:
        length = min(size, 2 * pitch - before)
        whole = max(length, 0) // (2 * LANES) * (2 * LANES)
        to_even = shift(lines, (before & 1) * phase_size + (before >> 1))
        to_odd = shift(lines, ((before + 1) & 1) * phase_size + ((before + 1) >> 1))
        for r in range(count):
            if used[r] != 0:
                even, odd = shift(to_even, r * pitch), shift(to_odd, r * pitch)
                for i in range(0, whole, 2 * LANES):
                    prefetch(x, i + ahead)
                    prefetch(x, i + LANES + ahead)
                    a, b = load(x, i), load(x, i + LANES)
                    store(even, i >> 1, evens(a, b))
                    store(odd, i >> 1, odds(a, b))
                if whole < length:
                    prefetch(x, whole + ahead)
                    rest = length - whole
                    a, b = load_first(x, whole, rest), load_first(x, whole + LANES, rest - LANES)
                    store_first(even, whole >> 1, evens(a, b), (rest + 1) >> 1)
                    store_first(odd, whole >> 1, odds(a, b), rest >> 1)
            x = shift(x, x_h)
    else:
        for r in range(count):
            phase, offset = before % stride, before // stride
            for rest in range(min(stride, size)):
                to = shift(lines, phase * phase_size + r * pitch + offset)
                for i in range(min((size - rest + stride - 1) // stride, pitch - offset)):
                    to[i] = x[(rest + i * stride) * step]
                phase += 1
                if phase == stride:
                    phase, offset = 0, offset + 1
            x = shift(x, x_h)

def merge_row(line, pitch, stride, size, y):
    if stride == 2:
        for i in range(0, size, 2 * LANES):
            a, b = load(line, i >> 1), load(line, pitch + (i >> 1))
            store_first(y, i, zip_first(a, b), size - i)
            store_first(y, i + LANES, zip_last(a, b), size - i - LANES)
    else:
        for r in range(min(stride, size)):
            for i in range((size - r + stride - 1) // stride):
                y[r + i * stride] = line[r * pitch + i]

{_width("width_max", "", "s{v} = larger(s{v}, load(line, o{t} + {at}))")}
{_width("width_sum", "", "s{v} = add(s{v}, load(line, o{t} + {at}))")}

def width_codes(line, taps, count, columns, pitch, y, y_codes, width):
    for first in range(0, width, pitch):
        last = min(first + pitch, width)
        for j in range(first, last, 2 * LANES):
            s0, s1 = load(line, taps[0] + j), load(line, taps[0] + j + LANES)
            c0, c1 = load(columns, j - first), load(columns, j - first + LANES)
            for t in range(1, count):
                tap, place = splat(t), taps[t] + j
                x0, x1 = load(line, place), load(line, place + LANES)
                c0, c1 = where_larger(s0, x0, c0, tap), where_larger(s1, x1, c1, tap)
                s0, s1 = larger(s0, x0), larger(s1, x1)
            store_first(y, j, s0, last - j)
            store_first(y_codes, j, c0, last - j)
            store_first(y, j + LANES, s1, last - j - LANES)
            store_first(y_codes, j + LANES, c1, last - j - LANES)

{_down("down_max", "", "s{v} = larger(s{v}, load(rows, o{t} + {at}))", "s{v}", _LOWEST)}
{
    _down(
        "down_mean",
        ", columns, divisor",
        "s{v} = add(s{v}, load(rows, o{t} + {at}))",
        "div(s{v}, mul(splat(divisor), load(columns, {at})))",
        "0.0",
    )
}

def down_codes(rows, row_codes, places, count, y, codes, width):
    if count == 0:
        fill(y, width, {_LOWEST})
        for j in range(0, width, LANES):
            store_bytes(codes, j, zero())
        return
{
    _loop(
        2,
        [
            "s{v} = load(rows, places[0] + {at})",
            "c{v} = add(load(row_codes, places[0] + {at}), splat(places[1]))",
            "for t in range(1, count):",
            "    place, tap = places[2 * t], splat(places[2 * t + 1])",
            "    x{v} = load(rows, place + {at})",
            "    c{v} = where_larger(s{v}, x{v}, c{v}, add(load(row_codes, place + {at}), tap))",
            "    s{v} = larger(s{v}, x{v})",
            "store_first(y, {at}, s{v}, width - {at})",
            "store_bytes(codes, {at}, c{v})",
        ],
    )
}

def decode(codes, offsets, first, stride, indices, count):
    for j in range(count):
        indices[j] = first + j * stride + offsets[codes[j]]

def gather_max(rows, row_codes, places, count, taps, tap_count, y, width):
{
    _loop(
        2,
        [
            "s{v} = zero()",
            "for r in range(count):",
            "    place = shift(rows, places[2 * r])",
            "    place_codes = shift(row_codes, places[2 * r])",
            "    for t in range(tap_count):",
            "        offset, tap = taps[2 * t + 1] + j, splat(places[2 * r + 1] + taps[2 * t])",
            "        s{v} = add(s{v}, where_equal(load(place_codes, offset + {v} * LANES), tap, load(place, offset + {v} * LANES)))",
            "store_first(y, {at}, s{v}, width - {at})",
        ],
    )
}

def gather_sum(line, taps, tap_count, y, width):
{
    _loop(
        4,
        [
            "s{v} = zero()",
            "for t in range(tap_count):",
            "    s{v} = add(s{v}, load(line, taps[2 * t + 1] + {at}))",
            "store(y, {at}, s{v})",
        ],
    )
}

def down_sum(rows, places, count, divisor, y, width):
    d = splat(divisor)
{
    _loop(
        4,
        [
            "s{v} = zero()",
            "for t in range(count):",
            "    s{v} = add(s{v}, load(rows, places[2 * t] + {at}))",
            "store_first(y, {at}, div(s{v}, d), width - {at})",
        ],
    )
}

def expand_codes(codes, y, width):
    for j in range(0, width, LANES):
        store(y, j, load_bytes(codes, j))
"""

_WIDTH = {
    "max": "width_max(lines, taps, kernel_w, shift(rows, at), length)",
    "codes": "width_codes(lines, taps, kernel_w, columns, pitch, shift(rows, at), shift(row_codes, at), length)",
    "average": "width_sum(lines, taps, kernel_w, shift(rows, at), length)",
}

_DOWN = {
    "max": "down_max(rows, places, count, out, outputs_w)",
    "codes": """if codes != 0:
                row_code = byte_pointer(codes + place * width)
            down_codes(rows, row_codes, places, count, out, row_code, outputs_w)
            if indices != 0:
                to = int64_pointer(indices + 8 * place * outputs_w)
                if count == 0:
                    for w in range(outputs_w):
                        to[w] = -1
                else:
                    first = ((d * stride_d - before_d) * size_h + h * stride_h - before_h) * size_w - before_w
                    decode(row_code, shift(table, codes_at), first, stride_w, to, outputs_w)
                    for e in range(table[empties_at]):
                        to[table[empties_at + 1 + e]] = -1""",
    "average": """divisor = table[depths_at + 4 * d + 3] * table[heights_at + 4 * h + 3]
            down_mean(rows, places, count, out, outputs_w, columns, divisor)""",
}


def _unpack(names: tuple[str, ...]) -> str:
    return "\n".join(f"    {name} = arguments[{HEADER + i}]" for i, name in enumerate(names))


def forward_source(kind: str) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(FORWARD)}
    table = int64_pointer(table)
    scratch += thread * scratch_bytes
    taps = int64_pointer(scratch)
    places = shift(taps, kernel_w)
    columns = pointer(scratch + places_bytes)
    lines = shift(columns, 2 * pitch + LANES)
    rows = shift(lines, stride_w * phase_size)
    row_codes = shift(rows, rows_size)
    row_code = byte_pointer(address(shift(row_codes, rows_size)))
    fill(lines, stride_w * phase_size, {"0.0" if kind == "average" else _LOWEST})
    fill(columns, 2 * pitch + LANES, {"1.0" if kind == "average" else "0.0"})
    for t in range(kernel_w):
        taps[t] = table[taps_at + 2 * t] * phase_size + table[taps_at + 2 * t + 1]
    for w in range(outputs_w):
        columns[w] = table[columns_at + w]
    tasks = batch * channels * outputs_d * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block, rest = task % blocks, task // blocks
        d, plane = rest % outputs_d, rest // outputs_d
        n, c = plane // channels, plane % channels
        first_h = block * block_rows
        last_h = min(first_h + block_rows, outputs_h)
        base = max(first_h * stride_h - before_h, 0)
        stop = min(first_h * stride_h - before_h + block_inputs, size_h)
        first_d, count_d, from_d = table[depths_at + 4 * d], table[depths_at + 4 * d + 1], table[depths_at + 4 * d + 2]
        here = shift(pointer(x), n * x_n + c * x_c)
        for j in range(count_d):
            slice = shift(here, (from_d + j * dilation_d) * x_d)
            for first in range(base, stop, group):
                last = min(first + group, stop)
                split_rows(
                    shift(slice, first * x_h), x_h, x_w, size_w, before_w, stride_w, shift(table, used_at + first), last - first,
                    pitch, lines, phase_size,
                )
                at, length = (j * block_inputs + first - base) * pitch, (last - first) * pitch
                {_WIDTH[kind]}
        for h in range(first_h, last_h):
            first_t, count_t, from_h = table[heights_at + 4 * h], table[heights_at + 4 * h + 1], table[heights_at + 4 * h + 2]
            count = 0
            for j in range(count_d):
                for t in range(count_t):
                    places[2 * count] = (j * block_inputs + from_h + t * dilation_h - base) * pitch
                    places[2 * count + 1] = ((first_d + j) * kernel_h + first_t + t) * kernel_w
                    count += 1
            place = (plane * outputs_d + d) * outputs_h + h
            out = shift(pointer(y), place * outputs_w)
            {_DOWN[kind]}
"""


_EXPAND = {
    "codes": """
                copy_row(from_g, shift(lines, at + lead), outputs_w)
                expand_codes(byte_pointer(codes + place * width), shift(line_codes, at + lead), outputs_w)""",
    "average": """
                copy_row(from_g, shift(lines, at + lead), outputs_w)""",
}

_SUMS = """
        for r in range(count_d * (high - low)):
            for rest in range(stride_w):
                phase = shift(table, phases_at + 3 * rest)
                from_line = shift(lines, r * line + lead + phase[2])
                gather_sum(from_line, shift(table, phase[0]), phase[1], shift(rows, r * row + rest * pitch), pitch)"""

_GATHER = {
    "codes": """
            for rest in range(stride_w):
                phase = shift(table, phases_at + 3 * rest)
                start, taps = lead + phase[2], shift(table, phase[0])
                gather_max(shift(lines, start), shift(line_codes, start), places, count, taps, phase[1], to, length)
                to = shift(to, pitch)""",
    "average": """
            down_sum(rows, places, count, divisor, to, length)""",
}


def backward_source(kind: str) -> str:
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(BACKWARD)}
    table = int64_pointer(table)
    scratch += thread * scratch_bytes
    places = int64_pointer(scratch)
    merged = pointer(scratch + places_bytes)
    row = stride_w * pitch
    lines = shift(merged, row)
    line_codes = shift(lines, lines_size)
    rows = line_codes
    fill(lines, lines_size, 0.0)
    step = {"line" if kind == "codes" else "row"}
    tasks = planes * size_d * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block, rest = task % blocks, task // blocks
        d, plane = rest % size_d, rest // size_d
        low, high = table[blocks_at + 2 * block], table[blocks_at + 2 * block + 1]
        pairs_d, count_d = table[depths_at + 2 * d], table[depths_at + 2 * d + 1]
        for j in range(count_d):
            for h in range(low, high):
                place = (plane * outputs_d + table[pairs_d + 2 * j]) * outputs_h + h
                from_g = shift(pointer(g), place * outputs_w)
                at = (j * (high - low) + h - low) * line
{_EXPAND[kind]}
{_SUMS if kind == "average" else ""}
        for i in range(block * block_rows, min((block + 1) * block_rows, size_h)):
            pairs_h, count_h = table[heights_at + 2 * i], table[heights_at + 2 * i + 1]
            count = 0
            for j in range(count_d):
                for t in range(count_h):
                    places[2 * count] = (j * (high - low) + table[pairs_h + 2 * t] - low) * step
                    places[2 * count + 1] = (table[pairs_d + 2 * j + 1] * kernel_h + table[pairs_h + 2 * t + 1]) * kernel_w
                    count += 1
            out = shift(pointer(x), ((plane * size_d + d) * size_h + i) * size_w)
            if stride_w == 1:
                to, length = out, size_w
            else:
                to, length = merged, {"pitch" if kind == "codes" else "row"}
{_GATHER[kind]}
            if stride_w > 1:
                merge_row(merged, pitch, stride_w, size_w, out)
"""


def forward(kind: str, dtype: str) -> Kernel:
    """A row of the list: `kind` is one of KINDS."""
    return Kernel(f"pool_rows-{kind}-{dtype}", dtype, lambda: forward_source(kind), lambda: SHARED)


def backward(kind: str, dtype: str) -> Kernel:
    """The gradient of `codes` or `average`."""
    return Kernel(f"pool_rows_back-{kind}-{dtype}", dtype, lambda: backward_source(kind), lambda: SHARED)


def every(dtype: str) -> list[Kernel]:
    return [*(forward(kind, dtype) for kind in KINDS), *(backward(kind, dtype) for kind in ("codes", "average"))]
