"""Winograd's minimal filtering F(m x m, r x r) in blocks of tiles that stay in the caches; channels are the lanes of a vector.

Idea. A tile of (m + r - 1)^2 inputs gives m x m outputs; the transforms turn its convolution into one product per element, so
that, over all tiles, channels and filters, element e is one matrix product M[e] = V[e] U[e] (ops/algorithms/winograd.py):

    weights    U[panel][e][c][a panel of filters] = G w G^T         once per call, or kept by the caller
    forward    V[e][block of c][tile][lane of c]  = B^T x B         for a block of tiles
    products   M[e][tile][a panel of filters]                        RxP vectors in registers: kernel `product`
    inverse    y = A^T M A + bias                                    straight into the result

Every thread takes blocks of tiles through the last three steps, so V and M are its own and never leave its caches: kernel `driver`
calls the other three. Transforms go along the columns of a run of tiles first, which neighbours share, and then along the rows.
Maps whose channels do not lie side by side are transposed in registers on the way in and out, LANES x LANES at a time.

A stride of 2 goes by phases. Of a convolution, `down`: every second input, from the first or the second on, along both axes, are four
maps, and their sums one convolution of stride 1 over four times the channels, with half the taps. Of a transposed one, `up`: every
second result is a convolution of its own, so that it is one of stride 1 with four times the filters, whose results interleave; the
two vectors of a panel are the even and the odd columns of the same filters, and meet in a strip before they are written. No map is
rearranged beforehand or afterwards; but for few channels, and larger strides, kernels/dense_phases.py does.

Traffic per tile and vector of channels, F(4): 16 new inputs read, 36 vectors of V written, and read once per panel; 36 of M
written and read; the products do 36 multiply-adds of vectors per filter of a vector. A vector of U is read once per block of tiles.

From one element to the next, V, M and U are a line longer than they need to be: with a power of two between them, the elements of a
tile would all fall into one set of the cache.

The transforms are generated from the exact matrices. Rows at the points +a and -a have the same even and opposite odd
parts, columns likewise, so that B^T of F(4) takes 12 instructions and A^T 13.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from fractions import Fraction

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import machine
from convolve.kernels.minimal_filtering import TAPS, Matrix, matrices
from convolve.kernels.preamble import HEADER, PREAMBLE

TILES = (4, 6)
"""Inputs of a tile along an axis."""
STRIDES = (1, 2)

VECTORS = 2
"""Vectors of filters in a panel."""

# Rows (tiles) of the products' register tile: rows x VECTORS sums, VECTORS weights and one input fit the registers.
ROWS = {
    "avx512": (14, 13, 12, 11, 10, 9, 8, 7, 6, 4, 2, 1),
    "avx2": (6, 5, 4, 3, 2, 1),
    "neon": (14, 13, 12, 11, 10, 9, 8, 7, 6, 4, 2, 1),
    "other": (6, 5, 4, 3, 2, 1),
}

# The place of a phase of the inputs among the products of a sum: those of even rows are neighbours, and those of even columns. Where
# the kernel has an odd number of taps, only they have the last one, and at the point at infinity the other phases are zeros.
PART = "part = 0 if {phases} == 1 else 3 * phase_w if phase_h > 0 else 1 + phase_w"

# What each kernel is told, in this order (all int64). Strides, sizes and offsets count elements; c and k are those of one group.
ARGUMENTS = (
    "x", "u", "bias", "y", "flags", "scratch",  # addresses; bias may be 0; flags: of each thread, 0 or NaN
    "forward", "product", "inverse",  # addresses of kernels
    "tile",  # inputs along an axis
    "outputs", "run_length",  # of a tile along an axis; how many neighbours are transformed at once
    "thread_size",  # of each thread's scratch
    "batch", "groups", "channels", "filters",
    "depth", "panels",  # products in a sum; panels of filters: with all phases
    "x_n", "x_c", "x_h", "x_w", "size_h", "size_w", "before_h", "before_w",
    "y_n", "y_k", "y_h", "y_w", "out_h", "out_w",
    "down", "up",  # phases along an axis, of inputs and of results
    "odd_h", "odd_w",  # 1: the second phase of the inputs lacks a tap, the last
    "skip_h", "skip_w",  # results of the first position that there are not: they belong to its first phases
    "tile_rows", "tile_columns",  # tiles of a map
    "tiles", "rows",  # tiles of a block, of the products' register tile
    "parts",  # shares of the filters
    "v_element", "m_element",  # from one element to the next
)  # fmt: skip
# What the driver tells both transforms, behind its own arguments: addresses, and which tiles and panel.
BLOCK = ("v", "m", "temp", "finite", "first_tile", "count", "group", "panel")
WEIGHTS_ARGUMENTS = (
    "w", "u", "scratch", "thread_size", "groups", "channels", "filters",
    "w_g", "w_k", "w_c", "w_r", "w_s", "kernel_h", "kernel_w",
    "flipped",  # 1: the kernel is turned around
    "depth", "panels",  # as above
    "vectors",  # of filters, without phases
    "phases", "phase_h_step", "phase_w_step",  # along an axis; from one of the results to the next in u
    "channel_step",  # from one channel to the next
    "part_step",  # from one of the inputs to the next, where they are parts of the channels
    "vector_step",  # from one vector of filters to the next, in vectors of panels
)  # fmt: skip
PRODUCT_ARGUMENTS = ("v", "u", "m", "channels", "v_block", "passes")

SHARED = """
def gather(x, lane_step, column_step, lanes, columns, y):
    if lane_step == 1 and lanes == LANES:
        for i in range(columns):
            store(y, i * LANES, load(x, i * column_step))
    elif lane_step == 1:
        for i in range(columns):
            store(y, i * LANES, load_first(x, i * column_step, lanes))
    elif column_step == 1:
        i = 0
        while i < columns:
            if lanes == LANES and columns - i >= LANES:
                transpose(shift(x, i), lane_step, shift(y, i * LANES), LANES)
            else:
                transpose_first(shift(x, i), lane_step, lanes, columns - i, shift(y, i * LANES), LANES, LANES)
            i += LANES
    else:
        for i in range(columns):
            store(y, i * LANES, zero())
            for lane in range(lanes):
                y[i * LANES + lane] = x[lane * lane_step + i * column_step]

