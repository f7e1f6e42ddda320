"""Convolution by Fourier transforms of tiles that stay in the second-level cache, in float64; lanes are transforms side by side.

Idea. Polynomials modulo x^m - c are, for every r-th root w of c, polynomials modulo x^(m/r) - w: one butterfly of r numbers, and each of
the r parts goes on by itself, down to m = 1, the values at the roots. So a transform is a few passes over the data in place, each
with one set of factors for a whole part; in which order the values come out is of no interest, since kernel and map agree and the
way back is the same passes in reverse. Vectors hold neighbouring columns, or rows, so that factors are broadcast and nothing is shuffled.

A real tile of H rows is H / 2 complex ones, row n + i row n + H / 2: real polynomials modulo x^H + 1 are complex ones modulo x^(H/2) - i
(H wraps around with the other sign, and what wraps is thrown away). No symmetry of spectra is ever spelled out.

    columns    the map -> a strip of columns -> passes -> LANES x LANES turned in registers -> the tile, by blocks of LANES rows
    rows       per block: passes, the product with the kernel's conjugate spectrum, passes back
    results    the tile -> turned -> passes back -> the valid results, straight to their places

    tile[block of rows][column][real or imaginary part][lane]                      spectra are tiles; so is a sum over channels

Where the map is a line (`line_…`), lanes are tiles, and a tile is a column.

Traffic. A strip, and a block of rows, pass through the first-level cache once: four times the tile's bytes move between the caches for a
tile of one channel and filter. Kernels are transformed as maps are, once per call, or once per group by the thread that needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import machine
from convolve.kernels.preamble import HEADER, PREAMBLE

RADICES = {"avx512": (8, 5, 4, 3, 2), "avx2": (5, 4, 3, 2), "neon": (4, 3, 2), "other": (4, 3, 2)}
"""Of the passes; a butterfly's numbers and factors should fit the registers."""

# What the driver is told, in this order (all int64). Strides and sizes count elements.
ARGUMENTS = (
    # Addresses: bias may be 0; spectra are those of all kernels, or 0, and each thread makes its own; plan and factors are the tables of
    # passes and of their factors; the others are kernels.
    "x", "w", "bias", "y", "flags", "spectra", "scratch", "plan", "factors",
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
    "data", "passes", "count",  # of `forward` and `inverse`
)  # fmt: skip
FORWARD, THROUGH, SUMS = range(3)
PASS = ("radix", "step", "parts", "at")
"""A row of a plan: from one number of a butterfly to the next, parts, and where their factors begin."""

