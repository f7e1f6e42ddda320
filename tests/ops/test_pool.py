"""Pooling against loops over the definition, and against torch wherever torch can express the problem."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import convolve
from convolve.errors import ShapeError, UnknownNameError, UsageError
from convolve.geometry import Window

MAX = {1: convolve.max_pool1d, 2: convolve.max_pool2d, 3: convolve.max_pool3d}
AVG = {1: convolve.avg_pool1d, 2: convolve.avg_pool2d, 3: convolve.avg_pool3d}
TORCH_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
TORCH_AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def windows(window: Window, size: tuple[int, ...], ceil: bool) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """Every output position with the real input positions that it reads, in row-major order: the definition, by loops."""
    result = {}
    for output in itertools.product(*map(range, window.output_size(size, ceil))):
        per_axis = [
            [i for _, i in window.taps(axis, n, j)] for axis, (n, j) in enumerate(zip(size, output, strict=True))
        ]
        result[output] = list(itertools.product(*per_axis))
    return result


def reference_max(x: Tensor, window: Window, ceil: bool = False) -> tuple[Tensor, Tensor]:
    """Values and flat indices of one map: the first largest, but the last NaN; -inf and -1 where there is nothing."""
    size = tuple(x.shape)
    outputs = window.output_size(size, ceil)
    values, indices = torch.empty(outputs, dtype=x.dtype), torch.empty(outputs, dtype=torch.int64)
    for output, places in windows(window, size, ceil).items():
        best, index = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min, -1
        for place in places:
            value = x[place].item()
            if index == -1 or value > best or value != value:
                best, index = value, sum(i * math.prod(size[axis + 1 :]) for axis, i in enumerate(place))
        values[output], indices[output] = best, index
    return values, indices


def reference_average(
    x: Tensor, window: Window, ceil: bool = False, include_pad: bool = True, divisor: int | None = None
) -> Tensor:
    size = tuple(x.shape)
    result = torch.empty(window.output_size(size, ceil), dtype=x.dtype)
    for output, places in windows(window, size, ceil).items():
        counted = len(places)
        if include_pad:
            counted = 1
            for axis, j in enumerate(output):
                p, q = window.padding[axis]
                starts = [j * window.stride[axis] - p + t * window.dilation[axis] for t in range(window.kernel[axis])]
                counted *= sum(1 for start in starts if start < size[axis] + q)
        result[output] = sum(x[place].item() for place in places) / (divisor or max(counted, 1))
    return result


def random_case(seed: int) -> tuple[int, tuple[int, ...], dict, bool]:
    """A pooling with every argument at once that has at least one output: axes, size, arguments and ceil_mode."""
    rng = random.Random(seed)
    while True:
        axes = rng.choice([1, 2, 2, 3])
        size = tuple(rng.choice([1, 2, 3, 5, 7] if axes == 3 else [1, 3, 4, 7, 11]) for _ in range(axes))
        arguments = {
            "kernel_size": tuple(rng.choice([1, 2, 3, 5]) for _ in range(axes)),
            "stride": tuple(rng.choice([1, 2, 3, 7]) for _ in range(axes)),
            "padding": tuple((rng.choice([0, 0, 1, 2, 4, -1]), rng.choice([0, 0, 1, 3, -1])) for _ in range(axes)),
            "dilation": tuple(rng.choice([1, 1, 2, 3]) for _ in range(axes)),
        }
        ceil = rng.random() < 0.4
        window = Window.of(*(arguments[name] for name in ("kernel_size", "stride", "padding", "dilation")), axes=axes)
        cropped = min(side for pair in window.padding for side in pair) < 0
        if min(window.output_size(size, ceil)) >= 1 and not (ceil and cropped):
            return axes, size, {**arguments, "ceil_mode": ceil}, ceil


def window_of(arguments: dict, axes: int) -> Window:
    return Window.of(*(arguments[name] for name in ("kernel_size", "stride", "padding", "dilation")), axes=axes)


def numbers(size: tuple[int, ...], seed: int, special: bool) -> Tensor:
    """Small integers (so there are ties), some of them NaN and -inf."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, size, generator=generator).double()
    if special:
        x[torch.rand(size, generator=generator) < 0.1] = math.nan
        x[torch.rand(size, generator=generator) < 0.4] = -math.inf
    return x


