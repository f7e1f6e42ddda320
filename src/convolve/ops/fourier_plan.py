"""What the Fourier kernels of maps and of lines have in common: passes and their factors, what tiles must cover, plain operands.

How a transform goes in passes stands in convolve/kernels/butterflies.py.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from convolve.geometry import Window
from convolve.kernels import butterflies, magnitudes
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.ops import engine, roles
from convolve.ops.windows import stuff_zeros
from convolve.problem import DTYPE_BYTES, ConvProblem

# Cycles of a complex vector in a pass (Zen 4, AVX-512).
PASS_CYCLES = {2: 4.4, 3: 4.5, 4: 4.8, 5: 6.5, 8: 7.5}


class Span(NamedTuple):
    """What tiles along an axis must cover."""

    results: int
    """At stride 1."""
    inputs: int
    """Up to the last that a result needs."""
    before: int
    taps: int
    stride: int


def spans(convolution: ConvProblem) -> list[Span]:
    window = convolution.window
    axes = zip(convolution.size, convolution.output_size, window.extent, window.stride, window.padding, strict=True)
    found = []
    for n, m, k, s, (before, _) in axes:
        full = s * (m - 1) + 1
        found.append(Span(full, max(0, min(n, full + k - 1 - before)), before, k, s))
    return found


class Axis(NamedTuple):
    """One axis of tiles."""

    size: int
    """Numbers of a tile."""
    step: int
    """Results at stride 1 of a tile."""
    tiles: int
    used: int
    """Numbers of a tile that hold anything."""


def axis_of(span: Span, size: int) -> Axis | None:
    """Tiles of a size along an axis; None where they are too small."""
    most = size - span.taps + 1
    if most < 1:
        return None
    # One tile is enough where what wraps around is the zeros of the padding before the first input.
    if size >= max(span.results, span.before + span.inputs, span.results + span.taps - 1 - max(span.before, 0)):
        return Axis(size, span.results, 1, max(1, min(size, span.before + span.inputs)))
    most -= most % span.stride
    if most < 1:
        return None
    count = -(-span.results // most)
    unit = math.lcm(span.stride, 16)
    equal = -(-span.results // (count * unit)) * unit
    step = equal if equal <= most else most
    return Axis(size, step, -(-span.results // step), min(size, step + span.taps - 1))


def candidates(span: Span, sizes: tuple[int, ...], weight: int) -> list[Axis]:
    """The most promising tiles along an axis."""
    found = [axis for size in sizes if (axis := axis_of(span, weight * size)) is not None]
    whole = next((i for i, axis in enumerate(found) if axis.tiles == 1), len(found))
    return sorted(found[: whole + 1], key=lambda one: one.tiles * one.size * math.log2(one.size + 1))[:6]


@cache
def radices(n: int, last: int) -> tuple[int, ...] | None:
    """The cheapest passes whose product is n / last, smaller ones first; None where there are none."""
    if n % last:
        return None
    n //= last
    if n == 1:
        return ()
    found = [
        (*rest, r)
        for r in butterflies.RADICES[machine().instruction_set]
        if n % r == 0 and (rest := radices(n // r, 1)) is not None
    ]
    return min((tuple(sorted(one)) for one in found), key=pass_cycles, default=None)


def pass_cycles(passes: tuple[int, ...]) -> float:
    return sum(PASS_CYCLES[r] for r in passes)


@cache
def sizes(unit: int, last: int, largest: int) -> tuple[int, ...]:
    """The multiples of `unit` that have passes."""
    return tuple(n for n in range(unit, largest + 1, unit) if radices(n, last) is not None)


@lru_cache(maxsize=256)
def passes_of(
    n: int, passes: tuple[int, ...], angle: Fraction
) -> tuple[list[tuple[int, ...]], npt.NDArray[np.float64]]:
    """Of a transform of polynomials modulo x^n - exp(2 pi i angle): the rows of kernels.PASS, and the factors in their order."""
    lanes = machine().lanes("float64")
    angles, step = [angle], n
    rows: list[tuple[int, ...]] = []
    factors: list[float] = []
    for r in passes:
        step //= r
        rows.append((r, step * 2 * lanes, len(angles), len(factors)))
        roots = [one / r for one in angles]
        factors += [part for root in roots for s in range(1, r) for part in unit(s * root)]
        angles = [root + Fraction(q, r) for root in roots for q in range(r)]
    return rows, np.array(factors, np.float64)


@cache
def unit(turn: Fraction) -> tuple[float, float]:
    """(cos, sin) of a part of a turn, from an angle of an eighth at most, so that both are right to the last bit."""
    turn %= 1
    if turn > Fraction(1, 2):
        cosine, sine = unit(1 - turn)
        return cosine, -sine
    if turn > Fraction(1, 4):
        cosine, sine = unit(Fraction(1, 2) - turn)
        return -cosine, sine
    if turn > Fraction(1, 8):
        cosine, sine = unit(Fraction(1, 4) - turn)
        return sine, cosine
    return math.cos(math.tau * float(turn)), math.sin(math.tau * float(turn))


@dataclass(frozen=True)
class Plan:
    """What is settled before any number is seen."""

    problem: ConvProblem
    passes: npt.NDArray[np.int64]
    factors: npt.NDArray[np.float64]
    arguments: bytes
    """The driver's, behind the addresses of tensors."""
    address: int
    w_first: int
    """The weight's first element that is read, in bytes."""
    scratch_bytes: int
    """Of all threads."""
    spectra_bytes: int
    """Of spectra that threads share."""
    threads: int


