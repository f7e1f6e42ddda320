"""The depthwise kernels against torch in float64: every role and layout, odd sizes, guard pages, NaN and Inf, AVX2."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import convolve
from convolve.geometry import Window
from convolve.kernels.machine import machine
from convolve.ops import engine
from convolve.ops.algorithms import depthwise, torch_row
from convolve.problem import LAYOUTS, ROLES, ConvProblem
from guard_pages import guarded_like
from kernels_support import passes_for_avx2

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

ROW = depthwise.ALGORITHM


def problems(seed: int, count: int) -> Iterator[ConvProblem]:
    """Random problems that the row serves."""
    draw = random.Random(seed)
    lanes = machine().lanes("float32")
    while count:
        role, layout = draw.choice(ROLES), draw.choice(LAYOUTS)
        axes = draw.choice([1, 2]) if layout == "channels_first" else 2
        channels = draw.choice([2, 3, lanes - 1, lanes, 2 * lanes, 2 * lanes + 1, 4 * lanes + 5])
        window = Window.of(
            [draw.choice([1, 2, 3, 5, 7]) for _ in range(axes)],
            [draw.choice([1, 1, 2, 3]) for _ in range(axes)],
            [(draw.choice([-1, 0, 1, 3]), draw.choice([0, 1, 2])) for _ in range(axes)],
            [draw.choice([1, 1, 2]) for _ in range(axes)],
            axes=axes,
        )
        size = tuple(draw.choice([1, 5, 7, 14, 19, 33]) for _ in range(axes))
        filters = channels * draw.choice([1, 1, 2, 3])
        dtype = draw.choice(["float32", "float64"])
        problem = ConvProblem(draw.choice([1, 2, 3]), channels, filters, size, window, channels, dtype, role, layout)
        if min(window.output_size(size)) >= 1 and ROW.why_not(problem) is None:
            count -= 1
            yield problem


def operands(problem: ConvProblem, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, problem.dtype)
    a, b = (torch.randn(shape, dtype=dtype, generator=generator) for shape in problem.operand_shapes)
    if problem.layout == "channels_last":
        a = a.contiguous(memory_format=torch.channels_last)
        b = b.contiguous(memory_format=torch.channels_last) if problem.role == "weight_gradient" else b
    bias = torch.randn(problem.result_shape[1], dtype=dtype, generator=generator)
    return a, b, None if problem.role == "weight_gradient" else bias


def exact(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """By torch in float64."""
    wide = ConvProblem.parse(str(problem).replace(" float64", "") + " float64")
    return torch_row.run(wide, a.double(), b.double(), None if bias is None else bias.double())


@pytest.mark.parametrize("seed", range(30))
def test_every_role_and_layout_is_right_between_guard_pages(seed: int) -> None:
    for number, problem in enumerate(problems(seed, 3)):
        a, b, bias = operands(problem, seed)
        expected = exact(problem, a, b, bias)
        a, b = guarded_like(a, at_end=number != 1), guarded_like(b, at_end=number != 1)
        result = ROW.run(problem, a, b, None if bias is None else guarded_like(bias))
        scale = expected.square().mean().sqrt().item() or 1.0
        error = (result.double() - expected).abs().max().item() / scale
        assert error <= ROW.bound(problem), str(problem)
        if problem.layout == "channels_last" and problem.role != "weight_gradient":
            assert result.is_contiguous(memory_format=torch.channels_last)


def test_tall_kernels_and_many_blocks_are_right() -> None:
    for text in ("1x33x40x37 k33 31x31 p15 g33", "1x5x300x200 k5 3x3 s2 p1 g5", "2x70x9x9 k70 9x9 p4 g70"):
        for role, layout in itertools.product(ROLES, LAYOUTS):
            problem = ConvProblem.parse(f"{text} {role} {layout}")
            if ROW.why_not(problem) is None:
                a, b, bias = operands(problem)
                expected = exact(problem, a, b, bias)
                error = (ROW.run(problem, a, b, bias).double() - expected).abs().max() / expected.square().mean().sqrt()
                assert error <= ROW.bound(problem), str(problem)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_touch_what_a_direct_convolution_touches(value: float) -> None:
    for role, layout in itertools.product(ROLES, LAYOUTS):
        problem = ConvProblem.parse(f"2x37x9x11 k37 3x3 p1 g37 {role} {layout}")
        if ROW.why_not(problem) is not None:
            continue
        a, b, _ = operands(problem)
        a[1, 5, 4, 10] = value  # at the end of a row, beside the padding
        result = ROW.run(problem, a, b, None)
        finite = exact(problem, a.clone(), b, None).isfinite()
        assert result.isfinite().equal(finite), str(problem)


def test_the_bits_depend_neither_on_threads_nor_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for role, layout in itertools.product(ROLES, LAYOUTS):
        problem = ConvProblem.parse(f"3x20x29x31 k20 5x5 p2 g20 {role} {layout}")
        if ROW.why_not(problem) is not None:
            continue
        a, b, _ = operands(problem)
        results = []
        for threads in (1, 2, 5):
            monkeypatch.setattr(engine, "thread_count", lambda threads=threads: threads)
            results.append(ROW.run(problem, a, b, None))
        assert results[0].equal(results[1])
        assert results[0].equal(results[2])
        if role != "weight_gradient":
            alone = ConvProblem.parse(str(problem).replace("3x20", "1x20", 1))
            assert ROW.run(alone, a[1:2], b, None).equal(results[0][1:2])


def test_the_public_operator_and_its_gradients_use_the_row() -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(3, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    function = lambda x, w: convolve.conv2d(x, w, None, 2, 1, groups=3, algorithm="depthwise")  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, w))
    assert torch.autograd.gradgradcheck(function, (x, w))


def test_the_kernels_for_avx2_are_right_too() -> None:
    passes_for_avx2(__file__)