@pytest.mark.parametrize("seed", range(250))
def test_maximum_equals_the_definition_with_every_argument_at_once(seed: int) -> None:
    axes, size, arguments, ceil = random_case(seed)
    x = numbers(size, seed, special=seed % 2 == 0)
    values, indices = reference_max(x, window_of(arguments, axes), ceil)
    got, places = MAX[axes](x[None], **arguments, return_indices=True)
    torch.testing.assert_close(got[0], values, rtol=0, atol=0, equal_nan=True)
    assert places[0].equal(indices)
    torch.testing.assert_close(MAX[axes](x[None], **arguments)[0], values, rtol=0, atol=0, equal_nan=True)
    # The gradient goes to the one element at the index, and the second maximum of the same data has none.
    leaf = x[None].clone().requires_grad_()
    MAX[axes](leaf, **arguments).nan_to_num(0, 0, 0).sum().backward()
    chosen = torch.zeros(x.numel(), dtype=torch.float64)
    for index, value in zip(indices.flatten().tolist(), values.flatten().tolist(), strict=True):
        if index >= 0 and math.isfinite(value):
            chosen[index] += 1
    torch.testing.assert_close(leaf.grad[0].nan_to_num(0).flatten(), chosen, rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(250))
def test_average_equals_the_definition_with_every_argument_at_once(seed: int) -> None:
    axes, size, arguments, ceil = random_case(seed)
    x = numbers(size, seed, special=False)
    include, divisor = seed % 3 != 0, [None, None, 7][seed % 7 % 3]
    expected = reference_average(x, window_of(arguments, axes), ceil, include, divisor)
    arguments |= {"count_include_pad": include, "divisor_override": divisor}
    torch.testing.assert_close(AVG[axes](x[None], **arguments)[0], expected, rtol=1e-14, atol=1e-14)
    # Linear in x: the gradient by x of <average, v> is the adjoint, so <average(u), v> = <u, gradient>.
    leaf = x[None].clone().requires_grad_()
    result = AVG[axes](leaf, **arguments)
    torch.testing.assert_close(result[0].detach(), expected, rtol=1e-14, atol=1e-14)
    v = numbers(tuple(result.shape), seed + 1, special=False)
    (gradient,) = torch.autograd.grad(result, leaf, v)
    u = numbers(tuple(x.shape), seed + 2, special=False)[None]
    left, right = (AVG[axes](u, **arguments) * v).sum(), (u * gradient).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_pooling_is_torchs_wherever_torch_can_express_it(axes: int, seed: int) -> None:
    rng = random.Random(seed)
    kernel = tuple(rng.choice([1, 2, 3, 5]) for _ in range(axes))
    arguments = {
        "kernel_size": kernel,
        "stride": rng.choice([None, tuple(rng.choice([1, 2, 3]) for _ in range(axes))]),
        "padding": tuple(rng.randint(0, k // 2) for k in kernel),
        "ceil_mode": rng.random() < 0.5,
    }
    x = torch.randn(2, 3, *(rng.choice([5, 7, 11]) for _ in range(axes)), generator=torch.Generator().manual_seed(seed))
    for needs in (False, True):
        leaf = x.clone().requires_grad_(needs)
        for ours, theirs in zip(
            MAX[axes](leaf, **arguments, return_indices=True),
            TORCH_MAX[axes](leaf, **arguments, return_indices=True),
            strict=True,
        ):
            assert ours.equal(theirs)
        assert MAX[axes](leaf, **arguments).equal(TORCH_MAX[axes](leaf, **arguments))
        include = seed % 2 == 0
        ours = AVG[axes](leaf, **arguments, count_include_pad=include)
        torch.testing.assert_close(ours, TORCH_AVG[axes](leaf, **arguments, count_include_pad=include))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 3), (4, 3), (2, 2)])
