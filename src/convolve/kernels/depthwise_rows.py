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

WEIGHT_ARGUMENTS = (
    "x", "g", "sums", "scratch",
    "scratch_bytes", "rows",
    "batch", "filters", "multiplier",
    "x_n", "x_c", "x_h", "size_h", "size_w", "g_n", "g_k", "g_h", "outputs_h", "outputs_w", "before_h", "before_w",
    "block_rows", "blocks",
    "shares",  # of the images and blocks, with sums of their own
    "group",  # filters that pass together, so that what follows in memory follows in time
    "edges", "inner_first", "inner_last",
)  # fmt: skip

SERVED = ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))  # sizes of the square window, and its strides
WEIGHT = 3  # the window whose weight gradients have kernels: its nine sums stay in registers
_TALL = {1: (4, 2, 1), 2: (2, 1)}


def _indented(lines: list[str], indent: int) -> list[str]:
    return [" " * indent + line for line in lines]


# Where each input row begins, counted from the map's first number: those beyond the map in the row of zeros.
_LISTS = """
    places = int64_pointer(scratch + thread * scratch_bytes)
    zeros = pointer(address(shift(places, rows)))
    for i in range(0, size_w, LANES):
        store_first(zeros, i, zero(), size_w - i)
    for i in range(rows):
        places[i] = (i - before_h) * x_h
    element = address(shift(zeros, 1)) - address(zeros)
"""
_PADDED_ROWS = """
{indent}padding = (address(zeros) - address(x_here)) // element
{indent}for i in range(min(before_h, rows)):
{indent}    places[i] = padding
{indent}for i in range(max(before_h + size_h, 0), rows):
{indent}    places[i] = padding
"""


def _pointers(kernel: int, stride: int, tall: int, outputs: str = "y_here", step: str = "outputs_w") -> list[str]:
    """r0, r1, …: the input rows that `tall` rows of outputs from `row` on meet; o0, o1, …: those of outputs."""
    lines = [f"r{i} = shift(x_here, places[row * {stride} + {i}])" for i in range((tall - 1) * stride + kernel)]
    lines += [f"o0 = shift({outputs}, row * {step})"]
    return lines + [f"o{i} = shift(o{i - 1}, {step})" for i in range(1, tall)]


