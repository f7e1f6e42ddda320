"""Pooling whose vectors run along channels: maps stored channels last, maxima and averages, forward and backward.

Idea. An output position reads the real taps of its window only (two numbers per axis say which), each one load of neighbouring channels;
four vectors of channels stay in registers. So there is no padding, no copy, and no difference between strides.

Order, codes and gradients are those of pool_rows.py: the first of equal maxima in row-major order counts; a code is the tap, as a byte;
backward, each input gathers from the windows that cover it.

Traffic. Neighbouring windows find their inputs in the L1 or L2 cache; a tap costs one load, where pool_rows shares work between windows.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE

_WIDTH = 4  # vectors of channels at a time

# All int64. Strides, sizes and offsets count elements; *_at are places in the table.
FORWARD = (
    "x", "y", "codes", "indices", "table", "scratch",  # addresses; codes and indices may be 0
    "batch", "channels", "x_n", "x_d", "x_h", "x_w",
    "size_h", "size_w", "outputs_d", "outputs_h", "outputs_w", "width",  # channels, rounded up to whole vectors
    "kernel_h", "kernel_w", "stride_d", "stride_h", "stride_w", "before_d", "before_h", "before_w",
    "dilation_d", "dilation_h", "dilation_w",
    "shares", "share",  # into how many parts the channels are divided, and how many each has: whole vectors
    "depths_at", "heights_at", "columns_at",  # for each output: first real tap, number of real taps, first input, divisor
    "codes_at",
    "scratch_bytes",
)  # fmt: skip

BACKWARD = (
    "g", "codes", "x", "table", "scratch",
    "batch", "channels", "size_d", "size_h", "size_w", "outputs_d", "outputs_h", "outputs_w", "width",
    "kernel_h", "kernel_w", "shares", "share",
    "depths_at", "heights_at", "columns_at",  # for each input: where its (output, tap) pairs are, and how many
    "divisor",
)  # fmt: skip

KINDS = ("max", "codes", "average")

SHARED = """
def decode(codes, offsets, first, indices, count):
    for j in range(count):
        indices[j] = first + offsets[codes[j]]
"""


def _unpack(names: tuple[str, ...]) -> str:
    return "\n".join(f"    {name} = arguments[{HEADER + i}]" for i, name in enumerate(names))


def _channels(body: list[str], indent: str) -> str:
    """`body` for all channels from first_c to last_c: {v} is a vector's number, {load:p} loads it from p, {store:value} keeps it."""
    lines = ["c = first_c"]
    for width, condition in ((_WIDTH, f"c + {_WIDTH} * LANES <= last_c"), (1, "c < last_c")):
        lines.append(f"while {condition}:")
        for line in body:
            if "{v}" not in line:
                lines.append("    " + line)
                continue
            for v in range(width):
                at = f"c + {v} * LANES"
                written = line.replace("{v}", str(v)).replace("{at}", at)
                if width == 1:
                    written = written.replace("READ(", "load_first(").replace("WRITE(", "store_first(")
                    written = written.replace("END", ", last_c - c")
                else:
                    written = written.replace("READ(", "load(").replace("WRITE(", "store(").replace("END", "")
                lines.append("    " + written)
        lines.append(f"    c += {width} * LANES")
    return "\n".join(indent + line for line in lines)


_START = {
    "max": ["s{v} = splat(-1e999)"],
    "codes": ["s{v} = splat(-1e999)", "c{v} = splat(first_code)"],
    "average": ["s{v} = zero()"],
}
_STEP = {
    "max": ["x{v} = READ(row, {at}END)", "s{v} = larger(s{v}, x{v})"],
    "codes": [
        "x{v} = READ(row, {at}END)",
        "c{v} = where_larger(s{v}, x{v}, c{v}, tap)",
        "s{v} = larger(s{v}, x{v})",
    ],
    "average": ["x{v} = READ(row, {at}END)", "s{v} = add(s{v}, x{v})"],
}
_END = {
    "max": ["WRITE(out, {at}, s{v}END)"],
    "codes": ["WRITE(out, {at}, s{v}END)", "store_bytes(row_code, {at}, c{v})"],
    "average": ["WRITE(out, {at}, div(s{v}, divided)END)"],
}
_BEFORE = {
    "max": "",
    "codes": """
            if codes != 0:
                row_code = byte_pointer(codes + place * width)
            first_code = (first_d * kernel_h + first_h) * kernel_w + first_w
            if count_d * count_h * count_w == 0:
                first_code = 0""",
    "average": """
            divided = splat(divisor * table[columns_at + 4 * w + 3])""",
}
_AFTER = {
    "max": "",
    "codes": """
            if indices != 0:
                to = int64_pointer(indices + 8 * (place * channels + first_c))
                if count_d * count_h * count_w == 0:
                    for c in range(last_c - first_c):
                        to[c] = -1
                else:
                    first = ((d * stride_d - before_d) * size_h + h * stride_h - before_h) * size_w + w * stride_w - before_w
                    decode(shift(row_code, first_c), shift(table, codes_at), first, to, last_c - first_c)""",
    "average": "",
}


def forward_source(kind: str) -> str:
    code = "tap = splat(((first_d + i) * kernel_h + first_h + j) * kernel_w + first_w + k)"
    body = [
        *_START[kind],
        "for i in range(count_d):",
        "    for j in range(count_h):",
        "        row = shift(here, i * dilation_d * x_d + j * dilation_h * x_h)",
        "        for k in range(count_w):",
        *(["            " + code] if kind == "codes" else []),
        *("            " + line for line in _STEP[kind]),
        "            row = shift(row, dilation_w * x_w)",
        *_END[kind],
    ]
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(FORWARD)}
    table = int64_pointer(table)
    row_code = byte_pointer(scratch + thread * scratch_bytes)
    tasks = batch * outputs_d * outputs_h * shares
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        part, rest = task % shares, task // shares
        h, rest = rest % outputs_h, rest // outputs_h
        d, n = rest % outputs_d, rest // outputs_d
        first_c, last_c = part * share, min((part + 1) * share, channels)
        first_d, count_d, from_d = table[depths_at + 4 * d], table[depths_at + 4 * d + 1], table[depths_at + 4 * d + 2]
        first_h, count_h, from_h = table[heights_at + 4 * h], table[heights_at + 4 * h + 1], table[heights_at + 4 * h + 2]
        divisor = table[depths_at + 4 * d + 3] * table[heights_at + 4 * h + 3]
        slice = shift(pointer(x), n * x_n + from_d * x_d + from_h * x_h)
        for w in range(outputs_w):
            first_w, count_w = table[columns_at + 4 * w], table[columns_at + 4 * w + 1]
            here = shift(slice, table[columns_at + 4 * w + 2] * x_w)
            place = ((n * outputs_d + d) * outputs_h + h) * outputs_w + w
            out = shift(pointer(y), place * channels)
{_BEFORE[kind]}
{_channels(body, " " * 12)}
{_AFTER[kind]}
"""


_GATHER = {
    "codes": [
        "code{v} = load_bytes(from_codes, {at})",
        "g{v} = READ(from_g, {at}END)",
        "s{v} = add(s{v}, where_equal(code{v}, tap, g{v}))",
    ],
    "average": ["g{v} = READ(from_g, {at}END)", "s{v} = add(s{v}, g{v})"],
}


def backward_source(kind: str) -> str:
    body = [
        "s{v} = zero()",
        "for i in range(count_d):",
        "    place_d, tap_d = table[pairs_d + 2 * i] * outputs_h, table[pairs_d + 2 * i + 1] * kernel_h",
        "    for j in range(count_h):",
        "        place_h = (place_d + table[pairs_h + 2 * j]) * outputs_w",
        "        tap_h = (tap_d + table[pairs_h + 2 * j + 1]) * kernel_w",
        "        for k in range(count_w):",
        "            place = first + place_h + table[pairs_w + 2 * k]",
        "            from_g = shift(pointer(g), place * channels)",
        *(
            [
                "            tap = splat(tap_h + table[pairs_w + 2 * k + 1])",
                "            from_codes = byte_pointer(codes + place * width)",
            ]
            if kind == "codes"
            else []
        ),
        *("            " + line for line in _GATHER[kind]),
        "WRITE(to, {at}, s{v}END)" if kind == "codes" else "WRITE(to, {at}, div(s{v}, divided)END)",
    ]
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(BACKWARD)}
    table = int64_pointer(table)
    divided = splat(divisor)
    tasks = batch * size_d * size_h * shares
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        part, rest = task % shares, task // shares
        h, rest = rest % size_h, rest // size_h
        d, n = rest % size_d, rest // size_d
        first_c, last_c = part * share, min((part + 1) * share, channels)
        first = n * outputs_d * outputs_h * outputs_w
        pairs_d, count_d = table[depths_at + 2 * d], table[depths_at + 2 * d + 1]
        pairs_h, count_h = table[heights_at + 2 * h], table[heights_at + 2 * h + 1]
        for w in range(size_w):
            pairs_w, count_w = table[columns_at + 2 * w], table[columns_at + 2 * w + 1]
            to = shift(pointer(x), (((n * size_d + d) * size_h + h) * size_w + w) * channels)
{_channels(body, " " * 12)}
"""


def forward(kind: str, dtype: str) -> Kernel:
    """A row of the list: `kind` is one of KINDS."""
    return Kernel(f"pool_lanes-{kind}-{dtype}", dtype, lambda: forward_source(kind), lambda: SHARED)


def backward(kind: str, dtype: str) -> Kernel:
    """The gradient of `codes` or `average`."""
    return Kernel(f"pool_lanes_back-{kind}-{dtype}", dtype, lambda: backward_source(kind), lambda: SHARED)


def every(dtype: str) -> list[Kernel]:
    return [*(forward(kind, dtype) for kind in KINDS), *(backward(kind, dtype) for kind in ("codes", "average"))]