def test_with_ceil_a_window_larger_than_the_input_is_one_output_as_in_torch(kernel: int, stride: int) -> None:
    x = torch.tensor([[[[1.0, 4.0], [2.0, 3.0]]]], requires_grad=True)
    for ours, theirs in ((convolve.max_pool2d, F.max_pool2d), (convolve.avg_pool2d, F.avg_pool2d)):
        for leaf in (x, x.detach()):
            assert ours(leaf, kernel, stride, ceil_mode=True).equal(theirs(leaf, kernel, stride, ceil_mode=True))
    with pytest.raises(ShapeError):
        convolve.max_pool2d(x, 4, 2, ceil_mode=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_the_maximum_of_integers_is_exact_in_every_dtype_and_rank(dtype: torch.dtype) -> None:
    info = torch.iinfo(dtype)
    x = torch.tensor([info.min, info.min, info.max - 1, info.max, 3, info.max - 1, 2], dtype=dtype)
    window = Window.of(3, 2, ((4, 3),), axes=1)
    values, indices = reference_max(x, window)
    got, places = convolve.max_pool1d(x[None], 3, 2, ((4, 3),), return_indices=True)
    assert got.dtype == dtype
    assert got[0].equal(values)
    assert places[0].equal(indices)
    assert convolve.max_pool1d(x[None], 3, 2, ((4, 3),)).equal(got)
    plane = x.reshape(1, 1, 7).expand(2, 7, 7).contiguous()
    assert convolve.max_pool2d(plane, 3, 2, 1).equal(F.max_pool2d(plane, 3, 2, 1))


def test_the_average_of_int64_rounds_toward_zero_as_torch_does() -> None:
    x = torch.tensor([[-5, 2, 1, 2**60, 2**60 - 1, -9, 4]])
    assert convolve.avg_pool1d(x, 2, 1).tolist() == [[-1, 1, 2**59, 2**60 - 1, 2**59 - 5, -2]]
    plane = torch.randint(-99, 99, (1, 2, 7, 9))
    assert convolve.avg_pool2d(plane, (2, 3), 1, (1, 1)).equal(F.avg_pool2d(plane, (2, 3), 1, (1, 1)))
    assert convolve.avg_pool2d(plane, 2, 1, dilation=2).equal(
        (plane[..., :-2, :-2] + plane[..., :-2, 2:] + plane[..., 2:, :-2] + plane[..., 2:, 2:]).div(
            4, rounding_mode="trunc"
        )
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_float32(dtype: torch.dtype) -> None:
    x = torch.full((1, 1, 7, 7), 60000.0 if dtype == torch.float16 else 257.0).to(dtype)
    for arguments in ({}, {"dilation": 2}, {"padding": ((0, 1), (1, 0)), "count_include_pad": False}):
        got = convolve.avg_pool2d(x, 3, 1, **arguments)
        assert got.dtype == dtype
        assert (got == x[0, 0, 0, 0]).all()
    volume = torch.rand(1, 2, 5, 5, 5).to(dtype)  # torch has no such kernel on the CPU
    torch.testing.assert_close(convolve.avg_pool3d(volume, 2), F.avg_pool3d(volume.float(), 2).to(dtype))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
def test_same_padding_gives_ceil_of_size_over_stride_and_differs_in_the_side_of_the_odd_zero(
    size: int, kernel: int, stride: int
) -> None:
    x = torch.arange(1.0, size + 1).reshape(1, 1, size)
    same = convolve.max_pool1d(-x, kernel, stride, "same")
    lower = convolve.max_pool1d(x.flip(-1).neg(), kernel, stride, "same_lower")
    assert same.shape[-1] == -(-size // stride)
    assert (
        convolve.avg_pool1d(x, kernel, stride, "valid" if size >= kernel else 6).shape
        == F.avg_pool1d(F.pad(x, (0, 0) if size >= kernel else (6, 6)), kernel, stride).shape
    )
    # Mirrored data and mirrored padding give the mirrored result when the last window ends at the padding's end.
    extra = max(0, (same.shape[-1] - 1) * stride + kernel - size)
    if (same.shape[-1] - 1) * stride + kernel == size + extra:
        assert same.equal(lower.flip(-1))


def test_padding_beyond_half_the_window_is_minus_infinity_for_max_and_nothing_for_average() -> None:
    x = torch.tensor([[3.0, -2.0]])
    values, indices = convolve.max_pool1d(x, 2, 1, 3, return_indices=True)
    assert values.tolist() == [[-math.inf, -math.inf, 3.0, 3.0, -2.0, -math.inf, -math.inf]]
    assert indices.tolist() == [[-1, -1, 0, 0, 1, -1, -1]]
    assert convolve.avg_pool1d(x, 2, 1, 3, count_include_pad=False).tolist() == [[0, 0, 3, 0.5, -2, 0, 0]]
    assert convolve.avg_pool1d(x, 2, 1, 3).tolist() == [[0, 0, 1.5, 0.5, -1, 0, 0]]


def test_zero_extents_pool_their_padding() -> None:
    x = torch.zeros(2, 2, 0, 5, dtype=torch.float64, requires_grad=True)
    values, indices = convolve.max_pool2d(x, 2, 1, 1, return_indices=True)
    assert values.shape == (2, 2, 1, 6)
    assert (values == -math.inf).all()
    assert (indices == -1).all()
    average = convolve.avg_pool2d(x, 2, 1, 1)
    assert (average == 0).all()
    average.sum().backward()
    assert x.grad.shape == x.shape
    last = torch.zeros(2, 0, 5, 2, dtype=torch.float64).permute(0, 3, 1, 2)
    for memory in (x.detach(), last):
        assert convolve.max_pool2d(memory, 2, 1, 1).equal(values)
        assert convolve.max_pool2d(memory, 2, 1, ((1, 1), (1, 2)), return_indices=True)[1].eq(-1).all()


@pytest.mark.parametrize("padding", [0, 1, ((0, 2), (2, 1))])
def test_large_maps_share_ties_nan_and_indices_with_torchs_first_maximum(padding) -> None:
    x = numbers((2, 3, 41, 43), 3, special=True)
    leaf, again = x.clone().requires_grad_(), x.clone().requires_grad_()
    sides = [padding] * 4 if isinstance(padding, int) else [*padding[1], *padding[0]]
    got, expected = convolve.max_pool2d(leaf, 3, 2, padding), F.max_pool2d(F.pad(again, sides, value=-math.inf), 3, 2)
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(convolve.max_pool2d(x, 3, 2, padding), expected.detach(), rtol=0, atol=0, equal_nan=True)
    weights = torch.arange(float(got.numel()), dtype=torch.float64).reshape(got.shape)
    # A window of nothing but -inf and padding has its place on a real element here, on the written padding there.
    weights = weights.masked_fill(expected.isinf(), 0)
    (ours,), (theirs,) = torch.autograd.grad(got, leaf, weights), torch.autograd.grad(expected, again, weights)
    assert ours.equal(theirs)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [5, 70])
def test_the_result_never_shares_memory_with_the_input(size: int, stride: int) -> None:
    x = torch.ones(1, 2, size, size)
    for result in (
        convolve.max_pool2d(x, 1, stride),
        convolve.avg_pool2d(x, 1, stride),
        convolve.avg_pool2d(x, 1, stride, dilation=2),
        convolve.max_pool2d(x, 1, stride, -1),
        convolve.max_pool2d(x, 2, 2),
        convolve.avg_pool2d(x, 2, 2),
    ):
        assert result.eq(1).all()
        result.zero_()
        assert x.eq(1).all()


def test_lists_and_torchs_empty_stride_are_taken_as_tuples_and_none_are() -> None:
    x = torch.randn(1, 2, 7, 9)
    expected = convolve.max_pool2d(x, (2, 3), (1, 2), ((1, 0), (0, 1)))
    assert convolve.max_pool2d(x, [2, 3], [1, 2], [[1, 0], [0, 1]]).equal(expected)
    assert convolve.max_pool2d(x, 2, ()).equal(F.max_pool2d(x, 2, []))
    assert convolve.avg_pool2d(x, [2, 3], []).equal(F.avg_pool2d(x, (2, 3)))
    assert convolve.max_pool2d(x, 2).equal(F.max_pool2d(x, 2))
    with pytest.raises(UsageError, match="must be an integer"):
        convolve.max_pool2d(x, 2.0)  # although the plan of 2 is remembered


def test_padding_across_2_to_the_31_is_refused_before_it_is_written() -> None:
    for function in (convolve.max_pool1d, convolve.avg_pool1d):
        with pytest.raises(ShapeError, match=r"reaches across 2\^31"):
            function(torch.ones(1, 9), 2, 1, padding=2**61)


@pytest.mark.parametrize("shape", [(0, 3, 7, 5), (2, 0, 7, 5), (0, 0, 7, 5), (0, 7, 5)])
@pytest.mark.parametrize("needs", [False, True])
def test_empty_batches_and_channels_give_empty_results(shape: tuple[int, ...], needs: bool) -> None:
    x = torch.zeros(shape, requires_grad=needs)
    for padding, size in ((1, (4, 3)), (((1, 2), (2, 1)), (4, 3)), (((3, 3), (0, 0)), (6, 2))):
        values, indices = convolve.max_pool2d(x, 3, 2, padding, return_indices=True)
        for result in (
            values,
            indices,
            convolve.max_pool2d(x, 3, 2, padding),
            convolve.avg_pool2d(x, 3, 2, padding),
            convolve.avg_pool2d(x, 3, 2, padding, dilation=(1, 1)),
        ):
            assert tuple(result.shape) == (*shape[:-2], *size)


HUGE = [2**31, 2**62]


@pytest.mark.parametrize("huge", HUGE)
def test_huge_strides_give_the_one_window_that_there_is(huge: int) -> None:
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    for needs in (False, True):
        leaf = x.clone().requires_grad_(needs)
        assert convolve.max_pool2d(leaf, 2, huge).tolist() == [[[[6.0]]]]
        assert convolve.avg_pool2d(leaf, 2, huge).tolist() == [[[[3.0]]]]
        assert convolve.avg_pool2d(leaf, 2, (huge, 1), dilation=3).tolist() == [[[[9.0, 10.0]]]]
    assert convolve.max_pool2d(x, 1, 2, dilation=huge).shape == (1, 1, 3, 3)
    assert convolve.max_pool3d(x[None], 1, huge, return_indices=True)[1].tolist() == [[[[[0]]]]]


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize("argument", ["kernel_size", "dilation"])
def test_huge_windows_are_refused_in_words(huge: int, argument: str) -> None:
    x = torch.arange(9.0).reshape(1, 9)
    arguments = {"kernel_size": 2, "stride": 1, argument: huge}
    for function in (convolve.max_pool1d, convolve.avg_pool1d):
        with pytest.raises(ShapeError, match="must fit in the padded input"):
            function(x, **arguments)
        with pytest.raises(ShapeError, match=r"reaches across 2\^31"):
            function(x, **arguments, padding=huge)
    with pytest.raises(UsageError, match="64 bits"):
        convolve.max_pool1d(x, 2, dilation=2**63)
    with pytest.raises(UsageError, match="64 bits"):
        convolve.max_pool1d(x, 3, dilation=2**62)


@pytest.mark.parametrize("make", [
    lambda x: x.to(memory_format=torch.channels_last),
    lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    lambda x: torch.stack([x, x], -1)[..., 0],
    lambda x: x[:, :1].expand(-1, 3, -1, -1),
    lambda x: x.flip(-1).contiguous().flip(-1),
])  # fmt: skip
def test_any_memory_layout_gives_the_same_bits_for_maxima(make) -> None:
    x = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(5))
    laid = make(x)
    plain = laid.contiguous()
    for padding in (1, ((0, 2), (2, 1))):
        for ours, expected in zip(
            convolve.max_pool2d(laid, 3, 2, padding, return_indices=True),
            convolve.max_pool2d(plain, 3, 2, padding, return_indices=True),
            strict=True,
        ):
            assert ours.equal(expected)
        assert convolve.max_pool2d(laid, 3, 2, padding).equal(convolve.max_pool2d(plain, 3, 2, padding))
        torch.testing.assert_close(convolve.avg_pool2d(laid, 3, 2, padding), convolve.avg_pool2d(plain, 3, 2, padding))


def test_channels_last_stays_channels_last() -> None:
    x = torch.randn(2, 8, 9, 11).to(memory_format=torch.channels_last)
    for padding in (1, ((0, 2), (2, 1))):
        for dilation in (1, 2):
            assert convolve.max_pool2d(x, 3, 2, padding, dilation).is_contiguous(memory_format=torch.channels_last)
            pooled = convolve.avg_pool2d(x, 3, 2, padding, dilation=dilation)
            assert pooled.is_contiguous(memory_format=torch.channels_last)


def test_the_same_image_alone_and_in_a_batch_pools_to_the_same_bits() -> None:
    x = torch.randn(7, 5, 13, 11, generator=torch.Generator().manual_seed(1))
    many = torch.randn(7, 9, 23, 19, generator=torch.Generator().manual_seed(2))
    for function in (convolve.max_pool2d, convolve.avg_pool2d):
        for padding in (0, ((1, 0), (2, 1))):
            assert function(x, 3, 2, padding)[3].equal(function(x[3:4], 3, 2, padding)[0])
            assert function(many, 3, 2, padding)[3].equal(function(many[3:4], 3, 2, padding)[0])


def test_nan_and_infinity_touch_exactly_the_windows_that_hold_them() -> None:
    for value in (math.nan, math.inf, -math.inf):
        for function, arguments in itertools.product(
            (convolve.avg_pool2d, convolve.max_pool2d), ({}, {"padding": ((2, 1), (0, 2))}, {"dilation": 2})
        ):
            clean = torch.ones(1, 1, 9, 9)
            bad = clean.clone()
            bad[0, 0, 4, 4] = value
            before, after = function(clean, 3, 1, **arguments), function(bad, 3, 1, **arguments)
            pads = arguments.get("padding", 0)
            window = Window.of(3, 1, pads, arguments.get("dilation", 1), axes=2)
            hit = torch.zeros_like(before, dtype=torch.bool)
            for output, places in windows(window, (9, 9), False).items():
                hit[(0, 0, *output)] = (4, 4) in places
            assert after[~hit].equal(before[~hit])
            if function is convolve.avg_pool2d:
                assert not after[hit].isfinite().any()
            else:
                assert after[hit].equal(before[hit] if value == -math.inf else torch.full_like(after[hit], value)) or (
                    value != value and after[hit].isnan().all()
                )


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_adaptive_and_global_pooling_equal_their_definition(axes: int) -> None:
    size = (13, 7, 5)[:axes]
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    outputs = (6, 7, 2)[:axes]
    ranges = [[range(j * n // m, -(-(j + 1) * n // m)) for j in range(m)] for n, m in zip(size, outputs, strict=True)]
    maximum = getattr(convolve, f"adaptive_max_pool{axes}d")(x, outputs, return_indices=True)
    average = getattr(convolve, f"adaptive_avg_pool{axes}d")(x, outputs)
    assert getattr(convolve, f"adaptive_max_pool{axes}d")(x, outputs).equal(maximum[0])
    for place in itertools.product(*map(range, outputs)):
        part = x[(..., *(slice(ranges[a][j].start, ranges[a][j].stop) for a, j in enumerate(place)))].flatten(2)
        assert maximum[0][(..., *place)].equal(part.amax(-1))
        torch.testing.assert_close(average[(..., *place)], part.mean(-1))
    assert x.flatten(2).gather(2, maximum[1].flatten(2)).equal(maximum[0].flatten(2))
    assert getattr(convolve, f"global_max_pool{axes}d")(x).equal(x.flatten(2).amax(2).reshape(2, 3, *(1,) * axes))
    total = getattr(convolve, f"global_avg_pool{axes}d")(x)
    torch.testing.assert_close(total, x.flatten(2).mean(2).reshape(2, 3, *(1,) * axes))
    kept = getattr(convolve, f"adaptive_avg_pool{axes}d")(x, (None,) * axes)
    torch.testing.assert_close(kept, x)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_gradient_of_global_max_goes_to_the_first_of_equals(axes: int) -> None:
    x = torch.tensor([1.0, 5.0, 5.0]).reshape(1, 1, *(1,) * (axes - 1), 3).requires_grad_()
    getattr(convolve, f"global_max_pool{axes}d")(x).sum().backward()
    assert x.grad.flatten().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_global_averages_of_integers_and_wrong_ranks_are_refused_in_words(axes: int) -> None:
    average, largest = (getattr(convolve, f"global_{kind}_pool{axes}d") for kind in ("avg", "max"))
    x = torch.zeros(1, 2, *(3,) * axes)
    with pytest.raises(UsageError, match=r"convert with \.double"):
        average(x.long())
    for function in (average, largest, lambda x: getattr(convolve, f"adaptive_avg_pool{axes}d")(x, 2)):
        for wrong in (x[0, 0], x[None]):
            with pytest.raises(ShapeError, match=f"pooling over {axes} ax"):
                function(wrong)
    assert largest(x.long()).dtype == torch.int64


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mode", ["sum", "avg", "max"])
def test_trainable_pooling_is_weight_times_pooled_plus_bias(axes: int, mode: str) -> None:
    generator = torch.Generator().manual_seed(axes)
    x = torch.randn(2, 3, *(6, 7, 5)[:axes], dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, generator=generator, requires_grad=True)
    function = getattr(convolve, f"trainable_pool{axes}d")
    got = function(x, weight, bias, 2, 1, mode=mode)
    parts = [x.narrow(2, o, x.shape[2] - 1) for o in (0, 1)]
    for axis in range(3, 2 + axes):
        parts = [part.narrow(axis, o, x.shape[axis] - 1) for part in parts for o in (0, 1)]
    stacked = torch.stack(parts)
    pooled = {"sum": stacked.sum(0), "avg": stacked.mean(0), "max": stacked.amax(0)}[mode]
    shape = (3, *(1,) * axes)
    torch.testing.assert_close(got, pooled * weight.reshape(shape) + bias.reshape(shape))
    assert torch.autograd.gradcheck(lambda x, w, b: function(x, w, b, 2, 1, mode=mode), (x, weight, bias))
    without = function(x, weight, None, 2, 1, mode=mode)
    torch.testing.assert_close(without, pooled * weight.reshape(shape))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mode", ["sum", "avg", "max"])
def test_trainable_pooling_passes_every_argument_on(axes: int, mode: str) -> None:
    x = torch.randn(3, *(8, 7, 9)[:axes], dtype=torch.float64)
    weight, bias = torch.tensor([2.0, -1.0, 0.5]).double(), torch.tensor([1.0, 0.0, -3.0]).double()
    arguments = (3, 2, ((2, 1),) * axes, True)
    got = getattr(convolve, f"trainable_pool{axes}d")(x, weight, bias, *arguments, dilation=2, mode=mode)
    if mode == "max":
        pooled = MAX[axes](x, *arguments[:3], 2, True)
    else:
        pooled = AVG[axes](x, *arguments, divisor_override=1 if mode == "sum" else None, dilation=2)
    shape = (3, *(1,) * axes)
    torch.testing.assert_close(got, pooled * weight.reshape(shape) + bias.reshape(shape))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: convolve.max_pool3d(x, (3, 1, 1)), ShapeError, r"depth the window covers 3 but the input has 2"),
        (lambda x: convolve.avg_pool3d(x, (3, 1, 1)), ShapeError, r"depth the window covers 3 but the input has 2"),
        (lambda x: convolve.avg_pool2d(x + 1j, 2), UsageError, "real numbers; got torch.complex64"),
        (lambda x: convolve.avg_pool2d(x, 2, divisor_override=1.5), UsageError, "divisor_override must be an integer"),
        (
            lambda x: convolve.max_pool2d(x, 2, 2, ((1, -1), (0, 0)), ceil_mode=True),
            UsageError,
            "ceil_mode does not go with negative padding",
        ),
        (
            lambda x: convolve.max_pool2d(x[0, 0], 2),
            ShapeError,
            r"takes \(n, c, h, w\) or \(c, h, w\); got shape \(5, 5\)",
        ),
        (lambda x: convolve.max_pool1d(x, 2), ShapeError, "pooling over 1 axis takes"),
        (lambda x: convolve.max_pool2d(x, 6), ShapeError, r"height the window covers 6 but the input has 5 \+ 0 \+ 0"),
        (lambda x: convolve.max_pool2d(x, (1, 3), dilation=3), ShapeError, "width the window covers 7"),
        (lambda x: convolve.max_pool2d(x, 0), UsageError, "kernel_size must be at least 1; got 0"),
        (lambda x: convolve.max_pool2d(x, 2, 0), UsageError, "stride must be at least 1"),
        (lambda x: convolve.max_pool2d(x, 2, dilation=0), UsageError, "dilation must be at least 1"),
        (lambda x: convolve.max_pool2d(x, 2.0), UsageError, "kernel_size must be an integer; got 2.0"),
        (lambda x: convolve.max_pool2d(x, (2, 2, 2)), UsageError, r"one value per axis \(2\)"),
        (lambda x: convolve.max_pool2d(x, 2, padding="smae"), UnknownNameError, "'smae'; use same"),
        (
            lambda x: convolve.max_pool2d(x, 2, 2, -1, ceil_mode=True),
            UsageError,
            "ceil_mode does not go with negative padding",
        ),
        (lambda x: convolve.avg_pool2d(x.int(), 2), UsageError, "defined for int64"),
        (lambda x: convolve.max_pool2d(x.bool(), 2), UsageError, "real numbers; got torch.bool"),
        (lambda x: convolve.max_pool2d(x + 1j, 2), UsageError, "real numbers; got torch.complex64"),
        (lambda x: convolve.avg_pool2d(x, 2, divisor_override=0), UsageError, "must not be zero"),
        (lambda x: convolve.adaptive_avg_pool2d(x, 0), UsageError, "output_size must be at least 1"),
        (lambda x: convolve.adaptive_avg_pool2d(x, (2, 2, 2)), UsageError, "one value per axis"),
        (lambda x: convolve.adaptive_max_pool2d(x, 2**62), ShapeError, "must fit in memory"),
        (lambda x: convolve.adaptive_max_pool2d(x.long(), 2), UsageError, r"convert with \.double"),
        (lambda x: convolve.adaptive_max_pool2d(x[..., :0], 2), ShapeError, "non-empty input"),
        (lambda x: convolve.global_avg_pool2d(x[..., :0]), ShapeError, "non-empty input"),
        (
            lambda x: convolve.trainable_pool2d(x, torch.ones(1), None, 2),
            ShapeError,
            r"got shape \(1,\) for 2 channels",
        ),
        (lambda x: convolve.trainable_pool2d(x, torch.ones(2), torch.ones(3), 2), ShapeError, "the bias of trainable"),
        (
            lambda x: convolve.trainable_pool2d(x, torch.ones(2), None, 2, mode="mean"),
            UnknownNameError,
            "mode of trainable",
        ),
    ],
)
def test_bad_arguments_are_refused_with_rule_received_and_remedy(call, error, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call(torch.zeros(1, 2, 5, 5))
    assert caught.value.rule
    assert caught.value.received
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("shape", "kernel", "dtype"), [((2, 3, 48, 40), 3, torch.bfloat16), ((1, 2, 16, 17, 18), 7, torch.float32)]
)
def test_maxima_that_no_kernel_of_ours_trains_have_torchs_gradient(
    shape: tuple[int, ...], kernel: int, dtype: torch.dtype
) -> None:
    """The first of equal maxima gets it all, which slices combined one after the other would share among them."""
    x = torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    ours, torchs = (convolve.max_pool2d, F.max_pool2d) if len(shape) == 4 else (convolve.max_pool3d, F.max_pool3d)
    y, want = ours(x, kernel, 2), torchs(x, kernel, 2)
    assert y.equal(want)
    g = torch.randn(y.shape).to(dtype)
    assert torch.autograd.grad(y, x, g)[0].equal(torch.autograd.grad(want, x, g)[0])


def test_maxima_that_no_kernel_of_ours_computes_keep_nan() -> None:
    x = torch.zeros(2, 3, 48, 40, dtype=torch.bfloat16)
    x[0, 1, 7, 9] = float("nan")
    assert convolve.max_pool2d(x, 3, 2).isnan().equal(F.max_pool2d(x, 3, 2).isnan())


def test_a_map_without_channels_can_be_trained() -> None:
    x = torch.empty(2, 0, 9, 8, requires_grad=True)
    y = convolve.max_pool2d(x, 3, 2, 1)
    assert y.shape == (2, 0, 5, 4)
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape
