"""Estimated seconds: a small model per algorithm, fitted on recorded measurements, or the row's own formula.

    seconds = sum of  coefficient_i * feature_i          coefficients >= 0, fitted in log space by benchmarks/fit_costs.py

There is one set of coefficients for every row, role, kind of channels, dtype and layout that was measured (`costs.json` beside this
file), and wider ones for what was measured seldom. Whatever was not measured is estimated by the row itself (`Algorithm.cost`), whose
formula is one of the features too: the fit then corrects its scale. Estimates are instant: nothing is run, nothing but this one file
is read.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.machine import capability, processor
from convolve.problem import DTYPE_BYTES, ConvProblem

TABLE = Path(__file__).with_name("costs.json")
MARGIN = 1.5
"""How many times faster than the library's row another must at least be predicted before `auto` leaves it on a CPU that was never
measured."""
MARGIN_MEASURED = 1.15
"""The same on the CPU on which the table was recorded."""
UNFITTED = 1.3
"""By what factor the estimate of a row that was not fitted is typically wrong (for most rows; the library's own is worse)."""
SMALL = 100
"""Up to so many taps most rows take their time for sums, not for what surrounds them."""
FEW = 4
"""Up to so many channels, or filters, libraries have kernels of their own."""


@dataclass(frozen=True)
class Fitted:
    """The table: where it was recorded, and coefficients by the names of `buckets`."""

    processor: str
    capability: str
    coefficients: Mapping[str, tuple[float, ...]]
    spread: Mapping[str, float]  # by what factor the estimates of these names are typically wrong


FEATURES = (
    "call",
    "macs",
    "macs inside",
    "input bytes",
    "weight bytes",
    "output bytes",
    "macs by input lanes",
    "macs by output lanes",
    "macs by width",
    "own formula",
)
_LANES = 16


def features(problem: ConvProblem, own: float) -> tuple[float, ...]:
    """What the seconds of any row may grow with; the last one, `own`, is what the row itself expects.

    Each tensor counts by itself: libraries turn the weight into another order in every call, which is slower than to read it.
    """
    macs, size = float(problem.macs), float(DTYPE_BYTES[problem.dtype])
    c, k = problem.channels // problem.groups, problem.filters // problem.groups
    width = problem.output_size[-1] if problem.output_size else 1
    return (
        1.0,
        macs,
        float(problem.macs_valid),
        size * math.prod(problem.input_shape),
        size * math.prod(problem.weight_shape),
        size * math.prod(problem.output_shape),
        macs * _waste(c),
        macs * _waste(k),
        macs * _waste(width),
        own,
    )


def _waste(count: int) -> float:
    """How many times more lanes are computed than used where `count` elements are spread over vectors."""
    return -(-count // _LANES) * _LANES / count if count else 1.0


def buckets(row: Algorithm, problem: ConvProblem, frozen: bool = False) -> tuple[str, ...]:
    """Names of sets of problems that one set of coefficients describes, the closest first: a wider one serves where it is missing."""
    who, state = f"{_operator(row, problem)} {problem.role}", " frozen" * frozen
    kind = _kind(problem)
    closest = f"{who} {problem.axes}d {kind} {_form(problem)} {problem.dtype}"
    return (
        f"{closest} {problem.layout}{state}",
        f"{closest}{state}",
        f"{who} {problem.axes}d {kind} {problem.dtype}{state}",
        f"{who} {problem.dtype}{state}",
    )


def _operator(row: Algorithm, problem: ConvProblem) -> str:
    """The library's two rows are one where channels are innermost already."""
    return "torch_channels_last" if row.name == "torch" and problem.layout == "channels_last" else row.name


def _kind(problem: ConvProblem) -> str:
    """How channels meet filters."""
    c, k, groups = problem.channels, problem.filters, problem.groups
    if c == k == 1:
        return "single"
    if groups == 1:
        return "few" if min(c, k) <= FEW else "dense"
    if groups not in (c, k):
        return "grouped"
    return "depthwise" if c == k > FEW else "multiplied"


def _form(problem: ConvProblem) -> str:
    """What kernels of libraries are written for. `point` and `patch` are nothing but matrix products: no input is read twice."""
    window = problem.window
    taps, strided = math.prod(window.kernel), max(window.stride) > 1
    if all(k <= s for k, s in zip(window.kernel, window.stride, strict=True)):
        return "patch" if strided else "point"
    if max(window.dilation) > 1:
        return "dilated"
    return "strided" if strided else "small" if taps <= SMALL else "large"


def own_estimate(row: Algorithm, problem: ConvProblem, frozen: bool = False) -> Cost:
    """What the row says about `problem`, as it sees it."""
    if frozen and row.preparation is not None and problem.role == "output":
        return row.preparation.cost(problem)
    return row.cost(problem)


def estimate(row: Algorithm, problem: ConvProblem, frozen: bool = False) -> Cost:
    """What `problem`, as the row sees it, costs there; `frozen`: without what is done once for a weight."""
    frozen = frozen and row.preparation is not None
    own = own_estimate(row, problem, frozen)
    if problem.device != "cpu":
        return own
    name = _fitted_as(row, problem, frozen)
    if name is None:
        return own
    seconds = math.fsum(c * f for c, f in zip(fitted().coefficients[name], features(problem, own.seconds), strict=True))
    return Cost(seconds, own.workspace_bytes)


def _fitted_as(row: Algorithm, problem: ConvProblem, frozen: bool) -> str | None:
    """The closest of the names of `buckets` that was fitted."""
    return next((name for name in buckets(row, problem, frozen) if name in fitted().coefficients), None)


def spread(row: Algorithm, problem: ConvProblem, frozen: bool = False) -> float:
    """By what factor the estimate for `problem`, as the row sees it, is typically wrong."""
    name = _fitted_as(row, problem, frozen and row.preparation is not None)
    return UNFITTED if name is None else fitted().spread[name]


def margin(*spreads: float) -> float:
    """How many times faster than the library's row another must be predicted to be believed here, from the `spread` of both.

    It is a quarter of a standard deviation of the ratio of two estimates that err independently, and never less than the constants above.
    """
    table = fitted()
    here = (processor(), capability()) == (table.processor, table.capability)
    sure = math.exp(math.hypot(*map(math.log, spreads)) / 4)
    return max(MARGIN_MEASURED if here else MARGIN, sure)


@functools.cache
def fitted() -> Fitted:
    """The table that ships with the package; empty where there is none."""
    if not TABLE.exists():
        return Fitted("", "", {}, {})
    content: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    assert content["features"] == list(FEATURES), "costs.json was fitted for other features: run benchmarks.fit_costs"
    coefficients = {name: tuple(values) for name, values in content["coefficients"].items()}
    return Fitted(content["processor"], content["capability"], coefficients, content["spread"])
