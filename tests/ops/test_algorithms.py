"""The rows of the table: their error bounds, what NaN and Inf touch, exactness, invariance of bits, choice and reasons."""

from __future__ import annotations

import json
import math
import threading
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import convolve
from convolve.errors import DeclinedError
from convolve.kernels import minimal_filtering
from convolve.ops import costs
from convolve.ops.algorithms import ALGORITHMS, fft, im2col, separable, winograd
from convolve.ops.choose import ranked, served, why_not
from convolve.problem import ROLES, ConvProblem

ROWS = {row.name: row for row in ALGORITHMS}
FORWARD = [
    row.name
    for row in ALGORITHMS
    if row.why_not(ConvProblem.parse("1x4x9x9 k4 3x3 p1")) is None or row.name == "separable"
]
AUTOMATIC = [name for name in FORWARD if ROWS[name].not_automatic(ConvProblem.parse("1x4x9x9 k4 3x3 p1")) is None]
RANK_ONE = {"separable"}


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed + sum(shape)))


def weight(name: str, *shape: int) -> Tensor:
    """A random weight that the row serves."""
    if name not in RANK_ONE:
        return randn(*shape)
    return randn(*shape[:3], 1) * randn(*shape[:2], 1, shape[3], seed=1)


def test_the_table_is_whole() -> None:
    assert [row.name for row in ALGORITHMS] == [
        "torch", "torch_channels_last", "planes", "filters", "weight_sums", "pointwise_sums", "images", "images_winograd",
        "depthwise", "depthwise_rows", "winograd", "winograd_f2", "winograd_f6", "fft", "separable", "im2col", "direct",
        "matrix", "reference",
    ]  # fmt: skip
    problem = ConvProblem.parse("2x4x9x9 k4 3x3 p1")
    for row in ALGORITHMS:
        cost = row.cost(problem)
        assert cost.seconds > 0
        assert cost.workspace_bytes >= 0
        assert 0 < row.bound(problem) < 1e-3
        assert row.summary
    assert all(
        ROWS["reference"].why_not(ConvProblem.parse(text)) is None for text in ("1x1x9 k1 3 e2 int8", "0x1x9x9 k1 3x3")
    )


# --- error bounds ---------------------------------------------------------------------------------------------------


def _local_rms(y: Tensor, radius: int = 5) -> Tensor:
    """The rms of each element's neighbourhood in its own channel."""
    mean = F.avg_pool2d(y.square(), 2 * radius + 1, 1, radius, count_include_pad=False)
    return mean.sqrt()


@pytest.mark.parametrize("name", [name for name in FORWARD if name not in ("reference", "matrix")])
@pytest.mark.parametrize("channels", [1, 16, 256])
def test_errors_stay_within_the_rows_bound_of_the_neighbourhoods_rms(name: str, channels: int) -> None:
    x, w = randn(1, channels, 29, 31), weight(name, 4, channels, 3, 3)
    problem = ConvProblem.parse(f"1x{channels}x29x31 k4 3x3 p1")
    exact = F.conv2d(x.double(), w.double(), padding=1)
    y = convolve.conv2d(x, w, padding=1, algorithm=name)
    worst = float(((y - exact).abs() / _local_rms(exact)).max())
    assert worst <= ROWS[name].bound(problem), worst
    assert worst > 0, "an error of nothing measures nothing"


def test_winograds_bounds_are_the_promised_ones() -> None:
    def bound(name: str, channels: int) -> float:
        return ROWS[name].bound(ConvProblem.parse(f"1x{channels}x9x9 k4 3x3 p1"))

    assert (bound("winograd_f2", 256), bound("winograd", 256)) == (5e-6, 2.5e-5)
    assert math.isclose(bound("winograd", 1024), 5e-5)
    assert bound("winograd", 3) == 2.5e-5
    x, w = randn(1, 1024, 12, 12), randn(2, 1024, 3, 3)
    exact = F.conv2d(x.double(), w.double())
    for name in ("winograd_f2", "winograd"):
        worst = float(((convolve.conv2d(x, w, algorithm=name) - exact).abs() / exact.square().mean().sqrt()).max())
        assert worst <= bound(name, 1024)


