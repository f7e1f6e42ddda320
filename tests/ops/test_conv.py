"""The public convolutions: their arguments, dtypes, layouts, empty sizes, extremes and errors, against torch and by hand."""

# ruff: noqa: E501 - the table of errors is read line by line

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F

import convolve
from convolve.errors import DeclinedError, ShapeError, UnknownNameError, UsageError
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.algorithms import ALGORITHMS
from convolve.problem import ConvProblem
from ops import independent
from problems import DENSE, NAMED

CONV = (convolve.conv1d, convolve.conv2d, convolve.conv3d)
TRANSPOSED = (convolve.conv_transpose1d, convolve.conv_transpose2d, convolve.conv_transpose3d)
torch.manual_seed(0)


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


# --- values by hand -------------------------------------------------------------------------------------------------

IMAGE = [[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]]
KERNEL = [[0, 1, 2], [2, 2, 0], [0, 1, 2]]


@pytest.mark.parametrize(
    "algorithm",
    ["auto", *(name for name in DENSE if "winograd" not in name and name not in ("fft", "separable"))],
)
def test_the_figure_of_dumoulin_and_visin_in_all_its_readings(algorithm: str) -> None:
    image, kernel = torch.tensor(IMAGE).float(), torch.tensor(KERNEL).float()
    y = convolve.conv2d(image, kernel, algorithm=algorithm)
    assert y.tolist() == [[12, 12, 17], [10, 17, 19], [9, 6, 14]]
    assert convolve.conv2d(image, kernel, flip_kernel=True, algorithm=algorithm).tolist() == [
        [18, 20, 19],
        [10, 9, 17],
        [11, 8, 14],
    ]
    back = convolve.conv_transpose2d(y, kernel, algorithm=algorithm)
    assert back.tolist() == [
        [0, 12, 36, 41, 34],
        [24, 58, 95, 87, 38],
        [20, 75, 132, 105, 62],
        [18, 40, 77, 81, 38],
        [0, 9, 24, 26, 28],
    ]


def test_several_channels_by_hand() -> None:
    x = torch.stack([torch.arange(9.0), torch.arange(9.0) + 1]).reshape(1, 2, 3, 3)
    k = torch.tensor([[[0.0, 1], [2, 3]], [[1, 2], [3, 4]]])
    y = convolve.conv2d(x, torch.stack([k, k + 1, k + 2]))
    assert y[0].tolist() == [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]]


