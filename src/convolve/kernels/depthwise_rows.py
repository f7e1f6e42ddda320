"""Depthwise convolution channels first, one filter for each result: small square windows, read in place.

Idea. There is nothing to share but rows: TALL results below one another read (TALL - 1) stride + KERNEL input rows, and each loaded vector is
multiplied by every tap of its column that meets one of them. The vectors come from the input itself, at any address: lanes
beyond the sides of the map are masked, which makes them the zeros of the padding, and rows beyond it are one row of zeros. So nothing is
copied first, which for a small window costs as much as the sums.

Vectors that touch a side ("edges") pass before the others, column by column, so that their masks are computed once in a block of rows. At
stride 2 two vectors are split into the columns of even and odd taps.

Traffic. The input is read once (its rows again from the L1 cache), the result written once. 0 x Inf is NaN in the padding too, as everywhere.
"""

from __future__ import annotations

from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import unpack

# All int64. Strides, sizes and offsets count elements; those of the weight may be negative: it is then read backwards.
ARGUMENTS = (
    "x", "w", "bias", "y", "scratch",  # addresses; bias may be 0; scratch: see below
    "scratch_bytes", "rows",  # of each thread; input rows, padding included
    "batch", "filters", "multiplier",  # filters for each channel
    "x_n", "x_c", "x_h", "size_h", "size_w", "outputs_h", "outputs_w", "w_k", "w_h", "w_w", "before_h", "before_w",
    "block_rows", "blocks",
    "edges", "inner_first", "inner_last",  # vectors that touch a side; the columns between
    "streamed",  # 1: the vectors between are written past the caches
)  # fmt: skip

SERVED = ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))  # sizes of the square window, and its strides
_TALL = {1: (4, 2, 1), 2: (2, 1)}


def _indented(lines: list[str], indent: int) -> list[str]:
    return [" " * indent + line for line in lines]


def _pointers(kernel: int, stride: int, tall: int) -> list[str]:
    """r0, r1, …: the input rows that `tall` rows of results from `row` on read; o0, o1, …: those of the result."""
    lines = [f"r{i} = shift(x_here, places[row * {stride} + {i}])" for i in range((tall - 1) * stride + kernel)]
    lines += ["o0 = shift(y_here, row * outputs_w)"]
    return lines + [f"o{i} = shift(o{i - 1}, outputs_w)" for i in range(1, tall)]


def _loaded(i: int, at: str, stride: int, masked: bool, names: list[str]) -> list[str]:
    """The inputs of one or (at stride 2) two neighbouring taps."""
    if stride == 1:
        between = f"load_between(r{i}, {at}, -({at}), size_w - ({at}))"
        return [f"{names[0]} = {between if masked else f'load(r{i}, {at})'}"]
    if masked:
        pair = f"load_between(r{i}, {at}, -({at}), size_w - ({at})), load_between(r{i}, {at} + LANES, -({at}) - LANES, size_w - ({at}) - LANES)"
    else:
        pair = f"load(r{i}, {at}), load(r{i}, {at} + LANES)"
    return [f"u, v = {pair}"] + [f"{name} = {part}(u, v)" for name, part in zip(names, ("evens", "odds"), strict=False)]


def _taps(kernel: int, stride: int, tall: int, masked: bool, taps: int, weights: list[list[str]]) -> list[str]:
    """The products of `taps` neighbouring columns of the window from place `at` of the input on."""
    lines = []
    for i in range((tall - 1) * stride + kernel):
        met = [(o, i - o * stride) for o in range(tall) if 0 <= i - o * stride < kernel]
        lines += _loaded(i, "at", stride, masked, ["e", "d"][:taps])
        for column, name in enumerate(["e", "d"][:taps]):
            lines += [f"s{o} = fma({weights[r][column]}, {name}, s{o})" for o, r in met]
    return lines


