"""The passes of a Fourier transform, as text: polynomials modulo ever smaller ones, in place.

Idea. Polynomials modulo x^m - c are, for every r-th root w of c, polynomials modulo x^(m/r) - w: one butterfly of r numbers, and each of
the r parts goes on by itself, down to m = 1, the values at the roots. So a transform is a few passes over the data in place, each
with one set of factors for a whole part; in which order the values come out is of no interest, since kernel and map agree and the
way back is the same passes in reverse. Vectors hold transforms side by side, so factors are broadcast and nothing is shuffled.

A real line of T numbers is T / 2 complex ones, number n + i number n + T / 2: real polynomials modulo x^T + 1 are complex ones modulo
x^(T/2) - i (T wraps around with the other sign, and what wraps is thrown away). No symmetry of spectra is ever spelled out.

    data[number][real or imaginary part][lane]

Cost. A butterfly of 4 is 12 multiplications and 16 additions of vectors, of 8 28 + 4 and 52: on Zen 4, which adds beside multiplying, both
run at the peak of its multiply-adds in the usual count of 5 n log2 n operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from convolve.kernels.cache import Kernel
from convolve.kernels.machine import machine
from convolve.kernels.preamble import HEADER

RADICES = {"avx512": (8, 5, 4, 3, 2), "avx2": (5, 4, 3, 2), "neon": (4, 3, 2), "other": (4, 3, 2)}
"""Of the passes; a butterfly's numbers and factors should fit the registers."""
TOLD = ("data", "passes", "count", "factors")
"""What the kernels of passes are told, before anything else: two addresses, rows of a plan, and another address."""
PASS = ("radix", "step", "parts", "at")
"""A row of a plan: from one number of a butterfly to the next, parts, and where their factors begin."""


def last_radix(lanes: int) -> int:
    """Of rows: that pass is one with the product."""
    return min(8, 2 * lanes) if machine().registers >= 32 else 4


# Lines of text: number s of the name a is a{s}r and a{s}i.


def dft(r: int, a: str, o: str, back: bool) -> list[str]:
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
    lines += dft(4, "f", "h", back) + dft(4, "e", "g", back)
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


def load_factors(r: int) -> list[str]:
    return [f"w{s}r, w{s}i = broadcast(factors, {2 * s - 2}), broadcast(factors, {2 * s - 1})" for s in range(1, r)]


def times(a: str, w: str, conjugate: bool) -> list[str]:
    """a = a w, or a times the conjugate of w."""
    real, imaginary = ("fma", "fnma") if conjugate else ("fnma", "fma")
    return [
        f"t, {a}i = {real}({a}i, {w}i, mul({a}r, {w}r)), {imaginary}({a}r, {w}i, mul({a}i, {w}r))",
        f"{a}r = t",
    ]


def read(r: int, at: str) -> list[str]:
    return [f"a{s}r, a{s}i = load(x, {at.format(s)}), load(x, {at.format(s)} + LANES)" for s in range(r)]


def write(r: int, at: str) -> list[str]:
    places = [at.format(s) for s in range(r)]
    return [
        f"store(x, {place} + {c}, o{s}{p})" for s, place in enumerate(places) for c, p in (("0", "r"), ("LANES", "i"))
    ]


def there(r: int) -> list[str]:
    return [line for s in range(1, r) for line in times(f"a{s}", f"w{s}", False)] + dft(r, "a", "o", False)


def back(r: int) -> list[str]:
    return dft(r, "a", "o", True) + [line for s in range(1, r) for line in times(f"o{s}", f"w{s}", True)]


def body(lines: Sequence[str], indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)


def _pass(r: int, inverse: bool) -> str:
    """One pass over data in place: `parts` times r numbers that lie `step` apart."""
    inner = read(r, "i + {} * step") + (back(r) if inverse else there(r)) + write(r, "i + {} * step")
    factors = load_factors(r)
    outside, inside = (factors, []) if r < 8 else ([], factors)  # eight would not stay in registers
    return f"""
def pass{r}(x, step, parts, factors):
    for part in range(parts):
{body([*outside, "pass"], 8)}
        for i in range(0, step, 2 * LANES):
{body(inside + inner, 12)}
        x, factors = shift(x, {r} * step), shift(factors, {2 * r - 2})
"""


