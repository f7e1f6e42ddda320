"""The row whose vectors run along images: against torch in float64, every tile, between guard pages, and what it declines."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from convolve.geometry import Window
from convolve.kernels import images as kernels
from convolve.kernels.machine import machine
from convolve.ops import direct_call, engine
from convolve.ops.algorithms import images, reference, torch_row
from convolve.problem import ROLES, ConvProblem
from guard_pages import guarded_like
from kernels_support import guard_allocations

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

ROW = images.ALGORITHM


def problems(seed: int, count: int) -> Iterator[ConvProblem]:
    """Random problems that the row serves: odd sizes, one axis or two, a last vector that is seldom full."""
    draw = random.Random(seed)
    while count > 0:
        axes, dtype = draw.choice([1, 2, 2]), draw.choice(["float32", "float64"])
        window = Window(
            tuple(draw.randint(1, 5) for _ in range(axes)),
            (1,) * axes,
            tuple((draw.randint(0, 3), draw.randint(0, 3)) for _ in range(axes)),
            (1,) * axes,
            (1,) * axes,
        )
        problem = ConvProblem(
            machine().lanes(dtype) + draw.randint(0, 40),
            draw.randint(1, 7),
            draw.choice([1, 2, 3, 5, 6, 9, 16]),
            tuple(draw.randint(1, 15) for _ in range(axes)),
            window,
            1,
            dtype,
            draw.choice(ROLES),
            "channels_first",
        )
        fits = all(n > 0 for n in problem.output_size) and 0 not in problem.result_shape
        if fits and ROW.why_not(problem) is None:
            count -= 1
            yield problem


def operands(problem: ConvProblem) -> tuple[Tensor, Tensor, Tensor | None]:
    """Small whole numbers: sums are exact in any order."""
    chance, dtype = torch.Generator().manual_seed(problem.macs % 1000), getattr(torch, problem.dtype)
    a, b = (torch.randint(-3, 4, shape, generator=chance).to(dtype) for shape in problem.operand_shapes)
    bias = torch.randint(-3, 4, (problem.result_shape[1],), generator=chance).to(dtype)
    return a, b, None if problem.role == "weight_gradient" else bias


def expected(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    exact = None if bias is None else bias.double()
    return torch_row.run(replace(problem, dtype="float64"), a.double(), b.double(), exact)


@pytest.mark.parametrize("seed", range(4))
def test_the_row_computes_what_torch_computes_in_float64(seed: int) -> None:
    for problem in problems(seed, 40):
        a, b, bias = operands(problem)
        assert torch.equal(ROW.run(problem, a, b, bias).double(), expected(problem, a, b, bias)), str(problem)


@pytest.mark.parametrize("at_end", [True, False])
def test_the_row_touches_nothing_beside_its_operands(at_end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_allocations(monkeypatch, at_end)
    for problem in problems(9, 60):
        a, b, bias = operands(problem)
        given = None if bias is None else guarded_like(bias, at_end)
        found = ROW.run(problem, guarded_like(a, at_end), guarded_like(b, at_end), given)
        assert torch.equal(found.double(), expected(problem, a, b, bias)), str(problem)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("role", ["output", "weight_gradient"])
def test_every_kernel_is_right_whether_or_not_it_would_be_chosen(
    dtype: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = role == "weight_gradient"
    for tile, k, rest in itertools.product(
        kernels.tap_tiles() if weights else kernels.tiles(), (1, 7), ("2x3", "4x4 p1")
    ):
        problem = ConvProblem.parse(f"19x2x11x13 k{k} {rest} {dtype}{' ' + role if weights else ''}")
        monkeypatch.setattr(images, "_tile", lambda _, tile=tile: tile)
        monkeypatch.setattr(direct_call, "_PLANS", {})
        a, b, bias = operands(problem)
        assert torch.equal(ROW.run(problem, a, b, bias).double(), expected(problem, a, b, bias)), (tile, k, rest)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_reach_what_the_definition_says(role: str, value: float) -> None:
    for text in ("20x2x7x9 k3 3x3 p1", "17x1x5x5 k2 2x4 p0:1"):
        problem = ConvProblem.parse(f"{text}{'' if role == 'output' else ' ' + role}")
        for place in (0, 1):
            pair = list(operands(problem)[:2])
            pair[place].view(-1)[pair[place].numel() // 2] = value
            if ROW.not_these is not None and ROW.not_these(problem, *pair) is not None:
                assert (role, place) == ("input_gradient", 1)
                continue
            want, got = reference.ALGORITHM.run(problem, *pair, None), ROW.run(problem, *pair, None)
            assert torch.equal(torch.isnan(want), torch.isnan(got)), (text, place)
            assert torch.equal(torch.isinf(want), torch.isinf(got)), (text, place)


def test_views_are_read_whatever_their_strides() -> None:
    problem = ConvProblem.parse("18x3x6x7 k4 3x3 p1")
    x, w, _ = operands(problem)
    views = x.flip(3).flip(3), torch.stack([x, x], 4)[..., 0], x.contiguous(memory_format=torch.channels_last)
    turned = w.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    for view, weight in itertools.product(views, (w, turned, w[:1].expand(4, -1, -1, -1))):
        assert torch.equal(ROW.run(problem, view, weight, None).double(), expected(problem, view, weight, None))


def test_weight_gradients_are_right_on_fewer_threads_than_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ConvProblem.parse("70x2x5x6 k3 3x3 weight_gradient")
    monkeypatch.setattr(direct_call, "_PLANS", {})
    monkeypatch.setattr(engine, "thread_count", lambda: 3)
    run, empty = engine.run, torch.empty
    monkeypatch.setattr(engine, "run", lambda address, arguments, _: run(address, arguments, 1))
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(1))
    a, b, _ = operands(problem)
    assert torch.equal(ROW.run(problem, a, b, None).double(), expected(problem, a, b, None))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("3x1x9x9 k1 3x3", "its vectors run along"),
        ("64x1x9x9 k1 3x3 s2", "stride and dilation 1"),
        ("64x1x9x9 k1 3x3 d2", "stride and dilation 1"),
        ("64x2x9x9 k2 3x3 g2", "one group"),
        ("64x1x9x9 k1 3x3 p-1", "do not crop"),
        ("64x1x9x9 k1 3x3 channels_last", "channels-first"),
        ("64x1x9x9 k1 3x3 bfloat16", "float32 and float64"),
        ("64x64x112x112 k64 3x3", "KiB, too much to stay in a core's cache"),
    ],
)
def test_what_the_row_declines_it_declines_in_words(text: str, reason: str) -> None:
    assert reason in str(ROW.why_not(ConvProblem.parse(text)))