def _body(kernel: int, stride: int, tall: int, masked: bool) -> list[str]:
    """`tall` vectors of results below one another, at `column`."""
    lines = [f"s{o} = b" for o in range(tall)]
    first = f"{stride} * column - before_w"
    if kernel == 3:
        lines += [f"at = {first}"]
        for i in range((tall - 1) * stride + kernel):
            for s in range(0, kernel, stride):
                taps = min(stride, kernel - s)
                lines += _loaded(i, f"(at + {s})", stride, masked, [f"x{s + t}" for t in range(taps)])
            for o in range(tall):
                if 0 <= i - o * stride < kernel:
                    lines += [f"s{o} = fma(w{(i - o * stride) * kernel + s}, x{s}, s{o})" for s in range(kernel)]
    else:
        lines += [f"at, w_at = {first}, w_here"]

        def group(taps: int) -> list[str]:
            weights = [[f"w{r}_{t}" for t in range(taps)] for r in range(kernel)]
            loads = [f"w{r}_{t} = broadcast(w_at, {r} * w_h + {t} * w_w)" for r in range(kernel) for t in range(taps)]
            return loads + _taps(kernel, stride, tall, masked, taps, weights)

        lines += [f"for s in range({kernel // stride}):", *_indented(group(stride), 4)]
        lines += [f"    at, w_at = at + {stride}, shift(w_at, {stride} * w_w)"]
        if kernel % stride:
            lines += group(1)
    if masked:
        return lines + [f"store_first(o{o}, column, s{o}, outputs_w - column)" for o in range(tall)]
    lines += ["if streamed != 0:", *(f"    stream(o{o}, column, s{o})" for o in range(tall))]
    return lines + ["else:", *(f"    store(o{o}, column, s{o})" for o in range(tall))]


def _rows(kernel: int, stride: int, masked: bool) -> list[str]:
    """All rows of the block."""
    lines = ["row = start", "while row < stop:"]
    for number, tall in enumerate(_TALL[stride]):
        lines += [f"    {'if' if number == 0 else 'elif'} row + {tall} <= stop:"]
        lines += _indented(_pointers(kernel, stride, tall), 8)
        if masked:
            lines += _indented(_body(kernel, stride, tall, True), 8)
        else:
            lines += ["        for column in range(inner_first, inner_last, LANES):"]
            lines += _indented(_body(kernel, stride, tall, False), 12)
        lines += [f"        row += {tall}"]
    return lines


def source(kernel: int, stride: int) -> str:
    weights = [f"w{t} = broadcast(w_here, {t // 3} * w_h + {t % 3} * w_w)" for t in range(9)] if kernel == 3 else []
    newline = "\n"
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
    places = int64_pointer(scratch + thread * scratch_bytes)
    zeros = pointer(address(shift(places, rows)))
    for i in range(0, size_w, LANES):
        store_first(zeros, i, zero(), size_w - i)
    for i in range(rows):
        places[i] = (i - before_h) * x_h
    element = address(shift(zeros, 1)) - address(zeros)
    tasks = batch * filters * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block, plane = task % blocks, task // blocks
        n, k = plane // filters, plane % filters
        start, stop = block * block_rows, min((block + 1) * block_rows, outputs_h)
        x_here = shift(pointer(x), n * x_n + k // multiplier * x_c)
        y_here = shift(pointer(y), plane * outputs_h * outputs_w)
        w_here = shift(pointer(w), k * w_k)
        padding = (address(zeros) - address(x_here)) // element
        for i in range(min(before_h, rows)):
            places[i] = padding
        for i in range(max(before_h + size_h, 0), rows):
            places[i] = padding
        b = zero()
        if bias != 0:
            b = broadcast(pointer(bias), k)
{newline.join(_indented(weights, 8))}
        for edge in range(edges):
            column = edge * LANES
            if column >= inner_first:
                column += inner_last - inner_first
{newline.join(_indented(_rows(kernel, stride, True), 12))}
{newline.join(_indented(_rows(kernel, stride, False), 8))}
    if streamed != 0:
        fence()
"""


def kernel(size: int, stride: int, dtype: str) -> Kernel:
    """A row of the list: (size, stride) is one of SERVED."""
    return Kernel(f"depthwise_rows-{dtype}-{size}-s{stride}", dtype, lambda: source(size, stride), lambda: "")


def every(dtype: str) -> list[Kernel]:
    return [kernel(size, stride, dtype) for size, stride in SERVED]
