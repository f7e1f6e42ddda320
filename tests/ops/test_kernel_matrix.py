"""The matrix of a convolution: its product is the operator, its transpose the transposed operator, its structure the claims'."""

from __future__ import annotations

import random

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F

import convolve
from convolve.errors import ShapeError, UnknownNameError, UsageError


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor, dict]:
    rng = random.Random(seed)
    while True:
        axes = rng.choice([1, 2, 2, 3])
        size = tuple(rng.choice([1, 2, 3, 5]) for _ in range(axes))
        kernel = tuple(rng.choice([1, 2, 3]) for _ in range(axes))
        groups, depth, per_group = rng.choice([1, 1, 2, 3]), rng.choice([1, 2]), rng.choice([1, 2])
        arguments = {
            "stride": tuple(rng.choice([1, 2, 3]) for _ in range(axes)),
            "padding": tuple((rng.choice([0, 1, 2, -1]), rng.choice([0, 0, 1, -1])) for _ in range(axes)),
            "dilation": tuple(rng.choice([1, 1, 2]) for _ in range(axes)),
            "groups": groups,
        }
        reach = [
            n + p + q - d * (k - 1) - 1
            for n, k, (p, q), d in zip(size, kernel, arguments["padding"], arguments["dilation"], strict=True)
        ]
        if min(reach) >= 0:
            generator = torch.Generator().manual_seed(seed)
            x = torch.randint(-5, 6, (groups * depth, *size), generator=generator).double()
            w = torch.randint(-5, 6, (groups * per_group, depth, *kernel), generator=generator).double()
            return x, w, arguments


def by_torch(x: torch.Tensor, w: torch.Tensor, arguments: dict) -> torch.Tensor:
    """The same convolution by torch alone, the padding written out or cut off first."""
    for axis, (before, after) in enumerate(arguments["padding"], start=1):
        sides = [0] * (2 * (x.dim() - axis) - 2) + [max(before, 0), max(after, 0)]
        x = F.pad(x, sides)
        x = x.narrow(axis, max(-before, 0), x.shape[axis] + min(before, 0) + min(after, 0))
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[x.dim() - 1]
    return function(x[None], w, None, arguments["stride"], 0, arguments["dilation"], arguments["groups"])[0]


@pytest.mark.parametrize("seed", range(80))
def test_the_product_is_the_convolution_and_the_transpose_its_adjoint(seed: int) -> None:
    x, w, arguments = random_case(seed)
    matrix = convolve.kernel_matrix(w, x.shape[1:], **arguments)
    leaf = x.clone().requires_grad_()
    y = by_torch(leaf, w, arguments)
    assert matrix.shape == (y.numel(), x.numel())
    assert (matrix @ x.flatten()).equal(y.detach().flatten())
    v = torch.randint(-5, 6, y.shape, generator=torch.Generator().manual_seed(seed + 1)).double()
    (gradient,) = torch.autograd.grad(y, leaf, v)
    assert (matrix.t() @ v.flatten()).equal(gradient.flatten())
    weight = w.clone().requires_grad_()
    (convolve.kernel_matrix(weight, x.shape[1:], **arguments) @ x.flatten()).backward(v.flatten())
    again = w.clone().requires_grad_()
    by_torch(x, again, arguments).backward(v)
    assert weight.grad.equal(again.grad)


def test_the_transpose_is_the_transposed_convolution() -> None:
    w = torch.randn(6, 2, 3, 2, dtype=torch.float64)
    y = torch.randn(6, 4, 3, dtype=torch.float64)
    arguments = {"stride": (2, 3), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    expected = F.conv_transpose2d(y[None], w, **arguments)[0]
    matrix = convolve.kernel_matrix(w, expected.shape[1:], **arguments)
    torch.testing.assert_close((matrix.t() @ y.flatten()).reshape(expected.shape), expected)


def test_the_matrix_of_a_3x3_kernel_on_5x5_has_81_places_and_9_values() -> None:
    matrix = convolve.kernel_matrix(torch.arange(1.0, 10.0).reshape(3, 3), 5)
    assert matrix.shape == (9, 25)
    assert matrix._nnz() == 81
    assert sorted(set(matrix.values().tolist())) == list(range(1, 10))
    dense = matrix.to_dense()
    assert not torch.equal(dense @ dense.T, torch.eye(9))


def test_flipped_it_is_the_convolution_of_scipy() -> None:
    x, k = np.random.default_rng(0).standard_normal((6, 7)), np.random.default_rng(1).standard_normal((3, 2))
    matrix = convolve.kernel_matrix(torch.from_numpy(k), (6, 7), flip_kernel=True)
    product = (matrix @ torch.from_numpy(x).flatten()).numpy()
    np.testing.assert_allclose(product, scipy.signal.convolve2d(x, k, mode="valid").ravel(), atol=1e-14)
    plain = convolve.kernel_matrix(torch.from_numpy(k), (6, 7)) @ torch.from_numpy(x).flatten()
    np.testing.assert_allclose(plain.numpy(), scipy.signal.correlate2d(x, k, mode="valid").ravel(), atol=1e-14)


def test_integers_stay_integers_and_gradients_pass_gradcheck() -> None:
    matrix = convolve.kernel_matrix(torch.tensor([[0, 1], [2, 3]]), (3, 3))
    assert matrix.dtype == torch.int64
    assert matrix.to_dense().tolist()[3] == [0, 0, 0, 0, 0, 1, 0, 2, 3]
    weight = torch.randn(2, 1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: convolve.kernel_matrix(w, 5, padding="same").to_dense(), weight)


def test_empty_problems_give_empty_matrices() -> None:
    assert convolve.kernel_matrix(torch.zeros(2, 0, 1, 1), (3, 3)).shape == (18, 0)
    assert convolve.kernel_matrix(torch.zeros(0, 2, 1, 1), (3, 3), groups=2).shape == (0, 36)
    assert convolve.kernel_matrix(torch.ones(1, 1, 2), 0, padding=1).to_dense().shape == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"weight": torch.ones(3), "input_size": (5, 5)}, ShapeError, r"\(filters, channels / groups, \*kernel\)"),
        ({"weight": torch.ones(3, 3), "input_size": (2, 2)}, ShapeError, "kernel must fit"),
        ({"weight": torch.ones(3, 3), "input_size": (5,)}, ShapeError, "one to three kernel axes"),
        ({"weight": torch.ones(3, 1, 3), "input_size": 5, "groups": 0}, UsageError, "groups must be at least 1"),
        (
            {"weight": torch.ones(3, 1, 3), "input_size": 5, "groups": 2},
            ShapeError,
            "groups must divide out-channels; got 3",
        ),
        ({"weight": torch.ones(3, 3), "input_size": (5, 5), "padding": "all"}, UnknownNameError, "padding"),
        ({"weight": torch.ones(3, 3), "input_size": (-1, 5)}, UsageError, "at least 0"),
        ({"weight": torch.ones(1, 1, 1), "input_size": 2**40}, ShapeError, "64 bits"),
    ],
)
def test_bad_arguments_are_refused_in_words(arguments, error, words: str) -> None:
    with pytest.raises(error, match=words):
        convolve.kernel_matrix(**arguments)
