"""Winograd's weight gradient against torch in float64: odd sizes, every layout and cut, between pages nobody may touch."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import convolve
from convolve.geometry import Window
from convolve.kernels import winograd_gradient as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.kernels.minimal_filtering import TAPS
from convolve.kernels.table import every
from convolve.ops import winograd_gradient
from convolve.ops.algorithm import Algorithm, NotFinite
from convolve.ops.algorithms import torch_row, winograd
from convolve.ops.choose import ranked, why_not
from convolve.problem import ConvProblem
from guard_pages import guarded_like
from kernels_support import guard_allocations, operands, passes_for_avx2

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

ROWS = {4: winograd.SMALL, 6: winograd.ALGORITHM}
CHANNELS = (1, 3, 5, 15, 16, 17, 31, 33)
KINDS = ("3x3 p1", "2x2", "4x4 s2 p1", "3x3 s2 p1", "3x4 s2 p1:0x2:1", "5x6 s2 p2", "4x6 s3 p2", "11x9 s4 p3")
CASES = [*itertools.product(ROWS, KINDS), *((6, kind) for kind in ("4x4 p2", "5x5 p2", "7x8 s2 p3", "9x10 s2 p3"))]
LAYOUTS = ("channels_first", "channels_last")
LAST = torch.channels_last


def problem_of(text: str, layout: str = "channels_first") -> ConvProblem:
    return replace(ConvProblem.parse(f"{text} weight_gradient"), layout=layout)


def problems(tile: int, seed: str, count: int) -> Iterator[ConvProblem]:
    """Random problems with tails of every kind, and padding that crops."""
    draw = random.Random(seed)
    while count > 0:
        groups = draw.choice([1, 1, 1, 2, 3])
        stride, taps = draw.choice([1, 2, 2, 3, 4]), draw.choice(TAPS[tile])
        kernel = [taps * stride - draw.randint(0, stride - 1) for _ in "hw"]
        pairs = [(draw.randint(-2, 4), draw.randint(-2, 4)) for _ in "hw"]
        window = Window.of(kernel, [stride, stride], pairs, [1, 1], axes=2)
        problem = ConvProblem(
            draw.randint(1, 3),
            groups * draw.choice(CHANNELS),
            groups * draw.choice(CHANNELS),
            (draw.randint(1, 19), draw.randint(1, 19)),
            window,
            groups,
            draw.choice(["float32", "float32", "float64"]),
            "weight_gradient",
            draw.choice(["channels_first", "channels_last"]),
        )
        if all(n > 0 for n in problem.output_size):
            count -= 1
            yield problem


def check(tile: int, problem: ConvProblem, x: Tensor, dy: Tensor) -> Tensor:
    want = torch_row.run(replace(problem, dtype="float64"), x.double(), dy.double(), None)
    got = ROWS[tile].run(problem, x, dy, None)
    assert got.shape == want.shape
    assert got.dtype == x.dtype
    assert got.is_contiguous(memory_format=LAST if problem.layout == "channels_last" else torch.contiguous_format)
    # The bound speaks of the rms of many results of random operands; a few small ones are measured against that expectation.
    expected = float(x.double().square().mean().sqrt() * dy.double().square().mean().sqrt()) * problem.summed**0.5
    scale = max(float(want.square().mean().sqrt()), expected)
    worst = float((got - want).abs().max()) / scale
    assert worst <= 1.5 * ROWS[tile].bound(problem), (tile, str(problem), worst, ROWS[tile].bound(problem))
    return got


@pytest.mark.parametrize("tile", ROWS)
@pytest.mark.parametrize("seed", range(4))
def test_a_row_computes_what_torch_computes_in_float64(tile: int, seed: int) -> None:
    for problem in problems(tile, f"gradients {seed}", 50):
        assert why_not(ROWS[tile], problem) is None
        x, dy, _ = operands(problem)
        check(tile, problem, x, dy)


@pytest.mark.parametrize(("tile", "kind"), CASES)
def test_every_tail_of_channels_and_filters(tile: int, kind: str) -> None:
    for c, k, layout in itertools.product(CHANNELS[::2], CHANNELS[1::2], LAYOUTS):
        problem = problem_of(f"2x{c}x5x7 k{k} {kind}", layout)
        check(tile, problem, *operands(problem)[:2])


@pytest.mark.parametrize("tile", ROWS)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_tail_of_rows_and_columns_and_every_padding(tile: int, stride: int) -> None:
    for size, padding, layout in itertools.product(range(3, 14), (0, 1, 2), LAYOUTS):
        problem = problem_of(f"1x17x{size}x{4 * size + 3} k19 3x3 s{stride} p{padding}", layout)
        check(tile, problem, *operands(problem)[:2])


@pytest.mark.parametrize("tile", ROWS)
@pytest.mark.parametrize("at_end", [True, False])
def test_the_kernels_touch_nothing_beside_their_operands(
    tile: int, at_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard_allocations(monkeypatch, at_end)
    for problem in problems(tile, "gradients between pages", 60):
        x, dy, _ = operands(problem)
        check(tile, problem, guarded_like(x, at_end), guarded_like(dy, at_end))


def with_cut(patch: pytest.MonkeyPatch, *cut: int) -> None:
    patch.setattr(winograd_gradient, "best_cut", lambda *_: winograd_gradient.Cut(*cut, 0.0))
    patch.setattr(winograd_gradient, "_PLANS", {})


@pytest.mark.parametrize(
    "text", ["2x50x13x21 k70 3x3 p1", "2x34x9x13 k34 3x3 p1 g2 float64", "2x50x13x21 k70 3x4 s2 p1"]
)
def test_shares_of_channels_and_filters_and_groups_of_sums_do_not_change_a_bit(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, lanes = problem_of(text), machine().lanes(text.split()[-1] if "float64" in text else "float32")
    x, dy, _ = operands(problem)
    for chunk in (7, 1000):
        found = []
        for channel_parts, filter_parts, blocks, panels in ((1, 1, 9, 9), (2, 1, 1, 9), (1, 2, 2, 1), (2, 2, 1, 1)):
            with_cut(monkeypatch, chunk, 1, channel_parts, filter_parts, blocks * lanes, panels)
            found.append(check(6, problem, x, dy))
        assert all(torch.equal(found[0], other) for other in found[1:])


def test_shares_of_tiles_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    for layout, parts, chunk in itertools.product(LAYOUTS, (2, 3, 5), (2, 64)):
        with_cut(monkeypatch, chunk, parts, 1, 1, 32, 2)
        for text in ("3x18x9x13 k35 3x3 p1", "3x18x17x25 k35 4x3 s2 p1"):
            problem = problem_of(text, layout)
            check(6, problem, *operands(problem)[:2])


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_whatever_cut_is_chosen_serves(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for text in ("1x1x3x3 k1 3x3", "1x40x5x5 k70 3x3 p1", "2x33x40x41 k17 3x3 p1", "1x64x3x3 k128 3x3 p1 g4"):
            for problem in (problem_of(text), problem_of(text + " float64", "channels_last")):
                cut = winograd_gradient.best_cut(6, problem, threads)
                assert cut.tiles <= winograd_gradient.MOST_TILES
                assert cut.tile_parts * cut.channel_parts * cut.filter_parts <= threads
                check(6, problem, *operands(problem)[:2])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("tile", "kind"), CASES)
def test_strided_expanded_and_unaligned_views_are_read_in_place(tile: int, kind: str) -> None:
    problem = problem_of(f"2x18x9x11 k18 {kind}")
    plain = operands(problem)[:2]
    for place, (n, c, h, w) in enumerate(problem.operand_shapes):
        for view in (
            torch.randn(w, h, c, n).permute(3, 2, 1, 0),
            torch.randn(n, 2 * c, 2 * h, 2 * w)[:, ::2, ::2, ::2],
            torch.randn(1, c, h, w).expand(n, c, h, w),
            torch.randn(n, c, 1, 1).expand(n, c, h, w),
            torch.randn(n * c * h * w + 1)[1:].view(n, c, h, w),
            torch.randn(n, c + 2, h, w).contiguous(memory_format=LAST)[:, 1:-1],
        ):
            x, dy = (view, plain[1]) if place == 0 else (plain[0], view)
            check(tile, problem, x, dy)


@pytest.mark.parametrize(
    ("tile", "text"),
    [*itertools.product(ROWS, ["8x5x96x100 k6 3x3 p1", "8x17x96x100 k6 4x4 s2 p1"]), (6, "8x5x96x100 k6 5x5 p2")],
)
def test_long_sums_of_positive_numbers_stay_within_the_bound_and_within_torchs_error(tile: int, text: str) -> None:
    """As after ReLU: sums that grow all the time, and nothing that cancels."""
    problem = problem_of(text)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(problem.input_shape, generator=generator).add_(0.5).relu_()
    for dy in (
        torch.randn(problem.output_shape, generator=generator),
        torch.rand(problem.output_shape, generator=generator),
    ):
        want = torch_row.run(replace(problem, dtype="float64"), x.double(), dy.double(), None)
        rms = want.square().mean().sqrt()
        worst = float((ROWS[tile].run(problem, x, dy, None) - want).abs().max() / rms)
        assert 0 < worst <= winograd.BOUND[tile] < ROWS[tile].bound(problem) * 1.01
        assert worst <= 2 * float((torch_row.run(problem, x, dy, None) - want).abs().max() / rms)


@pytest.mark.parametrize("tile", ROWS)
def test_what_padding_crops_cannot_spoil_what_is_left(tile: int) -> None:
    x, dy = torch.randn(1, 3, 12, 12), torch.randn(1, 5, 5, 7)
    clean = x[:, :, 2:-3, 1:-2].clone()
    x[:, :, :2] = x[:, :, -3:] = x[:, :, :, :1] = x[:, :, :, -2:] = float("inf")
    want = ROWS[tile].run(problem_of("1x3x7x9 k5 3x3"), clean, dy, None)
    assert torch.equal(ROWS[tile].run(problem_of("1x3x12x12 k5 3x3 p-2:-3x-1:-2"), x, dy, None), want)
    dy = torch.randn(1, 5, 3, 3)
    want = ROWS[tile].run(problem_of("1x3x7x9 k5 3x4 s2"), clean, dy, None)
    assert torch.equal(ROWS[tile].run(problem_of("1x3x12x12 k5 3x4 s2 p-2:-3x-1:-2"), x, dy, None), want)


@pytest.mark.parametrize(("tile", "kind"), CASES)
def test_every_single_infinity_that_counts_is_noticed(tile: int, kind: str) -> None:
    problem = problem_of(f"1x3x9x10 k2 {kind}")
    for which in (0, 1):
        for place in range(0, operands(problem)[which].numel(), 7):
            x, dy, _ = operands(problem)
            (x, dy)[which].view(-1)[place] = float("inf")
            if not bool(torch_row.run(problem, x, dy, None).isfinite().all()):
                with pytest.raises(NotFinite):
                    ROWS[tile].run(problem, x, dy, None)


def gradient(x: Tensor, dy: Tensor, algorithm: str | Algorithm | None, kernel: int = 3, stride: int = 1) -> Tensor:
    """Of the weight, by convolve with the row, or by torch."""
    weight = torch.zeros(dy.shape[1], x.shape[1], kernel, kernel, dtype=x.dtype, requires_grad=True)
    y = (
        F.conv2d(x, weight, stride=stride, padding=1)
        if algorithm is None
        else convolve.conv2d(x, weight, stride=stride, padding=1, algorithm=algorithm)
    )
    y.backward(dy)
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("name", ["winograd", "winograd_f2"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (4, 2)])
def test_nan_and_inf_reach_what_the_definition_says(name: str, value: float, kernel: int, stride: int) -> None:
    for place, layout in itertools.product((0, 1), (torch.contiguous_format, LAST)):
        tensors = [
            torch.randn(2, 17, 9, 10),
            torch.randn(2, 5, (11 - kernel) // stride + 1, (12 - kernel) // stride + 1),
        ]
        tensors[place].view(-1)[tensors[place].numel() // 2] = value
        x, dy = (tensor.contiguous(memory_format=layout) for tensor in tensors)
        want, got = gradient(x, dy, None, kernel, stride), gradient(x, dy, name, kernel, stride)
        assert torch.equal(torch.isnan(want), torch.isnan(got))
        assert torch.equal(torch.isinf(want), torch.isinf(got))


def test_what_overflows_only_inside_is_computed_directly() -> None:
    x, dy = torch.full((1, 4, 8, 8), 3e37), torch.full((1, 2, 8, 8), 0.03)
    want = gradient(x, dy, None)
    assert bool(want.isfinite().all())
    torch.testing.assert_close(gradient(x, dy, "winograd"), want)


def test_shares_whose_sum_overflows_are_computed_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of("2x3x8x8 k4 3x3 p1")
    with_cut(monkeypatch, 64, 2, 1, 1, 16, 1)
    with pytest.raises(NotFinite):
        ROWS[6].run(problem, torch.full(problem.input_shape, 1e35), torch.full(problem.output_shape, 40.0), None)


def test_empty_batches_give_zeros() -> None:
    for shape, k in (((0, 3, 5, 5), 4), ((2, 0, 5, 5), 4), ((2, 3, 5, 5), 0)):
        got = gradient(torch.randn(shape), torch.randn(shape[0], k, 5, 5), "winograd")
        assert torch.equal(got, torch.zeros(k, shape[1], 3, 3))


@pytest.mark.parametrize(("precision", "taken"), [("default", True), ("exact", False), ("reproducible", False)])
def test_auto_may_take_it_unless_exact_or_reproducible_rows_are_wanted(precision: str, taken: bool) -> None:
    rows = ranked(problem_of("8x128x28x28 k128 3x3 p1"), "auto", precision)
    assert all((row in rows) == taken for row in ROWS.values())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1x8x9x9 k8 3x3 d2", "dilation 1"),
        ("1x8x9x9 k8 3x3 s2x1", "stride"),
        ("1x8x9x9 k8 6x6 s5", "a stride of 1 to 4"),
        ("1x8x9x9 k8 2x2 s2", "not 2x2"),
        ("1x8x9x9 k8 3x2", "not 3x2"),
        ("1x8x99 k8 3", "two axes"),
        ("1x8x9x9 k8 3x3 bfloat16", "float32 and float64"),
    ],
)
def test_what_is_not_served_is_declined_in_words(text: str, reason: str) -> None:
    found = why_not(winograd.ALGORITHM, problem_of(text))
    assert found is not None
    assert reason in found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kernel_of_the_family_is_listed_and_compiles(dtype: str) -> None:
    for kernel in kernels.every(dtype):
        assert kernel.name in every()
        assert loaded(kernel).address != 0


@pytest.mark.slow
def test_the_kernels_for_avx2_are_right_too() -> None:
    passes_for_avx2(__file__)
