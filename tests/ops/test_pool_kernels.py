"""The pooling kernels themselves, also for inputs too small for them to be chosen: against loops, between guard pages, for AVX2."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import convolve
from convolve.geometry import Window
from convolve.kernels.cache import compiled
from convolve.kernels.machine import machine
from convolve.ops import engine, pool, pool_kernels, pooling
from convolve.ops.pooling import Plan, Pooling
from guard_pages import guarded_like
from kernels_support import passes_for_avx2

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def forget() -> None:
    """What was prepared under other limits."""
    pool_kernels._TASKS.clear()
    pool._remembered_call.cache_clear()


@pytest.fixture(autouse=True)
def chosen_always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pool_kernels, "LEAST", 1)
    monkeypatch.setattr(pool_kernels, "_SERIAL", 1)
    forget()
    yield
    forget()


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
        task = pool_kernels._remembered(x, plan, codes=maximum)
        assert task is not None
        expected, there = pooling.pool(values, plan), values.clone().requires_grad_()
        plain = pool_kernels.pool(x.detach(), plan)
        torch.testing.assert_close(plain, expected, rtol=rounding, atol=8 * rounding, equal_nan=True)
        result = pool_kernels.pool(x, plan)
        torch.testing.assert_close(result.detach(), expected, rtol=rounding, atol=8 * rounding, equal_nan=True)
        weights = torch.randint(-2, 3, result.shape, generator=torch.Generator().manual_seed(seed)).to(x.dtype)
        (own,) = torch.autograd.grad(pooling.pool(there, plan), there, weights)
        codes = pool_kernels._forward(x.detach(), task, codes=True, indices=False)[1] if maximum else None
        gradient = pool_kernels._backward(guarded_like(weights, at_end), codes, task)
        torch.testing.assert_close(gradient, own, rtol=rounding, atol=8 * rounding)
        (gradient,) = torch.autograd.grad(result, x, weights)
        torch.testing.assert_close(gradient, own, rtol=rounding, atol=8 * rounding)
        if maximum:
            got, places = pool_kernels.pool_with_indices(x.detach(), plan)
            _, expected_places = pooling.pool_with_indices(values, plan)
            assert places.equal(expected_places)
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


SMALL = [(2, 2, 0, False), (3, 2, 0, True), (3, 2, 1, False), (3, 1, 0, False), (3, 1, 1, False)]
"""(size, stride, padding, ceil_mode) of windows that have kernels of their own."""


@pytest.mark.parametrize(("size", "stride", "padding", "ceil"), SMALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_windows_have_torchs_bits_and_gradients(
    size: int, stride: int, padding: int, ceil: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, lanes, name = torch.Generator().manual_seed(size), machine().lanes(str(dtype)[6:]), str(dtype)[6:]
    sizes = [(3, 3), (4, 5), (5, 3 * lanes), (7, 2 * lanes + 3), (6, 4 * lanes - 1), (2 * lanes, 6 * lanes), (9, lanes)]
    for number, (height, width) in enumerate(sizes):
        shape = (0 if number == 2 else 2, 3, height, width)  # an empty batch too
        x = torch.randint(-2, 3, shape, generator=draw).to(dtype)
        x[torch.rand(shape, generator=draw) < 0.2] = -math.inf
        x[torch.rand(shape, generator=draw) < 0.1] = math.nan
        x[:, 1] = -math.inf
        theirs = x.clone().requires_grad_()
        expected, places = F.max_pool2d(theirs, size, stride, padding, ceil_mode=ceil, return_indices=True)
        g = torch.randn(expected.shape, dtype=dtype, generator=draw) * (
            torch.rand(expected.shape, generator=draw) > 0.2
        )
        (gradient,) = torch.autograd.grad(expected, theirs, g)
        for limit in (1, 1 << 30):  # one line of gradients at a time, and all
            monkeypatch.setattr(pool_kernels, "_LINES_BYTES", limit)
            forget()
            for ours in (guarded_like(x), guarded_like(x, at_end=False), torch.cat([x, x], 3)[..., :width]):
                ours.requires_grad_()
                y, indices = convolve.max_pool2d(ours, size, stride, padding, 1, ceil, return_indices=True)
                torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
                assert indices.equal(places)
                for result in (y, convolve.max_pool2d(ours, size, stride, padding, 1, ceil)):
                    torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
                    (own,) = torch.autograd.grad(result, ours, g)
                    assert own.equal(gradient)
                    assert own.signbit().equal(gradient.signbit())
                plain = convolve.max_pool2d(ours.detach(), size, stride, padding, 1, ceil)
                torch.testing.assert_close(plain, expected, rtol=0, atol=0, equal_nan=True)
    assert f"pool_small_back-{size}x{stride}x{padding % stride}-{name}" in compiled()
    if size == 2:
        x = torch.randn(2, 3, 6, 2 * lanes + 3, dtype=dtype, generator=draw)
        for divisor in (None, -3):
            ours = convolve.avg_pool2d(guarded_like(x), 2, divisor_override=divisor)
            torch.testing.assert_close(ours, F.avg_pool2d(x, 2, divisor_override=divisor))
        assert {f"pool_small-{kind}-{name}" for kind in ("max", "codes", "average")} <= set(compiled())
    else:
        assert {f"pool_threes-{kind}-{stride}-{name}" for kind in ("max", "codes")} <= set(compiled())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stride", [1, 2])
def test_averages_of_three_by_three_equal_torchs_in_value_and_gradient(stride: int, dtype: torch.dtype) -> None:
    draw, lanes, name = torch.Generator().manual_seed(stride), machine().lanes(str(dtype)[6:]), str(dtype)[6:]
    sizes = [(1, 1), (2, 3), (4, 5), (5, lanes), (7, 2 * lanes + 3), (6, 4 * lanes - 1), (2 * lanes, 6 * lanes)]
    for number, (height, width) in enumerate(sizes):
        for padding, ceil, counted, divisor in [
            (0, False, True, None),
            (1, False, True, None),
            (1, True, False, None),
            (1, True, True, -7),
        ]:
            if min(height, width) + 2 * padding < 3:
                continue
            x = torch.randn(2, 3, height, width, dtype=dtype, generator=draw)
            theirs, settings = x.clone().requires_grad_(), (3, stride, padding, ceil, counted, divisor)
            expected = F.avg_pool2d(theirs, *settings)
            g = torch.randn(expected.shape, dtype=dtype, generator=draw)
            (gradient,) = torch.autograd.grad(expected, theirs, g)
            whole = torch.cat([x, x], 3)[..., :width] if number == 5 else guarded_like(x, at_end=number % 2 == 0)
            ours = whole.requires_grad_()
            y = convolve.avg_pool2d(ours, *settings)
            torch.testing.assert_close(y, expected)
            (own,) = torch.autograd.grad(y, ours, guarded_like(g, at_end=number % 2 == 0))
            torch.testing.assert_close(own, gradient)
    assert f"pool_threes-average-{stride}-{name}" in compiled()


@pytest.mark.parametrize("stride", [1, 2])
def test_three_by_three_windows_are_right_with_any_padding(stride: int) -> None:
    """Whichever kernel serves: windows wholly in the padding, some that reach over the end besides the last, much padding before."""
    draw, lanes = torch.Generator().manual_seed(stride), machine().lanes("float32")
    for (top, bottom), (left, right) in (((2, 0), (0, 2)), ((1, 2), (1, 2)), ((0, 3), (2, 1)), ((1, 0), (1, 5))):
        for width in (2 * lanes, 2 * lanes + 1, 4 * lanes):
            x = torch.randn(2, 3, 7, width, generator=draw)
            sides, padding = (left, right, top, bottom), ((top, bottom), (left, right))
            y, places = convolve.max_pool2d(guarded_like(x), 3, stride, padding, return_indices=True)
            assert y.equal(F.max_pool2d(F.pad(x, sides, value=-math.inf), 3, stride))
            there = x.flatten(2).gather(2, places.clamp(min=0).flatten(2)).reshape(y.shape)
            assert y.equal(there.masked_fill(places < 0, -math.inf))
            mean = convolve.avg_pool2d(guarded_like(x), 3, stride, padding)
            torch.testing.assert_close(mean, F.avg_pool2d(F.pad(x, sides), 3, stride))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_map_divided_among_threads_equals_the_whole(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of a map begins with the rows above it: real ones, and at the top of the map padding."""
    x = torch.randint(-3, 4, (1, 1, 23, 37), generator=torch.Generator().manual_seed(stride)).float()
    x[..., 5:9, :] = -math.inf
    theirs = x.clone().requires_grad_()
    expected, places = F.max_pool2d(theirs, 3, stride, 1, return_indices=True)
    g = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(expected, theirs, g)
    mean = F.avg_pool2d(x, 3, stride, 1).nan_to_num()
    for threads in (1, 3):
        monkeypatch.setattr(engine, "thread_count", lambda threads=threads: threads)
        forget()
        ours = x.clone().requires_grad_()
        y, indices = convolve.max_pool2d(ours, 3, stride, 1, return_indices=True)
        assert y.equal(expected)
        assert indices.equal(places)
        assert torch.autograd.grad(y, ours, g)[0].equal(gradient)
        torch.testing.assert_close(convolve.avg_pool2d(x, 3, stride, 1).nan_to_num(), mean)


