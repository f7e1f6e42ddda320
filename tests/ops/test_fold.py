"""unfold and fold against torch, against the convolution that they spell out, and against each other."""

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

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def random_window(seed: int) -> tuple[Window, tuple[int, ...]]:
    """A window with every argument at once that has at least one output, and the size of its input."""
    rng = random.Random(seed)
    while True:
        axes = rng.choice([1, 2, 2, 3])
        size = tuple(rng.choice([1, 2, 3, 5] if axes == 3 else [1, 3, 4, 7]) for _ in range(axes))
        window = Window.of(
            tuple(rng.choice([1, 2, 3]) for _ in range(axes)),
            tuple(rng.choice([1, 2, 3, 5]) for _ in range(axes)),
            tuple((rng.choice([0, 0, 1, 3, -1]), rng.choice([0, 0, 1, 2, -1])) for _ in range(axes)),
            tuple(rng.choice([1, 1, 2, 3]) for _ in range(axes)),
            axes=axes,
        )
        if min(window.output_size(size)) >= 1:
            return window, size


def reference_unfold(x: Tensor, window: Window) -> Tensor:
    """Columns by loops over the definition; x is (c, *size)."""
    c, *size = x.shape
    outputs = window.output_size(size)
    columns = torch.zeros(c, *window.kernel, *outputs, dtype=x.dtype)
    for output in itertools.product(*map(range, outputs)):
        per_axis = [list(window.taps(axis, n, j)) for axis, (n, j) in enumerate(zip(size, output, strict=True))]
        for pairs in itertools.product(*per_axis):
            taps, places = zip(*pairs, strict=True)
            columns[(slice(None), *taps, *output)] = x[(slice(None), *places)]
    return columns.reshape(c * math.prod(window.kernel), -1)


@pytest.mark.parametrize("seed", range(60))
def test_unfold_equals_the_definition_and_fold_is_its_adjoint(seed: int) -> None:
    window, size = random_window(seed)
    arguments = (window.kernel, window.dilation, window.padding, window.stride)
    axes = window.axes
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-9, 9, (2, 3, *size), generator=generator).double()
    columns = convolve.unfold(x, *arguments, axes=axes)
    assert columns.equal(torch.stack([reference_unfold(image, window) for image in x]))
    assert convolve.unfold(x, *arguments, axes=axes, orientation="rows").equal(columns.transpose(1, 2))
    assert convolve.unfold(x[0], *arguments, axes=axes).equal(columns[0])
    assert convolve.unfold(x.long(), *arguments, axes=axes).equal(columns.long())
    y = torch.randint(-9, 9, columns.shape, generator=generator).double()
    folded = convolve.fold(y, size, *arguments, axes=axes)
    assert (columns * y).sum() == (x * folded).sum()
    assert convolve.fold(y.transpose(1, 2), size, *arguments, axes=axes, orientation="rows").equal(folded)
    assert convolve.fold(y[0], size, *arguments, axes=axes).equal(folded[0])
    # fold(unfold(1)) counts the windows that read each element.
    counts = convolve.fold(convolve.unfold(torch.ones_like(x), *arguments, axes=axes), size, *arguments, axes=axes)
    expected = torch.ones((), dtype=torch.float64)
    for axis, (n, m) in enumerate(zip(size, window.output_size(size), strict=True)):
        per_place = torch.zeros(n, dtype=torch.float64)
        for j in range(m):
            for _, i in window.taps(axis, n, j):
                per_place[i] += 1
        expected = expected[..., None] * per_place
    assert counts.equal(expected.expand_as(x))
    # The gradients are each other.
    leaf = x.clone().requires_grad_()
    convolve.unfold(leaf, *arguments, axes=axes).backward(y)
    assert leaf.grad.equal(folded)
    leaf = y.clone().requires_grad_()
    convolve.fold(leaf, size, *arguments, axes=axes).backward(x)
    assert leaf.grad.equal(columns)


@pytest.mark.parametrize("kernel", [1, 2, (3, 2)])
@pytest.mark.parametrize("padding", [0, 1, (2, 0)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, (2, 1)), ((3, 2), 2)])
def test_two_axes_equal_torch(kernel, padding, stride, dilation) -> None:
    x = torch.randn(2, 3, 7, 6)
    arguments = {"kernel_size": kernel, "padding": padding, "stride": stride, "dilation": dilation}
    columns = F.unfold(x, **arguments)
    assert convolve.unfold(x, **arguments).equal(columns)
    torch.testing.assert_close(convolve.fold(columns, (7, 6), **arguments), F.fold(columns, (7, 6), **arguments))
    for dtype in (torch.bfloat16, torch.float16):
        half = columns.to(dtype)
        precise = F.fold(half.float(), (7, 6), **arguments).to(dtype)
        assert convolve.fold(half, (7, 6), **arguments).equal(precise)


def test_unfold_spells_out_the_convolution_in_both_orientations() -> None:
    x, w = torch.randn(2, 3, 8, 7, dtype=torch.float64), torch.randn(5, 3, 3, 2, dtype=torch.float64)
    expected = convolve.conv2d(x, w, stride=2, padding="same").flatten(2)
    columns = convolve.unfold(x, (3, 2), stride=2, padding="same")
    torch.testing.assert_close(w.flatten(1) @ columns, expected)
    rows = convolve.unfold(x, (3, 2), stride=2, padding="same", orientation="rows")
    torch.testing.assert_close(rows @ w.flatten(1).T, expected.transpose(1, 2))