def scatter(x, lanes, columns, y, lane_step):
    i = 0
    while i < columns:
        if lanes == LANES and columns - i >= LANES:
            transpose(shift(x, i * LANES), LANES, shift(y, i), lane_step)
        else:
            transpose_first(shift(x, i * LANES), LANES, columns - i, lanes, shift(y, i), lane_step, columns - i)
        i += LANES

def clear(x, columns):
    for i in range(columns):
        store(x, i * LANES, zero())
"""


_TOLD = 2 * (HEADER + len(ARGUMENTS) + len(BLOCK) + len(PRODUCT_ARGUMENTS) + HEADER)
"""Elements that hold the arguments of a transform and of a product, of whatever dtype."""


def run_length(m: int, taps: int, lanes: int) -> int:
    """How many neighbouring tiles are transformed at once: their columns are two transposed squares, or one tile where that is more."""
    return max(1, (2 * lanes - taps + 1) // m)


def scratch_elements(tile: int, lanes: int) -> int:
    """Of a thread, besides V and M: two strips of a run, one of them with its phases, two vectors, and what other kernels are told."""
    return (1 + STRIDES[-1]) * tile * _pitch(lanes) + 2 * lanes + 2 * _TOLD


def _pitch(lanes: int) -> int:
    """Elements of one row of a strip, of one phase; odd in lines."""
    return (max(2 * lanes, TILES[-1]) + 1) * lanes


def weights_scratch(tile: int, kernel: int, lanes: int) -> int:
    """Of a thread, to transform the weights: `kernel` taps of a square of channels and filters, a kernel on its way, and zeros."""
    return (kernel * lanes + tile * TAPS[tile][-1] + 1) * lanes


def driver_source() -> str:
    """The kernel that takes a thread's blocks of tiles from x to y."""
    places = {name: HEADER + i for i, name in enumerate((*ARGUMENTS, *BLOCK))}
    product = {name: HEADER + i for i, name in enumerate(PRODUCT_ARGUMENTS)}
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpacked(ARGUMENTS)}
    elements, part_depth = tile * tile, depth // (down * down)
    v = shift(pointer(scratch), thread * thread_size)
    m = shift(v, elements * v_element)
    finite = shift(m, elements * m_element)
    block = int64_pointer(address(shift(finite, LANES)))
    told = shift(block, {len(places) + HEADER})
    temp = shift(finite, LANES + {_TOLD})
    store(finite, 0, zero())
    for i in range({HEADER}, {HEADER + len(ARGUMENTS)}):
        block[i] = arguments[i]
    block[{places["v"]}], block[{places["m"]}] = address(v), address(m)
    block[{places["temp"]}], block[{places["finite"]}] = address(temp), address(finite)
    told[{product["v_block"]}] = tiles * LANES
    u_element = (depth * {VECTORS} + 1) * LANES
    all_tiles = batch * tile_rows * tile_columns
    blocks = (all_tiles + tiles - 1) // tiles
    tasks = groups * parts * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        first_tile, rest = task % blocks * tiles, task // blocks
        part, g = rest % parts, rest // parts
        count = min(tiles, all_tiles - first_tile)
        block[{places["first_tile"]}], block[{places["count"]}], block[{places["group"]}] = first_tile, count, g
        told[{product["passes"]}] = (count + rows - 1) // rows
        call(forward, block)
        for panel in range(part * panels // parts, (part + 1) * panels // parts):
            for e in range(elements):
                begin, end = 0, down * down  # of the phases, in the order of `PART`
                if odd_h > 0 and e >= elements - tile:
                    begin, end = 1, 3
                if odd_w > 0 and e % tile == tile - 1:
                    end = 2
                here = ((g * panels + panel) * elements + e) * u_element + begin * part_depth * {VECTORS} * LANES
                told[{product["channels"]}] = (end - begin) * part_depth
                told[{product["v"]}] = address(shift(v, e * v_element + begin * part_depth * tiles))
                told[{product["u"]}] = address(shift(pointer(u), here))
                told[{product["m"]}] = address(shift(m, e * m_element))
                call(product, told)
            block[{places["panel"]}] = panel
            call(inverse, block)
    pointer(flags)[thread] = total(load(finite, 0))
"""


def forward_source(matrix: Matrix, lanes: int) -> str:
    """The kernel that transforms a block of tiles, of as many inputs along an axis as the matrix has columns."""
    made, n = len(matrix), len(matrix[0])
    pitch = _pitch(lanes)
    wide = STRIDES[-1] * pitch
    transformed = transform(matrix, "i", "o", 20)
    kept = each(f"store(temp, # * {pitch} + (left + j) * LANES, o#)", made, 20)
    return f"""
def kernel(arguments):
{unpacked((*ARGUMENTS, *BLOCK))}
    v, temp = pointer(v), pointer(temp)
    strip = shift(temp, {made * pitch})
    zeros = shift(strip, {n * wide})
    store(zeros, 0, zero())
    blocks = (channels + LANES - 1) // LANES
    t = 0
    while t < count:
{_run(8)}
        columns = run * outputs + {n} - outputs
        for phase_h in range(down):
            first_h, first_w = down * row * outputs - before_h + phase_h, down * column * outputs - before_w
            begin = min(max(-first_w, 0), down * columns)
            end = max(min(size_w - first_w, down * columns), begin)
            corner = shift(pointer(x), n * x_n + group * channels * x_c + first_h * x_h + (first_w + begin) * x_w)
            for b in range(0, channels, LANES):
                lanes = min(LANES, channels - b)
                here = shift(corner, b * x_c)
{_rows(n, wide, 16)}
                for phase_w in range(down):
                    left = (begin - phase_w + down - 1) // down
                    right = (end - phase_w + down - 1) // down
                    for i in range({made}):
                        clear(shift(temp, i * {pitch}), left)
                        clear(shift(temp, i * {pitch} + right * LANES), columns - right)
                    first = down * left + phase_w - begin
{each("begin# = shift(row#, first * step#)", n, 20)}
{each("hop# = down * step#", n, 20)}
                    if x_c != 1 or lanes == LANES:
                        for j in range(right - left):
{each("i# = load(begin#, j * hop#)", n, 28)}
{_indented(transformed, 8)}
{_indented(kept, 8)}
                    else:
                        for j in range(right - left):
{each("i# = load_first(begin#, j * hop#, lanes)", n, 28)}
{_indented(transformed, 8)}
{_indented(kept, 8)}
                    {PART.format(phases="down")}
                    there = shift(v, (part * blocks * LANES + b) * tiles + t * LANES)
                    for i in range({made}):
                        for q in range(run):
                            place = shift(temp, i * {pitch} + q * outputs * LANES)
                            element = shift(there, {made} * i * v_element + q * LANES)
{each("i# = load(place, # * LANES)", n, 28)}
{_indented(transformed, 8)}
{each("store(element, # * v_element, o#)", made, 28)}
        t += run
"""


def inverse_source(m: int, taps: int, lanes: int) -> str:
    """The kernel that writes the results of a block of tiles and a panel, and notes whether all are finite."""
    n, pitch = m + taps - 1, _pitch(lanes)
    wide = STRIDES[-1] * pitch
    transformed = transform(matrices(m, taps)[0], "i", "o", 20)
    return f"""
def kernel(arguments):
{unpacked((*ARGUMENTS, *BLOCK))}
    m, temp = pointer(m), pointer(temp)
    strip = shift(temp, {n * pitch})
    good = load(pointer(finite), 0)
    hop_h, hop_w = up * y_h, up * y_w
    t = 0
    while t < count:
{_run(8)}
        first_h, first_w = up * row * {m} - skip_h, up * column * {m} - skip_w  # in the result, of phase 0
        for p in range({VECTORS}):
            k, phase_h, phase_w = (panel * {VECTORS} + p) * LANES, 0, 0
            if up > 1:
                k, phase_h, phase_w = panel // up * LANES, panel % up, p
            lanes = min(LANES, filters - k)
            if lanes <= 0:
                continue
            constant = zero()
            if bias != 0:
                constant = load_first(pointer(bias), group * filters + k, lanes)
            h, w = first_h + phase_h, first_w + phase_w
            top, left = 0, 0  # what lies before them is no result
            if h < 0:
                top = 1
            if w < 0:
                left = 1
            bottom = min({m}, (out_h - h + up - 1) // up)
            right = min(run * {m}, (out_w - w + up - 1) // up)
            results = shift(m, t * {VECTORS} * LANES + p * LANES)
            for q in range(run):
                for i in range({n}):
                    place = shift(results, {n} * i * m_element + q * {VECTORS} * LANES)
{each("i# = load(place, # * m_element)", n, 20)}
{transformed}
{each(f"store(temp, i * {pitch} + (q * {m} + #) * LANES, o#)", m, 20)}
            out = shift(pointer(y), n * y_n + (group * filters + k) * y_k + h * y_h + w * y_w)
            for j in range(left, right):
{each(f"i# = load(temp, # * {pitch} + j * LANES)", n, 16)}
{textwrap.indent(textwrap.dedent(transformed), " " * 16)}
{each("o# = add(o#, constant)", m, 16)}
{each("good = fma(o#, zero(), good)", m, 16)}
                if y_k != 1:
{each(f"store(strip, # * {wide} + (up * j + phase_w) * LANES, o#)", m, 20)}
                elif lanes == LANES:
{_guarded("store(out, # * hop_h + j * hop_w, o#)", m, 20)}
                else:
{_guarded("store_first(out, # * hop_h + j * hop_w, o#, lanes)", m, 20)}
            if y_k != 1 and (up == 1 or p == {VECTORS - 1}):
                begin, end = max(-first_w, 0), min(up * run * {m}, out_w - first_w)
                out = shift(out, (begin - phase_w) * y_w)
                for i in range(top, bottom):
                    scatter(shift(strip, i * {wide} + begin * LANES), lanes, end - begin, shift(out, i * hop_h), y_k)
        t += run
    store(pointer(finite), 0, good)
"""


def each(text: str, count: int, indent: int) -> str:
    """The line once for every number below `count`, in the place of #."""
    return "\n".join(" " * indent + text.replace("#", str(i)) for i in range(count))


def _indented(text: str, by: int) -> str:
    return textwrap.indent(text, " " * by)


def unpacked(names: Sequence[str]) -> str:
    return "\n".join(f"    {name} = arguments[{HEADER + i}]" for i, name in enumerate(names))


def _run(indent: int) -> str:
    """The run of tiles that begins at tile t of the block: where it lies."""
    lines = (
        "tile = first_tile + t",
        "column, rest = tile % tile_columns, tile // tile_columns",
        "row, n = rest % tile_rows, rest // tile_rows",
        "run = min(run_length, tile_columns - column, count - t)",
    )
    return "\n".join(" " * indent + line for line in lines)


def _rows(n: int, pitch: int, indent: int) -> str:
    """Where the input rows of a run and a phase are read, as row0, row1, … with their steps: in x, transposed in the strip, or zeros."""
    lines = []
    for i in range(n):
        lines += [
            f"row{i}, step{i} = shift(zeros, 0), 0",
            f"if 0 <= first_h + {i} * down and first_h + {i} * down < size_h:",
            f"    row{i}, step{i} = shift(here, {i} * down * x_h), x_w",
            "    if x_c != 1:",
            f"        gather(row{i}, x_c, x_w, lanes, end - begin, shift(strip, {i * pitch}))",
            f"        row{i}, step{i} = shift(strip, {i * pitch}), LANES",
        ]
    return "\n".join(" " * indent + line for line in lines)


def _guarded(text: str, m: int, indent: int) -> str:
    lines = [
        line for i in range(m) for line in (f"if top <= {i} and {i} < bottom:", "    " + text.replace("#", str(i)))
    ]
    return "\n".join(" " * indent + line for line in lines)


def weights_source(m: int, taps: int) -> str:
    """The kernel that transforms the weights into panels."""
    n = m + taps - 1
    kernel = transform(matrices(m, taps)[1], "i", "o", 24)
    loads = []
    for r in range(taps):
        loads += [
            f"here{r} = nothing",
            f"if whole_column and 0 <= top + {r} * turn and top + {r} * turn < kernel_h:",
            f"    here{r} = place + ((top + {r} * turn) * kernel_w + column) * tap_step",
            f"i{r} = load(strip, here{r})",
        ]
    loaded_taps = "\n".join(" " * 24 + line for line in loads)
    keeps = "\n".join(f"{' ' * 24}store(temp, ({i} * {taps} + s) * LANES, o{i})" for i in range(n))
    again = "\n".join(f"{' ' * 24}i{s} = load(temp, (i * {taps} + {s}) * LANES)" for s in range(taps))
    stores = "\n".join(f"{' ' * 24}store(to, ({n} * i + {j}) * u_element, o{j})" for j in range(n))
    return f"""
def kernel(arguments):
{PREAMBLE}
{unpacked(WEIGHTS_ARGUMENTS)}
    all_taps = kernel_h * kernel_w
    strip = shift(pointer(scratch), thread * thread_size)
    temp = shift(strip, all_taps * LANES * LANES)
    nothing = (all_taps * LANES + {n * taps}) * LANES
    store(strip, nothing, zero())
    blocks = (channels + LANES - 1) // LANES
    u_element = (depth * {VECTORS} + 1) * LANES
    turn = phases * (1 - 2 * flipped)
    # Taps side by side are transposed together, of one channel or of all; otherwise each tap for a block of channels.
    together = w_s == 1 and w_r == kernel_w
    tap_step, c_step = (LANES, all_taps * LANES) if together else (LANES * LANES, LANES)
    tasks = groups * vectors * blocks
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        b, rest = task % blocks, task // blocks
        vector, g = rest % vectors, rest // vectors
        k, some = vector * LANES, min(LANES, channels - b * LANES)
        lanes = max(0, min(LANES, filters - k))
        here = shift(pointer(w), g * w_g + k * w_k + b * LANES * w_c)
        if together and w_c == all_taps:
            gather(here, w_k, 1, lanes, all_taps * some, strip)
        elif together:
            for c in range(some):
                gather(shift(here, c * w_c), w_k, 1, lanes, all_taps, shift(strip, c * c_step))
        else:
            for r in range(kernel_h):
                for s in range(kernel_w):
                    there = shift(strip, (r * kernel_w + s) * tap_step)
                    gather(shift(here, r * w_r + s * w_s), w_k, w_c, lanes, some, there)
        first = vector * vector_step
        panel = (g * panels + first // {VECTORS}) * {n * n} * u_element + first % {VECTORS} * LANES
        last = LANES if part_step > 0 else some  # the channels of a phase are filled up with zeros to whole vectors
        for phase_h in range(phases):
            for phase_w in range(phases):
                top, left = phase_h + flipped * phases * {taps - 1}, phase_w + flipped * phases * {taps - 1}
                first_c = panel + phase_h * phase_h_step + phase_w * phase_w_step + b * LANES * channel_step
                if part_step > 0:
                    {PART.format(phases="phases")}
                    first_c += part * part_step
                for c in range(last):
                    to = shift(pointer(u), first_c + c * channel_step)
                    place = c * c_step
                    for s in range({taps}):
                        column = left + s * turn
                        whole_column = c < some and 0 <= column and column < kernel_w
{loaded_taps}
{kernel}
{keeps}
                    for i in range({n}):
{again}
{kernel}
{stores}
"""


def product_source(rows: int) -> str:
    """The kernel of one register tile: `passes` times `rows` rows of V times a panel of U into M, over all channels."""
    sums = [(i, j) for i in range(rows) for j in range(VECTORS)]
    start = "\n".join(f"        s{i}_{j} = zero()" for i, j in sums)
    panel = "\n".join(f"                w{j} = load(u_here, {j} * LANES)" for j in range(VECTORS))
    steps = []
    for i in range(rows):
        steps += [f"                x = broadcast(v_here, {i} * LANES + c)"]
        steps += [f"                s{i}_{j} = fma(x, w{j}, s{i}_{j})" for j in range(VECTORS)]
    keep = "\n".join(f"        store(m, ({i} * {VECTORS} + {j}) * LANES, s{i}_{j})" for i, j in sums)
    return f"""
def kernel(arguments):
{unpacked(PRODUCT_ARGUMENTS)}
    v, m = pointer(v), pointer(m)
    for one in range(passes):
        u_here, v_here = pointer(u), v
{start}
        for b in range(0, channels, LANES):
            some = channels - b  # min() would be a call, and save every register
            if some > LANES:
                some = LANES
            for c in range(some):
{panel}
{chr(10).join(steps)}
                u_here = shift(u_here, {VECTORS} * LANES)
            v_here = shift(v_here, v_block)
{keep}
        v, m = shift(v, {rows} * LANES), shift(m, {rows * VECTORS} * LANES)
"""


def transform(matrix: Matrix, before: str, after: str, indent: int) -> str:
    """Lines that compute after0, after1, … = matrix (before0, before1, …), sharing what the points +a and -a have in common."""
    lines: list[str] = []
    names = [f"{before}{i}" for i in range(len(matrix[0]))]
    columns = [list(column) for column in zip(*matrix, strict=True)]
    i = 0
    while i + 1 < len(columns):  # a x + b y and a x - b y from the sum and the difference of x and y
        one, two = columns[i], columns[i + 1]
        if all(abs(a) == abs(b) for a, b in zip(one, two, strict=True)) and one != two:
            x, y = names[i : i + 2]
            lines += [f"s{i} = add({x}, {y})", f"d{i} = sub({x}, {y})"]
            names[i : i + 2] = [f"s{i}", f"d{i}"]
            columns[i] = [a if a == b else Fraction(0) for a, b in zip(one, two, strict=True)]
            columns[i + 1] = [a if a != b else Fraction(0) for a, b in zip(one, two, strict=True)]
            i += 1
        i += 1
    rows = [list(row) for row in zip(*columns, strict=True)]
    i = 0
    while i < len(rows):
        pair = rows[i : i + 2]
        if len(pair) == 2 and pair[0] != pair[1] and all(abs(a) == abs(b) for a, b in zip(*pair, strict=True)):
            even = [a if a == b else Fraction(0) for a, b in zip(*pair, strict=True)]
            odd = [a if a != b else Fraction(0) for a, b in zip(*pair, strict=True)]
            factor = next(a for a in reversed(odd) if a != 0)
            first, e = _sum(even, names, "e")
            second, o = _sum([a / factor for a in odd], names, "h")
            lines += first + second
            lines += [f"{after}{i} = {_plus(e, factor, o)}", f"{after}{i + 1} = {_plus(e, -factor, o)}"]
            i += 2
        else:
            one_sum, name = _sum(rows[i], names, f"{after}{i}")
            lines += one_sum if one_sum else [f"{after}{i} = {name}"]
            i += 1
    return "\n".join(" " * indent + line for line in lines)


def _sum(factors: Sequence[Fraction], names: Sequence[str], result: str) -> tuple[list[str], str]:
    """Lines that compute the sum of factors times names, and the name that holds it."""
    terms = sorted(((a, x) for a, x in zip(factors, names, strict=True) if a != 0), key=lambda term: term[0] != 1)
    if not terms:
        return [f"{result} = zero()"], result
    (a, name), *rest = terms
    lines = [] if a == 1 else [f"{result} = mul(splat({float(a)!r}), {name})"]
    name = name if a == 1 else result
    for a, x in rest:
        lines.append(f"{result} = {_plus(name, a, x)}")
        name = result
    return lines, name


def _plus(total: str, factor: Fraction, x: str) -> str:
    if abs(factor) == 1:
        return f"{'add' if factor == 1 else 'sub'}({total}, {x})"
    return f"fma(splat({float(factor)!r}), {x}, {total})"


def rows() -> tuple[int, ...]:
    return ROWS[machine().instruction_set]


def driver(dtype: str) -> Kernel:
    return Kernel(f"winograd-{dtype}", dtype, driver_source, lambda: "")


def forward(tile: int, dtype: str) -> Kernel:
    matrix = matrices(tile - 1, 2)[2]
    return _transform_kernel(f"forward-{dtype}-{tile}", dtype, lambda: forward_source(matrix, machine().lanes(dtype)))


def inverse(m: int, taps: int, dtype: str) -> Kernel:
    return _transform_kernel(
        f"inverse-{dtype}-{m}x{taps}", dtype, lambda: inverse_source(m, taps, machine().lanes(dtype))
    )


def weights(m: int, taps: int, dtype: str) -> Kernel:
    return _transform_kernel(f"weights-{dtype}-{m}x{taps}", dtype, lambda: weights_source(m, taps))


def _transform_kernel(name: str, dtype: str, source: Callable[[], str]) -> Kernel:
    return Kernel(f"winograd-{name}", dtype, source, lambda: SHARED)


def product(rows: int, dtype: str) -> Kernel:
    assert rows in ROWS[machine().instruction_set]
    return Kernel(f"winograd-product-{dtype}-{rows}x{VECTORS}", dtype, lambda: product_source(rows), lambda: "")


def every(dtype: str) -> list[Kernel]:
    """This family's rows of the table."""
    transforms = [forward(tile, dtype) for tile in TILES]
    transforms += [
        kind(tile - taps + 1, taps, dtype) for tile in TILES for taps in TAPS[tile] for kind in (inverse, weights)
    ]
    return [driver(dtype), *transforms, *(product(count, dtype) for count in rows())]