# --- against others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_named_problems_equal_torch_in_every_role_by_every_row(name: str) -> None:
    problem = ConvProblem.parse(NAMED[name] + " float64")
    window, axes = problem.window, problem.axes
    x, w = randn(*problem.input_shape).requires_grad_(), randn(*problem.weight_shape).requires_grad_()
    arguments = (list(window.stride), list(window.padding), list(window.dilation), problem.groups, "zeros")
    want = independent.convolution(x, w, *arguments)
    assert want.abs().gt(1e-3).double().mean() > 0.5, "a result of zeros proves nothing"
    g = randn(*want.shape)
    gradients = torch.autograd.grad(want, (x, w), g)
    served = 0
    for row in ("auto", *(row.name for row in ALGORITHMS)):
        try:
            y = CONV[axes - 1](x, w, None, *arguments[:4], algorithm=row)
        except DeclinedError:
            continue
        served += 1
        torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(torch.autograd.grad(y, (x, w), g), gradients, rtol=1e-10, atol=1e-10)
    assert served >= 6


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_scipy_agrees_on_correlation_and_convolution(mode: str) -> None:
    x, w = randn(13, 11), randn(4, 3)
    padding = {"full": ((3, 3), (2, 2)), "same": "same_lower", "valid": 0}[mode]
    # scipy's "same" is centred on the full result, which puts the extra zero of an even kernel before for a convolution.
    got = convolve.conv2d(x, w, padding=padding, flip_kernel=True)
    np.testing.assert_allclose(got.numpy(), scipy.signal.convolve2d(x, w, mode), atol=1e-12)
    if mode != "same":
        got = convolve.conv2d(x, w, padding=padding)
        np.testing.assert_allclose(got.numpy(), scipy.signal.correlate2d(x, w, mode), atol=1e-12)
    x, w = randn(6, 7, 5), randn(2, 3, 2)
    want = scipy.signal.correlate(x.numpy(), w.numpy(), "valid")
    np.testing.assert_allclose(convolve.conv3d(x, w).numpy(), want, atol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("order", ["contiguous", "interleaved"])
def test_a_transposed_convolution_is_the_adjoint_with_every_padding_mode(axes: int, mode: str, order: str) -> None:
    size, kernel = (9, 8, 7)[:axes], (3, 2, 4)[:axes]
    options = {
        "stride": 2,
        "padding": ((1, 2), (0, 1), (3, 2))[:axes],
        "dilation": (2, 1, 1)[:axes],
        "groups": 2,
        "padding_mode": mode,
        "group_order": order,
    }
    x, w = randn(2, 4, *size), randn(6, 2, *kernel)
    y = CONV[axes - 1](x, w, **options)
    other = randn(*y.shape)
    back = TRANSPOSED[axes - 1](other, w, output_size=size, **options)
    assert back.shape == x.shape
    torch.testing.assert_close((y * other).sum(), (x * back).sum(), rtol=1e-12, atol=1e-12)


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("name", ["same", "same_lower"])
def test_same_gives_the_size_over_the_stride_with_the_extra_zero_on_the_named_side(
    axes: int, stride: int, dilation: int, name: str
) -> None:
    x, w = randn(1, 1, *(11, 8, 6)[:axes]), randn(1, 1, *(4, 2, 3)[:axes])
    y = CONV[axes - 1](x, w, stride=stride, padding=name, dilation=dilation)
    assert y.shape[2:] == tuple(-(-n // stride) for n in x.shape[2:])
    pairs = []
    for n, k in zip(x.shape[2:], w.shape[2:], strict=True):
        total = (
            max(0, (-(-n // stride) - 1) * stride + dilation * (k - 1) + 1 - n) if stride > 1 else dilation * (k - 1)
        )
        half = total // 2
        pairs.append((half, total - half) if name == "same" else (total - half, half))
    want = independent.convolution(x, w, [stride] * axes, pairs, [dilation] * axes, 1, "zeros")
    torch.testing.assert_close(y, want)
    back = TRANSPOSED[axes - 1](y, w, stride=stride, padding=name, dilation=dilation)
    assert back.shape[2:] == tuple(m * stride for m in y.shape[2:])


def test_paddings_can_be_given_in_every_form() -> None:
    x, w = randn(1, 2, 9, 8), randn(3, 2, 3, 3)
    want = F.conv2d(F.pad(x, (2, 3, 1, 0)), w)
    torch.testing.assert_close(convolve.conv2d(x, w, padding=((1, 0), (2, 3))), want)
    torch.testing.assert_close(convolve.conv2d(x, w, padding=[[1, 0], [2, 3]]), want)
    torch.testing.assert_close(convolve.conv2d(x, w, padding=(1, (2, 3)))[:, :, :-1], want)
    torch.testing.assert_close(convolve.conv2d(x, w, padding="valid"), F.conv2d(x, w))
    torch.testing.assert_close(
        convolve.conv2d(x, w, stride=[2, 1], padding=[1], dilation=(1, 2)),
        F.conv2d(x, w, stride=(2, 1), padding=1, dilation=(1, 2)),
    )


def test_output_size_names_one_of_the_sizes_that_the_stride_allows() -> None:
    y, w = randn(1, 2, 4, 4), randn(2, 3, 3, 3)
    module = torch.nn.ConvTranspose2d(2, 3, 3, stride=3, padding=1, bias=False, dtype=torch.float64)
    module.weight.data = w
    for size in ((10, 10), (11, 12), (12, 10)):
        want = module(y, output_size=size)
        torch.testing.assert_close(convolve.conv_transpose2d(y, w, stride=3, padding=1, output_size=size), want)
    torch.testing.assert_close(
        convolve.conv_transpose2d(y, w, None, 3, 1, (2, 1)), F.conv_transpose2d(y, w, None, 3, 1, (2, 1))
    )


@pytest.mark.parametrize(
    ("stride", "dilation", "padding", "extra"), [(1, 3, 1, 2), (2, 5, 0, (4, 3)), ((1, 4), 2, 1, (1, 3))]
)
def test_output_padding_may_reach_beyond_the_stride_as_far_as_the_dilation(
    stride: int | tuple[int, int], dilation: int, padding: int, extra: int | tuple[int, int]
) -> None:
    settings = (None, stride, padding, extra, 1, dilation)
    operands = [t.requires_grad_() for t in (randn(2, 4, 5, 6), randn(4, 3, 3, 2))]
    got, want = convolve.conv_transpose2d(*operands, *settings), F.conv_transpose2d(*operands, *settings)
    torch.testing.assert_close(got, want)
    g = randn(*want.shape)
    for mine, theirs in zip(torch.autograd.grad(got, operands, g), torch.autograd.grad(want, operands, g), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_partial_maps_are_the_channels_before_their_sum(axes: int) -> None:
    x, w = randn(2, 6, *(7, 6, 5)[:axes]), randn(4, 3, *(3, 2, 2)[:axes])
    options = {"stride": 2, "padding": 1, "groups": 2}
    maps = CONV[axes - 1](x, w, partial_maps=True, **options)
    whole = CONV[axes - 1](x, w, **options)
    assert maps.shape == (2, 4, 3, *whole.shape[2:])
    torch.testing.assert_close(maps.sum(2), whole)
    one = CONV[axes - 1](
        x[:, 4:5], w[3:4, 1:2], stride=2, padding=1
    )  # filter 3 is in group 1; its channel 1 is input 4
    torch.testing.assert_close(maps[:, 3:4, 1], one)
    assert CONV[axes - 1](x[0], w, partial_maps=True, **options).shape == maps.shape[1:]


def test_group_order_interleaved_reads_every_second_channel() -> None:
    x, w = randn(1, 4, 5, 5), randn(2, 2, 1, 1)
    y = convolve.conv2d(x, w, groups=2, group_order="interleaved")
    torch.testing.assert_close(y[0, 0], x[0, 0] * w[0, 0] + x[0, 2] * w[0, 1])
    torch.testing.assert_close(y[0, 1], x[0, 1] * w[1, 0] + x[0, 3] * w[1, 1])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_images_without_a_batch_and_plain_arrays_are_taken_too(axes: int) -> None:
    x, w = (
        randn(2, 7, 6, 5)[..., :5][(slice(None), *(slice(None),) * axes, *(0,) * (3 - axes))],
        randn(3, 2, *(2,) * axes),
    )
    want = CONV[axes - 1](x[None], w)[0]
    torch.testing.assert_close(CONV[axes - 1](x, w), want)
    torch.testing.assert_close(CONV[axes - 1](x[0], w[0, 0]), CONV[axes - 1](x[:1], w[:1, :1])[0])
    back = TRANSPOSED[axes - 1](want, w)
    torch.testing.assert_close(back, TRANSPOSED[axes - 1](want[None], w)[0])
    torch.testing.assert_close(TRANSPOSED[axes - 1](want[0], w[0, 0]), TRANSPOSED[axes - 1](want[:1], w[:1, :1])[0])


# --- dtypes and layouts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("algorithm", ["auto", "direct", "im2col", "matrix", "reference", "torch"])
def test_integers_are_exact_and_wide(dtype: torch.dtype, algorithm: str) -> None:
    top = torch.iinfo(dtype).max if dtype.itemsize < 4 else 2**26
    x = torch.full((1, 40, 5, 5), top, dtype=dtype)
    w = torch.full((2, 40, 3, 3), top if dtype != torch.uint8 else 100, dtype=dtype)
    y = convolve.conv2d(x, w, algorithm=algorithm)
    assert y.dtype == torch.int64
    assert y.unique().tolist() == [int(x[0, 0, 0, 0]) * int(w[0, 0, 0, 0]) * 360]
    back = convolve.conv_transpose2d(x[:, :2], w, torch.ones(40, dtype=dtype), stride=2, algorithm=algorithm)
    assert int(back[0, 0, 0, 0]) == 2 * int(x[0, 0, 0, 0]) * int(w[0, 0, 0, 0]) + 1


def test_integers_may_be_mixed_and_summed_in_a_stated_dtype() -> None:
    x, w = torch.tensor([[0, 255, 255, 0]], dtype=torch.uint8), torch.tensor([[[-1, 1]]], dtype=torch.int8)
    y = convolve.conv1d(x, w, accumulate=torch.int16)
    assert (y.tolist(), y.dtype) == ([[255, 0, -255]], torch.int16)
    assert convolve.conv1d(x, w, accumulate=torch.int8).tolist() == [[-1, 0, 1]]  # wraps, as asked
    for mode in ("reflect", "replicate", "circular"):
        want = independent.convolution(x[None].double(), w.double(), [1], [(2, 1)], [1], 1, mode)
        assert convolve.conv1d(x, w, padding=((2, 1),), padding_mode=mode).tolist() == want[0].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "algorithm", ["auto", "direct", "im2col", "winograd", "winograd_f2", "fft", "matrix", "reference"]
)
def test_half_precision_is_summed_wide_and_rounded_once(dtype: torch.dtype, algorithm: str) -> None:
    x, w, b = randn(1, 64, 9, 9).to(dtype), randn(8, 64, 3, 3).to(dtype), randn(8).to(dtype)
    y = convolve.conv2d(x, w, b, padding=1, algorithm=algorithm)
    want = F.conv2d(x.double(), w.double(), b.double(), padding=1)
    assert y.dtype == dtype
    epsilon = torch.finfo(dtype).eps
    assert ((y.double() - want).abs() <= epsilon * want.abs() + epsilon / 8 * want.abs().max()).all()
    ones = torch.ones(1, 1, 4096, dtype=dtype)
    assert convolve.conv1d(ones, ones, algorithm=algorithm if "winograd" not in algorithm else "auto").item() == 4096


@pytest.mark.parametrize("algorithm", ["auto", *(name for name in DENSE if name != "separable")])
def test_any_memory_layout_gives_the_same_numbers_and_the_layout_comes_back(algorithm: str) -> None:
    base, w = randn(2, 6, 9, 8), randn(4, 6, 3, 3)
    want = F.conv2d(base, w, padding=1)
    last = torch.channels_last
    layouts = {
        "channels_last": base.to(memory_format=last),
        "transposed": base.transpose(2, 3).contiguous().transpose(2, 3),
        "strided": torch.stack([base, base], dim=-1)[..., 0],
        "negative offset": torch.cat([base, base])[2:],
    }
    for name, x in layouts.items():
        for weight in (w, w.to(memory_format=last), w.transpose(0, 1).contiguous().transpose(0, 1)):
            y = convolve.conv2d(x, weight, padding=1, algorithm=algorithm)
            torch.testing.assert_close(y, want, msg=f"{name}")
            is_last = any(t.is_contiguous(memory_format=last) and not t.is_contiguous() for t in (x, weight))
            assert y.is_contiguous(memory_format=last if is_last else torch.contiguous_format)
    expanded = randn(1, 6, 1, 8).expand(2, 6, 9, 8)
    torch.testing.assert_close(convolve.conv2d(expanded, w, algorithm=algorithm), F.conv2d(expanded.contiguous(), w))
    grown = base.clone().requires_grad_()
    y = convolve.conv2d(grown, w, algorithm=algorithm)
    (by_expanded,) = torch.autograd.grad(y.sum(), grown)  # the gradient of a sum has strides of zero
    (want,) = torch.autograd.grad(F.conv2d(grown, w).sum(), grown)
    torch.testing.assert_close(by_expanded, want)
    volume = randn(1, 2, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    if "winograd" not in algorithm:
        y = convolve.conv3d(volume, randn(3, 2, 2, 2, 2), algorithm=algorithm)
        assert y.is_contiguous(memory_format=torch.channels_last_3d)


# --- empty and extreme ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["auto", *(name for name in DENSE if name != "separable")])
def test_empty_batches_channels_and_filters_have_results_and_gradients(algorithm: str) -> None:
    w, b = randn(4, 2, 3, 3).requires_grad_(), randn(4).requires_grad_()
    y = convolve.conv2d(randn(0, 2, 7, 7), w, b, algorithm=algorithm)
    assert y.shape == (0, 4, 5, 5)
    by_w, by_b = torch.autograd.grad(y.sum(), (w, b))
    assert (by_w.shape, by_w.abs().sum(), by_b.abs().sum()) == (w.shape, 0, 0)
    # No in-channels: the sum is empty, and what remains is the bias (torch 2.13 returns no channels at all).
    y = convolve.conv2d(randn(1, 2, 8, 8)[:, :0], randn(3, 2, 3, 3)[:, :0], b[:3], algorithm=algorithm)
    assert y.shape == (1, 3, 6, 6)
    torch.testing.assert_close(y, b[:3].reshape(1, 3, 1, 1).expand(1, 3, 6, 6))
    assert convolve.conv2d(randn(1, 2, 8, 8), randn(3, 2, 3, 3)[:0], algorithm=algorithm).shape == (1, 0, 6, 6)
    assert convolve.conv_transpose2d(randn(0, 4, 5, 5), w, algorithm=algorithm).shape == (0, 2, 7, 7)


@pytest.mark.parametrize("algorithm", ["auto", *(name for name in DENSE if name != "separable")])
def test_zero_extents_that_padding_makes_positive_work(algorithm: str) -> None:
    w, b = randn(3, 2, 2, 3), randn(3)
    x = torch.zeros(2, 2, 0, 5, dtype=torch.float64, requires_grad=True)
    if "winograd" in algorithm:
        w = randn(3, 2, 3, 3)
        x = torch.zeros(2, 2, 0, 5, dtype=torch.float64, requires_grad=True)
        y = convolve.conv2d(x, w, b, padding=2, algorithm=algorithm)
        assert y.shape == (2, 3, 2, 7)
    else:
        y = convolve.conv2d(x, w, b, padding=1, algorithm=algorithm)
        assert y.shape == (2, 3, 1, 5)
    torch.testing.assert_close(y, b.reshape(1, 3, 1, 1).expand_as(y))
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_where_torch_2_13_silently_errs_the_shape_is_right_or_refused() -> None:
    for axes in (1, 2, 3):
        x, w = randn(1, 1, *(8,) * axes), randn(1, 1, *(3,) * axes)
        with pytest.raises(UsageError, match="kernel extent must fit in 64 bits"):
            CONV[axes - 1](x, w, dilation=2**62)
        with pytest.raises(ShapeError, match="the kernel must fit into the padded input; got a kernel of"):
            CONV[axes - 1](x, w, dilation=2**61)
        one = randn(1, 1, *(1,) * axes)
        torch.testing.assert_close(CONV[axes - 1](x, one, dilation=2**62), x * one)
        big = CONV[axes - 1](x, w, stride=2**62)
        assert big.shape == (1, 1, *(1,) * axes)
        torch.testing.assert_close(big, CONV[axes - 1](x, w)[(..., *(slice(1),) * axes)])
    x, w = randn(1, 1, 8, 8).requires_grad_(), randn(1, 1, 3, 3).requires_grad_()
    y = convolve.conv2d(x, w, stride=2**62, padding=1)
    by_x, by_w = torch.autograd.grad(y.sum(), (x, w))
    want = torch.autograd.grad(F.conv2d(x, w, stride=8, padding=1).sum(), (x, w))
    torch.testing.assert_close((by_x, by_w), want)
    with pytest.raises(ShapeError, match="an output size must fit in 64 bits; got"):
        convolve.conv_transpose2d(x, w, stride=2**62)
    torch.testing.assert_close(convolve.conv_transpose2d(x[:, :, :1, :1], w, stride=2**31), x[:, :, :1, :1] * w)
    meta = torch.empty(1, 1, 2**33, 1, device="meta")
    assert convolve.conv2d(meta, torch.empty(1, 1, 3, 1, device="meta"), stride=(2**31, 1)).shape == (1, 1, 4, 1)


# --- errors ---------------------------------------------------------------------------------------------------------

X, W = torch.ones(1, 6, 5, 5), torch.ones(4, 6, 3, 3)
ERRORS = [
    (lambda: convolve.conv2d(X, W[:, :4]), ShapeError, "the input's channels must be the weight's second size times groups; got 6 channels, weight (4, 4, 3, 3), groups=1; use a weight with 6"),
    (lambda: convolve.conv2d(X, W[:, :3]), ShapeError, "use groups=2, or a weight with 6"),
    (lambda: convolve.conv2d(X, W[:3, :3], groups=2), ShapeError, "groups must divide out-channels; got 3 out-channels, groups=2; use 1, 3"),
    (lambda: convolve.conv2d(X, torch.ones(4, 6, 7, 3)), ShapeError, "the kernel must fit into the padded input; got a kernel of 7 on 5 (input 5 + padding 0 + 0) along spatial axis 0; pad by 2 more"),
    (lambda: convolve.conv2d(X, W, dilation=3), ShapeError, "got a kernel of 7 (kernel 3, dilation 3) on 5"),
    (lambda: convolve.conv2d(X[0, 0, 0], W), ShapeError, "a 2-D convolution takes ([batch,] channels, height, width); got an input (5,)"),
    (lambda: convolve.conv2d(X, W[0]), ShapeError, "a 2-D convolution's weight has 4 axes, two for channels and then height, width; got a weight (6, 3, 3)"),
    (lambda: convolve.conv2d(X, W.double()), UsageError, "input, weight and bias must have one dtype; got torch.float32 input and torch.float64 weight; convert one, for example weight.to(torch.float32)"),
    (lambda: convolve.conv2d(X.long(), W), UsageError, "input, weight and bias must have one dtype; got torch.int64 input and torch.float32 weight"),
    (lambda: convolve.conv2d(X.bool(), W.bool()), UsageError, "got input torch.bool"),
    (lambda: convolve.conv2d(X.cfloat(), W.cfloat()), UsageError, "a convolution takes float64, float32, bfloat16, float16 or integers of 8 to 64 bits; got input torch.complex64"),
    (lambda: convolve.conv2d(X, W, torch.ones(1)), ShapeError, "bias must hold one number per out-channel; got (1,) for 4; use (4,)"),
    (lambda: convolve.conv2d(X, W, torch.ones(4).double()), UsageError, "got torch.float32 input and torch.float64 bias"),
    (lambda: convolve.conv2d(X.long(), W.long(), torch.ones(4)), UsageError, "bias must be an integer tensor"),
    (lambda: convolve.conv2d(X, W.to("meta")), UsageError, "must be on one device; got input on cpu and weight on meta"),
    (lambda: convolve.conv2d(X, W, padding=-1), UsageError, "padding must be at least 0; got -1; crop the input instead"),
    (lambda: convolve.conv2d(X, W, padding=((0, -1), 0)), UsageError, "padding must be at least 0"),
    (lambda: convolve.conv2d(X, W, stride=0), UsageError, "stride must be at least 1; got 0"),
    (lambda: convolve.conv2d(X, W, stride=(1, -2)), UsageError, "stride must be at least 1; got -2"),
    (lambda: convolve.conv2d(X, W, dilation=0), UsageError, "dilation must be at least 1; got 0"),
    (lambda: convolve.conv2d(X, W, groups=0), UsageError, "groups must be at least 1; got 0"),
    (lambda: convolve.conv2d(X, W, stride=1.5), UsageError, "stride must be an integer; got 1.5"),
    (lambda: convolve.conv2d(X, W, padding="sane"), UnknownNameError, "unknown padding; got 'sane'; use same"),
    (lambda: convolve.conv2d(X, W, padding_mode="reflct"), UnknownNameError, "unknown padding_mode; got 'reflct'; use reflect"),
    (lambda: convolve.conv2d(X, W, group_order="interlaced"), UnknownNameError, "unknown group_order; got 'interlaced'; use interleaved"),
    (lambda: convolve.conv2d(X, W, algorithm="winograt"), UnknownNameError, "unknown algorithm; got 'winograt'; use winograd"),
    (lambda: convolve.conv2d(X, W, dilation=2, algorithm="winograd"), DeclinedError, "algorithm 'winograd' cannot compute this convolution; got 1x6x5x5 k4 3x3 s1 p0 d2: it needs dilation 1; use algorithm='auto'"),
    (lambda: convolve.conv2d(X.long(), W.long(), algorithm="fft"), DeclinedError, "a transform is not exact, and int64 must be"),
    (lambda: convolve.conv2d(X, torch.rand(4, 6, 3, 3), algorithm="separable"), DeclinedError, "not every kernel is of rank one"),
    (lambda: convolve.conv2d(X, W, padding=5, padding_mode="reflect"), ShapeError, "reflect padding repeats elements of the input, so it cannot exceed the size minus one; got padding (5, 5) on size 5 along axis 2; pad by at most 4"),
    (lambda: convolve.conv2d(X, W, padding=6, padding_mode="circular"), ShapeError, "cannot exceed the size; got padding (6, 6)"),
    (lambda: convolve.conv2d(X, W, accumulate=torch.int32), UsageError, "accumulate is for integer tensors"),
    (lambda: convolve.conv2d(X.long(), W.long(), accumulate=torch.float32), UsageError, "accumulate must be an integer dtype"),
    (lambda: convolve.conv2d(X, W, torch.ones(4), partial_maps=True), UsageError, "partial maps have no bias"),
    (lambda: convolve.conv2d([[1.0]], W), UsageError, "input must be a tensor; got list"),
    (lambda: convolve.conv2d(X, np.ones((4, 6, 3, 3))), UsageError, "weight must be a tensor; got ndarray"),
    (lambda: convolve.conv_transpose2d(X, W), ShapeError, "the input's channels must be the first size of a transposed convolution's weight; got 6 channels, weight (4, 6, 3, 3)"),
    (lambda: convolve.conv_transpose2d(X, torch.ones(6, 2, 3, 3), groups=4), ShapeError, "groups must divide in-channels; got 6 in-channels, groups=4; use 1, 2, 3, 6"),
    (lambda: convolve.conv_transpose2d(X, torch.ones(6, 2, 3, 3), output_padding=1), ShapeError, "output_padding must be smaller than the stride or the dilation; got 1 with stride 1, dilation 1"),
    (lambda: convolve.conv_transpose2d(X, torch.ones(6, 2, 3, 3), stride=2, output_size=(14, 11)), ShapeError, "output_size must be one that the convolution could have started from; got 14 along spatial axis 0; use 11 to 12"),
    (lambda: convolve.conv_transpose2d(X, torch.ones(6, 2, 3, 3), stride=2, output_padding=1, output_size=12), UsageError, "output_size and output_padding exclude each other"),
    (lambda: convolve.conv_transpose2d(X, torch.ones(6, 2, 1, 1), padding=4), ShapeError, "crops its output to nothing; got an output of -3"),
    (lambda: convolve.conv_transpose2d(X, torch.ones(6, 2, 3, 3), torch.ones(6)), ShapeError, "bias must hold one number per out-channel; got (6,) for 2"),
]  # fmt: skip


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("index", range(len(ERRORS)))
def test_errors_say_the_rule_what_was_received_and_the_remedy(index: int, twice: bool) -> None:
    call, error, text = ERRORS[index]
    if twice:  # also behind the short way for calls seen before
        convolve.conv2d(X, W)
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


# --- an algorithm of one's own --------------------------------------------------------------------------------------


def test_an_algorithm_of_ones_own_serves_all_roles_by_its_forward_pass_alone() -> None:
    seen = []

    def run(problem: ConvProblem, x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        seen.append(str(problem))
        window = problem.window
        x = F.pad(x, [side for pair in reversed(window.padding) for side in pair])
        if set(window.input_dilation) != {1}:
            raise AssertionError("declined below")
        return F.conv2d(x, w, bias, window.stride, 0, window.dilation, problem.groups)

    mine = Algorithm(
        "mine", "a test's", run, lambda p: "stuffed" if set(p.window.input_dilation) != {1} else None,
        lambda p: Cost(0.0, 0), lambda p: 1e-6,
    )  # fmt: skip
    x, w, b = randn(2, 4, 7, 6).requires_grad_(), randn(6, 2, 3, 2).requires_grad_(), randn(6).requires_grad_()
    y = convolve.conv2d(x, w, b, padding=((1, 0), (0, 2)), groups=2, algorithm=mine)
    want = F.conv2d(F.pad(x, (0, 2, 1, 0)), w, b, groups=2)
    torch.testing.assert_close(y, want)
    g = randn(*y.shape)
    torch.testing.assert_close(torch.autograd.grad(y, (x, w, b), g), torch.autograd.grad(want, (x, w, b), g))
    assert len(seen) == 3, "the output, the input gradient and the weight gradient"
    again = convolve.conv2d(x, w, b, padding=((1, 0), (0, 2)), groups=2, algorithm=mine)
    assert torch.equal(again, y)
    assert len(seen) == 4
    with pytest.raises(DeclinedError, match="algorithm 'mine' cannot compute this convolution"):
        convolve.conv_transpose2d(y, w, stride=2, groups=2, algorithm=mine)
    other = Algorithm("mine", "another of that name", lambda *a: run(*a) + 1, mine.why_not, mine.cost, mine.bound)
    torch.testing.assert_close(convolve.conv2d(x, w, b, padding=((1, 0), (0, 2)), groups=2, algorithm=other), y + 1)


def test_the_callers_tensors_generator_and_threads_stay_as_they_were() -> None:
    x, w, b = randn(2, 4, 7, 6), randn(6, 4, 3, 3), randn(6)
    before = [t.clone() for t in (x, w, b)]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for name in DENSE:
        if name != "separable":
            convolve.conv2d(x, w, b, padding=1, algorithm=name)
    assert all(torch.equal(new, old) for new, old in zip((x, w, b), before, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
