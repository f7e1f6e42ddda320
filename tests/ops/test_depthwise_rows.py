"""The kernels that read small windows in place against torch in float64: odd sizes, guard pages, views, NaN and Inf, streaming, AVX2."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import convolve
from convolve.geometry import Window
from convolve.kernels import depthwise_rows as kernels
from convolve.kernels.machine import machine
from convolve.ops import direct_call, engine, roles
from convolve.ops.algorithms import depthwise_rows, planes, torch_row
from convolve.ops.choose import ranked
from convolve.problem import ROLES, ConvProblem
from guard_pages import guarded_like
from kernels_support import guard_allocations, operands, passes_for_avx2

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

ROW = depthwise_rows.ALGORITHM
CASES = [
    (size, stride, role, dtype)
    for size, stride in kernels.SERVED
    for role in ROLES
    for dtype in ("float32", "float64")
    if role == "output"
    or (role == "weight_gradient" and size == kernels.WEIGHT)
    or (role == "input_gradient" and (stride == 1 or size in kernels.SPREAD))
]


def problems(size: int, stride: int, role: str, dtype: str, count: int) -> Iterator[ConvProblem]:
    """Random problems that the row serves."""
    draw = random.Random(f"{size} {stride} {role} {dtype}")
    lanes = machine().lanes(dtype)
    while count:
        sides = [
            (draw.choice([-1, 0, size // 2, size // 2, 3, 6]), draw.choice([-1, 0, 1, size // 2, 4])) for _ in "hw"
        ]
        window = Window.of([size] * 2, [stride] * 2, sides, [1, 1], axes=2)
        wide = draw.choice([1, 2, 7, lanes - 1, lanes, lanes + 1, 3 * lanes, 3 * lanes + 2, 5 * lanes + 3, 8 * lanes])
        channels = draw.choice([1, 2, 3, 5])
        filters = channels * (draw.choice([1, 1, 2, 3]) if role != "input_gradient" else 1)
        shape = (draw.choice([1, 2, 3]), channels, filters, (draw.choice([1, 2, 5, 7, 14, 19]), wide))
        problem = ConvProblem(*shape, window, channels, dtype, role)  # type: ignore[arg-type]
        if min(window.output_size(problem.size)) >= 1 and ROW.why_not(problem) is None:
            count -= 1
            yield problem


def exact(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """By torch in float64, an input gradient as the plain convolution that it is: padding is then zeros that are multiplied."""
    if problem.role == "weight_gradient":
        return torch_row.run(replace(problem, dtype="float64"), a.double(), b.double(), None)
    wide = replace(problem.as_convolution(), dtype="float64")
    a, b = roles.operands(problem, a.double(), b.double())
    return torch_row.run(wide, a, b, None if bias is None else bias.double())


def check(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None, result: Tensor | None = None) -> None:
    expected = exact(problem, a, b, bias)
    result = ROW.run(problem, a, b, bias) if result is None else result
    scale = expected.square().mean().sqrt().item() or 1.0
    assert (result.double() - expected).abs().max().item() / scale <= ROW.bound(problem), str(problem)


@pytest.mark.parametrize(("size", "stride", "role", "dtype"), CASES)
@pytest.mark.parametrize("at_end", [True, False])
def test_random_problems_are_right_between_guard_pages(
    size: int, stride: int, role: str, dtype: str, at_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for problem in problems(size, stride, role, dtype, 12):
        a, b, bias = operands(problem)
        with monkeypatch.context() as patch:
            guard_allocations(patch, at_end)
            a_there, b_there, bias_there = (guarded_like(t, at_end) for t in (a, b, bias))
            result = ROW.run(problem, a_there, b_there, None if role == "weight_gradient" else bias_there)
        check(problem, a, b, None if role == "weight_gradient" else bias, result)
        assert result.is_contiguous()


def test_views_are_read_as_they_lie() -> None:
    problem = ConvProblem.parse("2x3x9x35 k3 3x3 p1 g3")
    x, w = torch.randn(2, 3, 9, 35), torch.randn(3, 1, 3, 3)
    views = [
        torch.randn(35, 9, 3, 2).permute(3, 2, 1, 0),
        torch.randn(2, 6, 18, 35)[:, ::2, ::2],
        torch.randn(2, 6, 18, 70)[:, ::2, ::2, ::2],
        torch.randn(1, 3, 9, 35).expand(2, 3, 9, 35),
        torch.randn(2 * 3 * 9 * 35 + 1)[1:].view(2, 3, 9, 35),
        x.contiguous(memory_format=torch.channels_last),
    ]
    gradients = replace(problem, role="weight_gradient")
    for view in views:
        for role in ("output", "input_gradient"):
            check(replace(problem, role=role), view, w, None)
        check(gradients, view, x, None)
        check(gradients, x, view, None)
    for role in ("output", "input_gradient"):
        for weight in (torch.randn(3, 3, 1, 3).permute(1, 2, 3, 0), torch.randn(1, 1, 3, 3).expand(3, 1, 3, 3)):
            check(replace(problem, role=role), x, weight, torch.randn(6)[::2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("text", ["1x2x13x19 k2 3x3 p1 g2", "1x1x13x37 k1 5x5 p2", "2x3x9x33 k3 3x3 s2 p1 g3"])
def test_nan_and_infinity_reach_what_the_definition_says(value: float, text: str) -> None:
    for role in ROW.roles:
        problem = ConvProblem.parse(f"{text} {role}")
        if ROW.why_not(problem) is not None:
            continue
        for place in (0, 1):
            for at in (0, -1, "middle"):
                pair = list(operands(problem)[:2])
                pair[place].view(-1)[pair[place].numel() // 2 if at == "middle" else at] = value
                got, want = ROW.run(problem, pair[0], pair[1], None), exact(problem, pair[0], pair[1], None)
                if place == 1 and role == "input_gradient" and problem.window.stride[0] > 1:
                    # There is no product with the zeros between gradients.
                    want = planes.ALGORITHM.run(problem, pair[0], pair[1], None)
                assert torch.equal(torch.isnan(want), torch.isnan(got)), (str(problem), place, at)
                assert torch.equal(torch.isinf(want), torch.isinf(got)), (str(problem), place, at)


def test_the_bits_depend_neither_on_threads_nor_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, stride in kernels.SERVED:
        problem = ConvProblem.parse(f"3x2x57x90 k2 {size}x{size} s{stride} p{size // 2} g2")
        a, b, bias = operands(problem)
        g = torch.randn(problem.result_shape)
        results, sums = [], []
        for threads in (1, 2, 5):
            monkeypatch.setattr(engine, "thread_count", lambda threads=threads: threads)
            results.append(ROW.run(problem, a, b, bias))
            if size == kernels.WEIGHT:
                sums.append(ROW.run(replace(problem, role="weight_gradient"), a, g, None))
        alone = ROW.run(replace(problem, batch=1), a[1:2], b, bias)
        assert all(other.equal(results[0]) for other in results)
        assert all(other.equal(sums[0]) for other in sums)
        assert alone.equal(results[0][1:2])


@pytest.mark.parametrize("text", ["2x3x19x128 k3 5x5 p2 g3", "1x1x37x64 k1 3x3 p1", "1x2x40x64 k2 3x3 s2 p1 g2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_streamed_result_is_the_stored_one(text: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ConvProblem.parse(f"{text} {dtype}")
    a, b, bias = operands(problem)
    stored = ROW.run(problem, a, b, bias)
    monkeypatch.setattr(direct_call, "STREAMED_BYTES", 1)
    monkeypatch.setattr(depthwise_rows, "_PLANS", {})
    assert ROW.run(problem, a, b, bias).equal(stored)
    plan = next(iter(depthwise_rows._PLANS.values()))
    assert plan.arguments[-8:] == (1).to_bytes(8, "little"), "it was streamed"


def test_what_it_does_not_serve_it_declines_in_words() -> None:
    declined = {
        "1x4x9x9 k4 3x3 g2": "every channel must be a group of its own; here are 4 channels in 2 groups",
        "1x4x9x9 k4 3x3 d2 g4": "no dilation, and",
        "1x4x9x9 k4 3x3 s2x1 g4": "those of 3x3 at stride 1, 3x3 at stride 2, 5x5",
        "1x4x9x9 k4 3x5 g4": "those of 3x3",
        "1x4x9x9 k4 3x3 g4 channels_last": "channels first",
        "1x4x9 k4 3 g4": "two axes",
        "1x4x9x9 k4 3x3 s2 p2 g4 input_gradient": "an odd padding",
        "1x4x9x9 k4 5x5 s2 p1 g4 input_gradient": "an even padding",
        "1x4x9x9 k4 3x3 e2 g4": "no stride but their own",
        "1x4x9x9 k8 3x3 g4 input_gradient": "several filters",
        "1x4x9x9 k4 5x5 p2 g4 weight_gradient": "3x3 at stride 1, 3x3 at stride 2",
        "1x4x9x9 k4 3x3 g4 bfloat16": "float32 and float64",
        "1x1x3x70000 k1 3x3": "up to 65536",
    }
    for text, words in declined.items():
        assert words in str(ROW.why_not(ConvProblem.parse(text))), text


def test_it_is_taken_before_planes_which_copies_the_input() -> None:
    for text in ("1x96x56x56 k96 7x7 p3 g96", "4x32x28x28 k32 3x3 s2 p1 g32 input_gradient", "1x1x64x64 k1 5x5 p2"):
        for precision in ("default", "reproducible"):
            rows = ranked(ConvProblem.parse(text), "auto", precision)
            assert ROW in rows, text
            assert planes.ALGORITHM not in rows, text
    assert planes.ALGORITHM in ranked(ConvProblem.parse("1x1x64x64 k16 5x5 p2"), "auto", "default")


def test_the_public_operator_and_its_gradients_use_the_row() -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    function = lambda x, w: convolve.conv2d(x, w, None, 1, 1, groups=3, algorithm="depthwise_rows")  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, w))
    assert torch.autograd.gradgradcheck(function, (x, w))
    torch.testing.assert_close(function(x, w), F.conv2d(x, w, None, 1, 1, groups=3))


def test_the_kernels_for_avx2_are_right_too() -> None:
    passes_for_avx2(__file__)
