"""The pooling kernels themselves, also for inputs too small for them to be chosen: against loops, between guard pages, for AVX2."""

from __future__ import annotations

import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import convolve
from convolve.geometry import Window
from convolve.kernels.machine import machine
from convolve.ops import engine, pool_kernels, pooling
from convolve.ops.pooling import Plan, Pooling
from guard_pages import guarded_like
from kernels_support import passes_for_avx2

pytest.importorskip("numba", reason="the kernels are compiled by Numba, which is not installed")

LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@pytest.fixture(autouse=True)
def chosen_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_kernels, "LEAST", 1)
    monkeypatch.setattr(pool_kernels, "_SERIAL", 1)


def random_case(seed: int) -> tuple[Tensor, Plan]:
    """An input and a pooling of it, every argument odd; two or three axes, either layout, ties, NaN and -inf."""
    draw = random.Random(seed)
    lanes = machine().lanes("float32")
    while True:
        axes = draw.choice([2, 2, 3])
        widths = [1, 2, 5, lanes - 1, lanes, lanes + 1, 2 * lanes + 3, 4 * lanes + 1]
        size = [draw.choice([1, 2, 5, 7]) for _ in range(axes - 1)] + [draw.choice(widths)]
        window = Window.of(
            [draw.choice([1, 2, 3, 4]) for _ in range(axes)],
            [draw.choice([1, 2, 3, 5]) for _ in range(axes)],
            [(draw.choice([0, 1, 3]), draw.choice([0, 1, 4])) for _ in range(axes)],
            [draw.choice([1, 1, 2, 3]) for _ in range(axes)],
            axes=axes,
        )
        ceil = draw.random() < 0.4
        if min(window.output_size(size, ceil)) >= 1:
            break
    dtype = draw.choice([torch.float32, torch.float64])
    shape = (draw.choice([1, 2]), draw.choice([1, 3, lanes, 4 * lanes + 3]), *size)
    x = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    kind = draw.choice(["max", "max", "average"])
    if kind == "max" and seed % 2:
        x[torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1)) < 0.1] = math.nan
        x[torch.rand(shape, generator=torch.Generator().manual_seed(seed + 2)) < 0.4] = -math.inf
    if draw.random() < 0.5:
        x = x.contiguous(memory_format=LAST[axes])
    pooled = Pooling(kind, window, ceil, draw.random() < 0.5, draw.choice([None, None, -7]))
    return x, Plan.of(pooled)


@pytest.mark.parametrize("seed", range(60))
def test_kernels_equal_the_composition_with_every_argument_between_guard_pages(seed: int) -> None:
    """The composition of torch's operators is tested against loops in test_pool.py."""
    values, plan = random_case(seed)
    maximum = plan.problem.kind == "max"
    rounding = 0.0 if maximum else 16 * torch.finfo(values.dtype).eps
    for at_end in (True, False):
        x = guarded_like(values, at_end).requires_grad_()
        task = pool_kernels._task(x, plan, indices=maximum)
        assert task is not None
        expected, there = pooling.pool(values, plan), values.clone().requires_grad_()
        plain = pool_kernels.pool(x.detach(), plan)
        torch.testing.assert_close(plain, expected, rtol=rounding, atol=8 * rounding, equal_nan=True)
        result = pool_kernels.pool(x, plan)
        torch.testing.assert_close(result.detach(), expected, rtol=rounding, atol=8 * rounding, equal_nan=True)
        weights = torch.randint(-2, 3, result.shape, generator=torch.Generator().manual_seed(seed)).to(x.dtype)
        (own,) = torch.autograd.grad(pooling.pool(there, plan), there, weights)
        codes = pool_kernels._forward(x.detach(), task, codes=True)[1] if maximum else None
        gradient = pool_kernels._backward(guarded_like(weights, at_end), codes, task)
        torch.testing.assert_close(gradient, own, rtol=rounding, atol=8 * rounding)
        (gradient,) = torch.autograd.grad(result, x, weights)
        torch.testing.assert_close(gradient, own, rtol=rounding, atol=8 * rounding)
        if maximum:
            got, places = pool_kernels.pool_with_indices(x.detach(), plan)
            _, expected_places = pooling.pool_with_indices(values, plan)
            assert places.equal(expected_places)
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_maxima_have_torchs_bits_also_between_zeros_of_either_sign() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.where(torch.rand(2, 3, 9, 41, generator=draw) < 0.5, 0.0, -0.0)
    for stride in (1, 2, 3):
        expected = F.max_pool2d(x, 3, stride, 1)
        assert convolve.max_pool2d(x, 3, stride, 1).signbit().equal(expected.signbit())


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_second_derivatives_are_right(last: bool, stride: int) -> None:
    x = torch.randn(1, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(stride))
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    x.requires_grad_()
    for function in (
        lambda x: convolve.max_pool2d(x, 3, stride, ((1, 3), (0, 1))).nan_to_num(0, 0, 0) ** 3,
        lambda x: convolve.avg_pool2d(x, 3, stride, ((1, 3), (0, 1)), count_include_pad=False) ** 3,
        lambda x: convolve.avg_pool2d(x, (2, 3), stride, dilation=2) ** 3,
    ):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)


def test_gradients_of_a_batch_of_directions_at_once_are_right() -> None:
    """Autograd then runs our backward under vmap."""
    x = torch.randn(1, 2, 5, 7, dtype=torch.float64).requires_grad_()
    for own, theirs in ((convolve.max_pool2d, F.max_pool2d), (convolve.avg_pool2d, F.avg_pool2d)):
        y, expected = own(x, 3, 2, 1), theirs(x, 3, 2, 1)
        directions = torch.randn(4, *y.shape, dtype=torch.float64)
        (got,) = torch.autograd.grad(y, x, directions, is_grads_batched=True)
        (wanted,) = torch.autograd.grad(expected, x, directions, is_grads_batched=True)
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_do_not_depend_on_the_number_of_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 5, 23, 37).requires_grad_()
    expected = convolve.avg_pool2d(x, 3, 2, 1)
    (gradient,) = torch.autograd.grad(expected, x, torch.ones_like(expected))
    monkeypatch.setattr(engine, "thread_count", lambda: threads)
    again = convolve.avg_pool2d(x, 3, 2, 1)
    assert again.equal(expected)
    assert torch.autograd.grad(again, x, torch.ones_like(again))[0].equal(gradient)


def test_views_with_any_strides_are_read_in_place() -> None:
    whole = torch.randn(2, 6, 30, 40)
    for x in (whole[:, ::2, 1:-2, ::3], whole.transpose(2, 3), whole[:1].expand(2, 6, 30, 40), whole.mT[..., 3:]):
        assert convolve.max_pool2d(x, 3, 2, 1).equal(F.max_pool2d(x.contiguous(), 3, 2, 1))
        torch.testing.assert_close(convolve.avg_pool2d(x, 3, 2, 1), F.avg_pool2d(x.contiguous(), 3, 2, 1))


def test_a_trained_maximum_keeps_one_byte_for_each_result() -> None:
    x = torch.randn(2, 3, 32, 32).requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        convolve.max_pool2d(x, 2)
    (codes,) = kept
    assert codes.dtype == torch.uint8
    assert codes.numel() == 2 * 3 * 16 * 16  # rows of 16 are whole vectors here


def test_the_kernels_for_avx2_are_right_too() -> None:
    passes_for_avx2(__file__, "-k", "composition or bits")
