"""The problem record: its text, its plain form, its counts, and its three roles."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convolve.errors import ShapeError, UnknownNameError, UsageError
from convolve.geometry import Window
from convolve.problem import LAYOUTS, ROLES, ConvProblem, transposed_size
from problems import NAMED


@st.composite
def problems(draw: st.DrawFn) -> ConvProblem:
    """Valid problems of one to three axes, all arguments at once."""
    axes = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 3))

    def per(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    window = Window(per(1, 4), per(1, 4), tuple(zip(per(-1, 3), per(-1, 3), strict=True)), per(1, 3), per(1, 2))
    size = per(1, 8 if axes < 3 else 5)
    short = [
        max(0, extent - (e * (n - 1) + 1) - p - q)
        for n, extent, (p, q), e in zip(size, window.extent, window.padding, window.input_dilation, strict=True)
    ]
    padding = tuple((p, q + s) for (p, q), s in zip(window.padding, short, strict=True))
    return ConvProblem(
        draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        size,
        replace(window, padding=padding),
        groups,
        draw(st.sampled_from(["float32", "float64", "int8"])),
        draw(st.sampled_from(ROLES)),
        draw(st.sampled_from(LAYOUTS)),
    ).validate()


@settings(max_examples=400, deadline=None)
@given(problems())
def test_the_text_of_a_problem_says_all_of_it(problem: ConvProblem) -> None:
    assert ConvProblem.parse(str(problem)) == problem


@settings(max_examples=400, deadline=None)
@given(problems())
def test_the_plain_form_reads_the_same_inputs(problem: ConvProblem) -> None:
    plain = problem.normalise()
    assert plain.normalise() == plain
    assert (plain.result_shape, plain.macs, plain.macs_valid) == (
        problem.result_shape,
        problem.macs,
        problem.macs_valid,
    )
    for axis, (n, m) in enumerate(zip(problem.size, problem.output_size, strict=True)):
        for j in range(m):
            assert list(plain.window.taps(axis, n, j)) == list(problem.window.taps(axis, n, j))
    assert set(plain.unused) == {0}
    for m, k, s, d in zip(
        plain.output_size, plain.window.kernel, plain.window.stride, plain.window.dilation, strict=True
    ):
        assert s == 1 or m > 1
        assert d == 1 or k > 1


@settings(max_examples=400, deadline=None)
@given(problems())
def test_every_role_is_a_convolution_of_the_right_size(problem: ConvProblem) -> None:
    disguised = problem.as_convolution()
    assert disguised.role == "output"
    n, k, *size = disguised.output_shape
    want = problem.result_shape
    assert tuple(size) == want[2:]
    assert (k, n) == want[:2] if problem.role == "weight_gradient" else (n, k) == want[:2]
    assert disguised.macs_valid == problem.macs_valid
    assert disguised.validate() == disguised


@settings(max_examples=200, deadline=None)
@given(problems())
def test_multiplications_are_counted_one_by_one(problem: ConvProblem) -> None:
    per_axis = [
        sum(1 for j in range(m) for _ in problem.window.taps(axis, n, j))
        for axis, (n, m) in enumerate(zip(problem.size, problem.output_size, strict=True))
    ]
    valid = problem.batch * problem.filters * (problem.channels // problem.groups)
    full = valid
    for count, m, k in zip(per_axis, problem.output_size, problem.window.kernel, strict=True):
        valid, full = valid * count, full * m * k
    assert (problem.macs_valid, problem.macs) == (valid, full)


def test_counts_known_from_papers() -> None:
    vgg = ConvProblem.parse("1x3x224x224 k64 3x3 p1")
    assert vgg.macs == 86_704_128
    # The text's example: (3, 6, 6), 64 filters, 3x3, stride 2.
    text = ConvProblem.parse("1x3x6x6 k64 3x3 s2")
    assert (text.output_shape, text.taps * text.filters) == ((1, 64, 2, 2), 1728)
    assert text.weight_shape == (64, 3, 3, 3)
    assert text.bytes == 4 * (3 * 36 + 1728 + 256)
    assert replace(text, role="weight_gradient").summed == 4
    assert text.summed == 27
    assert replace(text, dtype="float64").bytes == 2 * text.bytes


@pytest.mark.parametrize("name", NAMED)
def test_named_problems_are_read_back(name: str) -> None:
    problem = ConvProblem.parse(NAMED[name])
    assert ConvProblem.parse(str(problem)) == problem


def test_the_text_has_short_forms() -> None:
    assert str(ConvProblem.parse("1x2x9x9 k2 4x2 psame")) == "1x2x9x9 k2 4x2 s1 p1:2x0:1"
    assert str(ConvProblem.parse("1x2x9x9 k2 4x2 psame_lower")) == "1x2x9x9 k2 4x2 s1 p2:1x1:0"
    assert str(ConvProblem.parse("1x2x9 k2 3 pvalid")) == "1x2x9 k2 3 s1 p0"
    assert str(ConvProblem.parse("1x2x9 k2 3 s2 p1 d2 e2 g2 float16")) == "1x2x9 k2 3 s2 p1 d2 e2 g2 float16"
    transposed = ConvProblem.parse("1x2x5x5 k4 3x3 s2 p1 o1 transposed")
    assert str(transposed) == "1x4x10x10 k2 3x3 s2 p1 input_gradient"
    assert transposed.operand_shapes == ((1, 2, 5, 5), (2, 4, 3, 3))
    assert ConvProblem.parse("1x2x5x5 k4 3x3 s2 psame transposed").result_shape == (1, 4, 10, 10)
    assert replace(transposed, role="weight_gradient").operand_shapes == ((1, 4, 10, 10), (1, 2, 5, 5))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("8x64", UsageError, "a convolution problem cannot be read; got '8x64'"),
        ("8x64 k3 3", UsageError, "cannot be read; got '8x64'"),
        ("1x2x3 k2 3x3 s1", UsageError, "kernel_size needs one value per axis"),
        ("1x2x3 k2x2 3", UsageError, "cannot be read; got '2x2'"),
        ("1x2x9 k2 3 s1 floot", UnknownNameError, "unknown word in a convolution problem; got 'floot'; use float"),
        ("1x2x9 k2 3 p1:2:3", UsageError, "cannot be read; got '1:2:3'"),
        ("1x2x9 k2 3 z4", UsageError, "cannot be read; got 'z4'"),
        ("1x3x9 k2 3 g2", ShapeError, "groups must divide in-channels; got 3 in-channels, groups=2; use 1"),
        ("1x4x9 k6 3 g4", ShapeError, "groups must divide out-channels; got 6 out-channels, groups=4; use 1, 2"),
        ("1x3x4 k2 3 d2", ShapeError, r"kernel of 5 \(kernel 3, dilation 2\) on 4 \(input 4 \+ padding 0 \+ 0\) along"),
    ],
)
def test_what_cannot_be_read_or_cannot_be_is_refused_in_words(text: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ConvProblem.parse(text)


def test_a_transposed_size_is_never_negative() -> None:
    with pytest.raises(ShapeError, match="crops its output to nothing; got an output of -2 along spatial axis 0"):
        transposed_size(Window.of(2, 1, 3, axes=1), (3,), (0,))
    assert transposed_size(Window.of(3, 2, 1, axes=1), (0,), (0,)) == (0,)
    with pytest.raises(ShapeError, match="must fit in 64 bits"):
        transposed_size(Window.of(3, 2**62, axes=1), (9,), (0,))
    assert list(itertools.chain(transposed_size(Window.of((3, 2), (2, 1), axes=2), (4, 4), (1, 0)))) == [10, 5]


@pytest.mark.parametrize("role", ["output", "input_gradient", "weight_gradient"])
def test_a_transposed_convolution_takes_no_role_besides(role: str) -> None:
    with pytest.raises(UsageError, match=rf"transposed is a role of its own.*got {role} besides"):
        ConvProblem.parse(f"1x8x7x7 k4 4x4 s2 p1 transposed {role}")
