"""corr2d and Conv2D: the names of the texts, without their loss of precision."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

import convolve
from convolve.errors import ShapeError, UsageError


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_corr2d_keeps_the_dtype_and_is_scipys_correlation(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(-9, 9, (7, 5), generator=generator).to(dtype)
    k = torch.randint(-9, 9, (3, 2), generator=generator).to(dtype)
    result = convolve.corr2d(x, k)
    assert result.dtype == dtype
    expected = scipy.signal.correlate2d(x.double().numpy(), k.double().numpy(), mode="valid")
    np.testing.assert_array_equal(result.double().numpy(), expected)


def test_float64_keeps_digits_that_float32_would_lose() -> None:
    x = torch.tensor([[1.0 + 2**-40, 1.0]], dtype=torch.float64)
    assert convolve.corr2d(x, torch.tensor([[1.0, -1.0]], dtype=torch.float64)).item() == 2**-40


def test_mixed_dtypes_are_promoted_as_multiplication_promotes_them() -> None:
    image, kernel = torch.ones(6, 8), torch.tensor([[1, -1]])
    assert convolve.corr2d(image, kernel).dtype == torch.float32
    assert convolve.corr2d(image.double(), kernel.float()).dtype == torch.float64
    assert convolve.corr2d(kernel, torch.tensor([[0.5]])).tolist() == [[0.5, -0.5]]
    assert convolve.corr2d(image.float(), kernel.double()).dtype == torch.float64
    with pytest.raises(UsageError):
        convolve.conv2d(image[None, None], kernel[None, None])


def test_integers_are_summed_without_wrapping() -> None:
    x = torch.full((2, 2), 255, dtype=torch.uint8)
    assert convolve.corr2d(x, x).tolist() == [[4 * 255**2]]


def test_gradients_pass_gradcheck_and_the_layer_learns_both_parameters() -> None:
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    k = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convolve.corr2d, (x, k))
    layer = convolve.Conv2D(kernel_size=(2, 3)).double()
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"weight": (2, 3), "bias": (1,)}
    layer(x).sum().backward()
    windows = torch.stack([x[i : i + 3, j : j + 3].sum() for i in range(2) for j in range(3)]).reshape(2, 3)
    torch.testing.assert_close(layer.weight.grad, windows)
    assert layer.bias.grad.item() == 9
    assert repr(layer) == "Conv2D(kernel_size=(2, 3))"


def test_conv2d_of_plain_arrays_is_corr2d() -> None:
    x, k = torch.randn(5, 6, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    assert convolve.conv2d(x, k).equal(convolve.corr2d(x, k))
    flipped = convolve.conv2d(x, k, flip_kernel=True)
    np.testing.assert_allclose(flipped.numpy(), scipy.signal.convolve2d(x.numpy(), k.numpy(), mode="valid"), atol=1e-14)


@pytest.mark.parametrize(
    ("x", "k", "error", "words"),
    [
        (torch.ones(1, 3, 3), torch.ones(2, 2), ShapeError, r"X has 3; got shape \(1, 3, 3\); use convolve.conv2d"),
        (torch.ones(3, 3), torch.ones(2), ShapeError, "K has 1"),
        (torch.ones(3, 3), torch.ones(4, 1), ShapeError, "kernel must fit"),
        ([[1.0]], torch.ones(1, 1), UsageError, "X must be a tensor; got list"),
    ],
)
def test_bad_arguments_are_refused_in_words(x: Tensor, k: Tensor, error, words: str) -> None:
    with pytest.raises(error, match=words):
        convolve.corr2d(x, k)
