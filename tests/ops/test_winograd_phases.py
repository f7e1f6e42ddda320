"""Strides of 2 to 4 by phases, transposed and not, and kernels of four and five taps, against torch in float64."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import convolve
from convolve.kernels.machine import machine
from convolve.ops import phases
from convolve.ops.algorithm import NotFinite
from convolve.ops.algorithms import ALGORITHMS, winograd
from convolve.ops.choose import ranked, why_not
from convolve.problem import ConvProblem
from ops.test_winograd_kernels import LAST, ROWS, check, operands

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

KINDS = ("4x4 s2 p1", "3x3 s2 p1", "3x4 s2 p1:0x2:1", "5x6 s2 p2", "4x4 s2 p1 transposed", "3x3 s2 p1 o1 transposed")
WIDE = ("4x5 s3 p1", "7x9 s3 p4:0x3:1", "7x5 s4 p3", "11x11 s4 p5")  # their phases lie side by side
MANY = (
    "4x4 p1",
    "5x5 p2",
    "5x5 p2 transposed",
    "7x7 s2 p3",
    "10x9 s2 p4",
    "7x8 s2 p3 transposed",
    "17x19 s4 p9",
)  # taps
CASES = [*itertools.product(ROWS, KINDS + WIDE), *((6, kind) for kind in MANY)]
LAYOUTS = ("channels_first", "channels_last")


@pytest.mark.parametrize(("tile", "kind"), CASES)
def test_every_tail_of_channels_and_filters(tile: int, kind: str) -> None:
    for (c, k), layout in itertools.product(((1, 33), (16, 1), (15, 17), (31, 16), (48, 5), (17, 64), (3, 9)), LAYOUTS):
        problem = replace(ConvProblem.parse(f"2x{c}x8x7 k{k} {kind}"), layout=layout)
        check(tile, problem, *operands(problem))


@pytest.mark.parametrize(("tile", "kind"), CASES)
def test_every_tail_of_rows_and_columns(tile: int, kind: str) -> None:
    more = 2 if kind in KINDS else 5
    for size, layout, c in itertools.product(range(1, 24), LAYOUTS, (3, 17)):
        h, w = ((size, 25 - size), (3, 4 * size + 3))[c == 3]
        problem = replace(ConvProblem.parse(f"1x{c}x{h + more}x{w + more} k9 {kind}"), layout=layout)
        check(tile, problem, *operands(problem))


@pytest.mark.parametrize("tile", ROWS)
@pytest.mark.parametrize("kind", ["4x4 s2 p1", "4x3 s2 p2 transposed", "7x8 s3 p2", "6x8 s4"])
def test_phases_and_the_direct_row_agree_to_float64(tile: int, kind: str) -> None:
    problem = ConvProblem.parse(f"2x34x9x8 k18 {kind} g2 float64")
    a, b, bias = operands(problem)
    direct = next(row for row in ALGORITHMS if row.name == "direct")
    want = direct.run(problem.as_convolution(), *_as_convolution(problem, a, b), bias)
    torch.testing.assert_close(ROWS[tile].run(problem, a, b, bias), want, rtol=1e-11, atol=1e-11)


def _as_convolution(problem: ConvProblem, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if problem.role == "output":
        return a, b
    k, cg, *kernel = b.shape
    turned = b.flip(2, 3).reshape(problem.groups, k // problem.groups, cg, *kernel).transpose(1, 2)
    return a, turned.reshape(problem.groups * cg, k // problem.groups, *kernel)


def test_a_transposed_layer_of_ones_counts_the_stamps_on_each_pixel() -> None:
    y = convolve.conv_transpose2d(
        torch.ones(1, 1, 3, 3), torch.ones(1, 1, 4, 4), stride=2, padding=1, algorithm="winograd"
    )
    along = [1, 2, 2, 2, 2, 1]  # of three stamps of four pixels, two apart, the outermost pixels cropped
    torch.testing.assert_close(y[0, 0], torch.tensor([[float(a * b) for b in along] for a in along]))


@pytest.mark.parametrize("name", ["winograd", "winograd_f2"])
@pytest.mark.parametrize("kernel", [(4, 4), (3, 3), (5, 6)])
def test_values_and_gradients_are_torchs(name: str, kernel: tuple[int, int]) -> None:
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64)
    for ours, theirs, shape in (
        (convolve.conv2d, F.conv2d, (4, 3, *kernel)),
        (convolve.conv_transpose2d, F.conv_transpose2d, (6, 2, *kernel)),
    ):
        w = torch.randn(shape, dtype=torch.float64)
        found = []
        for function, keywords in ((ours, {"algorithm": f"{name}"}), (theirs, {})):
            leaves = [t.clone().requires_grad_() for t in (x, w, bias)]
            y = function(*leaves, stride=2, padding=(2, 1), groups=2, **keywords)
            y.square().sum().backward()
            found.append([y.detach(), *(leaf.grad for leaf in leaves)])
        for mine, other in zip(*found, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("tile", "kind"), CASES)
def test_views_of_every_kind_are_read_in_place(tile: int, kind: str) -> None:
    problem = ConvProblem.parse(f"2x18x10x11 k18 {kind}")
    n, c, h, w = problem.operand_shapes[0]
    r, s = problem.window.kernel
    weight = torch.randn(18, 18, r, s)
    for view in (
        torch.randn(w, h, c, n).permute(3, 2, 1, 0),
        torch.randn(n, 2 * c, 2 * h, 2 * w)[:, ::2, ::2, ::2],
        torch.randn(n, c, 1, 1).expand(n, c, h, w),
        torch.randn(n * c * h * w + 1)[1:].view(n, c, h, w),
        torch.randn(n, c + 2, h, w).contiguous(memory_format=LAST)[:, 1:-1],
    ):
        check(tile, problem, view, weight, None)
    x = torch.randn(n, c, h, w)
    for weights in (
        weight.contiguous(memory_format=LAST),
        torch.randn(18, 18, s, r).transpose(2, 3),
        torch.randn(18, 36, 2 * r, s)[:, ::2, ::2],
        torch.randn(1, 18, r, s).expand(18, 18, r, s),
    ):
        check(tile, problem, x, weights, torch.randn(36)[::2])


@pytest.mark.parametrize("name", ["winograd", "winograd_f2"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("transposed", "c", "stride"), [(False, 17, 2), (True, 17, 2), (False, 3, 2), (False, 3, 3)])
def test_nan_and_inf_reach_what_the_definition_says(
    name: str, value: float, transposed: bool, c: int, stride: int
) -> None:
    ours, theirs = (convolve.conv_transpose2d, F.conv_transpose2d) if transposed else (convolve.conv2d, F.conv2d)
    for place in (0, 1, 2):
        tensors = [torch.randn(2, c, 9, 10), torch.randn(*((c, 5) if transposed else (5, c)), 4, 4), torch.randn(5)]
        tensors[place].view(-1)[tensors[place].numel() // 2] = value
        want = theirs(*tensors, stride=stride, padding=1)
        got = ours(*tensors, stride=stride, padding=1, algorithm=name)
        assert torch.equal(torch.isnan(want), torch.isnan(got))
        assert torch.equal(torch.isinf(want), torch.isinf(got))


@pytest.mark.parametrize(("tile", "kind"), CASES)
def test_every_single_infinity_that_counts_is_noticed(tile: int, kind: str) -> None:
    problem = ConvProblem.parse(f"2x3x9x10 k2 {kind}")
    direct = next(row for row in ALGORITHMS if row.name == "torch")
    for place in range(0, math.prod(problem.operand_shapes[0]), 7):
        a, b, _ = operands(problem)
        a.view(-1)[place] = math.inf
        if not bool(direct.run(problem, a, b, None).isfinite().all()):
            with pytest.raises(NotFinite):
                winograd.run(tile, problem, a, b, None)


@pytest.mark.parametrize("tile", ROWS)
def test_what_padding_crops_cannot_spoil_what_is_left(tile: int) -> None:
    x, w = torch.randn(1, 3, 12, 12), torch.randn(5, 3, 3, 4)
    clean = x[:, :, 2:-3, 1:-2].clone()
    x[:, :, :2] = x[:, :, -3:] = x[:, :, :, :1] = x[:, :, :, -2:] = 1e30
    problem = ConvProblem.parse("1x3x12x12 k5 3x4 s2 p-2:-3x-1:-2")
    want = winograd.run(tile, ConvProblem.parse("1x3x7x9 k5 3x4 s2"), clean, w, None)
    assert torch.equal(winograd.run(tile, problem, x, w, None), want)
    many = [t.repeat(1, 6, 1, 1) for t in (x, clean, w)]  # of 18 channels, whose phases are read where they lie
    problem, smaller = (ConvProblem.parse(text) for text in ("1x18x12x12 k5 3x4 s2 p-2:-3x-1:-2", "1x18x7x9 k5 3x4 s2"))
    want = winograd.run(tile, smaller, many[1], many[2], None)
    assert torch.equal(winograd.run(tile, problem, many[0], many[2], None), want)
    # Transposed: the inputs behind the last one that the cropped result holds.
    y = torch.randn(1, 5, 10, 9)
    y[:, :, 7:] = 1e30
    problem = ConvProblem.parse("1x3x12x18 k5 3x4 s2 p1:8x1 input_gradient")
    assert problem.operand_shapes[0] == y.shape
    smaller = ConvProblem.parse("1x3x12x18 k5 3x4 s2 p1:2x1 input_gradient")
    assert smaller.operand_shapes[0][2] == 7
    want = winograd.run(tile, smaller, y[:, :, :7].contiguous(), w, None)
    assert torch.equal(winograd.run(tile, problem, y, w, None), want)


@pytest.mark.parametrize(
    ("tile", "kind"),
    [
        *itertools.product(ROWS, ["4x4 s2 p1", "3x3 s2 p1", "4x4 s2 p1 transposed", "11x11 s4 p2"]),
        *((6, kind) for kind in ("4x4 p1", "5x5 p2", "5x5 p2 transposed", "7x7 s2 p3")),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_errors_stay_within_the_bound_of_the_neighbourhoods_rms(tile: int, kind: str, layout: str) -> None:
    for channels in (1, 3, 16, 256):
        if kind == "11x11 s4 p2" and channels > 16:
            continue
        problem = replace(ConvProblem.parse(f"1x{channels}x41x43 k5 {kind}"), layout=layout)
        a, b, _ = operands(problem)
        direct = next(row for row in ALGORITHMS if row.name == "torch")
        exact = direct.run(replace(problem, dtype="float64"), a.double(), b.double(), None)
        near = F.avg_pool2d(exact.square(), 11, 1, 5, count_include_pad=False).sqrt()
        worst = float(((ROWS[tile].run(problem, a, b, None) - exact).abs() / near).max())
        assert 0 < worst <= ROWS[tile].bound(problem)


@pytest.mark.parametrize("tile", ROWS)
@pytest.mark.parametrize("kind", ["19 4x3 s2 p1", "5 4x3 s2 p1", "3 8x7 s4 p1"])
def test_prepared_weights_give_the_same_bits_for_any_batch_size_and_layout(tile: int, kind: str) -> None:
    c, kind = kind.split(maxsplit=1)
    first = ConvProblem.parse(f"1x{c}x8x8 k37 {kind}")
    _, w, bias = operands(first)
    row = ROWS[tile]
    assert row.preparation is not None
    prepared = row.preparation.prepare(first, w)
    for size, layout in itertools.product(((1, 8, 8), (3, 7, 14)), LAYOUTS):
        n, h, width = size
        problem = replace(ConvProblem.parse(f"{n}x{c}x{h}x{width} k37 {kind}"), layout=layout)
        x = operands(problem)[0]
        assert torch.equal(row.preparation.run(problem, x, prepared, bias), row.run(problem, x, w, bias))


def test_phases_side_by_side_are_every_so_many_inputs_that_a_tap_meets() -> None:
    for text in ("3x5x9x10 k4 3x4 s2 p1:0x2:1", "2x4x13x11 k4 7x8 s3 p2 g2", "1x3x17x9 k4 8x5 s4 p-1:3x0:2"):
        problem = ConvProblem.parse(text)
        (stride, _), (top, bottom), (left, right) = problem.window.stride, *problem.window.padding
        n, c, h, w = phases.inner(problem).input_shape
        for x in (operands(problem)[0], operands(problem)[0].contiguous(memory_format=LAST)):
            padded = F.pad(x, (left, right + 9, top, bottom + 9))
            last_h, last_w = (
                stride * (m - 1) + k for m, k in zip(problem.output_size, problem.window.kernel, strict=True)
            )
            padded[:, :, last_h:] = padded[:, :, :, last_w:] = 0  # what no tap meets
            maps = phases.maps(problem, x.stride())
            z = torch.full((maps.bytes // 4,), math.nan)
            maps.make(x, z.data_ptr())
            found = z.as_strided((n, c, h, w), maps.strides).reshape(n, problem.groups, stride, -1, stride, h, w)
            for i, j in itertools.product(range(stride), repeat=2):
                want = padded[:, :, i::stride, j::stride][:, :, :h, :w]
                assert torch.equal(found[:, :, i, :, j].reshape(n, -1, h, w), want)


def test_empty_batches_and_channels_give_what_torch_gives() -> None:
    for shape, k in (((0, 3, 5, 5), 4), ((2, 0, 5, 5), 4)):
        x, w, bias = torch.randn(shape), torch.randn(shape[1], k, 4, 4), torch.randn(k)
        got = convolve.conv_transpose2d(x, w, bias, stride=2, padding=1, algorithm="winograd")
        torch.testing.assert_close(got, bias.reshape(1, -1, 1, 1).expand(shape[0], k, 10, 10))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1x4x9x9 k4 6x6 s5", "it needs a stride of 1 to 4, the same along each axis"),
        ("1x4x9x9 k4 4x4 s3 transposed", "it needs a stride of 1 to 2, the same along each axis"),
        ("1x4x9x9 k4 3x3 s2x1", "it needs a stride of 1 to 4, the same along each axis"),
        ("1x4x9x9 k4 3x3 s3", "at stride 3 its kernels have 4 to 15 taps along each axis, not 3x3"),
        ("1x4x9x9 k4 2x2 s2", "at stride 2 its kernels have 3 to 10 taps along each axis, not 2x2"),
        ("1x4x9x9 k4 6x6", "at stride 1 its kernels have 2 to 5 taps along each axis, not 6x6"),
        ("1x4x9x9 k4 4x5 s2", "it needs as many taps along each axis, in each phase, not 4x5"),
        ("1x4x9x9 k4 2x3", "it needs as many taps along each axis, not 2x3"),
        ("1x4x9x9 k4 3x3 s2 p1 float16", "its kernels are written for float32 and float64, not float16"),
        ("1x4x9 k4 3 s2 p1", "its kernels are written for two axes"),
        ("1x4x9x9 k4 3x3 s2 p3 transposed", "its phases must not crop whole inputs: padding below the kernel's size"),
    ],
)
def test_it_declines_in_words_what_it_cannot_serve(text: str, reason: str) -> None:
    assert why_not(winograd.ALGORITHM, ConvProblem.parse(text)) == reason


def test_large_tiles_do_not_go_by_phases() -> None:
    assert why_not(winograd.LARGE, ConvProblem.parse("1x4x9x9 k4 3x3 s2")) == "only tiles of 4 and 6 go by phases"


def test_auto_goes_by_phases_where_that_multiplies_less_and_not_when_exact() -> None:
    if machine().instruction_set != "avx512":
        pytest.skip("what pays depends on the width of vectors")
    convolve.use_wisdom(enabled=False)
    try:
        for text in (
            "8x128x28x28 k64 4x4 s2 p1 transposed",
            "8x64x56x56 k128 4x4 s2 p1",
            "8x64x56x56 k128 4x4 s2 p1 weight_gradient",
            "16x3x224x224 k64 11x11 s4 p2",
            "16x64x27x27 k192 5x5 p2",
            "16x64x27x27 k192 5x5 p2 input_gradient",
            "16x64x27x27 k192 5x5 p2 weight_gradient",
        ):
            problem = ConvProblem.parse(text)
            assert ranked(problem, "auto", "default")[0] in ROWS.values(), text
            assert ranked(problem, "auto", "exact")[0].exact
        assert ranked(ConvProblem.parse("1x3x224x224 k64 3x3 s2 p1"), "auto", "default")[0] not in ROWS.values()
    finally:
        convolve.use_wisdom()