def test_what_serves_a_call_keeps_the_table_that_its_kernel_reads() -> None:
    x = torch.randn(4, 16, 11, 21)
    plan = pool.plan_for(x.shape, 2, "max", 3, 2, 1, 1, False)
    task = pool_kernels.task_for(plan, tuple(x.shape), x.stride(), x.dtype, codes=False)
    assert task is not None
    table, run = weakref.ref(task.launch.table), task.run
    del task
    gc.collect()
    assert table() is not None
    assert run(x).equal(torch.max_pool2d(x, 3, 2, 1))


def test_a_forked_child_computes_alone_what_was_prepared_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, run, alone = torch.randn(2, 3, 11, 21).requires_grad_(), engine.run, []
    monkeypatch.setattr(engine, "thread_count", lambda: 2)
    forget()
    monkeypatch.setattr(engine, "run", lambda *given: (alone.append(given), run(*given))[1])
    y = convolve.max_pool2d(x, 3, 2, 1)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert not alone
    monkeypatch.setattr(engine, "_forked", True)
    again = convolve.max_pool2d(x, 3, 2, 1)
    assert again.equal(y)
    assert torch.autograd.grad(again.sum(), x)[0].equal(gradient)
    assert len(alone) == 2


def test_a_tensor_that_has_left_its_transform_is_pooled() -> None:
    left: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        left.append(x)
        return x.sum()

    x = torch.randn(1, 2, 6, 8)
    torch.func.grad(keep)(x)
    assert convolve.max_pool2d(left[0], 3, 2, 1).equal(F.max_pool2d(x, 3, 2, 1))
    torch.testing.assert_close(convolve.avg_pool2d(left[0], 3, 1, 1), F.avg_pool2d(x, 3, 1, 1))


