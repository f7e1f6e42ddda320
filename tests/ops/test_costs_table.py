"""The fitted estimates that ship with the package (ops/costs.json): every name is one that is asked for, every figure can be a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest

from convolve.ops import costs
from convolve.ops.algorithm import Algorithm
from convolve.ops.algorithms import ALGORITHMS
from convolve.ops.choose import served, why_not
from convolve.ops.costs import fitted  # the real one: conftest.py replaces it once the tests begin
from convolve.problem import LAYOUTS, ROLES, ConvProblem

SIZES = {1: "200", 2: "20x20", 3: "8x8x8"}
TAPS = {1: ("1", "3", "129"), 2: ("1x1", "3x3", "11x11"), 3: ("1x1x1", "3x3x3", "5x5x5")}  # one, few, more than 100
CHANNELS = (
    (1, 1, 1),
    (16, 16, 16),
    (3, 16, 1),
    (1, 4, 1),
    (16, 16, 1),
    (32, 32, 2),
    (32, 4, 1),
    (4, 8, 4),
    (3, 3, 3),
)  # single, depthwise, few, few of one, dense, grouped, few again, multiplied
SPREADS = (1.0, 5.0)  # factors; a wider one would mean that its row should have no fit


def asked() -> Iterator[tuple[Algorithm, ConvProblem, bool]]:
    """One problem of every kind that a row serves, as the row sees it, and whether its weight is frozen."""
    for (axes, size), (c, k, g), role, layout in itertools.product(SIZES.items(), CHANNELS, ROLES, LAYOUTS):
        if layout == "channels_last" and axes == 1:
            continue
        steps = ((1, 1), (2, 1), (1, 2))  # strides and dilations
        for taps, (stride, dilation), dtype in itertools.product(TAPS[axes], steps, ("float32", "float64")):
            padding = "x".join(str(int(n) // 2) for n in taps.split("x"))
            text = f"32x{c}x{size} k{k} {taps} s{stride} d{dilation} p{padding} g{g} {dtype} {role} {layout}"
            problem = ConvProblem.parse(text)
            for row in ALGORITHMS:
                if why_not(row, problem) is None:
                    for frozen in {False, row.preparation is not None and role == "output"}:
                        yield row, served(row, problem), frozen


ASKED = list(asked())


def test_every_name_is_one_that_some_problem_asks_for() -> None:
    known = {name for row, problem, frozen in ASKED for name in costs.buckets(row, problem, frozen)}
    assert set(fitted().coefficients) - known == set()
    assert set(fitted().spread) == set(fitted().coefficients)


def test_every_row_was_fitted_in_every_role_in_which_auto_may_take_it() -> None:
    """But the reference, which is never the fastest, and rows that the values of a weight decide on."""
    taken = {
        (row.name, problem.role)
        for row, problem, _ in ASKED
        if row.not_automatic(problem) is None and row.not_these is None and row.name != "reference"
    }
    assert taken - {tuple(name.split()[:2]) for name in fitted().coefficients} == set()


def test_coefficients_and_spreads_are_what_a_fit_can_give() -> None:
    for name, values in fitted().coefficients.items():
        assert len(values) == len(costs.FEATURES), name
        assert all(math.isfinite(value) and value >= 0 for value in values), name
        assert any(values), name
        assert SPREADS[0] <= fitted().spread[name] <= SPREADS[1], name


def test_estimates_are_times_and_so_are_the_formulas_that_they_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "fitted", fitted)
    for row, problem, frozen in ASKED:
        for seconds in (costs.estimate(row, problem, frozen).seconds, costs.own_estimate(row, problem, frozen).seconds):
            assert 1e-7 < seconds < 100, (row.name, str(problem), frozen, seconds)


FORMS = {
    "1x64x14x14 k32 1x1": "dense point",
    "1x64x14x14 k32 1x1 s2": "dense patch",
    "1x64x14x14 k32 2x2 s2 input_gradient": "dense patch",
    "1x64x14x14 k32 3x3 s2": "dense strided",
    "1x64x33x33 k32 3x3 p12 d12": "dense dilated",
    "1x64x14x14 k32 3x3": "dense small",
    "1x64x14x14 k32 11x11": "dense large",
    "1x3x14x14 k32 1x1": "few point",
    "1x1x14x14 k1 3x3": "single small",
    "1x32x14x14 k32 3x3 g32": "depthwise small",
    "1x32x14x14 k64 3x3 g32": "multiplied small",
    "1x3x14x14 k3 3x3 g3": "multiplied small",
    "1x32x14x14 k64 3x3 g4": "grouped small",
}


@pytest.mark.parametrize("text", FORMS)
def test_matrix_products_and_what_libraries_treat_apart_are_estimated_apart(text: str) -> None:
    row, problem = ALGORITHMS[0], ConvProblem.parse(text)
    assert costs.buckets(row, problem)[0] == f"torch {problem.role} 2d {FORMS[text]} float32 channels_first"