def _loaded(i: int, at: str, stride: int, masked: bool, names: list[str], stop: str = "size_w") -> list[str]:
    """The inputs of one or (at stride 2) two neighbouring taps; `masked`: those from place 0 to `stop`."""

    def vector(at: str) -> str:
        return f"load_between(r{i}, {at}, -({at}), {stop} - ({at}))" if masked else f"load(r{i}, {at})"

    if stride == 1:
        return [f"{names[0]} = {vector(at)}"]
    split = zip(names, ("evens", "odds"), strict=False)
    return [f"u, v = {vector(at)}, {vector(f'{at} + LANES')}", *(f"{name} = {part}(u, v)" for name, part in split)]


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
{_LISTS}
    tasks = batch * filters * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block, plane = task % blocks, task // blocks
        n, k = plane // filters, plane % filters
        start, stop = block * block_rows, min((block + 1) * block_rows, outputs_h)
        x_here = shift(pointer(x), n * x_n + k // multiplier * x_c)
        y_here = shift(pointer(y), plane * outputs_h * outputs_w)
        w_here = shift(pointer(w), k * w_k)
{_PADDED_ROWS.format(indent=" " * 8)}
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


def _weight_body(stride: int, tall: int, masked: bool) -> list[str]:
    """What `tall` vectors of gradients below one another, at `column`, add to the sums of all taps."""
    lines = [f"at = {stride} * column - before_w"]
    if masked:
        lines += [f"g{o} = load_first(o{o}, column, outputs_w - column)" for o in range(tall)]
    else:
        lines += [f"g{o} = load(o{o}, column)" for o in range(tall)]
    for i in range((tall - 1) * stride + WEIGHT):
        for s in range(0, WEIGHT, stride):
            names = [f"x{s + t}" for t in range(min(stride, WEIGHT - s))]
            # Where there is no gradient no input may be either: 0 x Inf would be NaN.
            end = f"min(size_w, at + {s} + {stride} * (outputs_w - column))"
            lines += _loaded(i, f"(at + {s})", stride, masked, names, end)
        for o in range(tall):
            r = i - o * stride
            if 0 <= r < WEIGHT:
                lines += [f"s{r}_{s} = fma(g{o}, x{s}, s{r}_{s})" for s in range(WEIGHT)]
    return lines


def weight_source(stride: int) -> str:
    """The weight gradient of a 3 x 3 window: sums [share][filter][tap]."""
    sums = [f"s{r}_{s}" for r in range(WEIGHT) for s in range(WEIGHT)]
    newline = "\n"

    def rows(masked: bool) -> list[str]:
        lines = ["row = start", "while row < stop_row:"]
        for number, tall in enumerate(_TALL[stride]):
            lines += [f"    {'if' if number == 0 else 'elif'} row + {tall} <= stop_row:"]
            lines += _indented(_pointers(WEIGHT, stride, tall, "g_here", "g_h"), 8)
            if masked:
                lines += _indented(_weight_body(stride, tall, True), 8)
            else:
                lines += ["        for column in range(inner_first, inner_last, LANES):"]
                lines += _indented(_weight_body(stride, tall, False), 12)
            lines += [f"        row += {tall}"]
        return lines

    loads = [f"{name} = load(lanes_here, {t} * LANES)" for t, name in enumerate(sums)]
    stores = [f"store(lanes_here, {t} * LANES, {name})" for t, name in enumerate(sums)]
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(WEIGHT_ARGUMENTS, "arguments", HEADER, 4)}
{_LISTS}
    all_lanes = pointer(address(shift(places, rows)) + size_w * element)
    tasks = (filters + group - 1) // group * shares
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        share, first_k = task % shares, task // shares * group
        last_k = min(first_k + group, filters)
        for i in range(0, (last_k - first_k) * {len(sums)} * LANES, LANES):
            store(all_lanes, i, zero())
        items = batch * blocks
        for item in range(share * items // shares, (share + 1) * items // shares):
            block, n = item % blocks, item // blocks
            start, stop_row = block * block_rows, min((block + 1) * block_rows, outputs_h)
            for k in range(first_k, last_k):
                x_here = shift(pointer(x), n * x_n + k // multiplier * x_c)
                g_here = shift(pointer(g), n * g_n + k * g_k)
                lanes_here = shift(all_lanes, (k - first_k) * {len(sums)} * LANES)
{_PADDED_ROWS.format(indent=" " * 16)}
{newline.join(_indented(loads, 16))}
                for edge in range(edges):
                    column = edge * LANES
                    if column >= inner_first:
                        column += inner_last - inner_first
{newline.join(_indented(rows(True), 20))}
{newline.join(_indented(rows(False), 16))}
{newline.join(_indented(stores, 16))}
        for k in range(first_k, last_k):
            to = shift(pointer(sums), (share * filters + k) * {len(sums)})
            for t in range({len(sums)}):
                to[t] = total(load(all_lanes, ((k - first_k) * {len(sums)} + t) * LANES))
"""


def kernel(size: int, stride: int, dtype: str) -> Kernel:
    """A row of the list: (size, stride) is one of SERVED."""
    return Kernel(f"depthwise_rows-{dtype}-{size}-s{stride}", dtype, lambda: source(size, stride), lambda: "")


def weight(stride: int, dtype: str) -> Kernel:
    """A row of the list: the weight gradient of the window WEIGHT, at a stride of 1 or 2."""
    return Kernel(f"depthwise_rows_weight-{dtype}-s{stride}", dtype, lambda: weight_source(stride), lambda: "")


def every(dtype: str) -> list[Kernel]:
    found = [weight(stride, dtype) for size, stride in SERVED if size == WEIGHT]
    return found + [kernel(size, stride, dtype) for size, stride in SERVED]
