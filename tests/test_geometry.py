"""The geometry against hand counts, brute force and its own inverse."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convolve.errors import UsageError
from convolve.geometry import LARGEST, Window, checked, padding_pairs, per_axis, same_padding, spread

axis = st.fixed_dictionaries(
    {
        "size": st.integers(0, 14),
        "kernel": st.integers(1, 5),
        "stride": st.integers(1, 4),
        "padding": st.tuples(st.integers(-2, 4), st.integers(-2, 4)),
        "dilation": st.integers(1, 3),
        "input_dilation": st.integers(1, 3),
    }
)


def _window(a: dict) -> Window:
    return Window.of(a["kernel"], a["stride"], [a["padding"]], a["dilation"], a["input_dilation"], axes=1)


def _positions(a: dict) -> list[tuple[int, int, int | None]]:
    """(output, tap, input or None) by laying the padded row out and sliding over it."""
    row: list[int | None] = []
    for i in range(a["size"]):
        row += [i] + [None] * (a["input_dilation"] - 1)
    row = row[: len(row) - (a["input_dilation"] - 1)] if a["size"] else []
    p, q = a["padding"]
    row = [None] * p + row if p >= 0 else row[-p:]
    row = row + [None] * q if q >= 0 else row[: max(0, len(row) + q)]
    found, start, output = [], 0, 0
    while start + a["dilation"] * (a["kernel"] - 1) < len(row):
        found += [(output, t, row[start + t * a["dilation"]]) for t in range(a["kernel"])]
        start, output = start + a["stride"], output + 1
    return found


@settings(max_examples=400, deadline=None)
@given(axis)
def test_sizes_and_taps_are_those_of_a_row_laid_out_and_slid_over(a: dict) -> None:
    window = _window(a)
    length = spread(a["size"], a["input_dilation"])
    if length + min(0, a["padding"][0]) + min(0, a["padding"][1]) < 0:
        return  # more is cropped than there is
    found = _positions(a)
    outputs = len(found) // a["kernel"]
    assert window.output_size((a["size"],)) == (outputs,)
    want = [(j, t, i) for j, t, i in found if i is not None]
    assert [(j, t, i) for j in range(outputs) for t, i in window.taps(0, a["size"], j)] == want
    assert window.valid_taps(0, a["size"], outputs) == len(want)


@settings(max_examples=300, deadline=None)
@given(axis)
def test_a_transposed_window_returns_the_size_and_meets_the_same_pairs(a: dict) -> None:
    a = {**a, "input_dilation": 1}
    window = _window(a)
    (outputs,) = window.output_size((a["size"],))
    if outputs == 0 or a["size"] == 0:
        return
    unused = a["size"] + sum(a["padding"]) - window.extent[0] - a["stride"] * (outputs - 1)
    back = window.transposed(unused)
    assert back.output_size((outputs,)) == (a["size"],)
    forward = {(j, t, i) for j in range(outputs) for t, i in window.taps(0, a["size"], j)}
    flipped = {(j, a["kernel"] - 1 - t, i) for i in range(a["size"]) for t, j in back.taps(0, outputs, i)}
    assert flipped == forward
    assert back.transposed().input_dilation == window.input_dilation


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_same_padding_gives_the_size_over_the_stride_rounded_up(n: int, k: int, s: int, d: int, lower: bool) -> None:
    before, after = same_padding(n, k, s, d, lower)
    assert Window.of(k, s, [(before, after)], d, axes=1).output_size((n,)) == (-(-n // s),)
    assert 0 <= (before - after if lower else after - before) <= 1


def test_same_padding_is_torchs_for_stride_one() -> None:
    for k, d in itertools.product((1, 3, 5), range(1, 4)):
        y = torch.nn.functional.conv1d(
            torch.arange(9.0)[None, None], torch.arange(1.0, k + 1)[None, None], padding="same", dilation=d
        )
        before, after = same_padding(9, k, 1, d)
        x = torch.nn.functional.pad(torch.arange(9.0)[None, None], (before, after))
        assert torch.equal(y, torch.nn.functional.conv1d(x, torch.arange(1.0, k + 1)[None, None], dilation=d))


@pytest.mark.parametrize(
    ("n", "k", "s", "p", "d", "ceil", "want"),
    [
        (6, 3, 2, 0, 1, False, 2),  # the text's 6x6, k 3, stride 2: 2.5 is 2
        (6, 3, 2, 0, 1, True, 3),
        (32, 5, 1, 0, 1, False, 28),
        (224, 11, 4, 2, 1, False, 55),
        (7, 3, 1, 0, 3, False, 1),
        (2, 3, 1, 0, 1, False, 0),
        (5, 1, 2, 0, 1, True, 3),
        (3, 2, 3, 1, 1, True, 2),
    ],
)
def test_output_sizes_by_hand(n: int, k: int, s: int, p: int, d: int, ceil: bool, want: int) -> None:
    assert Window.of(k, s, p, d, axes=1).output_size((n,), ceil=ceil) == (want,)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(1, 5), st.integers(0, 3))
def test_ceil_mode_is_that_of_torchs_pooling(n: int, k: int, s: int, p: int) -> None:
    p = min(p, k // 2)
    if n + 2 * p < k:
        return
    want = torch.nn.functional.max_pool1d(torch.zeros(1, 1, n), k, s, p, ceil_mode=True).shape[2]
    assert Window.of(k, s, p, axes=1).output_size((n,), ceil=True) == (want,)


def test_huge_arguments_give_the_right_size_or_an_error() -> None:
    assert Window.of(1, 1, 0, 2**62, axes=1).output_size((8,)) == (8,)
    assert Window.of(3, 2**62, 1, axes=1).output_size((8,)) == (1,)
    assert Window.of(3, 2**31, 0, axes=1).output_size((2**33,)) == (4,)
    assert Window.of(3, 1, 0, 2**61, axes=1).extent == (2**62 + 1,)
    with pytest.raises(UsageError, match="kernel extent must fit in 64 bits"):
        _ = Window.of(3, 1, 0, 2**62, axes=1).extent
    with pytest.raises(UsageError, match="an output size must fit in 64 bits"):
        Window.of(1, 1, 2**62, axes=1).output_size((2**62,))
    with pytest.raises(UsageError, match="stride must fit in 64 bits; got 9223372036854775808"):
        Window.of(1, 2**63, axes=1)
    assert checked(-(2**63), "x") == -(2**63)
    assert checked(LARGEST, "x") == 2**63 - 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checked(1.0, "stride"), "stride must be an integer; got 1.0"),
        (lambda: checked(True, "stride"), "stride must be an integer; got True"),
        (lambda: checked(0, "stride", at_least=1), "stride must be at least 1; got 0; use 1 or more"),
        (lambda: per_axis((1, 2, 3), 2, "stride"), r"stride needs one value per axis \(2\); got \[1, 2, 3\]"),
        (lambda: per_axis("2", 2, "stride"), "stride must be integers; got '2'"),
        (lambda: padding_pairs("same", 2), "padding must be integers here; got 'same'"),
        (lambda: padding_pairs((1, 2, 3), 2), "padding needs an int, or one int or"),
        (lambda: padding_pairs(((1, 2, 3), 1), 2), "padding needs an int, or one int or"),
    ],
)
def test_what_is_no_size_is_refused_in_words(call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_loose_arguments_become_one_entry_per_axis() -> None:
    assert per_axis((3,), 2, "k") == (3, 3)
    assert padding_pairs(2, 2) == ((2, 2), (2, 2))
    assert padding_pairs((1, 2), 2) == ((1, 1), (2, 2))
    assert padding_pairs(((1, 2), 3), 2) == ((1, 2), (3, 3))
    assert padding_pairs(((1, 2),), 2) == ((1, 2), (1, 2))
    assert spread(0, 3) == 0
    assert spread(4, 3) == 10