def function(x: Tensor) -> Tensor:
    return convolve.unfold(x, (2, 3), (2, 1), ((1, 0), (2, 1)), (1, 2))


def adjoint(y: Tensor) -> Tensor:
    return convolve.fold(y, (5, 4), (2, 3), (2, 1), ((1, 0), (2, 1)), (1, 2))


@pytest.mark.parametrize("forward", [True, False])
def test_unfold_and_fold_pass_through_every_transform(forward: bool) -> None:
    operator = function if forward else adjoint
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    if not forward:
        x = function(x)
    batch = torch.stack([x, 2 * x, -x])
    expected = torch.stack([operator(one) for one in batch])
    torch.testing.assert_close(torch.func.vmap(operator)(batch), expected)
    _, tangent = torch.func.jvp(operator, (x,), (2 * x,))
    torch.testing.assert_close(tangent, operator(2 * x))
    small = x[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(operator, small)
    cubed = lambda x: (operator(x) ** 3).sum()  # noqa: E731
    torch.testing.assert_close(
        torch.func.grad(cubed)(x), torch.autograd.grad(cubed(leaf := x.clone().requires_grad_()), leaf)[0]
    )
    weights = torch.randn_like(x)
    product = torch.func.jvp(torch.func.grad(cubed), (x,), (weights,))[1]
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(cubed(leaf), leaf, create_graph=True)
    torch.testing.assert_close(product, torch.autograd.grad((first * weights).sum(), leaf)[0])
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(operator, fullgraph=True, backend="aot_eager")(x), operator(x))

    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return operator(x)

    program = torch.export.export(Net(), (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    other = torch.randn(5, *x.shape[1:], dtype=torch.float64)
    torch.testing.assert_close(program.module()(other), operator(other))
    assert operator(x.to("meta")).shape == operator(x).shape


@pytest.mark.parametrize("huge", [2**31, 2**62])
def test_huge_arguments_are_right_or_refused_in_words(huge: int) -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert convolve.unfold(x, 2, stride=huge).flatten().tolist() == [0, 1, 4, 5]
    assert convolve.fold(torch.ones(1, 4, 1), (2, 2), 2, stride=huge).flatten().tolist() == [1, 1, 1, 1]
    assert convolve.unfold(x, 1, dilation=huge).equal(x.reshape(1, 1, 16))
    with pytest.raises(ShapeError, match="must fit into the padded input"):
        convolve.unfold(x, 2, dilation=huge)
    with pytest.raises(ShapeError, match="must fit into the padded input"):
        convolve.fold(torch.ones(1, 4, 1), (2, 2), 2, dilation=huge)
    with pytest.raises((ShapeError, UsageError), match="fit"):
        convolve.unfold(x, 2, dilation=2**62, padding=2**61)
    with pytest.raises(ShapeError, match="the padded input must fit in memory"):
        convolve.unfold(x, 2, stride=2**61, padding=2**60)
    with pytest.raises(ShapeError, match="the padded result must fit in memory"):
        convolve.fold(torch.ones(1, 4, 4), (4, 4), 2, stride=2**61, padding=2**60)
    with pytest.raises(ShapeError, match="the columns must fit in memory"):
        convolve.unfold(x, 2**20, padding=2**20)
    with pytest.raises((ShapeError, UsageError), match="64 bits"):
        convolve.unfold(x, 3, dilation=2**62)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5)])
def test_empty_batches_and_channels(shape: tuple[int, ...]) -> None:
    columns = convolve.unfold(torch.zeros(shape), 2)
    assert columns.shape == (shape[0], shape[1] * 4, 12)
    assert convolve.fold(columns, (4, 5), 2).shape == shape
    assert convolve.unfold(torch.ones(1, 1, 0, 3), 2, padding=1).sum() == 0
    assert convolve.fold(torch.ones(1, 4, 2), (0, 1), 2, padding=1).shape == (1, 1, 0, 1)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: convolve.unfold(x, 5), ShapeError, "kernel must fit"),
        (lambda x: convolve.unfold(x[0, 0], 2), ShapeError, r"unfold over 2 axes takes \(n, c, h, w\)"),
        (lambda x: convolve.unfold(x, 2, axes=0), UsageError, "axes must be 1, 2 or 3; got 0"),
        (lambda x: convolve.fold(x[0], (4, 1), 2), ShapeError, "kernel must fit"),
        (lambda x: convolve.unfold(x, 2, axes=4), UsageError, "axes must be 1, 2 or 3; got 4"),
        (lambda x: convolve.unfold(x, 2, orientation="row"), UnknownNameError, "'row'; use rows"),
        (lambda x: convolve.unfold(x, 2, padding="full"), UnknownNameError, "unknown padding"),
        (lambda x: convolve.fold(x, 4, 2), ShapeError, r"fold takes \(n, c \* taps"),
        (
            lambda x: convolve.fold(x[0], 4, 2),
            ShapeError,
            r"of 4 values \(the taps\) at 9 positions \(3 x 3\); got 4 at 4",
        ),
        (lambda x: convolve.fold(x[0, :, :3], 3, 2), ShapeError, "multiple of 4 values"),
    ],
)
def test_bad_arguments_are_refused_with_rule_received_and_remedy(call, error, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call(torch.zeros(1, 2, 4, 4))
    assert caught.value.received
    assert caught.value.remedy