def plain(
    problem: ConvProblem, a: Tensor, w: Tensor, bias: Tensor | None
) -> tuple[ConvProblem, Tensor, Tensor, Tensor | None]:
    """The same without dilations, and in a dtype that the kernels read."""
    window = problem.as_convolution().window
    wide = undilated(problem)
    if wide is not problem:
        if {*window.dilation, *window.input_dilation} != {1}:
            a, w = roles.operands(problem, a, w)
            a, w = stuff_zeros(a, window.input_dilation), stuff_zeros(w, window.dilation)
        dtype = getattr(torch, wide.dtype)
        a, w, bias = a.to(dtype), w.to(dtype), None if bias is None else bias.to(dtype)
    return wide, a, w, bias


@lru_cache(maxsize=1024)
def undilated(problem: ConvProblem) -> ConvProblem:
    """The convolution of operands that are stuffed with zeros, and widened to float32 at least; the problem itself where they are."""
    convolution = problem.as_convolution()
    window, axes = convolution.window, convolution.axes
    dtype = problem.dtype if DTYPE_BYTES[problem.dtype] >= 4 else "float32"
    if {*window.dilation, *window.input_dilation} == {1}:
        return problem if dtype == problem.dtype else replace(problem, dtype=dtype)
    stuffed = Window(window.extent, window.stride, window.padding, (1,) * axes, (1,) * axes)
    size = tuple(e * (n - 1) + 1 for e, n in zip(window.input_dilation, convolution.size, strict=True))
    return replace(convolution, window=stuffed, size=size, dtype=dtype)


def spread(x: Tensor, blocks: tuple[int, ...]) -> tuple[float, float]:
    """Of blocks of a map (of a line where there is one axis), the largest and the smallest positive mean of the largest magnitudes
    among the channels; NaN and infinity where anything is NaN. float32."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    threads = engine.thread_count()
    # OpenMP may start fewer threads than it is asked for: whoever did not come has found nothing.
    found = torch.tensor([[0.0, math.inf, 0.0]] * threads, dtype=torch.float64)
    n, channels, *size = x.shape
    (blocks_h, blocks_w), (block_h, block_w) = (
        (1,) * (2 - len(given)) + tuple(given)
        for given in ([count // block for count, block in zip(size, blocks, strict=True)], blocks)
    )
    x_h = x.stride(-2) if len(size) > 1 else 0
    shares = threads if n * blocks_h < 4 * threads else 1
    numbers = (x.stride(0), x.stride(1), x_h, n, channels, blocks_h, blocks_w, block_h, block_w, shares)
    arguments = struct.pack(f"{len(numbers) + 2}q", x.data_ptr(), found.data_ptr(), *numbers)
    engine.run(loaded(magnitudes.kernel()).address, arguments, threads)
    largest, smallest, together = zip(*found.tolist(), strict=True)
    return max(largest) if math.isfinite(sum(together)) else math.nan, min(smallest)