TOLD = -(-(HEADER + len(ARGUMENTS) + len(BLOCK)) // 16) * 16
"""Elements that hold what other kernels are told."""


def last_radix(lanes: int) -> int:
    """Of rows: that pass is one with the product."""
    return min(8, 2 * lanes) if machine().registers >= 32 else 4


# --- butterflies: lines of text; a complex vector s of the name a is as_r, as_i -------------------------------------------


def _dft(r: int, a: str, o: str, back: bool) -> list[str]:
    """o[q] = sum over s of a[s] w^(q s), w the first r-th root of unity; `back`: its conjugate."""
    plus, minus = ("sub", "add") if back else ("add", "sub")
    if r == 2:
        return [f"{o}{q}{c} = {op}({a}0{c}, {a}1{c})" for q, op in enumerate(("add", "sub")) for c in "ri"]
    if r == 3:
        half = f"splat({-0.5!r})"
        lines = [f"u{c}, v{c} = add({a}1{c}, {a}2{c}), mul(sub({a}1{c}, {a}2{c}), splat({_SIN3!r}))" for c in "ri"]
        lines += [f"{o}0{c}, u{c} = add({a}0{c}, u{c}), fma(u{c}, {half}, {a}0{c})" for c in "ri"]
        return lines + _pair(o, 1, 2, "u", "v", plus, minus)
    if r == 4:
        lines = []
        for c in "ri":
            lines += [f"u{c}, v{c} = add({a}0{c}, {a}2{c}), add({a}1{c}, {a}3{c})"]
            lines += [f"{o}0{c}, {o}2{c} = add(u{c}, v{c}), sub(u{c}, v{c})"]
        lines += [f"u{c}, v{c} = sub({a}0{c}, {a}2{c}), sub({a}1{c}, {a}3{c})" for c in "ri"]
        return lines + _pair(o, 1, 3, "u", "v", plus, minus)
    if r == 5:
        lines = []
        for c in "ri":
            lines += [f"t1{c}, t2{c} = add({a}1{c}, {a}4{c}), add({a}2{c}, {a}3{c})"]
            lines += [f"t3{c}, t4{c} = sub({a}1{c}, {a}4{c}), sub({a}2{c}, {a}3{c})"]
            for m, first, second in (("m", *_COS5), ("p", *reversed(_COS5))):
                lines += [f"{m}{c} = fma(t2{c}, splat({second!r}), fma(t1{c}, splat({first!r}), {a}0{c}))"]
            lines += [f"{o}0{c} = add({a}0{c}, add(t1{c}, t2{c}))"]
            first, second = _SIN5
            lines += [f"n{c} = fma(t4{c}, splat({second!r}), mul(t3{c}, splat({first!r})))"]
            lines += [f"q{c} = fma(t4{c}, splat({-first!r}), mul(t3{c}, splat({second!r})))"]
        return lines + _pair(o, 1, 4, "m", "n", plus, minus) + _pair(o, 2, 3, "p", "q", plus, minus)
    assert r == 8
    lines = [f"e{s}{c}, f{s}{c} = {a}{2 * s}{c}, {a}{2 * s + 1}{c}" for s in range(4) for c in "ri"]
    lines += _dft(4, "f", "h", back) + _dft(4, "e", "g", back)
    lines += [f"{o}0{c}, {o}4{c} = add(g0{c}, h0{c}), sub(g0{c}, h0{c})" for c in "ri"]
    lines += _pair(o, 2, 6, "g2", "h2", plus, minus)
    root = f"splat({math.sqrt(0.5)!r})"
    lines += [f"ur, ui = {minus}(h1r, h1i), {plus}(h1i, h1r)"]  # h1 w sqrt 2
    lines += [f"{o}1{c}, {o}5{c} = fma(u{c}, {root}, g1{c}), fnma(u{c}, {root}, g1{c})" for c in "ri"]
    lines += [f"ur, ui = {plus}(h3r, h3i), {minus}(h3i, h3r)"]  # - h3 w^3 sqrt 2
    lines += [f"{o}3{c}, {o}7{c} = fnma(u{c}, {root}, g3{c}), fma(u{c}, {root}, g3{c})" for c in "ri"]
    return lines


_SIN3 = math.sqrt(0.75)
_COS5 = (math.cos(math.tau / 5), math.cos(2 * math.tau / 5))
_SIN5 = (math.sin(math.tau / 5), math.sin(2 * math.tau / 5))


def _pair(o: str, one: int, other: int, u: str, v: str, plus: str, minus: str) -> list[str]:
    """o[one] = u + i v, o[other] = u - i v; their exchange on the way back."""
    return [
        f"{o}{one}r, {o}{one}i = {minus}({u}r, {v}i), {plus}({u}i, {v}r)",
        f"{o}{other}r, {o}{other}i = {plus}({u}r, {v}i), {minus}({u}i, {v}r)",
    ]


def _factors(r: int) -> list[str]:
    return [f"w{s}r, w{s}i = broadcast(factors, {2 * s - 2}), broadcast(factors, {2 * s - 1})" for s in range(1, r)]


def _times(a: str, w: str, conjugate: bool) -> list[str]:
    """a = a w, or a times the conjugate of w."""
    real, imaginary = ("fma", "fnma") if conjugate else ("fnma", "fma")
    return [
        f"t, {a}i = {real}({a}i, {w}i, mul({a}r, {w}r)), {imaginary}({a}r, {w}i, mul({a}i, {w}r))",
        f"{a}r = t",
    ]


def _read(r: int, at: str) -> list[str]:
    return [f"a{s}r, a{s}i = load(x, {at.format(s)}), load(x, {at.format(s)} + LANES)" for s in range(r)]


def _write(r: int, at: str) -> list[str]:
    places = [at.format(s) for s in range(r)]
    return [
        f"store(x, {place} + {c}, o{s}{p})" for s, place in enumerate(places) for c, p in (("0", "r"), ("LANES", "i"))
    ]


def _there(r: int) -> list[str]:
    return [line for s in range(1, r) for line in _times(f"a{s}", f"w{s}", False)] + _dft(r, "a", "o", False)


def _back(r: int) -> list[str]:
    return _dft(r, "a", "o", True) + [line for s in range(1, r) for line in _times(f"o{s}", f"w{s}", True)]


def _body(lines: Sequence[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)


def _pass(r: int, back: bool) -> str:
    """One pass over data in place: `parts` times r numbers that lie `step` apart."""
    inner = _read(r, "i + {} * step") + (_back(r) if back else _there(r)) + _write(r, "i + {} * step")
    factors = _factors(r)
    outside, inside = (factors, []) if r < 8 else ([], factors)  # eight would not stay in registers
    return f"""
def pass{r}(x, step, parts, factors):
    for part in range(parts):
{_body([*outside, "pass"], 8)}
        for i in range(0, step, 2 * LANES):
{_body(inside + inner, 12)}
        x, factors = shift(x, {r} * step), shift(factors, {2 * r - 2})
"""


def _turned(names: list[str]) -> str:
    return f"{', '.join(names)} = turned(({', '.join(names)}))"


_NEXT = "i * 2 * LANES".replace("i", "{}")


def _out(lanes: int) -> str:
    """The last pass of a block of columns, turned into `to`: LANES rows of it lie `to_step` from the next."""
    lines = _factors(lanes) + _read(lanes, _NEXT) + _there(lanes)
    for c, at in (("r", "0"), ("i", "LANES")):
        lines += [_turned([f"o{s}{c}" for s in range(lanes)])]
        lines += [f"store(to, {s} * 2 * LANES + {at}, o{s}{c})" for s in range(lanes)]
    return f"""
def turn_out(x, parts, factors, to, to_step):
    for part in range(parts):
{_body(lines, 8)}
        x, factors, to = shift(x, 2 * LANES * LANES), shift(factors, 2 * LANES - 2), shift(to, to_step)
"""


def _in(lanes: int) -> str:
    """The same the other way round."""
    lines = _factors(lanes)
    for c, at in (("r", "0"), ("i", "LANES")):
        lines += [f"a{s}{c} = load(here, {s} * 2 * LANES + {at})" for s in range(lanes)]
        lines += [_turned([f"a{s}{c}" for s in range(lanes)])]
    lines += _back(lanes) + _write(lanes, _NEXT)
    return f"""
def turn_in(here, here_step, parts, factors, x):
    for part in range(parts):
{_body(lines, 8)}
        x, factors, here = shift(x, 2 * LANES * LANES), shift(factors, 2 * LANES - 2), shift(here, here_step)
"""


def _through(r: int) -> str:
    """The last pass of rows, the product with the conjugate of `k`, and the first pass back."""
    lines = _factors(r) + _read(r, _NEXT) + _there(r)
    for s in range(r):
        at = _NEXT.format(s)
        lines += [f"kr, ki = load(k, {at}), load(k, {at} + LANES)", *_times(f"o{s}", "k", True)]
        lines += [f"a{s}r, a{s}i = o{s}r, o{s}i"]
    lines += _back(r) + _write(r, _NEXT)
    return f"""
def through(x, parts, factors, k):
    for part in range(parts):
{_body(lines, 8)}
        x, factors, k = shift(x, {2 * r} * LANES), shift(factors, {2 * r - 2}), shift(k, {2 * r} * LANES)
"""


_SUMMED = 4
"""Numbers of a row that are summed over channels together; widths are multiples."""


def _sums() -> str:
    """The sum over channels of the products with the conjugates of their kernels."""
    start = [f"s{j}r, s{j}i = zero(), zero()" for j in range(_SUMMED)]
    # Other kernels' spectra come from beyond the second-level cache, and in pieces that no hardware foresees.
    step = [f"prefetch(k, {4 * 2 * _SUMMED + i} * LANES)" for i in range(2 * _SUMMED)]
    keep = []
    for j in range(_SUMMED):
        at = _NEXT.format(j)
        step += [f"{a}r, {a}i = load({a}, {at}), load({a}, {at} + LANES)" for a in "xk"]
        step += [f"s{j}r, s{j}i = fma(xr, kr, s{j}r), fma(xi, kr, s{j}i)"]
        step += [f"s{j}r, s{j}i = fma(xi, ki, s{j}r), fnma(xr, ki, s{j}i)"]
        keep += [f"store(y, i + {at}, s{j}r)", f"store(y, i + {at} + LANES, s{j}i)"]
    return f"""
def sums(maps, kernels, next, channels, width, y):
    for i in range(0, width * 2 * LANES, {2 * _SUMMED} * LANES):
        x, k = shift(maps, i), shift(kernels, i)
{_body(start, 8)}
        for c in range(channels):
{_body(step, 12)}
            x, k = shift(x, next), shift(k, next)
{_body(keep, 8)}
"""


# --- kernels ------------------------------------------------------------------------------------------------------------


def _unpack(names: Sequence[str]) -> str:
    every = (*ARGUMENTS, *BLOCK)
    return "\n".join(f"    {name} = arguments[{HEADER + every.index(name)}]" for name in names)


def _told(values: dict[str, str], indent: int) -> str:
    """Lines that write into `block`."""
    places = {name: HEADER + len(ARGUMENTS) + i for i, name in enumerate(BLOCK)}
    return "\n".join(f"{' ' * indent}block[{places[name]}] = {value}" for name, value in values.items())


def passes_source(back: bool) -> str:
    """The kernel that does the passes of a plan, one after the other."""
    radices = RADICES[machine().instruction_set]
    choice = "\n".join(
        f"        {'el' * (i > 0)}if radix == {r}:\n            pass{r}(x, step, parts, shift(factors, at))"
        for i, r in enumerate(radices)
    )
    order = "count - 1 - p" if back else "p"
    return f"""
def kernel(arguments):
{_unpack(("data", "passes", "count", "factors"))}
    x, factors, passes = pointer(data), pointer(factors), int64_pointer(passes)
    for p in range(count):
        row = ({order}) * {len(PASS)}
        {", ".join(PASS)} = {", ".join(f"passes[row + {i}]" for i in range(len(PASS)))}
{choice}
"""


def passes_shared(back: bool) -> str:
    return "".join(_pass(r, back) for r in RADICES[machine().instruction_set])


def _io(dtype: str) -> dict[str, str]:
    """How numbers of the tensors are read and written."""
    s = "_single" if dtype == "float32" else ""
    words = {"between": f"load{s}_between", "store": f"store{s}", "first": f"store{s}_first"}
    return words | {"pointer": f"{dtype}_pointer"}


def fill(dtype: str) -> str:
    """The function that reads a strip: rows of a map from row `first_h` and column `first_w` on, zeros around it."""
    io = _io(dtype)
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
    x, tile, strip = {_io(dtype)["pointer"]}(map), pointer(tile), pointer(strip)
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


def rows_source() -> str:
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
            sums(here, spectrum_here, channel_step, channels, width, to)
{_told({"data": "address(to)", "passes": "plan", "count": "passes_w + 1"}, 12)}
            call(inverse, block)
        else:
{_told({"data": "address(here)", "passes": "plan", "count": f"passes_w + (mode == {FORWARD})"}, 12)}
            call(forward, block)
            if mode == {THROUGH}:
                through(here, width // LAST, shift(pointer(factors), last_w), spectrum_here)
                call(inverse, block)
"""


def results_source(dtype: str) -> str:
    """The kernel that transforms the columns of a tile back and writes the valid results."""
    io = _io(dtype)
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
    io = _io(dtype)
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


# How widely magnitudes range is asked before anything is transformed.
SPREAD_ARGUMENTS = (
    "x", "found",  # addresses; SPREAD numbers of each thread
    "x_n", "x_c", "x_h", "batch", "channels", "blocks_h", "blocks_w", "block_h", "block_w",
)  # fmt: skip
SPREAD = 3
"""Of the blocks' mean magnitudes: the largest, the smallest above 0 or infinity, and their sum, which a NaN spoils."""


def spread_source() -> str:
    """The kernel that takes the mean, over blocks of a map, of the largest magnitude among the channels, in float32."""
    return f"""
def kernel(arguments):
{PREAMBLE}
{chr(10).join(f"    {name} = arguments[{HEADER + i}]" for i, name in enumerate(SPREAD_ARGUMENTS))}
    x, found = float32_pointer(x), shift(float64_pointer(found), thread * {SPREAD})
    largest, smallest, together = 0.0, 1e300 * 1e300, 0.0
    tasks = batch * blocks_h
    for task in range(thread * tasks // threads, (thread + 1) * tasks // threads):
        row = shift(x, task // blocks_h * x_n + task % blocks_h * block_h * x_h)
        for j in range(blocks_w):
            here, mean = shift(row, j * block_w), zero()
            for i in range(block_h):
                for w in range(0, block_w, LANES):
                    left = block_w - w
                    if left >= LANES:
                        most = absolute(load_single(here, w))
                        for c in range(1, channels):
                            most = larger(most, absolute(load_single(here, w + c * x_c)))
                    else:
                        most = absolute(load_single_between(here, w, 0, left))
                        for c in range(1, channels):
                            most = larger(most, absolute(load_single_between(here, w + c * x_c, 0, left)))
                    mean = add(mean, most)
                here = shift(here, x_h)
            one = total(mean) / (block_h * block_w)
            together += one
            largest = max(largest, one)
            if 0 < one and one < smallest:
                smallest = one
    found[0], found[1], found[2] = largest, smallest, together
"""


def spread() -> Kernel:
    return _kernel("spread", spread_source, lambda: "")


def passes(back: bool) -> Kernel:
    return _kernel("inverse" if back else "forward", lambda: passes_source(back), lambda: passes_shared(back))


def columns(dtype: str) -> Kernel:
    return _kernel(f"columns-{dtype}", lambda: columns_source(dtype), lambda: fill(dtype) + _out(_lanes()))


def rows() -> Kernel:
    last = last_radix(_lanes())
    return _kernel("rows", lambda: rows_source().replace("LAST", str(last)), lambda: _through(last) + _sums())


def results(dtype: str) -> Kernel:
    return _kernel(f"results-{dtype}", lambda: results_source(dtype), lambda: _in(_lanes()))


def driver(dtype: str) -> Kernel:
    return _kernel(f"driver-{dtype}", lambda: driver_source(dtype), lambda: "")


def _lanes() -> int:
    return machine().lanes("float64")


def _kernel(name: str, source: Callable[[], str], shared: Callable[[], str]) -> Kernel:
    return Kernel(f"fourier-{name}", "float64", source, shared)


def every(dtype: str) -> list[Kernel]:
    """This family's rows of the table, for tensors of a dtype; arithmetic is float64 always."""
    return [spread(), passes(False), passes(True), rows(), columns(dtype), results(dtype), driver(dtype)]
