"""Winograd's kernels against torch in float64: odd sizes, every layout, between pages nobody may touch."""

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
from convolve.kernels import dense_phases
from convolve.kernels import winograd as kernels
from convolve.kernels.cache import loaded
from convolve.kernels.machine import machine
from convolve.kernels.minimal_filtering import TAPS, matrices
from convolve.kernels.table import every
from convolve.ops import winograd_call
from convolve.ops.algorithm import NotFinite
from convolve.ops.algorithms import torch_row, winograd
from convolve.problem import ConvProblem
from guard_pages import guarded_like
from kernels_support import guard_allocations, operands, passes_for_avx2

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

ROWS = {4: winograd.SMALL, 6: winograd.ALGORITHM}
CHANNELS = (1, 3, 5, 15, 16, 17, 31, 33)
LAST = torch.channels_last


def problems(tile: int, seed: str, count: int) -> Iterator[ConvProblem]:
    """Random problems with tails of every kind."""
    draw = random.Random(seed)
    while count > 0:
        groups = draw.choice([1, 1, 1, 2, 3])
        role = draw.choice(["output", "output", "input_gradient"])
        stride = draw.choice([1, 2, 2, 3, 4] if role == "output" else [1, 2])
        taps = draw.choice(TAPS[tile])
        kernel = [taps * stride - draw.randint(0, stride - 1) for _ in "hw"]
        # Phases of a transposed convolution crop no whole inputs.
        most = [k - 1 if stride > 1 and role == "input_gradient" else 4 for k in kernel]
        pairs = [(draw.randint(-2, p), draw.randint(-2, 4)) for p in most]
        window = Window.of(kernel, [stride, stride], pairs, [1, 1], axes=2)
        problem = ConvProblem(
            draw.randint(1, 3),
            groups * draw.choice(CHANNELS),
            groups * draw.choice(CHANNELS),
            (draw.randint(1, 19), draw.randint(1, 19)),
            window,
            groups,
            draw.choice(["float32", "float32", "float64"]),
            role,
            draw.choice(["channels_first", "channels_last"]),
        )
        if all(n > 0 for n in problem.output_size):
            count -= 1
            yield problem


def check(
    tile: int, problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None, got: Tensor | None = None
) -> None:
    double = replace(problem, dtype="float64")
    want = torch_row.run(double, a.double(), b.double(), None if bias is None else bias.double())
    got = ROWS[tile].run(problem, a, b, bias) if got is None else got
    assert got.shape == want.shape
    assert got.dtype == a.dtype
    # The bound speaks of the rms of many results of random operands; a few small ones are measured against that expectation.
    convolution = problem.as_convolution()
    expected = float(a.double().square().mean().sqrt() * b.double().square().mean().sqrt()) * convolution.taps**0.5
    scale = max(float(want.square().mean().sqrt()), expected)
    worst = float((got - want).abs().max()) / scale
    assert worst <= 1.5 * ROWS[tile].bound(problem), (tile, str(problem), worst, ROWS[tile].bound(problem))


@pytest.mark.parametrize("tile", ROWS)
@pytest.mark.parametrize("seed", range(6))
def test_a_row_computes_what_torch_computes_in_float64(tile: int, seed: int) -> None:
    for problem in problems(tile, f"values {seed}", 50):
        assert winograd.has_kernels(tile, problem)
        a, b, bias = operands(problem)
        check(tile, problem, a, b, bias if seed % 2 else None)


@pytest.mark.parametrize("tile", ROWS)
def test_every_tail_of_channels_and_filters(tile: int) -> None:
    for c, k, layout in itertools.product(CHANNELS, CHANNELS, ("channels_first", "channels_last")):
        problem = replace(ConvProblem.parse(f"2x{c}x5x7 k{k} 3x3 p1"), layout=layout)
        check(tile, problem, *operands(problem))


