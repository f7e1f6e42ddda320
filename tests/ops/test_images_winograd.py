"""Winograd's filtering along rows, in vectors along images: against float64, every kernel, between guard pages, and what it declines."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import convolve
from convolve.geometry import Window
from convolve.kernels import images_winograd as kernels
from convolve.kernels.machine import machine
from convolve.ops import direct_call, engine
from convolve.ops.algorithm import NotFinite
from convolve.ops.algorithms import images_winograd, reference, torch_row
from convolve.problem import ROLES, ConvProblem
from guard_pages import guarded_like
from kernels_support import guard_allocations

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

ROW = images_winograd.ALGORITHM


def problems(seed: int, count: int) -> Iterator[ConvProblem]:
    """Random problems that the row serves: odd sizes, tiles that hang over, one axis or two, both layouts, a last vector seldom full."""
    draw = random.Random(seed)
    while count > 0:
        axes, dtype = draw.choice([1, 2, 2, 2]), draw.choice(["float32", "float64"])
        window = Window(
            (*[draw.randint(1, 6) for _ in range(axes - 1)], draw.choice(kernels.TAPS)),
            (1,) * axes,
            tuple((draw.randint(0, 6), draw.randint(0, 6)) for _ in range(axes)),
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
            draw.choice(["channels_first", "channels_last"]),
        )
        fits = all(n > 0 for n in problem.output_size) and 0 not in problem.result_shape
        if fits and ROW.why_not(problem) is None:
            count -= 1
            yield problem


def operands(problem: ConvProblem) -> tuple[Tensor, Tensor, Tensor | None]:
    chance, dtype = torch.Generator().manual_seed(problem.macs % 1000), getattr(torch, problem.dtype)
    a, b = (torch.randn(shape, generator=chance, dtype=dtype) for shape in problem.operand_shapes)
    bias = torch.randn(problem.result_shape[1], generator=chance, dtype=dtype)
    return a, b, None if problem.role == "weight_gradient" else bias


def expected(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    exact = None if bias is None else bias.double()
    return torch_row.run(replace(problem, dtype="float64", layout="channels_first"), a.double(), b.double(), exact)


def assert_within_bound(problem: ConvProblem, given: tuple[Tensor, Tensor, Tensor | None], found: Tensor) -> None:
    """Of the rms that a result of random signs has where the most products are summed: in padding there are few."""
    a, b, bias = given
    exact = expected(problem, a, b, bias)
    squares = expected(problem, a.double().square(), b.double().square(), None if bias is None else bias.square())
    worst = float((found.double() - exact).abs().max() / squares.max().sqrt())
    assert found.shape == exact.shape
    assert worst <= ROW.bound(problem), f"{worst:.1e} exceeds {ROW.bound(problem):.1e}: {problem}"


@pytest.mark.parametrize("seed", range(4))
def test_the_row_stays_within_its_bound_of_float64(seed: int) -> None:
    for problem in problems(seed, 40):
        given = operands(problem)
        assert_within_bound(problem, given, ROW.run(problem, *given))


@pytest.mark.parametrize("at_end", [True, False])
def test_the_row_touches_nothing_beside_its_operands(at_end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_allocations(monkeypatch, at_end)
    for problem in problems(9, 60):
        a, b, bias = operands(problem)
        constant = None if bias is None else guarded_like(bias, at_end)
        found = ROW.run(problem, guarded_like(a, at_end), guarded_like(b, at_end), constant)
        assert_within_bound(problem, (a, b, bias), found)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("role", ROLES)
def test_every_kernel_is_right_whether_or_not_it_would_be_chosen(
    dtype: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for taps, k, layout in itertools.product(kernels.TAPS, (1, 7), ("", " channels_last")):
        problem = ConvProblem.parse(f"19x5x9x13 k{k} 4x{taps} p1 {dtype} {role}{layout}".replace(" output", ""))
        for tile in kernels.tap_tiles() if role == "weight_gradient" else kernels.widths_of(kernels.points_of(taps)):
            monkeypatch.setattr(
                images_winograd, "_tap_tile" if role == "weight_gradient" else "_width", lambda _, tile=tile: tile
            )
            monkeypatch.setattr(direct_call, "_PLANS", {})
            given = operands(problem)
            assert_within_bound(problem, given, ROW.run(problem, *given))


def test_its_errors_are_those_that_are_published() -> None:
    """As docs/engine.md has it: the largest error over the rms of the result."""
    for text, most in (("32x64x16x16 k8 5x5 p2", 1.5e-5), ("32x64x16x16 k8 3x3 p1", 6e-6)):
        problem = ConvProblem.parse(text)
        a, b, _ = operands(problem)
        exact = expected(problem, a, b, None)
        worst = float((ROW.run(problem, a, b, None) - exact).abs().max() / exact.square().mean().sqrt())
        assert most / 4 < worst < most, (text, worst)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_reach_what_the_definition_says(role: str, value: float) -> None:
    for text in ("20x2x7x9 k3 3x3 p1", "17x1x5x9 k2 2x5 p0:1 channels_last"):
        problem = ConvProblem.parse(f"{text}{'' if role == 'output' else ' ' + role}")
        for place in (0, 1):
            pair = list(operands(problem)[:2])
            pair[place].view(-1)[pair[place].numel() // 2] = value
            with pytest.raises(NotFinite):
                ROW.run(problem, *pair, None)
    # A call notices, and computes the result directly.
    x, w = torch.randn(20, 2, 7, 9), torch.randn(3, 2, 3, 3)
    x[7, 1, 3, 4] = value
    found = convolve.conv2d(x, w, padding=1, algorithm="images_winograd")
    want = reference.run(ConvProblem.parse("20x2x7x9 k3 3x3 p1"), x, w, None)
    assert torch.equal(found.isnan(), want.isnan())
    assert torch.equal(found.isinf(), want.isinf())


@pytest.mark.parametrize("role", ROLES)
def test_an_overflow_of_tiles_that_overlap_is_noticed(role: str) -> None:
    problem = ConvProblem.parse(f"16x1x4x9 k1 3x3 {role}".replace(" output", ""))
    a, b = (torch.full(shape, 1e20) for shape in problem.operand_shapes)
    with pytest.raises(NotFinite):
        ROW.run(problem, a, b, None)


def test_views_are_read_whatever_their_strides() -> None:
    x, w, _ = operands(ConvProblem.parse("18x3x6x7 k4 3x3 p1"))
    views = x.flip(3).flip(3), torch.stack([x, x], 4)[..., 0], x.contiguous(memory_format=torch.channels_last)
    turned = w.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    for layout, view, weight in itertools.product(
        ("", " channels_last"), views, (w, turned, w[:1].expand(4, -1, -1, -1))
    ):
        problem = ConvProblem.parse(f"18x3x6x7 k4 3x3 p1{layout}")
        found = ROW.run(problem, view, weight, None)
        assert_within_bound(problem, (view, weight, None), found)
        assert found.is_contiguous(memory_format=torch.channels_last if layout else torch.contiguous_format)


def test_an_image_has_the_same_bits_in_any_batch_and_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("output", "input_gradient"):
        problem = ConvProblem.parse(f"70x3x7x9 k5 5x5 p2 {role}".replace(" output", ""))
        a, b, bias = operands(problem)
        results = []
        for threads in (1, 2, 3):
            monkeypatch.setattr(direct_call, "_PLANS", {})
            monkeypatch.setattr(engine, "thread_count", lambda threads=threads: threads)
            results.append(ROW.run(problem, a, b, bias))
        results.append(ROW.run(replace(problem, batch=20), a[:20], b, bias))
        assert all(torch.equal(found, results[0][: found.shape[0]]) for found in results)


@pytest.mark.parametrize("role", ROLES)
def test_what_is_not_finite_is_noticed_by_whichever_thread_has_it(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ConvProblem.parse(f"70x2x5x6 k3 3x3 {role}".replace(" output", ""))
    monkeypatch.setattr(direct_call, "_PLANS", {})
    monkeypatch.setattr(engine, "thread_count", lambda: 3)
    given = operands(problem)
    assert_within_bound(problem, given, ROW.run(problem, *given))
    for image in (0, 40, 69):
        a = given[0].clone()
        a[image, 1, 2, 3] = math.inf
        with pytest.raises(NotFinite):
            ROW.run(problem, a, *given[1:])


def test_weight_gradients_are_right_on_fewer_threads_than_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ConvProblem.parse("70x2x5x6 k3 3x3 weight_gradient")
    monkeypatch.setattr(direct_call, "_PLANS", {})
    monkeypatch.setattr(engine, "thread_count", lambda: 3)
    run, empty = engine.run, torch.empty
    monkeypatch.setattr(engine, "run", lambda address, arguments, _: run(address, arguments, 1))
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(1))
    given = operands(problem)
    assert_within_bound(problem, given, ROW.run(problem, *given))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("3x1x9x9 k1 3x3", "its vectors run along"),  # and whatever else tests/ops/test_images.py names
        ("64x1x9x9 k1 3x4", "3 or 5 taps, not 4"),
        ("64x64x112x112 k64 3x3", "KiB, too much to stay in a core's cache"),
    ],
)
def test_what_the_row_declines_it_declines_in_words(text: str, reason: str) -> None:
    assert reason in str(ROW.why_not(ConvProblem.parse(text)))


def test_where_products_must_be_plain_the_row_is_not_taken() -> None:
    x, w = torch.randint(-3, 4, (64, 6, 14, 14)).float(), torch.randint(-3, 4, (16, 6, 5, 5)).float()
    with convolve.precision("exact"):
        assert torch.equal(convolve.conv2d(x, w), torch.nn.functional.conv2d(x.double(), w.double()).float())