@pytest.mark.parametrize("name", AUTOMATIC)
def test_a_bright_corner_does_not_spoil_the_dark_rest(name: str) -> None:
    x = randn(1, 8, 48, 48)
    x[:, :, :3, :3] *= 1e4
    w = weight(name, 4, 8, 3, 3)
    exact = F.conv2d(x.double(), w.double(), padding=1)
    y = convolve.conv2d(x, w, padding=1, algorithm=name)
    far = (slice(None), slice(None), slice(16, None), slice(16, None))
    worst = float((y - exact)[far].abs().max() / exact[far].square().mean().sqrt())
    assert worst <= ROWS[name].bound(ConvProblem.parse("1x8x48x48 k4 3x3 p1"))


@pytest.mark.parametrize("images", [0, 1, 2])
def test_columns_are_built_a_few_images_at_a_time(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = randn(5, 4, 6, 7, dtype=torch.float64), randn(6, 2, 3, 3, dtype=torch.float64)
    monkeypatch.setattr(im2col, "_WORKSPACE", images * 2 * 18 * 20 * 8)  # groups, taps, positions, bytes
    got = convolve.conv2d(x, w, groups=2, algorithm="im2col")
    torch.testing.assert_close(got, F.conv2d(x, w, groups=2))


def test_the_transform_refuses_ranges_it_cannot_hold_and_auto_goes_on() -> None:
    x, w = randn(1, 1, 200, 200), randn(1, 1, 63, 63)
    x[0, 0, 0, 0] = 1e30
    with pytest.raises(DeclinedError, match="its error is global, and the input's magnitudes span"):
        convolve.conv2d(x, w, padding=31, algorithm="fft")
    problem = ConvProblem.parse("1x1x200x200 k1 63x63 p31")
    assert ranked(problem, "auto", "default")[0].name in ("fft", "separable")
    y = convolve.conv2d(x, w, padding=31)
    exact = F.conv2d(x.double(), w.double(), padding=31)
    assert float(((y - exact)[..., 80:, 80:]).abs().max()) < 1e-3


def test_winograd_matrices_are_exact_and_the_usual_ones() -> None:
    for size, taps in ((size, taps) for size, counts in minimal_filtering.TAPS.items() for taps in counts):
        m = size - taps + 1
        a_t, g, b_t = winograd.matrices(m, taps)
        for i in range(m):
            for tap in range(taps):
                for d in range(size):  # the bilinear form is y[i] = sum over taps of d[i + tap] g[tap], exactly
                    total = sum((a_t[i][e] * g[e][tap] * b_t[e][d] for e in range(size)), Fraction(0))
                    assert total == int(d == i + tap)
    assert minimal_filtering.POINTS[6] == (0, Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2))


