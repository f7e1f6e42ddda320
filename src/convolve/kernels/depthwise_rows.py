"""Depthwise convolution channels first, one filter for each result: small square windows, read in place.

Idea. There is nothing to share but rows: TALL results below one another read (TALL - 1) stride + window input rows, and each loaded
vector is multiplied by every tap of its column that meets one of them. The vectors come from the input itself, at any address: lanes
beyond the sides of the map are masked, which makes them the zeros of the padding, and rows beyond it are one row of zeros. So nothing is
copied first, which for a small window costs as much as the sums.

Vectors that touch a side ("edges") pass before the others, column by column, so that their masks are computed once in a block of rows. At
stride 2 two vectors are split into the columns of even and odd taps.

The weight gradient is the same loop inside out: the sums of all taps stay in registers, a vector of lanes each, while the map passes.

The input gradient at stride 2 is made in squares of two by two inputs: inputs of even and of odd places meet different taps of a few
neighbouring gradients, and their vectors are interleaved as they are written.

Traffic. The input is read once (its rows again from the L1 cache), the result written once. In the padding, too, 0 x Inf is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import HEADER, PREAMBLE
from convolve.kernels.scratch import unpack

# All int64. Strides, sizes and offsets count elements; those of the weight may be negative: it is then read backwards.
_MAP = (
    "scratch_bytes", "rows",  # of each thread; input rows that are met, padding included
    "batch", "filters", "multiplier",  # filters for each channel
    "x_n", "x_c", "x_h", "size_h", "size_w", "outputs_h", "outputs_w", "before_h", "before_w",
    "block_rows", "blocks",
    "edges", "inner_first", "inner_last",  # vectors of outputs that touch a side; the columns between
)  # fmt: skip
ARGUMENTS = (
    "x", "w", "bias", "y", "scratch",  # addresses; bias may be 0
    *_MAP,
    "w_k", "w_h", "w_w",
    "streamed",  # 1: the vectors between are written past the caches
)  # fmt: skip
WEIGHT_ARGUMENTS = (
    "x", "g", "sums", "scratch",
    *_MAP,
    "g_n", "g_k", "g_h",
    "shares",  # of the images and blocks, with sums of their own
    "group",  # filters that pass together, so that what follows in memory follows in time
)  # fmt: skip

SERVED = ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))  # sizes of the square window, and its strides
SPREAD = (3, 5)  # the windows whose input gradients at stride 2 have kernels
WEIGHT = 3  # the window whose weight gradients have kernels

_GROUPS = {
    1: ((0,), (1,), (2,)),
    2: ((1, 2), (0,)),
}  # of three taps; with a padding of 1, the pair often begins at a cache line
_TALL = {1: (4, 2, 1), 2: (2, 1)}  # by the stride: more would not stay in registers


def _indented(lines: Sequence[str], indent: int) -> list[str]:
    return [" " * indent + line for line in lines]


def _text(lines: Sequence[str], indent: int) -> str:
    return "\n".join(_indented(lines, indent))


# Where each input row begins, counted from the map's first number: rows beyond the map are a row of zeros.
_LISTS = """
    places = int64_pointer(scratch + thread * scratch_bytes)
    zeros = pointer(address(shift(places, rows)))
    for i in range(0, size_w, LANES):
        store_first(zeros, i, zero(), size_w - i)
    for i in range(rows):
        places[i] = (i - before_h) * x_h
    element = address(shift(zeros, 1)) - address(zeros)