def test_the_same_call_for_another_layout_dtype_size_or_gradient_is_another_call() -> None:
    x = torch.randn(2, 3, 8, 9)
    for like in (x, x.contiguous(memory_format=torch.channels_last), x.double(), x[:, :2], x[..., 1:], x.mT, x):
        for leaf in (like, like.detach().requires_grad_(), like):
            y = convolve.max_pool2d(leaf, 3, 2, 1)
            assert y.equal(F.max_pool2d(leaf, 3, 2, 1))
            assert y.requires_grad == leaf.requires_grad
            with torch.no_grad():
                assert not convolve.max_pool2d(leaf, 3, 2, 1).requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_averages_of_whole_maps_are_right_whatever_their_size_and_bits_do_not_depend_on_the_batch(
    dtype: torch.dtype,
) -> None:
    lanes, draw = machine().lanes(str(dtype)[6:]), torch.Generator().manual_seed(0)
    for size in [
        (1, 1),
        (1, 2),
        (3, 2),
        (7, 7),
        (1, lanes),
        (5, 4 * lanes),
        (9, 5 * lanes + 3),
        (2, 3, 5),
        (2, 3, lanes),
    ]:
        axes, average = len(size), convolve.avg_pool3d if len(size) == 3 else convolve.avg_pool2d
        whole = torch.randn(6, 5, *size, dtype=dtype, generator=draw)
        for x in (guarded_like(whole), guarded_like(whole, at_end=False), whole[::2, 1::2], whole[0]):
            leaf = x.requires_grad_() if x.is_leaf else x.detach().requires_grad_()
            y = average(leaf, size)
            expected = leaf.detach().double().mean(tuple(range(-axes, 0)), keepdim=True)
            torch.testing.assert_close(y.detach().double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)
            g = torch.randn(y.shape, dtype=dtype, generator=draw)
            (gradient,) = torch.autograd.grad(y, leaf, g)
            assert gradient.equal((g / math.prod(size)).expand(leaf.shape))
        assert average(whole[2:3], size).equal(average(whole, size)[2:3])
    infinite = torch.tensor([[[[1.0, math.inf]], [[math.nan, 1.0]], [[math.inf, -math.inf]]]], dtype=dtype)
    torch.testing.assert_close(
        convolve.avg_pool2d(infinite, (1, 2)), F.avg_pool2d(infinite, (1, 2)), rtol=0, atol=0, equal_nan=True
    )
    assert {f"pool_whole{back}-{str(dtype)[6:]}" for back in ("", "_back")} <= set(compiled())


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
    forget()
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
    passes_for_avx2(__file__, "-k", "composition or bits or whole or three")