@pytest.mark.parametrize("tile", ROWS)
def test_every_tail_of_rows_and_columns(tile: int) -> None:
    for size, layout in itertools.product(range(1, 20), ("channels_first", "channels_last")):
        for h, w in ((size, 19 - size // 2), (3, 4 * size + 3)):
            problem = replace(ConvProblem.parse(f"1x17x{h}x{w} k19 3x3 p1"), layout=layout)
            check(tile, problem, *operands(problem))


@pytest.mark.parametrize("tile", ROWS)
@pytest.mark.parametrize("at_end", [True, False])
def test_the_kernels_touch_nothing_beside_their_operands(
    tile: int, at_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard_allocations(monkeypatch, at_end)
    for problem in problems(tile, "pages", 80):
        a, b, bias = operands(problem)
        check(tile, problem, guarded_like(a, at_end), guarded_like(b, at_end), guarded_like(bias, at_end))
        if problem.role == "output":
            prepared = guarded_like(ROWS[tile].preparation.prepare(problem, guarded_like(b, at_end)), at_end)
            got = ROWS[tile].preparation.run(problem, guarded_like(a, at_end), prepared, None)
            check(tile, problem, a, b, None, got)


@pytest.mark.parametrize("rows", kernels.rows())
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_every_cut_gives_the_same_bits(rows: int, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (
        "3x17x9x13 k70 3x3 p1",
        "2x6x7x30 k8 3x3 p1 g2 float64",
        "2x17x9x9 k40 4x3 s2 p1 transposed",
        "3x3x29x31 k70 11x11 s4 p2",
    ):
        problem = ConvProblem.parse(text)
        a, b, bias = operands(problem)
        first = winograd.run(6, problem, a, b, bias)
        for passes in (1, 3):
            cut = winograd_call.Blocks(rows, rows * passes, parts, 0.0)
            monkeypatch.setattr(winograd_call, "blocks", lambda *_, cut=cut: cut)
            monkeypatch.setattr(winograd_call, "_PLANS", {})
            assert torch.equal(winograd.run(6, problem, a, b, bias), first), (text, cut)
            monkeypatch.undo()


@pytest.mark.parametrize("text", ["x20x13x29 k40 3x3 p1", "x3x45x61 k40 11x11 s4 p2"])
def test_an_image_alone_gives_the_same_bits_as_in_a_batch_and_on_any_number_of_threads(text: str) -> None:
    threads = torch.get_num_threads()
    x, w, _ = operands(ConvProblem.parse(f"9{text}"))
    try:
        results = []
        for count, batch, layout in itertools.product(
            (1, 2, 3), (x, x[:1], x[:4]), ("channels_first", "channels_last")
        ):
            torch.set_num_threads(count)
            problem = replace(ConvProblem.parse(f"{len(batch)}{text}"), layout=layout)
            batch = batch if layout == "channels_first" else batch.contiguous(memory_format=LAST)
            results.append(winograd.run(6, problem, batch, w, None)[:1])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("tile", ROWS)
@pytest.mark.parametrize("role", ["output", "input_gradient"])
def test_strided_expanded_and_unaligned_views_are_read_in_place(tile: int, role: str) -> None:
    problem = ConvProblem.parse(f"2x18x9x11 k18 3x3 p1 {role}")
    x, w = torch.randn(2, 18, 9, 11), torch.randn(18, 18, 3, 3)
    views = [
        torch.randn(11, 9, 18, 2).permute(3, 2, 1, 0),
        torch.randn(2, 36, 18, 22)[:, ::2, ::2, ::2],
        torch.randn(1, 18, 9, 11).expand(2, 18, 9, 11),
        torch.randn(2, 18, 1, 1).expand(2, 18, 9, 11),
        torch.randn(2 * 18 * 9 * 11 + 1)[1:].view(2, 18, 9, 11),
        torch.randn(2, 18, 9, 11).contiguous(memory_format=LAST)[:, :, :, :],
        torch.randn(2, 20, 9, 11).contiguous(memory_format=LAST)[:, 1:19],
    ]
    for view in views:
        check(tile, problem, view, w, None)
    weights = [
        torch.randn(3, 3, 18, 18).permute(3, 2, 0, 1),
        torch.randn(18, 18, 3, 3).transpose(2, 3),
        torch.randn(18, 18, 3, 3).transpose(0, 1),
        torch.randn(1, 18, 3, 3).expand(18, 18, 3, 3),
        torch.randn(18, 36, 3, 3)[:, ::2],
        torch.randn(18, 18, 3, 3).contiguous(memory_format=LAST),
        torch.randn(18, 18, 6, 6)[:, :, ::2, ::2],
    ]
    for weight in weights:
        check(tile, problem, x, weight, torch.randn(36)[::2])


@pytest.mark.parametrize("tile", ROWS)
def test_what_padding_crops_cannot_spoil_what_is_left(tile: int) -> None:
    x, w = torch.randn(1, 3, 12, 12), torch.randn(5, 3, 3, 3)
    clean = x[:, :, 2:-3, 1:-2].clone()
    x[:, :, :2] = x[:, :, -3:] = x[:, :, :, :1] = x[:, :, :, -2:] = 1e30
    problem = ConvProblem.parse("1x3x12x12 k5 3x3 p-2:-3x-1:-2")
    want = winograd.run(tile, ConvProblem.parse("1x3x7x9 k5 3x3"), clean, w, None)
    assert torch.equal(winograd.run(tile, problem, x, w, None), want)


@pytest.mark.parametrize("tile", ROWS)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_errors_stay_within_the_bound_of_the_neighbourhoods_rms(tile: int, layout: str) -> None:
    for channels in (1, 16, 256, 1024):
        problem = replace(ConvProblem.parse(f"1x{channels}x21x23 k5 3x3 p1"), layout=layout)
        a, b, _ = operands(problem)
        exact = F.conv2d(a.double(), b.double(), padding=1)
        near = F.avg_pool2d(exact.square(), 11, 1, 5, count_include_pad=False).sqrt()
        worst = float(((ROWS[tile].run(problem, a, b, None) - exact).abs() / near).max())
        assert 0 < worst <= ROWS[tile].bound(problem)


@pytest.mark.parametrize("tile", ROWS)
def test_a_bright_corner_does_not_spoil_the_dark_rest(tile: int) -> None:
    x, w = torch.randn(1, 8, 48, 48), torch.randn(4, 8, 3, 3)
    x[:, :, :3, :3] *= 1e4
    exact = F.conv2d(x.double(), w.double(), padding=1)
    y = winograd.run(tile, ConvProblem.parse("1x8x48x48 k4 3x3 p1"), x, w, None)
    far = (slice(None), slice(None), slice(8, None), slice(8, None))
    worst = float((y - exact)[far].abs().max() / exact[far].square().mean().sqrt())
    assert worst <= ROWS[tile].bound(ConvProblem.parse("1x8x48x48 k4 3x3 p1"))


@pytest.mark.parametrize("name", ["winograd", "winograd_f2"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_nan_and_inf_reach_what_the_definition_says(name: str, value: float, layout: torch.memory_format) -> None:
    for place in (0, 1, 2):
        tensors = [torch.randn(2, 17, 9, 10), torch.randn(5, 17, 3, 3), torch.randn(5)]
        tensors[place].view(-1)[tensors[place].numel() // 2] = value
        x, w, bias = tensors
        x = x.contiguous(memory_format=layout)
        want, got = F.conv2d(x, w, bias, padding=1), convolve.conv2d(x, w, bias, padding=1, algorithm=name)
        assert torch.equal(torch.isnan(want), torch.isnan(got))
        assert torch.equal(torch.isinf(want), torch.isinf(got))
        assert got.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("tile", ROWS)
def test_every_single_infinity_is_noticed(tile: int) -> None:
    problem = ConvProblem.parse("1x3x9x10 k2 3x3")
    for place in range(0, 3 * 9 * 10, 7):
        x, w, _ = operands(problem)
        x.view(-1)[place] = float("inf")
        with pytest.raises(NotFinite):
            winograd.run(tile, problem, x, w, None)


def test_what_overflows_only_inside_is_computed_directly() -> None:
    x, w = torch.full((1, 4, 8, 8), 3e37), torch.full((2, 4, 3, 3), 0.1)
    want = F.conv2d(x, w)
    assert bool(want.isfinite().all())
    torch.testing.assert_close(convolve.conv2d(x, w, algorithm="winograd"), want)


@pytest.mark.parametrize("name", ["winograd", "winograd_f2"])
def test_gradients_are_torchs(name: str) -> None:
    x, w = torch.randn(2, 6, 9, 7, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64)
    found = []
    for function in (
        lambda *t: convolve.conv2d(*t, padding=(2, 0), groups=2, algorithm=name),
        lambda *t: F.conv2d(*t, padding=(2, 0), groups=2),
    ):
        leaves = [t.clone().requires_grad_() for t in (x, w, bias)]
        function(*leaves).square().sum().backward()
        found.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tile", ROWS)
def test_prepared_weights_give_the_same_bits_for_any_batch_size_and_layout(tile: int) -> None:
    first = ConvProblem.parse("1x19x8x8 k37 3x3 p1")
    _, w, bias = operands(first)
    row = ROWS[tile]
    assert row.preparation is not None
    prepared = row.preparation.prepare(first, w)
    for text, layout in itertools.product(("1x19x8x8", "3x19x5x14"), ("channels_first", "channels_last")):
        problem = replace(ConvProblem.parse(f"{text} k37 3x3 p1"), layout=layout)
        x = operands(problem)[0]
        assert torch.equal(row.preparation.run(problem, x, prepared, bias), row.run(problem, x, w, bias))


def test_empty_batches_and_channels_give_what_torch_gives() -> None:
    for shape, k in (((0, 3, 5, 5), 4), ((2, 0, 5, 5), 4), ((2, 3, 5, 5), 0)):
        x, w, bias = torch.randn(shape), torch.randn(k, shape[1], 3, 3), torch.randn(k)
        got = convolve.conv2d(x, w, bias, padding=1, algorithm="winograd")
        torch.testing.assert_close(got, bias.reshape(1, -1, 1, 1).expand(shape[0], k, 5, 5))


@pytest.mark.parametrize(("m", "taps"), [(2, 3), (4, 3), (6, 3), (3, 2), (5, 2), (7, 2), (3, 4), (2, 5)])
def test_the_generated_transforms_are_the_exact_matrices(m: int, taps: int) -> None:
    operations = {
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "fma": lambda a, b, c: a * b + c,
        "splat": float, "zero": lambda: 0.0,
    }  # fmt: skip
    draw = random.Random(0)
    for matrix in matrices(m, taps):
        names = {f"i{i}": draw.uniform(-1, 1) for i in range(len(matrix[0]))}
        found = {**operations, **names}
        exec(kernels.transform(matrix, "i", "o", 0), found)
        for i, row in enumerate(matrix):
            want = sum(float(a) * x for a, x in zip(row, names.values(), strict=True))
            assert abs(found[f"o{i}"] - want) < 1e-12


def test_points_come_in_pairs_that_share_their_work() -> None:
    inverse, _, forward = matrices(4)
    assert len(kernels.transform(forward, "i", "o", 0).splitlines()) == 12
    assert len(kernels.transform(inverse, "i", "o", 0).splitlines()) == 12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kernel_of_the_family_is_listed_and_compiles(dtype: str) -> None:
    for kernel in kernels.every(dtype) + dense_phases.every(dtype):
        assert kernel.name in every()
        assert loaded(kernel).address != 0


def test_vectors_of_any_width_take_at_least_one_tile_at_once() -> None:
    """Two float64 lanes, as on ARM, hold less than a tile: a run of no tiles would never end."""
    for lanes, tile in itertools.product((2, 4, 8, 16), kernels.TILES):
        for taps in TAPS[tile]:
            m = tile - taps + 1
            columns = kernels.run_length(m, taps, lanes) * m + taps - 1
            assert tile <= columns <= max(2 * lanes, tile)


def test_squares_are_transposed_whole_and_in_part() -> None:
    """Through the layouts: only where channels do not lie side by side are vectors transposed."""
    lanes = machine().lanes("float32")
    for c, w in itertools.product((lanes - 1, lanes, lanes + 1), (lanes - 2, lanes, 2 * lanes - 2, 2 * lanes + 3)):
        problem = ConvProblem.parse(f"1x{c}x4x{w} k{c} 3x3 p1")
        a, b, bias = operands(problem)
        plain = winograd.run(6, problem, a, b, bias)
        last = winograd.run(6, replace(problem, layout="channels_last"), a.contiguous(memory_format=LAST), b, bias)
        assert torch.equal(plain, last)


@pytest.mark.slow
def test_the_kernels_for_avx2_are_right_too() -> None:
    passes_for_avx2(__file__)
