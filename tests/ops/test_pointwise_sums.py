"""The weight gradient of 1x1 layers against torch in float64: odd sizes, every layout and cut, between pages nobody may touch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from convolve.kernels import pointwise_sums as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.table import every
from convolve.ops import direct_call, engine, rule
from convolve.ops.algorithms import pointwise_sums, torch_row
from convolve.ops.call import ConvCall
from convolve.ops.choose import ranked, why_not
from convolve.problem import ConvProblem
from guard_pages import guarded_like
from kernels_support import LAST, guard_allocations, operands, passes_for_avx2

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

ROW = pointwise_sums.ALGORITHM
LAYOUTS = ("channels_first", "channels_last")
CHANNELS = (1, 3, 7, 8, 15, 16, 17, 31, 33, 50)


def problem_of(text: str, layout: str = "channels_first") -> ConvProblem:
    return replace(ConvProblem.parse(f"{text} weight_gradient"), layout=layout)


def problems(seed: str, count: int) -> Iterator[ConvProblem]:
    draw = random.Random(seed)
    for _ in range(count):
        axes, groups = draw.choice([1, 2, 2, 3]), draw.choice([1, 1, 2, 3])
        size = "x".join(str(draw.randint(1, 13)) for _ in range(axes))
        stride = "x".join(str(draw.choice([1, 1, 2, 3])) for _ in range(axes))
        c, k = (groups * draw.choice(CHANNELS) for _ in "ck")
        dtype = draw.choice(["float32", "float32", "float64"])
        layout = draw.choice(["channels_first", "channels_last"]) if axes > 1 else "channels_first"
        one = "x".join(["1"] * axes)
        yield problem_of(f"{draw.randint(1, 5)}x{c}x{size} k{k} {one} s{stride} g{groups} {dtype}", layout)


def check(problem: ConvProblem, x: Tensor, dy: Tensor) -> Tensor:
    want = torch_row.run(replace(problem, dtype="float64"), x.double(), dy.double(), None)
    got = ROW.run(problem, x, dy, None)
    assert (got.shape, got.dtype) == (want.shape, x.dtype)
    expected = float(x.double().square().mean().sqrt() * dy.double().square().mean().sqrt()) * problem.summed**0.5
    scale = max(float(want.square().mean().sqrt()), expected)
    worst = float((got - want).abs().max()) / scale
    assert worst <= ROW.bound(problem), (str(problem), worst)
    return got


@pytest.mark.parametrize("seed", range(4))
def test_the_row_computes_what_torch_computes_in_float64(seed: int) -> None:
    for problem in problems(f"pointwise {seed}", 60):
        assert why_not(ROW, problem) is None
        check(problem, *operands(problem)[:2])


@pytest.mark.parametrize("at_end", [True, False])
def test_the_kernels_touch_nothing_beside_their_operands(at_end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_allocations(monkeypatch, at_end)
    for problem in problems("pointwise between pages", 60):
        x, dy, _ = operands(problem)
        check(problem, guarded_like(x, at_end), guarded_like(dy, at_end))


def with_cut(patch: pytest.MonkeyPatch, shares: int, filter_parts: int, chunk: int) -> None:
    cut = pointwise_sums.Cut(shares, filter_parts, chunk, 0.0)
    patch.setattr(pointwise_sums, "best_cut", lambda *_: cut)
    patch.setattr(direct_call, "_PLANS", {})


@pytest.mark.parametrize("text", ["3x18x5x7 k70 1x1", "2x34x4x9 k100 1x1 s2x1 g2 float64", "3x5x11 k130 1"])
def test_shares_of_filters_do_not_change_a_bit_and_shares_of_positions_are_added(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problem_of(text)
    x, dy, _ = operands(problem)
    for chunk in (1, 7, 64):
        found = []
        for shares, parts in itertools.product((1, 2, 3), (1, 2)):
            with_cut(monkeypatch, shares, parts, chunk)
            found.append(check(problem, x, dy))
        assert all(found[i].equal(found[i + 1]) for i in (0, 2, 4))


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_whatever_cut_is_chosen_serves(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for text in ("1x1x1x1 k1 1x1", "1x40x5x5 k70 1x1", "9x33x8x9 k200 1x1", "1x64x3x3 k128 1x1 g4"):
            problem = problem_of(text)
            cut = pointwise_sums.best_cut(problem, threads)
            assert cut.shares * cut.filter_parts <= threads
            check(problem, *operands(problem)[:2])
    finally:
        torch.set_num_threads(before)


def test_it_is_right_on_fewer_threads_than_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = engine.run
    monkeypatch.setattr(engine, "thread_count", lambda: 3)
    monkeypatch.setattr(engine, "run", lambda address, arguments, threads: run(address, arguments, 1))
    with_cut(monkeypatch, 3, 1, 8)
    problem = problem_of("3x5x4x9 k7 1x1")
    check(problem, *operands(problem)[:2])


def test_strided_expanded_and_unaligned_views_are_read_in_place() -> None:
    problem = problem_of("2x18x5x6 k18 1x1")
    plain = torch.randn(2, 18, 5, 6)
    for view in (
        torch.randn(6, 5, 18, 2).permute(3, 2, 1, 0),
        torch.randn(2, 36, 10, 12)[:, ::2, ::2, ::2],
        torch.randn(1, 18, 5, 6).expand(2, 18, 5, 6),
        torch.randn(2, 18, 1, 1).expand(2, 18, 5, 6),
        torch.randn(2, 18, 5, 7)[..., :6],
        torch.randn(2 * 18 * 5 * 6 + 1)[1:].view(2, 18, 5, 6),
        torch.randn(2, 20, 5, 6).contiguous(memory_format=LAST[2])[:, 1:-1],
    ):
        check(problem, view, plain)
        check(problem, plain, view)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_reach_their_own_weights_alone(value: float) -> None:
    for text, layout in itertools.product(("2x17x3x5 k5 1x1", "1x3x9x9 k40 1x1 s2"), LAYOUTS):
        problem = problem_of(text, layout)
        for place in (0, 1):
            pair = list(operands(problem)[:2])
            pair[place][0, 2, 0, 2] = value
            want, got = torch_row.run(problem, *pair, None), ROW.run(problem, *pair, None)
            assert not got.isfinite().all()
            assert torch.equal(torch.isnan(want), torch.isnan(got))
            assert torch.equal(torch.isinf(want), torch.isinf(got))


@pytest.mark.parametrize(("precision", "taken"), [("default", True), ("exact", True), ("reproducible", False)])
def test_auto_may_take_it_unless_reproducible_rows_are_wanted(precision: str, taken: bool) -> None:
    assert (ROW in ranked(problem_of("8x128x28x28 k128 1x1"), "auto", precision)) == taken


@pytest.mark.parametrize("batch", [4, 0])
def test_a_call_that_names_it_is_served(batch: int) -> None:
    x, g = torch.randn(batch, 6, 7, 9), torch.randn(batch, 5, 4, 5)
    w = torch.randn(5, 6, 1, 1, requires_grad=True)
    (want,) = torch.autograd.grad(torch.nn.functional.conv2d(x, w, stride=2), w, g)
    text = str(ConvCall(problem_of("1x6x7x9 k5 1x1 s2").window, role="weight_gradient", algorithm=ROW.name))
    torch.testing.assert_close(rule.convolve(x, g, None, text), want)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1x8x9x9 k8 1x1", "it computes weight gradients"),
        ("1x8x9x9 k8 3x3 weight_gradient", "one tap, not 3x3"),
        ("1x8x9x9 k8 1x1 p1 weight_gradient", "without padding"),
        ("1x8x9x9 k8 1x1 p-1 weight_gradient", "without padding"),
        ("1x8x9x9 k8 1x1 bfloat16 weight_gradient", "float32 and float64"),
        ("1x8x9x9 k8 1x1 cuda weight_gradient", "on a CPU"),
    ],
)
def test_what_is_not_served_is_declined_in_words(text: str, reason: str) -> None:
    found = why_not(ROW, ConvProblem.parse(text))
    assert found is not None
    assert reason in found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_its_kernels_are_listed_and_compile(dtype: str) -> None:
    for kernel in (*kernels.every(dtype), kernels.sums(dtype)):
        assert kernel.name in every()
        assert loaded(kernel).address != 0


@pytest.mark.slow
def test_the_kernels_for_avx2_are_right_too() -> None:
    passes_for_avx2(__file__)
