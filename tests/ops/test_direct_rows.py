"""The rows of our direct kernels against torch in float64: generated problems, every layout, between pages nobody may touch."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from convolve.geometry import Window
from convolve.kernels import cache
from convolve.kernels import filters as filters_kernels
from convolve.kernels import planes as planes_kernels
from convolve.kernels import rows as rows_kernels
from convolve.kernels import weight_sums as sums_kernels
from convolve.kernels.machine import machine
from convolve.kernels.table import every
from convolve.ops import direct_call, engine
from convolve.ops.algorithm import Algorithm
from convolve.ops.algorithms import filters, planes, torch_row, weight_sums
from convolve.ops.positions import Blocks
from convolve.problem import ROLES, ConvProblem, Role
from guard_pages import guarded_like
from kernels_support import guard_allocations, operands, passes_for_avx2

ROWS = {row.name: row for row in (planes.ALGORITHM, filters.ALGORITHM, weight_sums.ALGORITHM)}
MODULES = {"planes": planes, "filters": filters, "weight_sums": weight_sums}


def problems(row: Algorithm, seed: int, count: int, largest: int = 23) -> Iterator[ConvProblem]:
    """Random problems that the row serves, small and odd."""
    draw = random.Random(f"{row.name} {seed}")
    while count > 0:
        axes, groups = draw.choice([1, 2, 2, 3]), draw.choice([1, 1, 2, 3])
        per_axis = range(axes)
        role: Role = "weight_gradient" if row.name == "weight_sums" else draw.choice(ROLES[:2])
        spread = draw.choice([1, 1, 2, 3]) if role != "weight_gradient" else 1
        window = Window(
            tuple(draw.randint(1, 5) for _ in per_axis),
            tuple(draw.randint(1, 3) if spread == 1 else 1 for _ in per_axis),
            tuple((draw.randint(-1, 3), draw.randint(-1, 3)) for _ in per_axis),
            tuple(draw.randint(1, 3) for _ in per_axis),
            (spread,) * axes,
        )
        problem = ConvProblem(
            draw.randint(1, 3),
            groups * draw.randint(1, 4),
            groups * draw.choice([1, 1, 2, 3, 5, 7, 16, 17, 33]),
            tuple(draw.randint(1, largest if axes < 3 else 11) for _ in per_axis),
            window,
            groups,
            draw.choice(["float32", "float64"]),
            role,
            "channels_last" if axes > 1 and draw.random() < 0.4 else "channels_first",
        )
        fits = all(n > 0 for n in problem.output_size) and 0 not in problem.result_shape
        if fits and row.why_not(problem) is None:
            count -= 1
            yield problem


def check(row: Algorithm, problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> None:
    want = torch_row.run(
        replace(problem, dtype="float64"), a.double(), b.double(), None if bias is None else bias.double()
    )
    got = row.run(problem, a, b, bias)
    assert got.shape == want.shape
    assert got.dtype == a.dtype
    # The bound speaks of the rms of many results; a single small one is measured against its operands.
    scale = max(float(want.square().mean().sqrt()), float(a.square().mean().sqrt() * b.square().mean().sqrt()), 1e-9)
    worst = float((got - want).abs().max()) / scale
    assert worst <= 4 * row.bound(problem), (str(problem), worst, row.bound(problem))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("seed", range(4))
def test_a_row_computes_what_torch_computes_in_float64(name: str, seed: int) -> None:
    for problem in problems(ROWS[name], seed, 60):
        a, b, bias = operands(problem)
        check(ROWS[name], problem, a, b, bias if seed % 2 and problem.role != "weight_gradient" else None)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("at_end", [True, False])
def test_a_row_touches_nothing_beside_its_operands(name: str, at_end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_allocations(monkeypatch, at_end)
    for problem in problems(ROWS[name], 9, 60):
        a, b, bias = operands(problem)
        given = None if problem.role == "weight_gradient" else guarded_like(bias, at_end)
        check(ROWS[name], problem, guarded_like(a, at_end), guarded_like(b, at_end), given)


TILES = {
    "planes": [(tile, False) for tile in planes_kernels.tiles()] + [(tile, True) for tile in rows_kernels.tiles()],
    "filters": [(tile, False) for tile in filters_kernels.tiles()],
    "weight_sums": [(tile, False) for tile in sums_kernels.tiles()],
}


@pytest.mark.parametrize(("name", "tile", "single"), [(name, *tile) for name, tiles in TILES.items() for tile in tiles])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kernel_is_right_whether_or_not_it_would_be_chosen(
    name: str, tile: tuple[int, int], single: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, row = MODULES[name], ROWS[name]
    role = " weight_gradient" if name == "weight_sums" else ""
    filters_of = (1,) if single else (1, 5, 18)
    for k, size, rest in itertools.product(
        filters_of, ("1x7", "13x37", "9x70"), ("5x5 p2", "4x3 p1:2x0", "5x3 s1x2 p2")
    ):
        problem = ConvProblem.parse(f"2x2x{size} k{k} {rest} {dtype}{role}")
        chosen = module.blocks(problem, 2)

        def cut(_: ConvProblem, __: int, chosen: Blocks = chosen) -> Blocks:
            across = planes.SINGLE if single else max(d for d in (1, 2, 3, 4) if tile[1] % d == 0)
            return replace(chosen, tile=tile[0], width=tile[1], chunks=1, across=across if name == "planes" else 0)

        monkeypatch.setattr(module, "blocks", cut)
        monkeypatch.setattr(direct_call, "_PLANS", {})
        a, b, bias = operands(problem)
        check(row, problem, a, b, None if role else bias)
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["planes", "filters"])
def test_strided_expanded_and_unaligned_views_are_read_in_place(name: str) -> None:
    problem = ConvProblem.parse("2x3x9x11 k5 3x3 p1")
    x, w = torch.randn(2, 3, 9, 11), torch.randn(5, 3, 3, 3)
    views = [
        torch.randn(11, 9, 3, 2).permute(3, 2, 1, 0),
        torch.randn(2, 6, 18, 22)[:, ::2, ::2, ::2],
        torch.randn(1, 3, 9, 11).expand(2, 3, 9, 11),
        torch.randn(2 * 3 * 9 * 11 + 1)[1:].view(2, 3, 9, 11),
    ]
    for view in views:
        check(ROWS[name], problem, view, w, None)
    for weight in (torch.randn(3, 3, 3, 5).permute(3, 2, 0, 1), torch.randn(1, 3, 3, 3).expand(5, 3, 3, 3)):
        check(ROWS[name], problem, x, weight, torch.randn(10)[::2])


POINTS = ("2x5x7x9 k9 1x1", "1x16x3x5x7 k17 1x1x1", "2x6x5x11 k4 1x1 g2 float64", "2x7x1x9 k3 1x1")


@pytest.mark.parametrize("text", POINTS)
@pytest.mark.parametrize("role", ["", " input_gradient"])
def test_maps_of_single_elements_are_one_row_if_they_lie_in_one_piece(text: str, role: str) -> None:
    problem = ConvProblem.parse(text + role)
    row = planes.in_one_row(problem)
    assert (row.axes, row.macs, row.size) == (1, problem.macs, (math.prod(problem.size),))
    a, b, bias = operands(problem)
    check(ROWS["planes"], problem, a, b, bias)
    wider = torch.randn(*a.shape[:-1], a.shape[-1] + 3, dtype=a.dtype)
    turned = torch.randn(*a.shape[:2], *a.shape[:1:-1], dtype=a.dtype).permute(0, 1, *range(a.dim() - 1, 1, -1))
    for view in (wider[..., 1:-2], turned, a[:1].expand(a.shape), torch.randn(2, *a.shape, dtype=a.dtype)[1]):
        check(ROWS["planes"], problem, view, b, bias)
    check(ROWS["planes"], problem, a, b.transpose(0, 1).contiguous().transpose(0, 1), bias)


@pytest.mark.parametrize(
    "text",
    [
        "1x3x5x7 k2 1x3",
        "1x3x5x7 k2 1x1 s2",
        "1x3x5x7 k2 1x1 p1",
        "1x3x5x7 k2 1x1 p0:-1x0",
        "1x3x5x7 k2 1x1 e2",
        "1x3x35 k2 1",
    ],
)
def test_other_maps_keep_their_rows(text: str) -> None:
    problem = ConvProblem.parse(text)
    assert planes.in_one_row(problem) is problem
    last = replace(ConvProblem.parse(POINTS[0]), layout="channels_last")
    assert planes.in_one_row(last) is last


@pytest.mark.parametrize("name", ["planes", "filters"])
def test_an_image_alone_gives_the_same_bits_as_in_a_batch_and_on_any_number_of_threads(name: str) -> None:
    threads = torch.get_num_threads()
    x, w = torch.randn(5, 3, 33, 29), torch.randn(7, 3, 5, 3)
    try:
        results = []
        for count, batch in itertools.product((1, 2, 3), (x, x[:1])):
            torch.set_num_threads(count)
            problem = ConvProblem.parse(f"{len(batch)}x3x33x29 k7 5x3 p2")
            results.append(ROWS[name].run(problem, batch, w, None)[:1])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("name", ["planes", "filters", "weight_sums"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_inf_reach_what_the_definition_says(name: str, value: float) -> None:
    role = " weight_gradient" if name == "weight_sums" else ""
    for text in ("1x2x13x19 k3 3x3 p1", "1x1x13x37 k1 5x3 p2", "1x2x7x7 k17 3x3 s2 p1"):
        problem = ConvProblem.parse(text + role)
        for place in (0, 1):
            pair = list(operands(problem)[:2])
            pair[place].view(-1)[pair[place].numel() // 2] = value
            want, got = torch_row.run(problem, *pair, None), ROWS[name].run(problem, *pair, None)
            assert torch.equal(torch.isnan(want), torch.isnan(got)), (text, place)
            assert torch.equal(torch.isinf(want), torch.isinf(got)), (text, place)


def test_weight_gradients_are_right_on_fewer_threads_than_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ConvProblem.parse("3x2x9x20 k5 3x3 p1 weight_gradient")
    monkeypatch.setattr(direct_call, "_PLANS", {})
    monkeypatch.setattr(engine, "thread_count", lambda: 3)
    run, empty = engine.run, torch.empty

    def alone(address: int, arguments: bytes, threads: int) -> None:
        run(address, arguments, 1)

    monkeypatch.setattr(engine, "run", alone)
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(1))
    a, b, _ = operands(problem)
    check(ROWS["weight_sums"], problem, a, b, None)


def test_denormal_numbers_are_kept() -> None:
    x, w = torch.full((1, 1, 5, 40), 1e-39), torch.ones(1, 1, 1, 1)
    for row in (planes, filters):
        assert torch.equal(row.run(ConvProblem.parse("1x1x5x40 k1 1"), x, w, None), x)


def test_only_listed_kernels_are_ever_compiled() -> None:
    assert set(cache.compiled()) <= set(every())
    stranger = cache.Kernel("stranger", "float32", lambda: "", lambda: "")
    with pytest.raises(AssertionError, match="stranger is not in the table of kernels"):
        cache.loaded(stranger)


@pytest.mark.slow
def test_the_kernels_for_avx2_are_right_too() -> None:
    passes_for_avx2(__file__)


STREAMED = (
    ("planes", "1x1x37x64 k1 3x3 p1"),
    ("planes", "2x3x19x128 k3 5x5 p2 g3"),
    ("planes", "1x2x40x48 k2 7x7 p3 g2"),
    ("planes", "2x3x21x112 k21 3x3 p1"),
    ("planes", "1x1x29x192 k16 7x7 p3"),
    ("filters", "1x3x11x17 k64 3x3 p1 channels_last"),
    ("filters", "2x4x9x5 k64 3x3 s2 p1 g2 channels_last"),
    ("filters", "1x16x7x6 k5 3x3 s2 p1 input_gradient channels_last"),
)


@pytest.mark.parametrize(("name", "text"), STREAMED, ids=[text for _, text in STREAMED])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_streamed_result_is_the_stored_one(name: str, text: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ConvProblem.parse(f"{text} {dtype}")
    a, b, bias = operands(problem)

    def run() -> torch.Tensor:
        monkeypatch.setattr(direct_call, "_PLANS", {})
        return ROWS[name].run(problem, a, b, bias)

    stored, arguments = run(), next(iter(direct_call._PLANS.values())).arguments
    monkeypatch.setattr(direct_call, "STREAMED_BYTES", 1)
    monkeypatch.setattr(planes, "_STREAMED_BYTES", 1)
    assert torch.equal(run(), stored)
    last = slice(-8, None)
    assert arguments[last] == bytes(8), "it was stored"
    assert next(iter(direct_call._PLANS.values())).arguments[last] == (1).to_bytes(8, "little"), "it was streamed"


def test_a_result_whose_vectors_begin_anywhere_is_not_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = machine().lanes("float32")
    within = ConvProblem.parse(f"1x4x6x32 k{5 * lanes} 3x3 g2 channels_last")  # the second group begins within a vector
    a, b, bias = operands(within)
    monkeypatch.setattr(direct_call, "STREAMED_BYTES", 1)
    check(ROWS["filters"], within, a, b, bias)
    assert direct_call.streams(ConvProblem.parse(f"1x1x37x{4 * lanes} k1 3x3 p1"), -1, 1)
    assert not direct_call.streams(ConvProblem.parse(f"1x1x37x{4 * lanes - 1} k1 3x3 p1"), -1, 1)
    assert not direct_call.streams(ConvProblem.parse(f"1x1x37x{4 * lanes} k1 3x3 p1"), -1, 1 << 20), "it is small"
    assert direct_call.streams(ConvProblem.parse(f"1x3x5x7 k{lanes} 3x3 channels_last"), 1, 1)
    assert not direct_call.streams(ConvProblem.parse(f"1x3x5x7 k{lanes + 2} 3x3 channels_last"), 1, 1)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("text", ["1x3x224x224 k64 3x3 p1", "1x1x1080x1920 k16 7x7 p3", "1x1x500x64 k1 3x3 p1"])
def test_every_thread_gets_as_many_blocks(text: str, threads: int) -> None:
    problem = ConvProblem.parse(text)
    for module in (planes, filters):
        cut = module.blocks(problem, threads)
        tasks = -(-problem.output_size[0] // cut.rows) * -(-problem.output_size[1] // cut.columns)
        assert tasks >= threads
        assert tasks % threads == 0, (cut, tasks)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_pictures_with_their_channels_innermost_are_taken_apart(channels: int, dtype: str) -> None:
    for width in (1, 15, 16, 17, 31, 32, 33, 63, 64, 65):
        problem = ConvProblem.parse(f"2x{channels}x5x{width} k3 3x3 p1 {dtype} channels_last")
        a, b, bias = operands(problem)
        for name in ("planes", "filters"):
            check(ROWS[name], problem, a, b, bias)