"""
_PADDED_ROWS = [
    "padding = (address(zeros) - address(x_here)) // element",
    "for i in range(min(before_h, rows)):",
    "    places[i] = padding",
    "for i in range(max(before_h + size_h, 0), rows):",
    "    places[i] = padding",
]

Body = Callable[[int, bool], list[str]]
"""What happens at `column` for so many rows of outputs from `row` on; whether the vectors touch a side."""


def _passes(
    body: Body, talls: Sequence[int], stride: int, size: int, output: str, step: str, ahead: bool = False
) -> list[str]:
    """The edges, then the vectors between, from row `start` to `stop`.

    r0, r1, … are the input rows that the outputs from `row` on meet, `size` of them the first; o0, o1, … the rows of outputs.
    `ahead`: where the result is streamed, maps are large, and the rows that are met next may be far away in memory.
    """

    def rows(masked: bool) -> list[str]:
        lines = ["row = start", "while row < stop:"]
        for number, tall in enumerate(talls):
            lines += [f"    {'if' if number == 0 else 'elif'} row + {tall} <= stop:"]
            reach = (tall - 1) * stride + size
            found = [f"r{i} = shift(x_here, places[row * {stride} + {i}])" for i in range(reach)]
            found += [f"o0 = shift({output}, row * {step})"]
            found += [f"o{i} = shift(o{i - 1}, {step})" for i in range(1, tall)]
            inner = [] if masked else ["for column in range(inner_first, inner_last, LANES):"]
            if ahead and not masked:
                found += [f"next = shift(r{reach - 1}, x_h - before_w)"]
                inner += ["    if streamed != 0:"]
                inner += [f"        prefetch(next, column + {i} * x_h)" for i in range(tall)]
            lines += _indented([*found, *inner, *_indented(body(tall, masked), 0 if masked else 4)], 8)
            lines += [f"        row += {tall}"]
        return lines

    lines = ["for edge in range(edges):", "    column = edge * LANES", "    if column >= inner_first:"]
    return [*lines, "        column += inner_last - inner_first", *_indented(rows(True), 4), *rows(False)]


def _loaded(row: str, at: str, stride: int, masked: bool, names: list[str], end: str = "size_w") -> list[str]:
    """The inputs of one or (at stride 2) two neighbouring taps; `masked`: those from place 0 to `end`."""

    def vector(at: str) -> str:
        return f"load_between({row}, {at}, -({at}), {end} - ({at}))" if masked else f"load({row}, {at})"

    if stride == 1:
        return [f"{names[0]} = {vector(at)}"]
    split = zip(names, ("evens", "odds"), strict=False)
    return [f"u, v = {vector(at)}, {vector(f'{at} + LANES')}", *(f"{name} = {part}(u, v)" for name, part in split)]


def _weights(kernel: int) -> list[str]:
    return [f"w{t} = broadcast(w_here, {t // kernel} * w_h + {t % kernel} * w_w)" for t in range(kernel**2)]


def _small(kernel: int, stride: int, tall: int, masked: bool) -> list[str]:
    """The sums of a window whose weights stay in registers, row by row."""
    lines = [f"at = {stride} * column - before_w", *(f"s{o} = b" for o in range(tall))]
    for i in range((tall - 1) * stride + kernel):
        for taps in _GROUPS[stride]:
            lines += _loaded(f"r{i}", f"(at + {taps[0]})", stride, masked, [f"x{s}" for s in taps])
        for o in range(tall):
            r = i - o * stride
            if 0 <= r < kernel:
                lines += [f"s{o} = fma(w{r * kernel + s}, x{s}, s{o})" for s in range(kernel)]
    return lines


def _large(kernel: int, stride: int, tall: int, masked: bool) -> list[str]:
    """The sums of a larger window, column by column of its taps: two columns at stride 2, and the last one alone."""

    def columns(count: int) -> list[str]:
        names = ["e", "d"][:count]
        lines = [
            f"w{r}{e} = broadcast(w_at, {r} * w_h + {t} * w_w)" for r in range(kernel) for t, e in enumerate(names)
        ]
        for i in range((tall - 1) * stride + kernel):
            lines += _loaded(f"r{i}", "at", stride, masked, names)
            met_rows = [(o, i - o * stride) for o in range(tall) if 0 <= i - o * stride < kernel]
            lines += [f"s{o} = fma(w{r}{e}, {e}, s{o})" for e in names for o, r in met_rows]
        return lines

    lines = [f"at, w_at = {stride} * column - before_w, w_here", *(f"s{o} = b" for o in range(tall))]
    lines += [f"for s in range({kernel // stride}):", *_indented(columns(stride), 4)]
    lines += [f"    at, w_at = at + {stride}, shift(w_at, {stride} * w_w)"]
    return lines + (columns(1) if kernel % stride else [])


def source(kernel: int, stride: int) -> str:
    """Outputs; and input gradients at stride 1, which are outputs of the window turned around."""

    def body(tall: int, masked: bool) -> list[str]:
        lines = (_small if kernel == 3 else _large)(kernel, stride, tall, masked)
        if masked:
            return [*lines, *(f"store_first(o{o}, column, s{o}, outputs_w - column)" for o in range(tall))]
        lines += ["if streamed != 0:", *(f"    stream(o{o}, column, s{o})" for o in range(tall))]
        return [*lines, "else:", *(f"    store(o{o}, column, s{o})" for o in range(tall))]

    passes = _passes(body, _TALL[stride], stride, kernel, "y_here", "outputs_w", ahead=stride == 1)
    return _by_planes(_weights(kernel) if kernel == 3 else [], passes, "outputs_h")


def _by_planes(weights: list[str], passes: list[str], stop: str) -> str:
    """A kernel whose results are maps of their own, in blocks of rows."""
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(ARGUMENTS, "arguments", HEADER, 4)}
{_LISTS}
    tasks = batch * filters * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        block, plane = task % blocks, task // blocks
        n, k = plane // filters, plane % filters
        start, stop = block * block_rows, min((block + 1) * block_rows, {stop})
        x_here = shift(pointer(x), n * x_n + k // multiplier * x_c)
        y_here = shift(pointer(y), plane * outputs_h * outputs_w)
        w_here = shift(pointer(w), k * w_k)
{_text(_PADDED_ROWS, 8)}
        b = zero()
        if bias != 0:
            b = broadcast(pointer(bias), k)
{_text(weights, 8)}
{_text(passes, 8)}
    if streamed != 0:
        fence()
"""


