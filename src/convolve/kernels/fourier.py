"""Convolution of maps by Fourier transforms of tiles that stay in the second-level cache, in float64.

Idea. Overlap-save: tiles overlap by what wraps around, and that is thrown away. The columns of a tile are transformed
(kernels/butterflies.py), LANES side by side, and turned on their last pass, so that the rows then are. Half of the rows are the imaginary
parts of the other half.

    columns    rows of the map -> a strip of LANES columns each -> passes -> turned in registers -> the tile, by blocks of LANES rows
    rows       per block: passes, the product with the kernel's conjugate spectrum, passes back
    results    the tile -> turned -> passes back -> the valid results, straight to their places

    strip[block of columns][row][real or imaginary part][lane]
    tile[block of rows][column][real or imaginary part][lane]                      spectra are tiles; so is a sum over channels

Traffic. A block of columns, and a block of rows, pass through the first-level cache once: six times the tile's bytes move between the
caches for a tile of one channel and filter. Kernels are transformed as maps are, once per call, or once per group by the thread that
needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

from convolve.kernels import butterflies
from convolve.kernels.butterflies import (
    NEXT,
    PASS,
    back,
    body,
    kernel,
    last_radix,
    load_factors,
    read,
    sums,
    tell,
    there,
    through,
    unpack,
    write,
)
from convolve.kernels.cache import Kernel
from convolve.kernels.machine import machine
from convolve.kernels.preamble import HEADER, PREAMBLE

# What the driver is told, in this order (all int64). Strides and sizes count elements.
ARGUMENTS = (
    *butterflies.TOLD,  # factors are for all
    # Addresses: bias may be 0; spectra are those of all kernels, or 0, and each thread makes its own; plan is the table of passes;
    # the others are kernels.
    "x", "w", "bias", "y", "flags", "spectra", "scratch", "plan",
    "columns", "rows", "results", "forward", "inverse",
    "batch", "groups", "channels", "filters",  # channels and filters of one group
    "x_n", "x_c", "x_h", "x_w", "size_h", "size_w", "before_h", "before_w",  # sizes: up to the last input that a result needs
    "w_g", "w_k", "w_c", "w_r", "w_s", "kernel_h", "kernel_w",  # w_r and w_s may be negative
    "y_n", "y_k", "y_h", "out_h", "out_w",  # results at stride 1
    "stride_h", "stride_w",
    "half_h", "width",  # half the rows of a tile, and its columns
    "step_h", "step_w", "tiles_h", "tiles_w",
    "used_w",  # columns of a tile that hold anything
    "passes_h", "passes_w",  # of the columns and rows, without their last ones
    "last_h", "last_w",  # where these have their factors
    "chunks",  # shares of the filters
    "tile_size", "row_size",  # elements of a tile and of a block of its rows
    "thread_size",  # of each thread's scratch
)  # fmt: skip
# What the driver tells the other kernels, behind its own arguments.
BLOCK = (
    "map", "map_h", "map_w", "map_rows", "map_columns", "first_h", "first_w", "map_used",  # what `columns` reads
    "is_kernel",  # 1: it is scaled
    "tile", "strip",
    "mode", "spectrum", "channel_step",  # of `rows`: FORWARD, THROUGH or SUMS; the kernel's spectrum; from one to the next channel
    "result_tile", "result", "constant", "count_h", "count_w", "good",  # of `results`
)  # fmt: skip
FORWARD, THROUGH, SUMS = range(3)
TOLD = -(-(HEADER + len(ARGUMENTS) + len(BLOCK)) // 16) * 16
"""Elements that hold what other kernels are told."""


def _turned(names: list[str]) -> str:
    return f"{', '.join(names)} = turned(({', '.join(names)}))"


def _out(lanes: int) -> str:
    """The last pass of a block of columns, turned into `to`: LANES rows of it lie `to_step` from the next."""
    lines = load_factors(lanes) + read(lanes, NEXT) + there(lanes)
    for c, at in (("r", "0"), ("i", "LANES")):
        lines += [_turned([f"o{s}{c}" for s in range(lanes)])]
        lines += [f"store(to, {s} * 2 * LANES + {at}, o{s}{c})" for s in range(lanes)]
    return f"""
def turn_out(x, parts, factors, to, to_step):
    for part in range(parts):
{body(lines, 8)}
        x, factors, to = shift(x, 2 * LANES * LANES), shift(factors, 2 * LANES - 2), shift(to, to_step)
"""


def _in(lanes: int) -> str:
    """The same the other way round."""
    lines = load_factors(lanes)
    for c, at in (("r", "0"), ("i", "LANES")):
        lines += [f"a{s}{c} = load(here, {s} * 2 * LANES + {at})" for s in range(lanes)]
        lines += [_turned([f"a{s}{c}" for s in range(lanes)])]
    lines += back(lanes) + write(lanes, NEXT)
    return f"""
def turn_in(here, here_step, parts, factors, x):
    for part in range(parts):
{body(lines, 8)}
        x, factors, here = shift(x, 2 * LANES * LANES), shift(factors, 2 * LANES - 2), shift(here, here_step)
"""


def _unpack(names: Sequence[str]) -> str:
    return unpack(names, (*ARGUMENTS, *BLOCK))


def _told(values: dict[str, str], indent: int) -> str:
    return tell((*ARGUMENTS, *BLOCK), values, indent)


def access(dtype: str) -> dict[str, str]:
    """How numbers of the tensors are read and written."""
    s = "_single" if dtype == "float32" else ""
    words = {"load": f"load{s}", "between": f"load{s}_between", "store": f"store{s}", "first": f"store{s}_first"}
    return words | {"pointer": f"{dtype}_pointer"}


def fill(dtype: str) -> str:
    """The function that reads a strip: rows of a map from row `first_h` and column `first_w` on, zeros around it."""
    io = access(dtype)
    return f"""
def fill(x, x_h, x_w, rows, columns, first_h, first_w, blocks, half, scale, strip):
    for row in range(2 * half):
        to, h = shift(strip, row * 2 * LANES), first_h + row
        if row >= half:
            to = shift(strip, (row - half) * 2 * LANES + LANES)
        if h < 0 or h >= rows:
            for block in range(blocks):
                store(to, block * half * 2 * LANES, zero())
        elif x_w == 1:
            here = shift(x, h * x_h + first_w)
            for block in range(blocks):
                w = first_w + block * LANES
                value = {io["between"]}(here, block * LANES, 0 - w, columns - w)
                store(to, block * half * 2 * LANES, mul(value, scale))
        else:
            for block in range(blocks):
                there = shift(to, block * half * 2 * LANES)
                w = first_w + block * LANES
                store(there, 0, zero())
                for lane in range(max(0, 0 - w), min(LANES, columns - w)):
                    there[lane] = x[h * x_h + (w + lane) * x_w]
                store(there, 0, mul(load(there, 0), scale))
"""


def columns_source(dtype: str) -> str:
    """The kernel that reads a map and transforms its columns, into a tile."""
    names = (
        "map", "map_h", "map_w", "map_rows", "map_columns", "first_h", "first_w", "map_used", "is_kernel", "tile",
        "strip", "plan", "factors", "half_h", "width", "passes_h", "last_h", "row_size", "forward",
    )  # fmt: skip
    return f"""
def kernel(arguments):
{_unpack(names)}
    block = arguments
    x, tile, strip = {access(dtype)["pointer"]}(map), pointer(tile), pointer(strip)
    column_size = half_h * 2 * LANES
    scale = splat(number(1))
    if is_kernel != 0:
        scale = splat(number(1) / number(half_h * width))
    blocks = (map_used + LANES - 1) // LANES
    fill(x, map_h, map_w, map_rows, map_columns, first_h, first_w, blocks, half_h, scale, strip)
    for i in range(blocks):
        here = shift(strip, i * column_size)
{_told({"data": "address(here)", "passes": "plan", "count": "passes_h"}, 8)}
        call(forward, block)
        turn_out(here, half_h // LANES, shift(pointer(factors), last_h), shift(tile, i * LANES * 2 * LANES), row_size)
    begin = blocks * LANES * 2 * LANES
    for row in range(half_h // LANES):
        here = shift(tile, row * row_size)
        for i in range(begin, width * 2 * LANES, LANES):
            store(here, i, zero())
"""


def rows_source(last: int) -> str:
    """The kernel that transforms the rows of a tile; or takes them through the product and back; or sums over channels, and back."""
    names = (
        "tile", "mode", "spectrum", "channel_step", "result_tile", "plan", "factors", "half_h", "width", "channels",
        "passes_h", "passes_w", "last_w", "row_size", "forward", "inverse",
    )  # fmt: skip
    return f"""
def kernel(arguments):
{_unpack(names)}
    block = arguments
    plan = plan + passes_h * {8 * len(PASS)}
    for row in range(half_h // LANES):
        here, spectrum_here = shift(pointer(tile), row * row_size), shift(pointer(spectrum), row * row_size)
        if mode == {SUMS}:
            to = shift(pointer(result_tile), row * row_size)
            sums(here, spectrum_here, 0, channel_step, channels, width, to)
{_told({"data": "address(to)", "passes": "plan", "count": "passes_w + 1"}, 12)}
            call(inverse, block)
        else:
{_told({"data": "address(here)", "passes": "plan", "count": f"passes_w + (mode == {FORWARD})"}, 12)}
            call(forward, block)
            if mode == {THROUGH}:
                through(here, width // {last}, shift(pointer(factors), last_w), spectrum_here)
                call(inverse, block)
"""


def results_source(dtype: str) -> str:
    """The kernel that transforms the columns of a tile back and writes the valid results."""
    io = access(dtype)
    names = (
        "result_tile", "result", "constant", "count_h", "count_w", "good", "strip", "plan", "factors", "half_h",
        "passes_h", "last_h", "row_size", "inverse", "y_h", "stride_h", "stride_w",
    )  # fmt: skip
    rounded = "as_single(value)" if dtype == "float32" else "value"
    return f"""
def kernel(arguments):
{_unpack(names)}
    block = arguments
    tile, y, strip = pointer(result_tile), {io["pointer"]}(result), pointer(strip)
    column_size = half_h * 2 * LANES
    finite = load(pointer(good), 0)
    added = broadcast(pointer(constant), 0)
    blocks = (count_w + LANES - 1) // LANES
    for i in range(blocks):
        to = shift(strip, i * column_size)
        turn_in(shift(tile, i * LANES * 2 * LANES), row_size, half_h // LANES, shift(pointer(factors), last_h), to)
{_told({"data": "address(to)", "passes": "plan", "count": "passes_h"}, 8)}
        call(inverse, block)
    for row in range(0, count_h, stride_h):
        here = shift(strip, row * 2 * LANES)
        if row >= half_h:
            here = shift(strip, (row - half_h) * 2 * LANES + LANES)
        there = shift(y, row // stride_h * y_h)
        for i in range(blocks):
            value = add(load(here, i * column_size), added)
            left = count_w - i * LANES
            if left >= LANES and stride_w == 1:
                finite = fma({rounded}, zero(), finite)
                {io["store"]}(there, i * LANES, value)
            else:
                store(here, i * column_size, value)
                value = load_first(here, i * column_size, left)
                finite = fma({rounded}, zero(), finite)
                if stride_w == 1:
                    {io["first"]}(there, i * LANES, value, left)
        if stride_w > 1:
            for column in range(0, count_w, stride_w):
                there[column // stride_w] = here[column // LANES * column_size + column % LANES]
    store(pointer(good), 0, finite)
"""


def driver_source(dtype: str) -> str:
    """The kernel that takes a thread's tiles from x to y, or, where y is 0, its kernels to their spectra."""
    io = access(dtype)
    size = {"float32": 4, "float64": 8}[dtype]
    weights = {
        "map": f"w + (g * w_g + (k * w_k + c * w_c)) * {size}",
        "map_h": "w_r", "map_w": "w_s", "map_rows": "kernel_h", "map_columns": "kernel_w", "first_h": "0", "first_w": "0",
        "map_used": "kernel_w", "is_kernel": "1", "tile": "address(to)", "mode": str(FORWARD),
    }  # fmt: skip
    maps = {
        "map": f"x + (n * x_n + (g * channels + c) * x_c) * {size}",
        "map_h": "x_h", "map_w": "x_w", "map_rows": "size_h", "map_columns": "size_w",
        "first_h": "tile_h * step_h - before_h", "first_w": "tile_w * step_w - before_w",
        "map_used": "used_w", "is_kernel": "0", "tile": "address(shift(tiles, c * tile_size))", "mode": str(FORWARD),
    }  # fmt: skip
    results = {
        "result": f"y + (n * y_n + (g * filters + k) * y_k + tile_h * step_h // stride_h * y_h + tile_w * step_w // stride_w) * {size}",
        "count_h": "min(step_h, out_h - tile_h * step_h)", "count_w": "min(step_w, out_w - tile_w * step_w)",
    }  # fmt: skip
    return f"""
def kernel(arguments):
{PREAMBLE}
{_unpack(ARGUMENTS)}
    here = shift(pointer(scratch), thread * thread_size)
    block = int64_pointer(address(here))
    for i in range({HEADER}, {HEADER + len(ARGUMENTS)}):
        block[i] = arguments[i]
    good, constant = shift(here, {TOLD}), shift(here, {TOLD} + LANES)
    strip = shift(constant, LANES)
    tiles = shift(strip, width * 2 * half_h)
    result_tile = shift(tiles, channels * tile_size)
    single = channels == 1 and filters == 1
    if single:
        result_tile = tiles
    own = shift(result_tile, tile_size)
    store(good, 0, zero())
{_told({"strip": "address(strip)", "good": "address(good)", "constant": "address(constant)", "channel_step": "tile_size"}, 4)}
    of_group = filters * channels
    if y == 0:
        for kernel in range(thread * groups * of_group // threads, (thread + 1) * groups * of_group // threads):
            c, rest = kernel % channels, kernel // channels
            k, g = rest % filters, rest // filters
            to = shift(pointer(spectra), kernel * tile_size)
{_told(weights, 12)}
            call(columns, block)
            call(rows, block)
        return
    outer = batch * tiles_h * tiles_w
    tasks = groups * chunks * outer
    made = -1
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        tile_w, rest = task % tiles_w, task // tiles_w
        tile_h, rest = rest % tiles_h, rest // tiles_h
        n, rest = rest % batch, rest // batch
        chunk, g = rest % chunks, rest // chunks
        kernels = shift(pointer(spectra), g * of_group * tile_size)
        first_k, last_k = chunk * filters // chunks, (chunk + 1) * filters // chunks
        if spectra == 0:
            kernels = own
            if made != rest:
                made = rest
                for kernel in range(first_k * channels, last_k * channels):
                    c, k = kernel % channels, kernel // channels
                    to = shift(own, kernel * tile_size)
{_told(weights, 20)}
                    call(columns, block)
                    call(rows, block)
        for c in range(channels):
{_told(maps, 12)}
            call(columns, block)
            if not single:
                call(rows, block)
{_told({"tile": "address(tiles)", "result_tile": "address(result_tile)"}, 8)}
        for k in range(first_k, last_k):
            constant[0] = 0
            if bias != 0:
                constant[0] = {io["pointer"]}(bias)[g * filters + k]
            spectrum = shift(kernels, k * channels * tile_size)
{_told({"spectrum": "address(spectrum)", "mode": f"{THROUGH} if single else {SUMS}"}, 12)}
            call(rows, block)
{_told(results, 12)}
            call(results, block)
    flags_here = shift(pointer(flags), thread)
    flags_here[0] = total(load(good, 0))
"""


def columns(dtype: str) -> Kernel:
    return kernel(f"columns-{dtype}", lambda: columns_source(dtype), lambda: fill(dtype) + _out(_lanes()))


def rows() -> Kernel:
    last = last_radix(_lanes())
    return kernel("rows", lambda: rows_source(last), lambda: through(last) + sums())


def results(dtype: str) -> Kernel:
    return kernel(f"results-{dtype}", lambda: results_source(dtype), lambda: _in(_lanes()))


def driver(dtype: str) -> Kernel:
    return kernel(f"driver-{dtype}", lambda: driver_source(dtype), lambda: "")


def _lanes() -> int:
    return machine().lanes("float64")


def every(dtype: str) -> list[Kernel]:
    """This family's rows of the table, for tensors of a dtype; arithmetic is float64 always."""
    return [rows(), columns(dtype), results(dtype), driver(dtype)]
