"""What an animation shows equals the operators: torch in float64, loops by hand, numbers of the texts, and PyTorch's own words."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convolve.errors import ConvolveError, ShapeError, UsageError
from convolve.explain.stages import Stage, convolution, pooling, transposed


def whole(*shape: int, seed: int = 0) -> Tensor:
    """Small integers, exact in any order of summation."""
    return torch.randint(-3, 5, shape, generator=torch.Generator().manual_seed(seed)).double()


def run(code: str) -> Tensor:
    """What the program prints as y, without its batch."""
    names: dict[str, Any] = {}
    exec(code.replace("print(y)", ""), names)
    return names["y"][0].detach().double()


CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"stride": (2, 3), "padding": (1, 2)},
    {"padding": "same", "flip": True},
    {"padding": ((0, 1), (2, 1)), "dilation": (2, 1)},
    {"padding": ((2, 1), (0, 1)), "padding_mode": "reflect", "stride": 2},
    {"padding": 1, "padding_mode": "circular", "flip": True},
    {"padding": 2, "padding_mode": "replicate"},
]


@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_every_notation_of_a_convolution_gives_the_operators_output(arguments: dict[str, Any]) -> None:
    x, weight, bias = whole(4, 5, 7), whole(6, 2, 3, 2, seed=1), whole(6, seed=2)
    stage = convolution(x, weight, bias, groups=2, **arguments)
    laid = weight.flip(2, 3) if stage.flipped else weight
    (top, bottom), (left, right) = stage.window.padding
    mode = {"zeros": "constant"}.get(stage.padding_mode, stage.padding_mode)
    padded = F.pad(x[None], (left, right, top, bottom), mode=mode)
    expected = F.conv2d(padded, laid, bias, stage.window.stride, 0, stage.window.dilation, 2)[0]
    assert torch.equal(stage.output, expected)
    assert torch.equal(stage.frame, padded[0])
    assert torch.equal(stage.products.sum(2) + bias[:, None], expected.flatten(1))
    assert stage.partial is not None
    assert torch.equal(stage.partial.sum(1) + bias[:, None, None], expected)
    taps = stage.reads.shape[1]
    assert torch.equal(stage.products.unflatten(2, (2, taps)).sum(3), stage.partial.flatten(2).transpose(1, 2))
    assert torch.equal(stage.rows.unflatten(1, (4, taps)), stage.frame.flatten(1)[:, stage.reads].transpose(0, 1))
    assert stage.matrix is not None
    assert stage.returned is not None
    dense = stage.matrix.to_dense()
    assert torch.equal((dense @ stage.matrix_input.flatten()).reshape(6, -1) + bias[:, None], expected.flatten(1))
    assert torch.equal(dense.T @ expected.flatten(), stage.returned.flatten())
    assert torch.equal(run(stage.code), expected)


def test_the_positions_of_a_window_are_counted_by_hand() -> None:
    stage = convolution(whole(1, 3, 4), whole(1, 1, 2, 2), stride=(1, 2), padding=((1, 0), (0, 0)))
    assert stage.reads.tolist() == [
        [0, 1, 4, 5], [2, 3, 6, 7], [4, 5, 8, 9], [6, 7, 10, 11], [8, 9, 12, 13], [10, 11, 14, 15],
    ]  # fmt: skip
    assert stage.inner == ((1, 4), (0, 4))
    assert stage.size_formulas == ("⌊(3 + 1 + 0 − 2) / 1⌋ + 1 = 3", "⌊(4 − 2) / 2⌋ + 1 = 2")


def test_one_axis_is_an_animation_too() -> None:
    x, weight = whole(4, 11), whole(6, 2, 3, seed=1)
    stage = convolution(x, weight, stride=2, padding=((2, 1),), dilation=2, groups=2)
    assert torch.equal(stage.output, F.conv1d(F.pad(x[None], (2, 1)), weight, None, 2, 0, 2, 2)[0])
    assert torch.equal(run(stage.code), stage.output)


def test_the_numbers_of_the_texts_appear() -> None:
    x, kernel = torch.arange(9.0).reshape(1, 3, 3), torch.arange(4.0).reshape(1, 1, 2, 2)
    assert convolution(x, kernel).output.tolist() == [[[19, 25], [37, 43]]]  # S000-1
    stage = convolution(x, torch.tensor([[[[1.0, 2], [3, 4]]]]))
    assert stage.matrix is not None
    assert stage.matrix.to_dense()[0].tolist() == [1, 2, 0, 3, 4, 0, 0, 0, 0]  # S004
    small = torch.arange(4.0).reshape(1, 2, 2)
    assert transposed(small, kernel).output.tolist() == [[[0, 0, 1], [0, 4, 6], [4, 12, 9]]]
    assert transposed(small, kernel, padding=1).output.tolist() == [[[4]]]
    strided = transposed(small, kernel, stride=2).output
    assert strided.tolist() == [[[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]]]


TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": (3, 2), "padding": ((0, 1), (1, 0)), "flip": True},
    {"dilation": 2, "output_padding": 1},
    {"stride": 2, "dilation": (1, 3), "padding": (1, 2), "output_padding": (1, 2)},
]


@pytest.mark.parametrize("arguments", TRANSPOSED, ids=str)
def test_every_notation_of_a_transposed_convolution_gives_the_operators_output(arguments: dict[str, Any]) -> None:
    x, weight, bias = whole(4, 3, 5), whole(4, 3, 3, 2, seed=1), whole(6, seed=2)
    stage = transposed(x, weight, bias, groups=2, **arguments)
    window, extra = stage.window, arguments.get("output_padding", 0)
    laid = weight.flip(2, 3) if stage.flipped else weight
    whole_map = F.conv_transpose2d(x[None], laid, None, window.stride, 0, extra, 2, window.dilation)[0]
    (top, bottom), (left, right) = window.padding
    h, w = whole_map.shape[1:]
    expected = whole_map[:, top : h - bottom, left : w - right] + bias[:, None, None]
    assert torch.equal(stage.output, expected)
    assert torch.equal(stage.frame, whole_map)
    stamped = torch.zeros(6, h * w, dtype=torch.float64)
    positions, taps = stage.reads.shape
    for position, tap in itertools.product(range(positions), range(taps)):
        stamped[:, stage.reads[position, tap]] += stage.rows[position].reshape(6, taps)[:, tap]
    assert torch.equal(stamped.reshape(6, h, w), whole_map)
    assert torch.equal(stage.products.unflatten(2, (2, taps)).sum(2).transpose(0, 1).flatten(1), stage.rows)
    assert stage.grown is not None
    first = torch.zeros_like(x)
    first.flatten(1)[:, :4] = x.flatten(1)[:, :4]
    arrived = F.conv_transpose2d(first[None], laid, None, window.stride, 0, extra, 2, window.dilation)[0]
    assert torch.equal(stage.grown[3], arrived)
    assert stage.matrix is not None
    assert stage.returned is not None
    dense = stage.matrix.to_dense()
    assert torch.equal((dense @ x.flatten()).reshape(6, -1) + bias[:, None], expected.flatten(1))
    assert torch.equal(dense.T @ expected.flatten(), stage.returned.flatten())
    assert torch.equal(run(stage.code), expected)


POOLINGS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 1), "ceil_mode": True},
    {"kernel_size": 2, "padding": "same", "stride": 1},
    {"kernel_size": (2, 3), "padding": ((0, 1), (2, 0)), "stride": 1},
    {"kernel_size": 2, "dilation": 2, "stride": 1},
]


def rows_of(stage: Stage) -> Tensor:
    return stage.frame.flatten(1)[:, stage.reads]


@pytest.mark.parametrize("arguments", POOLINGS, ids=str)
def test_max_pooling_is_the_largest_of_each_row_and_a_matrix_of_ones(arguments: dict[str, Any]) -> None:
    x = whole(3, 5, 7)
    stage = pooling(x, "max", **arguments)
    assert torch.equal(stage.rows, rows_of(stage))
    assert torch.equal(stage.rows.amax(2), stage.output.flatten(1))
    assert stage.winners is not None
    assert torch.equal(stage.rows.gather(2, stage.winners[..., None])[..., 0], stage.output.flatten(1))
    assert stage.matrix is not None
    assert torch.equal(stage.matrix.to_dense() @ x.flatten(), stage.output.flatten())
    assert torch.equal(run(stage.code), stage.output)


@pytest.mark.parametrize("arguments", POOLINGS, ids=str)
@pytest.mark.parametrize("count", [True, False])
def test_average_pooling_is_the_sum_of_each_row_over_its_divisor(arguments: dict[str, Any], count: bool) -> None:
    x = whole(3, 5, 7)
    stage = pooling(x, "average", **arguments, count_include_pad=count)
    assert torch.equal(stage.rows, rows_of(stage))
    assert stage.divisors is not None
    torch.testing.assert_close(stage.rows.sum(2) / stage.divisors, stage.output.flatten(1))
    assert stage.matrix is not None
    torch.testing.assert_close(stage.matrix.to_dense() @ x.flatten(), stage.output.flatten())
    torch.testing.assert_close(run(stage.code), stage.output)


@pytest.mark.parametrize("flip", [False, True])
def test_interleaved_groups_read_every_so_many_th_channel(flip: bool) -> None:
    x, weight, bias = whole(6, 5, 4), whole(4, 3, 3, 2, seed=1), whole(4, seed=2)
    stage = convolution(x, weight, bias, groups=2, padding=(1, 0), stride=2, flip=flip, group_order="interleaved")
    laid = weight.flip(2, 3) if flip else weight
    # By hand: filters 0 and 1 read channels 0, 2, 4; filters 2 and 3 read 1, 3, 5.
    halves = [F.conv2d(x[None, g::2], laid[2 * g : 2 * g + 2], bias[2 * g : 2 * g + 2], 2, (1, 0)) for g in (0, 1)]
    expected = torch.cat(halves, 1)[0]
    assert stage.order == (0, 2, 4, 1, 3, 5)
    assert torch.equal(stage.output, expected)
    assert torch.equal(stage.products.sum(2) + bias[:, None], expected.flatten(1))
    assert stage.partial is not None
    taps = stage.reads.shape[1]
    assert torch.equal(stage.products.unflatten(2, (3, taps)).sum(3), stage.partial.flatten(2).transpose(1, 2))
    first = stage.rows.unflatten(1, (6, taps))[:, [0, 2, 4]].flatten(1) * laid[0].flatten()
    assert torch.equal(stage.products[0], first)
    assert stage.matrix is not None
    dense = stage.matrix.to_dense()
    assert torch.equal((dense @ x.flatten()).reshape(4, -1) + bias[:, None], expected.flatten(1))
    assert not dense[: len(stage.reads)].reshape(-1, 6, 20)[:, 1::2].any()
    assert torch.equal(run(stage.code), expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        {"kernel_size": (2, 3), "padding": ((0, 1), (2, 0)), "stride": 1},
        {"kernel_size": 2, "dilation": 2, "stride": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("axes", [1, 2])
def test_pooling_with_parameters_adds_weighs_and_shifts(arguments: dict[str, Any], axes: int) -> None:
    x, scale, bias = whole(3, 5, 7), torch.tensor([0.25, 2.0, -1.5]), torch.tensor([1.0, -2.0, 3.0])
    if axes == 1:
        arguments = {name: v[1] if isinstance(v, tuple) else v for name, v in arguments.items()}
        arguments |= {"padding": (arguments["padding"],)} if isinstance(arguments.get("padding"), tuple) else {}
        x = x[:, 0]
    stage = pooling(x, "sum", **arguments, scale=scale, bias=bias)
    expected = rows_of(stage).sum(2) * scale[:, None] + bias[:, None]
    assert torch.equal(stage.output.flatten(1), expected)
    assert torch.equal(stage.rows, rows_of(stage))
    assert stage.matrix is not None
    assert torch.equal((stage.matrix.to_dense() @ x.flatten().double()).reshape(3, -1) + bias[:, None], expected)
    assert stage.parameters == 6
    assert torch.equal(run(stage.code), stage.output)


def test_a_window_of_padding_alone_has_no_matrix() -> None:
    stage = pooling(whole(1, 3, 3), "max", 2, 1, ((0, 0), (2, 0)))
    assert stage.output[0, 0, 0] == -float("inf")
    assert stage.matrix is None


def test_pooling_one_axis_follows_torch() -> None:
    x = whole(2, 9)
    stage = pooling(x, "max", 3, 2, 1, ceil_mode=True)
    assert torch.equal(stage.output, F.max_pool1d(x, 3, 2, 1, ceil_mode=True))
    assert torch.equal(run(stage.code), stage.output)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: convolution(whole(1, 60, 60), whole(1, 1, 3, 3)), UsageError, "up to 20,000 products"),
        (lambda: convolution(whole(1, 5, 5), whole(1, 1, 1, 1), padding=60), UsageError, "cells|products"),
        (lambda: convolution(whole(1, 5, 5), whole(1, 1, 3, 3), padding=-1), UsageError, "padding of 0 or more"),
        (lambda: convolution(whole(1, 3, 3), whole(1, 1, 5, 5)), ShapeError, "must fit into the padded input"),
        (lambda: convolution(whole(1, 1, 5, 5), whole(1, 1, 3, 3)), ShapeError, "one input of"),
        (lambda: transposed(whole(1, 30, 30), whole(1, 1, 3, 3), stride=3), UsageError, "cells"),
        (lambda: transposed(whole(1, 3, 3), whole(1, 1, 3, 3), padding="same"), UsageError, "in numbers"),
        (lambda: pooling(whole(1, 99, 99), "max", 3), UsageError, "cells"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(make: Any, error: type[ConvolveError], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