Meeting = dict[int, list[tuple[int, int]]]


def met(kernel: int) -> tuple[int, Meeting]:
    """Along one axis at stride 2, for a padding of 0 or 1: the first gradient that inputs 0 and 1 meet; and for each of the two, the taps
    that it meets, with the places of their gradients counted from there."""
    odd = kernel // 2 % 2
    both = {a: [(t, (a + odd - t) // 2) for t in range(kernel) if (a + odd - t) % 2 == 0] for a in (0, 1)}
    first = min(place for pairs in both.values() for _, place in pairs)
    return first, {a: [(t, place - first) for t, place in pairs] for a, pairs in both.items()}


def reach(kernel: int) -> int:
    """How many neighbouring gradients two neighbouring inputs meet."""
    return 1 + max(place for pairs in met(kernel)[1].values() for _, place in pairs)


def spread_source(kernel: int) -> str:
    """Input gradients at stride 2: `outputs` are the inputs' gradients, in pairs along both axes."""
    size, (_, pairs) = reach(kernel), met(kernel)

    def body(tall: int, masked: bool) -> list[str]:
        squares = [(o, a, b) for o in range(tall) for a in (0, 1) for b in (0, 1)]
        lines = ["at = column - before_w", *(f"s{o}{a}{b} = b" for o, a, b in squares)]
        for i in range(tall - 1 + size):
            for j in range(size):
                lines += _loaded(f"r{i}", f"(at + {j})", 1, masked, [f"x{j}"])
            for o, a, b in squares:
                taps = [(r * kernel + s, j) for r, place in pairs[a] if o + place == i for s, j in pairs[b]]
                lines += [f"s{o}{a}{b} = fma(w{t}, x{j}, s{o}{a}{b})" for t, j in taps]
        for o in range(tall):
            for a in (0, 1):
                lines += [f"if 2 * (row + {o}) + {a} < outputs_h:"]
                for i, half in enumerate(("zip_first", "zip_last")):
                    there = f"o{o}, {a} * outputs_w + 2 * column + {i} * LANES, {half}(s{o}{a}0, s{o}{a}1)"
                    rest = f"outputs_w - 2 * column - {i} * LANES"
                    lines += [f"    store_first({there}, {rest})" if masked else f"    store({there})"]
        return lines

    passes = _passes(body, (2, 1) if kernel == 3 else (1,), 1, size, "y_here", "(2 * outputs_w)")
    return _by_planes(_weights(kernel), passes, "(outputs_h + 1) // 2")


def weight_source(stride: int) -> str:
    """The weight gradient: sums [share][filter][tap]."""
    sums = [(r, s) for r in range(WEIGHT) for s in range(WEIGHT)]
    size = len(sums)

    def body(tall: int, masked: bool) -> list[str]:
        lines = [f"at = {stride} * column - before_w"]
        load = "load_first(o{o}, column, outputs_w - column)" if masked else "load(o{o}, column)"
        lines += [f"g{o} = {load.format(o=o)}" for o in range(tall)]
        for i in range((tall - 1) * stride + WEIGHT):
            for taps in _GROUPS[stride]:
                names = [f"x{s}" for s in taps]
                lines += _loaded(f"r{i}", f"(at + {taps[0]})", stride, masked, names, f"end{taps[0]}")
            for o in range(tall):
                r = i - o * stride
                if 0 <= r < WEIGHT:
                    lines += [f"s{r}{s} = fma(g{o}, x{s}, s{r}{s})" for s in range(WEIGHT)]
        return lines

    passes = _passes(body, _TALL[stride], stride, WEIGHT, "g_here", "g_h")
    ends = [f"end{taps[0]} = min(size_w, {stride} * outputs_w - before_w + {taps[0]})" for taps in _GROUPS[stride]]
    loads = [f"s{r}{s} = load(lanes_here, {t} * LANES)" for t, (r, s) in enumerate(sums)]
    stores = [f"store(lanes_here, {t} * LANES, s{r}{s})" for t, (r, s) in enumerate(sums)]
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpack(WEIGHT_ARGUMENTS, "arguments", HEADER, 4)}
{_LISTS}
    # Beyond the last gradient no input may be either: 0 x Inf would be NaN.
{_text(ends, 4)}
    all_lanes = pointer(address(shift(places, rows)) + size_w * element)
    tasks = (filters + group - 1) // group * shares
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        share, first_k = task % shares, task // shares * group
        last_k = min(first_k + group, filters)
        for i in range(0, (last_k - first_k) * {size} * LANES, LANES):
            store(all_lanes, i, zero())
        items = batch * blocks
        for item in range(share * items // shares, (share + 1) * items // shares):
            block, n = item % blocks, item // blocks
            start, stop = block * block_rows, min((block + 1) * block_rows, outputs_h)
            for k in range(first_k, last_k):
                x_here = shift(pointer(x), n * x_n + k // multiplier * x_c)
                g_here = shift(pointer(g), n * g_n + k * g_k)
                lanes_here = shift(all_lanes, (k - first_k) * {size} * LANES)
{_text(_PADDED_ROWS, 16)}
{_text(loads, 16)}
{_text(passes, 16)}
{_text(stores, 16)}
        for k in range(first_k, last_k):
            to = shift(pointer(sums), (share * filters + k) * {size})
            for t in range({size}):
                to[t] = total(load(all_lanes, ((k - first_k) * {size} + t) * LANES))
"""


def kernel(size: int, stride: int, dtype: str) -> Kernel:
    """A row of the list: (size, stride) is one of SERVED."""
    return Kernel(f"depthwise_rows-{dtype}-{size}-s{stride}", dtype, lambda: source(size, stride), lambda: "")


def spread(size: int, dtype: str) -> Kernel:
    """A row of the list: `size` is one of SPREAD."""
    return Kernel(f"depthwise_rows_spread-{dtype}-{size}", dtype, lambda: spread_source(size), lambda: "")


def weight(stride: int, dtype: str) -> Kernel:
    """A row of the list: the window WEIGHT at a stride of 1 or 2."""
    return Kernel(f"depthwise_rows_weight-{dtype}-s{stride}", dtype, lambda: weight_source(stride), lambda: "")


def every(dtype: str) -> list[Kernel]:
    found = [kernel(size, stride, dtype) for size, stride in SERVED] + [spread(size, dtype) for size in SPREAD]
    return found + [weight(stride, dtype) for size, stride in SERVED if size == WEIGHT]
