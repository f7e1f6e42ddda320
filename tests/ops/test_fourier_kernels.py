"""The Fourier kernels against torch in float64: every size of tile, every tail, between pages nobody may touch."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import convolve
from convolve.geometry import Window
from convolve.kernels.butterflies import last_radix
from convolve.kernels.machine import machine
from convolve.ops import engine, fourier_call, fourier_lines, fourier_plan
from convolve.ops.algorithm import NotFinite
from convolve.ops.algorithms import fft, torch_row
from convolve.ops.bounds import EPSILON
from convolve.ops.fourier_call import Axis, Cut
from convolve.problem import ConvProblem
from guard_pages import guarded_like
from kernels_support import LAST, guard_allocations, operands, passes_for_avx2

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

LANES = machine().lanes("float64")


def problems(seed: str, count: int) -> Iterator[ConvProblem]:
    """Random problems with tails of every kind."""
    draw = random.Random(seed)
    while count > 0:
        axes = draw.choice([1, 2, 2])
        per_axis, groups = range(axes), draw.choice([1, 1, 2, 3])
        role = draw.choice(["output", "input_gradient"])
        spread = draw.choice([1, 1, 1, 2])
        window = Window(
            tuple(draw.randint(1, 12 if axes == 2 else 70) for _ in per_axis),
            tuple(draw.choice([1, 1, 2, 3]) if spread == 1 else 1 for _ in per_axis),
            tuple((draw.randint(-2, 9), draw.randint(-2, 9)) for _ in per_axis),
            tuple(draw.choice([1, 1, 2]) for _ in per_axis),
            (spread,) * axes,
        )
        problem = ConvProblem(
            draw.randint(1, 3),
            groups * draw.randint(1, 3),
            groups * draw.randint(1, 3),
            tuple(draw.randint(1, 60 if axes == 2 else 400) for _ in per_axis),
            window,
            groups,
            draw.choice(["float32", "float32", "float64"]),
            role,
            "channels_last" if axes > 1 and draw.random() < 0.3 else "channels_first",
        )
        if all(n > 0 for n in problem.output_size) and 0 not in problem.result_shape:
            count -= 1
            yield problem


def check(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> None:
    assert fft.has_kernels(problem)
    double = replace(problem, dtype="float64")
    want = torch_row.run(double, a.double(), b.double(), None if bias is None else bias.double())
    got = fft.run(problem, a, b, bias)
    assert got.shape == want.shape
    assert got.dtype == a.dtype
    convolution = problem.as_convolution()
    expected = float(a.double().square().mean().sqrt() * b.double().square().mean().sqrt()) * convolution.taps**0.5
    scale = max(float(want.square().mean().sqrt()), expected, 1e-300)
    worst = float((got - want).abs().max()) / scale
    # float32 is rounded once, at the end; a result may be several times their rms.
    largest = max(4.0, float(want.abs().max()) / scale)
    allowed = largest * EPSILON["float32"] / 2 if problem.dtype == "float32" else fft.bound(problem)
    assert worst <= 1.01 * allowed, (str(problem), worst, allowed)


@pytest.mark.parametrize("seed", range(4))
def test_the_kernels_compute_what_torch_computes_in_float64_and_round_once(seed: int) -> None:
    for problem in problems(f"values {seed}", 50):
        a, b, bias = operands(problem)
        check(problem, a, b, bias if seed % 2 else None)


@pytest.mark.parametrize("at_end", [True, False])
def test_the_kernels_touch_nothing_beside_their_operands(at_end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_allocations(monkeypatch, at_end)
    for problem in problems("pages", 60):
        a, b, bias = operands(problem)
        check(problem, guarded_like(a, at_end), guarded_like(b, at_end), guarded_like(bias, at_end))
        size = problem.size if problem.role == "output" else problem.output_size
        if problem.dtype == "float32":
            fourier_plan.spread(guarded_like(a, at_end), tuple(min(16, n) for n in size))


def _tiles(size: int, results: int, taps: int) -> Axis:
    step = min(results, size - taps + 1)
    return Axis(size, step, -(-results // step), min(size, step + taps - 1))


HALVES = fourier_plan.sizes(LANES, LANES, fourier_call.LARGEST // 2)
WIDTHS = fourier_plan.sizes(max(LANES, last_radix(LANES)), last_radix(LANES), fourier_call.LARGEST)


def test_every_size_of_tile_is_right_along_both_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {2 * LANES, 32, 64, 96, 128, 192, 256, 512} <= {2 * half for half in HALVES}
    assert {32, 64, 72, 96, 128, 192, 256, 512} <= set(WIDTHS)
    for half, width in [*((half, WIDTHS[0]) for half in HALVES), *((HALVES[0], width) for width in WIDTHS)]:
        h, w = half + 7, width // 2 + 5
        problem = ConvProblem.parse(f"1x1x{h}x{w} k1 3x4 p1:1x1:2")
        one = Cut(_tiles(2 * half, h, 3), _tiles(width, w, 4), 1, True, 0.0)
        monkeypatch.setattr(fourier_call, "cut", lambda *_, one=one: one)
        monkeypatch.setattr(fourier_call, "_PLANS", {})
        check(problem, *operands(problem))


def test_every_size_of_tile_of_a_line_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    last = last_radix(LANES)
    halves = fourier_plan.sizes(max(LANES, last), last, fourier_lines.LARGEST // 2)
    assert {64, 72, 128, 512, 1024, 4096, 8192} <= set(halves)
    assert any(outer and inner for outer, inner in map(fourier_lines.split, halves))
    for half in halves:
        taps = half + half // 3 if half < 300 else 9  # the taps reach into the imaginary parts
        line = _tiles(2 * half, 3 * half + 5, taps)
        problem = ConvProblem.parse(f"1x1x{3 * half + 5 + taps - 5} k1 {taps} p2")
        one = fourier_lines.Cut(line, 1, 0.0)
        monkeypatch.setattr(fourier_lines, "cut", lambda *_, one=one: one)
        monkeypatch.setattr(fourier_call, "_PLANS", {})
        check(problem, *operands(problem))


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_every_way_to_share_lines_gives_the_same_bits(chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (
        "3x3x300 k5 41 p20",
        "1x6x500 k15 41 p3 g3 float64",
        "11x2x90 k2 41 s3 p3 g2",
        "2x5x9 k7 8 p7 input_gradient",
    ):
        problem = ConvProblem.parse(text)
        a, b, bias = operands(problem)
        first = fft.run(problem, a, b, bias)
        one = fourier_lines.cut(fourier_plan.undilated(problem), torch.get_num_threads())._replace(chunks=chunks)
        monkeypatch.setattr(fourier_lines, "cut", lambda *_, one=one: one)
        monkeypatch.setattr(fourier_call, "_PLANS", {})
        assert torch.equal(fft.run(problem, a, b, bias), first)
        monkeypatch.undo()


@pytest.mark.parametrize(("chunks", "own"), [(1, True), (1, False), (2, True), (2, False), (5, False)])
def test_every_way_to_share_the_work_gives_the_same_bits(
    chunks: int, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("2x3x30x41 k5 7x6 p3", "1x6x30x41 k15 7x6 p3 g3 float64", "2x10x19x23 k6 7x6 s2 p3 g2 input_gradient"):
        problem = ConvProblem.parse(text)
        a, b, bias = operands(problem)
        first = fft.run(problem, a, b, bias)
        plain = fourier_plan.undilated(problem)
        one = fourier_call.cut(plain, torch.get_num_threads())._replace(chunks=chunks, own=own)
        monkeypatch.setattr(fourier_call, "cut", lambda *_, one=one: one)
        monkeypatch.setattr(fourier_call, "_PLANS", {})
        monkeypatch.setattr(fourier_call, "_KEPT_BYTES", 0)
        assert torch.equal(fft.run(problem, a, b, bias), first)
        monkeypatch.undo()


def test_any_number_of_threads_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            for problem in problems("threads", 12):
                check(problem, *operands(problem))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("role", ["output", "input_gradient"])
def test_strided_expanded_and_unaligned_views_are_read_right(role: str) -> None:
    problem = ConvProblem.parse(f"2x3x29x31 k3 7x5 p3:3x2:2 {role}")
    x, w = torch.randn(2, 3, 29, 31), torch.randn(3, 3, 7, 5)
    views = [
        torch.randn(31, 29, 3, 2).permute(3, 2, 1, 0),
        torch.randn(2, 6, 58, 62)[:, ::2, ::2, ::2],
        torch.randn(1, 3, 29, 31).expand(2, 3, 29, 31),
        torch.randn(2, 3, 1, 1).expand(2, 3, 29, 31),
        torch.randn(2 * 3 * 29 * 31 + 1)[1:].view(2, 3, 29, 31),
        torch.randn(2, 3, 29, 40)[..., 4:35],
        x.contiguous(memory_format=LAST[2]),
    ]
    for view in views:
        check(problem, view, w, None)
    weights = [
        torch.randn(5, 7, 3, 3).permute(3, 2, 1, 0),
        torch.randn(3, 3, 5, 7).transpose(2, 3),
        w.transpose(0, 1),
        torch.randn(1, 3, 7, 5).expand(3, 3, 7, 5),
        torch.randn(3, 3, 14, 10)[:, :, ::2, ::2],
    ]
    for weight in weights:
        check(problem, x, weight, torch.randn(6)[::2])


def test_half_precision_is_computed_wide_and_rounded() -> None:
    problem = ConvProblem.parse("1x2x40x50 k3 9x9 p4 bfloat16")
    a, b, bias = operands(problem)
    got = fft.run(problem, a, b, bias)
    assert got.dtype == torch.bfloat16
    want = F.conv2d(a.double(), b.double(), bias.double(), padding=4)
    assert float((got - want).abs().max()) <= 2**-8 * float(want.abs().max())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("text", ["2x2x60x70 k3 9x9 p4", "2x2x700 k3 99 p4", "2x1x700 k1 99 p4"])
def test_what_is_not_finite_is_noticed_and_computed_directly(value: float, place: int, text: str) -> None:
    problem = ConvProblem.parse(text)
    direct, ours = (F.conv2d, convolve.conv2d) if problem.axes == 2 else (F.conv1d, convolve.conv1d)
    pair = list(operands(problem)[:2])
    pair[place].view(-1)[pair[place].numel() // 2] = value
    pair[1 - place].mul_(3)
    with pytest.raises(NotFinite):
        fft.run(problem, *pair, None)
    want = direct(*pair, padding=4)
    got = ours(*pair, padding=4)
    assert torch.equal(want.isnan(), got.isnan())
    assert torch.equal(want.isinf(), got.isinf())
    if math.isinf(value) or math.isnan(value):
        assert torch.equal(ours(*pair, padding=4, algorithm="fft").isfinite(), want.isfinite())


def test_a_bias_that_is_not_finite_is_noticed() -> None:
    problem = ConvProblem.parse("1x1x20x30 k2 5x5 p2")
    a, b, _ = operands(problem)
    with pytest.raises(NotFinite):
        fft.run(problem, a, b, torch.tensor([0.0, math.inf]))


def test_what_no_result_reads_cannot_spoil_one() -> None:
    x, w = torch.randn(1, 3, 32, 32), torch.randn(5, 3, 5, 5)
    clean = x[:, :, 2:-3, 1:-2].clone()
    x[:, :, :2] = x[:, :, -3:] = x[:, :, :, :1] = x[:, :, :, -2:] = math.nan
    got = fft.run(ConvProblem.parse("1x3x32x32 k5 5x5 p-2:-3x-1:-2"), x, w, None)
    torch.testing.assert_close(got, F.conv2d(clean, w), rtol=1e-4, atol=1e-4)
    x = torch.randn(1, 1, 22, 31)
    x[:, :, 21:], x[:, :, :, 29:] = math.nan, math.nan
    got = fft.run(ConvProblem.parse("1x1x22x31 k1 6x5 s3x4"), x, w[:1, :1, [0, 1, 2, 3, 4, 4]], None)
    torch.testing.assert_close(got, F.conv2d(x, w[:1, :1, [0, 1, 2, 3, 4, 4]], stride=(3, 4)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1x1x2000x2000 k1 1010x3 s20", "must hold a kernel and a stride"),
        ("1x1x20000 k1 5000 s12000", "must hold a kernel and a stride"),
        ("1x1026x57089 k1 1024", "a tile of all channels takes more than 64 MiB"),
        ("1x1x16x16x16 k1 3x3x3", "one and two axes"),
        ("1x1x16x16 k1 3x3 weight_gradient", "outputs and input gradients"),
        ("1x1x16x16 k1 3x3 cuda", "on a CPU"),
    ],
)
def test_what_the_kernels_decline_goes_by_torch(text: str, reason: str) -> None:
    problem = ConvProblem.parse(text)
    assert reason in str(fourier_call.why_not(problem))
    assert fft.why_not(problem) is None
    assert fft.ALGORITHM.cost(problem).seconds > 0


def test_zeros_of_the_padding_stand_in_for_a_larger_tile() -> None:
    height, width, *_ = fourier_call.cut(ConvProblem.parse("1x128x56x56 k128 31x31 p15 g128"), 2)
    assert (height.tiles, width.tiles) == (1, 1)
    assert max(height.size, width.size) < 56 + 30


def test_factors_are_right_to_the_last_bit() -> None:
    for turns in (8, 96, 360, 1024):
        for i in range(-turns, 2 * turns):
            angle = np.longdouble(i) / np.longdouble(turns)
            exact = 2 * np.longdouble("3.14159265358979323846264338327950288") * angle
            got = fourier_plan.unit(Fraction(i, turns))
            assert abs(got[0] - np.cos(exact)) < 1.2e-16
            assert abs(got[1] - np.sin(exact)) < 1.2e-16


def test_passes_are_values_of_the_polynomial_at_the_roots() -> None:
    """A hand evaluation of the plan, pass by pass, in numpy."""
    generator = np.random.default_rng(0)
    for n, passes, angle in ((24, (3, 8), Fraction(1, 4)), (40, (2, 5, 4), Fraction(0)), (32, (4, 8), Fraction(1, 4))):
        rows, factors = fourier_plan.passes_of(n, passes, angle)
        assert [row[0] for row in rows] == list(passes)
        values = generator.normal(size=n) + 1j * generator.normal(size=n)
        x, roots = values.copy(), [angle]
        for (r, step, parts, at), _ in zip(rows, passes, strict=True):
            m = step // (2 * LANES)
            for part in range(parts):
                w = factors[at + part * (2 * r - 2) :][: 2 * r - 2].view(np.complex128)
                numbers = x[part * r * m : (part + 1) * r * m].reshape(r, m)
                turned = numbers * np.array([1, *w])[:, None]
                numbers[:] = np.exp(2j * np.pi * np.outer(np.arange(r), np.arange(r)) / r) @ turned
            roots = [root / r + Fraction(q, r) for root in roots for q in range(r)]
        want = [np.polyval(values[::-1], np.exp(2j * np.pi * float(root))) for root in roots]
        np.testing.assert_allclose(x, want, rtol=0, atol=1e-12)
        assert all((root * n - angle) % 1 == 0 for root in roots)
        assert len(set(roots)) == n


@pytest.mark.parametrize("text", ["2x3x37x53", "1x1x16x16", "1x1x64x8", "3x2x5x100", "1x2x1000", "5x1x9"])
def test_magnitudes_are_compared_as_torch_compares_them(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = text.count("x") - 1
    problem = ConvProblem.parse(f"{text} k{text.split('x')[1]} {'x'.join('3' * axes)} p1")
    x = torch.randn(problem.input_shape)
    x[0, 0, ..., :2] *= 1e5
    x[..., -4:] = 0
    blocks = [min(16, n) for n in problem.size]
    found = fft._spread(problem, x, blocks)
    last = fft._spread(problem, x.transpose(1, -1).contiguous().transpose(1, -1), blocks)
    monkeypatch.setattr(fft, "has_kernels", lambda _: False)
    want = fft._spread(problem, x, blocks)
    assert found == last
    assert found == pytest.approx(want, rel=1e-12)
    monkeypatch.undo()
    assert fft._spread(problem, torch.zeros_like(x), blocks)[0] == 0
    x[0, 0, ..., 1] = math.nan
    assert math.isnan(fft._spread(problem, x, blocks)[0])
    assert fft.not_these(problem, x, x) is None


def test_gradients_by_the_kernels_are_those_of_torch() -> None:
    x = torch.randn(2, 4, 30, 37, dtype=torch.float64, requires_grad=True)
    w = torch.randn(6, 2, 9, 7, dtype=torch.float64, requires_grad=True)
    y = convolve.conv2d(x, w, padding=(4, 3), groups=2, algorithm="fft")
    g = torch.randn_like(y)
    want = torch.autograd.grad(F.conv2d(x, w, padding=(4, 3), groups=2), (x, w), g)
    for got, expected in zip(torch.autograd.grad(y, (x, w), g), want, strict=True):
        torch.testing.assert_close(got, expected)


def test_errors_stay_within_the_bound_of_the_neighbourhoods_rms() -> None:
    for channels, size in itertools.product((1, 16), (64, 150)):
        problem = ConvProblem.parse(f"1x{channels}x{size}x{size} k2 31x31 p15")
        a, b, _ = operands(problem)
        exact = F.conv2d(a.double(), b.double(), padding=15)
        near = F.avg_pool2d(exact.square(), 11, 1, 5, count_include_pad=False).sqrt()
        worst = float(((fft.run(problem, a, b, None) - exact).abs() / near).max())
        assert 0 < worst <= fft.bound(problem)


@pytest.mark.slow
def test_the_kernels_for_avx2_are_right_too() -> None:
    passes_for_avx2(__file__)


def test_magnitudes_are_right_on_fewer_threads_than_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(1, 2, 40, 40) + 1
    expected = fourier_plan.spread(x, (16, 16))
    monkeypatch.setattr(engine, "thread_count", lambda: 3)
    run, empty = engine.run, torch.empty
    monkeypatch.setattr(engine, "run", lambda address, arguments, _: run(address, arguments, 1))
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(1e30))
    assert fourier_plan.spread(x, (16, 16)) == expected


@pytest.mark.parametrize("axes", [1, 2])
def test_an_empty_batch_is_nobodys_work(axes: int) -> None:
    convolve_axes = (convolve.conv1d, convolve.conv2d)[axes - 1]
    x, w = torch.zeros(0, 2, *(40,) * axes, requires_grad=True), torch.zeros(3, 2, *(31,) * axes, requires_grad=True)
    y = convolve_axes(x, w)
    assert y.shape == (0, 3, *(10,) * axes)
    y.sum().backward()
    assert torch.equal(w.grad, torch.zeros_like(w))
    assert "nothing to sum" in str(fourier_call.why_not(ConvProblem.parse("0x2x40 k3 31")))