def test_good_points_are_what_makes_f4_accurate(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = randn(1, 256, 20, 20), randn(4, 256, 3, 3)
    exact = F.conv2d(x.double(), w.double())

    def worst() -> float:
        problem = ConvProblem.parse("1x256x20x20 k4 3x3")
        y = winograd.run_transformed(6, problem, x, winograd.transform_weight(6, problem, w), None)
        return float((y - exact).abs().max() / exact.square().mean().sqrt())

    ours = worst()
    usual = tuple(map(Fraction, (0, 1, -1, 2, -2)))
    winograd.matrices.cache_clear()
    monkeypatch.setitem(minimal_filtering.POINTS, 6, usual)
    assert worst() > 2 * ours
    winograd.matrices.cache_clear()


@pytest.mark.parametrize("least", [*range(1, 40), 97, 1000, 1025, 2049, 4999])
def test_transform_sizes_are_the_smallest_smooth_ones(least: int) -> None:
    def smooth(n: int) -> bool:
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        return n == 1

    assert fft.fast_size(least) == next(n for n in range(least, 2 * least + 1) if smooth(n))


@pytest.fixture(params=["kernels", "torch"])
def transforms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whose transforms the row goes by."""
    if request.param == "torch":
        monkeypatch.setattr(fft, "has_kernels", lambda _: False)
    return str(request.param)


@pytest.mark.parametrize("size", [(70, 131), (300, 40)])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.usefixtures("transforms")
def test_the_transform_in_many_tiles_equals_torch(size: tuple[int, int], stride: int) -> None:
    x, w = randn(2, 2, *size, dtype=torch.float64), randn(3, 2, 7, 5, dtype=torch.float64)
    y = convolve.conv2d(x, w, stride=stride, padding=2, algorithm="fft")
    torch.testing.assert_close(y, F.conv2d(x, w, stride=stride, padding=2))
    y = convolve.conv2d(x, w, stride=stride, dilation=2, algorithm="fft")
    torch.testing.assert_close(y, F.conv2d(x, w, stride=stride, dilation=2))
    signal, taps = randn(1, 1, 5000, dtype=torch.float64), randn(1, 1, 401, dtype=torch.float64)
    torch.testing.assert_close(
        convolve.conv1d(signal, taps, padding=200, algorithm="fft"), F.conv1d(signal, taps, padding=200)
    )


@pytest.mark.usefixtures("transforms")
def test_the_transform_is_float64_and_looks_at_ranges() -> None:
    x, w = randn(1, 1, 90, 110), randn(1, 1, 9, 9)
    x[..., :4, :4] *= 1e5
    exact = F.conv2d(x.double(), w.double(), padding=4)
    y = convolve.conv2d(x, w, padding=4, algorithm="fft")
    far = (..., slice(30, None), slice(30, None))
    assert float((y - exact)[far].abs().max()) <= 2**-23 * float(exact[far].abs().max())
    x[..., 0, 0] = 1e12
    with pytest.raises(DeclinedError, match="its error is global"):
        convolve.conv2d(x, w, padding=4, algorithm="fft")
    x[..., 0, 0] = math.nan
    assert torch.equal(convolve.conv2d(x, w, padding=4, algorithm="fft").isnan(), F.conv2d(x, w, padding=4).isnan())


def test_kernels_of_rank_one_are_found_and_integers_in_them_stay_exact() -> None:
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])[None, None]
    u, v = separable.factors(sobel)
    assert torch.equal(u * v, sobel)
    image = torch.randint(0, 256, (1, 1, 40, 41)).float()
    want = F.conv2d(image, sobel)
    assert torch.equal(convolve.conv2d(image, sobel, algorithm="separable"), want)
    with pytest.raises(DeclinedError, match="not every kernel is of rank one"):
        convolve.conv2d(image, torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None], algorithm="separable")
    assert convolve.conv2d(image, torch.zeros(1, 1, 3, 3), algorithm="separable").abs().sum() == 0
    with pytest.raises(DeclinedError, match="rank one"):
        convolve.conv2d(image, torch.full((1, 1, 3, 3), math.nan), algorithm="separable")
    x, w = randn(2, 4, 13, 12), weight("separable", 6, 2, 4, 3)
    y = convolve.conv2d(x, w, stride=(2, 3), padding=((1, 0), (2, 1)), dilation=(1, 2), groups=2, algorithm="separable")
    torch.testing.assert_close(y, F.conv2d(F.pad(x, (2, 1, 1, 0)), w, None, (2, 3), 0, (1, 2), 2), rtol=1e-4, atol=1e-5)


# --- NaN, Inf and over-range ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["auto", *AUTOMATIC])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_element_touches_exactly_its_window(name: str, value: float) -> None:
    w = weight(name, 3, 2, 3, 3)
    for position in ((0, 0), (7, 9), (15, 14)):
        x = randn(2, 2, 16, 15)
        x[1, 0, position[0], position[1]] = value
        y = convolve.conv2d(x, w, padding=1, algorithm=name)
        want = F.conv2d(x.double(), w.double(), padding=1)
        assert torch.equal(y.isnan(), want.isnan())
        assert torch.equal(y.isinf(), want.isinf())
        touched = (~torch.isfinite(y)).nonzero()
        assert set(touched[:, 0].tolist()) == {1}
        rows = {h for h in range(16) if abs(h - position[0]) <= 1}
        assert set(touched[:, 2].tolist()) == rows
        torch.testing.assert_close(y.nan_to_num(0, 0, 0), want.nan_to_num(0, 0, 0).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["auto", *(name for name in FORWARD if name != "separable")])
def test_bad_weights_and_gradients_spread_as_in_direct_convolution(name: str) -> None:
    x, w = randn(1, 2, 9, 8).requires_grad_(), weight(name, 3, 2, 3, 3)
    w[1, 0, 0, 2] = math.inf
    y = convolve.conv2d(x, w, padding=1, algorithm=name)
    want = F.conv2d(x.double(), w.double(), padding=1)
    assert torch.equal(y.isnan(), want.isnan())  # zero padding times Inf is NaN, at the border
    assert y[0, 0].isfinite().all()
    w[1, 0, 0, 2] = 1.0
    y = convolve.conv2d(x, w, padding=1, algorithm=name)
    g = torch.ones_like(y)
    g[0, 2, 4, 4] = math.nan
    (by_x,) = torch.autograd.grad(y, x, g)
    assert (~by_x.isfinite()).nonzero().tolist() == [
        [0, c, h, i] for c in range(2) for h in (3, 4, 5) for i in (3, 4, 5)
    ]


@pytest.mark.parametrize("name", ["auto", *(name for name in AUTOMATIC if name != "fft")])
def test_inputs_of_1e37_that_direct_convolution_survives_stay_finite(name: str) -> None:
    x, w = randn(1, 2, 16, 16) * 1e37, weight(name, 3, 2, 3, 3)
    y = convolve.conv2d(x, w, padding=1, algorithm=name)
    want = F.conv2d(x.double(), w.double(), padding=1)
    assert want.abs().max() < 3e38
    assert y.isfinite().all()
    torch.testing.assert_close(y.double() / 1e37, want / 1e37, rtol=1e-4, atol=1e-4)


# --- bits -----------------------------------------------------------------------------------------------------------

REPRODUCIBLE = [row.name for row in ALGORITHMS if row.reproducible]


def _roles(x: Tensor, w: Tensor, g: Tensor) -> list[Tensor]:
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    y = convolve.conv2d(x, w, stride=(2, 1), padding=1)
    return [y.detach(), *torch.autograd.grad(y, (x, w), g)]


def test_reproducible_bits_depend_neither_on_the_batch_nor_on_the_threads() -> None:
    assert REPRODUCIBLE == ["planes", "filters", "depthwise", "depthwise_rows", "direct"]
    x, w = randn(5, 16, 20, 19), randn(32, 16, 3, 3)
    g = randn(5, 32, 10, 19)
    before = torch.get_num_threads()
    try:
        with convolve.precision("reproducible"):
            results = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(_roles(x, w, g))
                y, by_x, _ = results[-1]
                for i in range(5):
                    alone, by_alone, _ = _roles(x[i : i + 1], w, g[i : i + 1])
                    assert torch.equal(alone, y[i : i + 1])
                    assert torch.equal(by_alone, by_x[i : i + 1])
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    finally:
        torch.set_num_threads(before)
    (want,) = torch.autograd.grad(F.conv2d(x, w.requires_grad_(), None, (2, 1), 1), w, g)
    torch.testing.assert_close(results[0][2], want, rtol=1e-3, atol=1e-3)


def test_many_threads_at_once_get_what_one_gets() -> None:
    w = randn(8, 4, 3, 3)
    inputs = [randn(1, 4, 9 + i % 5, 11, seed=i) for i in range(32)]
    rows = ["auto", "direct", "im2col", "winograd", "fft"]
    want = [convolve.conv2d(x, w, padding=1, algorithm=rows[i % 5]) for i, x in enumerate(inputs)]
    got: list[Tensor | None] = [None] * 32
    precisions: list[str] = []

    def work(start: int) -> None:
        from convolve.ops.precision import current_precision

        precisions.append(current_precision())
        for i in range(start, 32, 8):
            got[i] = convolve.conv2d(inputs[i], w, padding=1, algorithm=rows[i % 5])

    with convolve.precision("exact"):  # of this thread only
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert precisions == ["default"] * 8
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


# --- the choice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("8x64x28x28 k64 3x3 p1", "winograd"),
        ("1x512x14x14 k512 3x3 p1", "torch"),
        ("4x6x14x14 k16 5x5", "torch"),
        ("8x64x28x28 k64 3x3 p1 weight_gradient", "winograd"),
        ("8x64x28x28 k64 3x3 s2 p1 weight_gradient", "torch"),
        ("1x1x5x5 k1 3x3", "torch"),
        ("1x1x512x512 k1 63x63 p31 bfloat16", "fft"),
        ("1x8x100000 k8 401 p200", "fft"),
        ("1x128x56x56 k128 31x31 g128 p15", "fft"),
        ("1x128x56x56 k128 31x31 g128 p15 input_gradient", "fft"),
        ("1x1x160000 k1 401 p200", "fft"),
        ("1x1x1024x1024 k1 31x31 p15", "fft"),
        ("1x1x1080x1920 k1 3x3 p1", "depthwise_rows"),
        ("1x64x56x56 k64 3x3 p1 cuda", "torch"),
        ("1x1x512x512 k1 63x63 p31 float64 cuda", "torch"),
    ],
)
def test_auto_leaves_the_library_only_where_it_falls_off_its_road(text: str, chosen: str) -> None:
    assert convolve.why(text).chosen == chosen


def test_auto_takes_factors_where_the_values_allow_and_goes_on_where_not() -> None:
    problem = ConvProblem.parse("1x1x128x128 k1 127x127 p63 float64")  # which transforms do not serve unasked
    rows = ranked(problem, "auto", "default")
    assert rows[0].name == "separable"
    x, blur = randn(1, 1, 128, 128).double(), randn(1, 1, 127, 1).double() * randn(1, 1, 1, 127).double()
    assert separable.not_these(problem, x, blur) is None
    torch.testing.assert_close(convolve.conv2d(x, blur, padding=63), F.conv2d(x, blur, padding=63))
    other = randn(1, 1, 127, 127).double()
    assert separable.not_these(problem, x, other) is not None
    torch.testing.assert_close(convolve.conv2d(x, other, padding=63), F.conv2d(x, other, padding=63))


def test_a_precision_block_restricts_the_choice_and_why_says_so() -> None:
    text = "1x1x512x512 k1 63x63 p31"
    assert convolve.why(text).chosen in ("fft", "separable")
    with convolve.precision("exact"):
        why = convolve.why(text)
        assert why.precision == "exact"
        assert ROWS[why.chosen].exact
        with convolve.precision("reproducible"):
            assert ROWS[convolve.why(text).chosen].reproducible
        assert convolve.why(text).precision == "exact"
    assert convolve.why(text).precision == "default"
    reasons = {a.algorithm: a.reason for a in convolve.why(text, "exact").answers}
    assert reasons["fft"] == 'its products are not plain products (convolve.precision("exact"))'
    reasons = {a.algorithm: a.reason for a in convolve.why(text, "reproducible").answers}
    assert reasons["torch"].startswith("not reproducible")
    y = torch.ones(1, 1, 64, 64)
    for name in ("default", "exact", "reproducible"):
        with convolve.precision(name):  # type: ignore[arg-type]
            assert convolve.conv2d(y, torch.ones(1, 1, 63, 63)).unique().tolist() == [3969]


def test_why_prints_every_row_with_its_reason_seconds_and_memory() -> None:
    why = convolve.why("8x64x56x56 k64 3x3 s1 p2 d2")
    assert [a.algorithm for a in why.answers] == [row.name for row in ALGORITHMS]
    text = str(why)
    assert text.splitlines()[0] == "8x64x56x56 k64 3x3 s1 p2 d2 -> 8x64x56x56, 924,844,032 macs"
    assert "it needs dilation 1" in text
    assert f"> {why.chosen} " in text
    assert sum(a.chosen for a in why.answers) == 1
    for answer in why.answers:
        assert (answer.seconds is None) == (answer.bound is None) == (not answer.serves)
        row = ROWS[answer.algorithm]
        reason = why_not(row, why.problem)
        assert answer.serves == (reason is None)
        if reason is None:
            assert answer.seconds == row.cost(served(row, why.problem)).seconds
        else:
            assert answer.reason == reason
    found = json.loads(json.dumps(why.to_json()))
    assert found["chosen"] == why.chosen
    assert found["result"] == [8, 64, 56, 56]
    assert (found["macs"], found["macs_valid"]) == (why.problem.macs, why.problem.macs_valid)
    assert "GiB" in str(convolve.why("8x256x224x224 k256 3x3 p1"))


@pytest.mark.parametrize("role", ROLES)
def test_reasons_are_asked_of_the_problem_as_the_row_would_see_it(role: str) -> None:
    problem = ConvProblem.parse(f"1x4x9x9 k4 3x3 p1 {role}")
    reason = why_not(ROWS["winograd_f6"], problem)
    assert (reason is None) == (role != "weight_gradient")
    assert (
        why_not(ROWS["torch_channels_last"], ConvProblem.parse("1x4x9 k4 3"))
        == "torch knows no channels_last for one axis"
    )
    assert (
        why_not(ROWS["torch"], ConvProblem.parse("1x1x9x9 k1 3x3 int64 cuda"))
        == "torch has no int64 convolution on cuda"
    )
    assert "would hold" in str(why_not(ROWS["matrix"], ConvProblem.parse("1x64x224x224 k64 3x3 p1")))
    assert "above 2^31" in str(why_not(ROWS["torch"], ConvProblem.parse(f"1x1x{2**32} k1 3 s{2**31}")))


def test_the_command_prints_the_table_and_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    from convolve.cli import main

    assert main(["why", "1x8x9x9 k8 3x3 s1 p1"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1x8x9x9 k8 3x3 s1 p1 -> 1x8x9x9, 46,656 macs"
    assert main(["why", "1x8x9x9 k8 3x3 s1 p1", "--precision", "reproducible", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["chosen"]) == ("convolve.why", "planes")
    assert main(["why", "8x64 k3"]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1x4x112x112 k6 1x1 s2", "8x15x56x56 k64 1x1 s3"])
def test_the_library_is_not_asked_where_it_writes_beyond_its_memory(text: str) -> None:
    problem = ConvProblem.parse(f"{text} weight_gradient channels_last")
    for name in ("torch", "torch_channels_last"):
        reason = why_not(ROWS[name], problem)
        assert reason is not None
        assert "6035" in reason
    full = ConvProblem.parse("1x16x112x112 k6 1x1 s2 weight_gradient channels_last")
    assert why_not(ROWS["torch"], full) is None
    assert why_not(ROWS["torch_channels_last"], ConvProblem.parse(f"{text} weight_gradient")) is not None
    # Sixty such gradients by the library alone end the process; a layer of ours is right.
    n, c, h, w = problem.input_shape
    x = randn(n, c, h, w).contiguous(memory_format=torch.channels_last)
    layer = convolve.nn.Conv2d(c, problem.filters, 1, problem.window.stride[0], bias=False)
    layer = layer.to(memory_format=torch.channels_last)
    for _ in range(60):
        layer.zero_grad()
        out = layer(x)
        (out * 0.5).sum().backward()  # a gradient in the output's own layout
    stride = problem.window.stride[0]
    want = 0.5 * x[:, :, ::stride, ::stride].double().sum((0, 2, 3))
    gradient = layer.weight.grad
    assert gradient is not None
    assert (gradient[:, :, 0, 0].double() - want).abs().max() <= 1e-5 * x.double().abs().sum((0, 2, 3)).max()


def test_on_a_processor_that_was_never_measured_another_row_must_be_predicted_half_as_fast_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = costs.processor(), costs.capability()
    for recorded, least in ((here, 1.15), (("another", here[1]), 1.5)):
        table = costs.Fitted(*recorded, {}, {})
        monkeypatch.setattr(costs, "fitted", lambda table=table: table)
        assert costs.margin(1.0, 1.0) == least, "estimates that are sure"
        assert costs.margin(16.0, 1.0) == 2.0, "a quarter of a standard deviation of a factor of sixteen"


@pytest.mark.parametrize("name", ["winograd", "winograd_f6"])
def test_nan_stays_where_it_is_in_rows_that_torchs_operators_compute(name: str) -> None:
    x, w = torch.randn(1, 2, 20), torch.randn(3, 2, 3)  # one axis: no kernels of ours
    x[0, 1, 7] = math.nan
    found = convolve.conv1d(x, w, algorithm=name)
    assert torch.equal(found.isnan(), F.conv1d(x, w).isnan())


@pytest.mark.parametrize("name", ["reference", "matrix", "im2col", "winograd"])
def test_under_autocast_operands_are_cast_once_and_sums_stay_wide(name: str) -> None:
    x, w = torch.randn(2, 64, 12, 12), torch.randn(8, 64, 3, 3)
    wanted = convolve.conv2d(x.bfloat16(), w.bfloat16(), algorithm=name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(convolve.conv2d(x, w, algorithm=name), wanted)