NEXT = "i * 2 * LANES".replace("i", "{}")


def through(r: int, line: bool = False) -> str:
    """The last pass of a part, the product with the conjugate spectrum, and the first pass back; of a `line`, lanes share one spectrum."""
    lines = load_factors(r) + read(r, NEXT) + there(r)
    for s in range(r):
        lines += [f"kr, ki = {_spectrum(s, line)}", *times(f"o{s}", "k", True)]
        lines += [f"a{s}r, a{s}i = o{s}r, o{s}i"]
    lines += back(r) + write(r, NEXT)
    return f"""
def through(x, parts, factors, k):
    for part in range(parts):
{body(lines, 8)}
        x, factors, k = shift(x, {2 * r} * LANES), shift(factors, {2 * r - 2}), shift(k, {2 * r} * LANES)
"""


def _spectrum(s: int, line: bool) -> str:
    load, at = "broadcast" if line else "load", NEXT.format(s)
    return f"{load}(k, {at}), {load}(k, {at} + LANES)"


SUMMED = 4
"""Numbers that are summed over channels together; transforms are multiples."""


def sums(line: bool = False) -> str:
    """The sum over channels of the products with the conjugate spectra, which lie `next` apart; of a `line`, in the next lane."""
    start = [f"s{j}r, s{j}i = zero(), zero()" for j in range(SUMMED)]
    # Other kernels' spectra come from beyond the second-level cache, and in pieces that no hardware foresees.
    step = [f"prefetch(k, {4 * 2 * SUMMED + i} * LANES)" for i in range(2 * SUMMED)]
    keep = []
    for j in range(SUMMED):
        at = NEXT.format(j)
        step += [f"xr, xi, (kr, ki) = load(x, {at}), load(x, {at} + LANES), ({_spectrum(j, line)})"]
        step += [f"s{j}r, s{j}i = fma(xr, kr, s{j}r), fma(xi, kr, s{j}i)"]
        step += [f"s{j}r, s{j}i = fma(xi, ki, s{j}r), fnma(xr, ki, s{j}i)"]
        keep += [f"store(y, i + {at}, s{j}r)", f"store(y, i + {at} + LANES, s{j}i)"]
    place = "i + (first + c) // LANES * next + (first + c) % LANES" if line else "i + (first + c) * next"
    return f"""
def sums(maps, kernels, first, next, channels, count, y):
    for i in range(0, count * 2 * LANES, {2 * SUMMED} * LANES):
        x = shift(maps, i)
{body(start, 8)}
        for c in range(channels):
            k = shift(kernels, {place})
{body(step, 12)}
            x = shift(x, next)
{body(keep, 8)}
"""


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
{unpack(TOLD, TOLD)}
    x, factors, passes = pointer(data), pointer(factors), int64_pointer(passes)
    for p in range(count):
        row = ({order}) * {len(PASS)}
        {", ".join(PASS)} = {", ".join(f"passes[row + {i}]" for i in range(len(PASS)))}
{choice}
"""


def passes_shared(back: bool) -> str:
    return "".join(_pass(r, back) for r in RADICES[machine().instruction_set])


def unpack(names: Sequence[str], every: Sequence[str]) -> str:
    """Lines that name those of a kernel's arguments."""
    return "\n".join(f"    {name} = arguments[{HEADER + every.index(name)}]" for name in names)


def tell(every: Sequence[str], values: dict[str, str], indent: int) -> str:
    """Lines that write into `block`, which other kernels get as arguments."""
    return "\n".join(f"{' ' * indent}block[{HEADER + every.index(name)}] = {value}" for name, value in values.items())


def passes(back: bool) -> Kernel:
    return kernel("inverse" if back else "forward", lambda: passes_source(back), lambda: passes_shared(back))


def kernel(name: str, source: Callable[[], str], shared: Callable[[], str]) -> Kernel:
    """A kernel of this family: its arithmetic is float64, whatever it reads."""
    return Kernel(f"fourier-{name}", "float64", source, shared)


def every(dtype: str) -> list[Kernel]:  # noqa: ARG001 - as other families
    return [passes(False), passes(True)]
