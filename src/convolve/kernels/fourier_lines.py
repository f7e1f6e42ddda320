"""Convolution of lines by Fourier transforms, in float64: lanes are tiles, of one line or of several.

Idea. LANES tiles are turned into the scratch, one in each lane, and from there on every loop of kernels/butterflies.py is a loop over
numbers that happen to be vectors. A tile of thousands is more than the first-level cache holds, so after the first passes its parts go
on one by one, there, through the product, and back.

    data[number][real or imaginary part][lane]

Kernels are transformed side by side, too; in a product all lanes read the number of one.

Traffic. A vector of tiles stays in the second-level cache: it passes through the first one once for each of the first passes,
there and back, and once for all others.
"""

from __future__ import annotations

from collections.abc import Sequence

from convolve.kernels import butterflies
from convolve.kernels.butterflies import PASS, kernel, last_radix, sums, tell, through, unpack
from convolve.kernels.cache import Kernel
from convolve.kernels.fourier import FORWARD, SUMS, THROUGH, access
from convolve.kernels.machine import machine
from convolve.kernels.preamble import HEADER, PREAMBLE

# What the driver is told, in this order (all int64). Strides and sizes count elements.
ARGUMENTS = (
    *butterflies.TOLD,  # factors are for all
    "x", "w", "bias", "y", "flags", "spectra", "scratch", "plan",  # addresses, as in kernels/fourier.py
    "rows", "forward", "inverse",  # addresses of kernels
    "batch", "groups", "channels", "filters",  # channels and filters of one group
    "x_n", "x_c", "size", "before",  # size: up to the last input that a result needs
    "w_g", "w_k", "w_c", "w_s", "taps",  # w_s may be negative
    "y_n", "y_k", "out", "stride",  # out: results at stride 1
    "half", "step", "tiles",  # half the numbers of a tile, its results, tiles of a line
    "outer", "parts", "inner",  # first passes, what they leave parts of, and their passes but the last
    "last",  # where the last pass has its factors
    "chunks",  # shares of the filters
    "tile_size",  # elements of a vector of tiles
    "thread_size",  # of each thread's scratch
)  # fmt: skip
# What the driver tells `rows`, behind its own arguments.
BLOCK = (
    "mode", "tile", "result_tile",
    "pair",  # the kernel of the first channel, counted over all
)  # fmt: skip
TOLD = -(-(HEADER + len(ARGUMENTS) + len(BLOCK)) // 16) * 16
"""Elements that hold what `rows` is told."""


def scratch_elements(lanes: int) -> int:
    """Of a thread, besides tiles: what is told, what is said of each lane, a square of numbers, what is finite, a bias."""
    return TOLD + 3 * lanes + lanes * lanes + 2 * lanes


def _unpack(names: Sequence[str]) -> str:
    return unpack(names, (*ARGUMENTS, *BLOCK))


def _told(values: dict[str, str], indent: int) -> str:
    return tell((*ARGUMENTS, *BLOCK), values, indent)


def rows_source(last: int) -> str:
    """The kernel that transforms a vector of tiles; or takes it through the product and back; or sums over channels, and back."""
    names = (
        "mode", "tile", "result_tile", "pair", "plan", "factors", "spectra", "half", "channels", "outer", "parts", "inner", "last",
        "tile_size", "forward", "inverse",
    )  # fmt: skip
    return f"""
def kernel(arguments):
{_unpack(names)}
    block = arguments
    x, y, spectra = pointer(tile), pointer(result_tile), pointer(spectra)
    numbers = half // parts
    size, groups = numbers * 2 * LANES, numbers // {last}
    if mode != {SUMS}:
{_told({"data": "tile", "passes": "plan", "count": "outer"}, 8)}
        call(forward, block)
    for part in range(parts):
        here, there, spectrum = shift(x, part * size), shift(y, part * size), shift(spectra, part * size)
{_told({"data": "address(here)", "passes": f"plan + (outer + part * (inner + 1)) * {8 * len(PASS)}", "count": "inner + 1"}, 8)}
        if mode == {FORWARD}:
            call(forward, block)
        elif mode == {THROUGH}:
{_told({"count": "inner"}, 12)}
            call(forward, block)
            spectrum = shift(spectrum, pair // LANES * tile_size + pair % LANES)
            through(here, groups, shift(pointer(factors), last + part * groups * {2 * last - 2}), spectrum)
            call(inverse, block)
        else:
            sums(here, spectrum, pair, tile_size, channels, numbers, there)
{_told({"data": "address(there)"}, 12)}
            call(inverse, block)
    if mode != {FORWARD}:
{_told({"data": "result_tile", "passes": "plan", "count": "outer"}, 8)}
        call(inverse, block)
"""


def _turns(dtype: str) -> str:
    """The functions that read and write a vector of tiles, and read a kernel into a lane."""
    io = access(dtype)
    rounded = "as_single(value)" if dtype == "float32" else "value"
    place = """to = shift(data, p * 2 * LANES)
        if p >= half:
            to = shift(data, (p - half) * 2 * LANES + LANES)"""
    return f"""
def read_lines(x, at, square, half, data):
    for p in range(0, 2 * half, LANES):
        {place}
        for lane in range(LANES):
            start, stop = at[LANES + lane] - p, at[2 * LANES + lane] - p
            here = shift(x, at[lane] + p)
            if start <= 0 and stop >= LANES:
                store(square, lane * LANES, {io["load"]}(here, 0))
            else:
                store(square, lane * LANES, {io["between"]}(here, 0, start, stop))
        transpose(square, LANES, to, 2 * LANES)

def write_lines(data, half, step, stride, at, square, constant, y, good):
    finite, added = load(good, 0), broadcast(constant, 0)
    for p in range(0, step, LANES):
        {place}
        transpose(to, 2 * LANES, square, LANES)
        for lane in range(LANES):
            there, left = shift(y, at[lane] + p // stride), at[LANES + lane] - p
            value = add(load(square, lane * LANES), added)
            if left >= LANES and stride == 1:
                finite = fma({rounded}, zero(), finite)
                {io["store"]}(there, 0, value)
            elif left > 0:
                store(square, lane * LANES, value)
                value = load_first(square, lane * LANES, left)
                finite = fma({rounded}, zero(), finite)
                if stride == 1:
                    {io["first"]}(there, 0, value, left)
                else:
                    for i in range((stride - p % stride) % stride, min(LANES, left), stride):
                        y[at[lane] + (p + i) // stride] = square[lane * LANES + i]
    store(good, 0, finite)

def read_kernel(w, w_s, taps, half, data):
    scale = number(1) / number(half)
    for tap in range(taps):
        place = tap * 2 * LANES
        if tap >= half:
            place = (tap - half) * 2 * LANES + LANES
        data[place] = w[tap * w_s] * scale
"""


def driver_source(dtype: str) -> str:
    """The kernel that takes a thread's tiles from x to y, or, where y is 0, its kernels to their spectra."""
    io = access(dtype)
    product = {
        "mode": f"{THROUGH} if single else {SUMS}",
        "tile": "address(lines)", "result_tile": "address(result_lines)", "pair": "(g * filters + k) * channels",
    }  # fmt: skip
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(ARGUMENTS)}
    here = shift(pointer(scratch), thread * thread_size)
    block = int64_pointer(address(here))
    for i in range({HEADER}, {HEADER + len(ARGUMENTS)}):
        block[i] = arguments[i]
    at = shift(block, {TOLD})
    square = shift(here, {TOLD} + 3 * LANES)
    good = shift(square, LANES * LANES)
    constant = shift(good, LANES)
    lines = shift(constant, LANES)
    single = channels == 1 and filters == 1
    result_lines = lines
    if not single:
        result_lines = shift(lines, channels * tile_size)
    x, w, y = {io["pointer"]}(x), {io["pointer"]}(w), {io["pointer"]}(y)
    store(good, 0, zero())
    if address(y) == 0:
        pairs = groups * filters * channels
        vectors = (pairs + LANES - 1) // LANES
{_told({"mode": str(FORWARD)}, 8)}
        for vector in range(thread * vectors // threads, (thread + 1) * vectors // threads):
            to = shift(pointer(spectra), vector * tile_size)
            for i in range(0, 2 * half * LANES, LANES):
                store(to, i, zero())
            for lane in range(min(LANES, pairs - vector * LANES)):
                pair = vector * LANES + lane
                c, rest = pair % channels, pair // channels
                k, g = rest % filters, rest // filters
                read_kernel(shift(w, g * w_g + k * w_k + c * w_c), w_s, taps, half, shift(to, lane))
{_told({"tile": "address(to)"}, 12)}
            call(rows, block)
        return
    items = batch * tiles
    vectors = (items + LANES - 1) // LANES
    tasks = groups * chunks * vectors
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        first, rest = task % vectors * LANES, task // vectors
        chunk, g = rest % chunks, rest // chunks
        for c in range(channels):
            for lane in range(LANES):
                item = first + lane
                n, start = item // tiles, item % tiles * step - before
                at[lane], at[LANES + lane], at[2 * LANES + lane] = n * x_n + start, 0 - start, size - start
                if item >= items:
                    at[lane], at[LANES + lane], at[2 * LANES + lane] = 0, 0, 0
            to = shift(lines, c * tile_size)
            read_lines(shift(x, (g * channels + c) * x_c), at, square, half, to)
            if not single:
{_told({"mode": str(FORWARD), "tile": "address(to)"}, 16)}
                call(rows, block)
        for lane in range(LANES):
            item = first + lane
            n, start = item // tiles, item % tiles * step
            at[lane], at[LANES + lane] = n * y_n + start // stride, min(step, out - start)
            if item >= items:
                at[lane], at[LANES + lane] = 0, 0
        for k in range(chunk * filters // chunks, (chunk + 1) * filters // chunks):
            constant[0] = 0
            if bias != 0:
                constant[0] = {io["pointer"]}(bias)[g * filters + k]
{_told(product, 12)}
            call(rows, block)
            there = shift(y, (g * filters + k) * y_k)
            write_lines(result_lines, half, step, stride, at, square, constant, there, good)
    flags_here = shift(pointer(flags), thread)
    flags_here[0] = total(load(good, 0))
"""


def rows() -> Kernel:
    last = last_radix(machine().lanes("float64"))
    return kernel("line-rows", lambda: rows_source(last), lambda: through(last, line=True) + sums(line=True))


def driver(dtype: str) -> Kernel:
    return kernel(f"line-{dtype}", lambda: driver_source(dtype), lambda: _turns(dtype))


def every(dtype: str) -> list[Kernel]:
    """This family's rows of the table, for tensors of a dtype."""
    return [rows(), driver(dtype)]
