"""ops/resample.py: pictures read at other places, against torch's grid_sample in float64 and against slices, between guard pages."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from convolve.ops import resample as module
from convolve.ops.resample import resample, shifted
from guard_pages import guarded_like

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

# images, channels, (h, w): odd sizes, single rows, columns and pixels; the last is divided among threads
SHAPES = [
    (1, 1, (1, 1)),
    (3, 1, (1, 7)),
    (2, 3, (5, 1)),
    (5, 1, (7, 11)),
    (4, 3, (13, 5)),
    (2, 2, (2, 2)),
    (9, 3, (23, 17)),
]


def maps_of(n: int, h: int, w: int, degrees: float = 180, size: float = 0.9, shift: float = 0.7) -> np.ndarray:
    """Turned by anything, three times as large or a tenth as large, shifted by most of a side."""
    chance = np.random.default_rng(n * h * w)
    angle = np.radians(chance.uniform(-degrees, degrees, n))
    scale = 1 + chance.uniform(-size, size, n)
    right, down = chance.uniform(-shift * w, shift * w, n), chance.uniform(-shift * h, shift * h, n)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, right], [sine, cosine, down]]).transpose(2, 0, 1)


def places(maps: np.ndarray, h: int, w: int) -> tuple[Tensor, Tensor]:
    """(x, y) of each output pixel in the source, from its centre, float64 [n, h, w]: the definition, point by point."""
    x, y = np.meshgrid(np.arange(w) - (w - 1) / 2, np.arange(h) - (h - 1) / 2)
    ones = np.stack([x, y, np.ones_like(x)], -1)
    found = torch.from_numpy(np.einsum("nab,hwb->nahw", maps, ones))
    return found[:, 0], found[:, 1]


def expected_of(images: Tensor, maps: np.ndarray) -> Tensor:
    _, _, h, w = images.shape
    x, y = places(maps, h, w)
    grid = torch.stack((x * (2 / w), y * (2 / h)), -1)
    return F.grid_sample(images.double(), grid, mode="bilinear", padding_mode="border", align_corners=False)


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_turned_picture_equals_grid_sample_in_float64_between_guard_pages(
    shape: tuple[int, int, tuple[int, int]], dtype: torch.dtype, at_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, c, (h, w) = shape
    images, maps = torch.rand(n, c, h, w, dtype=dtype) * 2 - 1, maps_of(n, h, w)
    expected = expected_of(images, maps)
    # Three steps between two values, each rounded twice; and a place of some sizes of the picture, where a pixel's slope is 2 at most.
    eps, double = torch.finfo(dtype).eps, torch.finfo(torch.float64).eps
    bound = 6 * eps + 2 * 8 * (h + w) * double
    monkeypatch.setattr(module.torch, "empty_like", lambda x: guarded_like(x, at_end))
    for layout in (torch.contiguous_format, torch.channels_last):
        given = guarded_like(images.contiguous(memory_format=layout), at_end)
        assert given.stride() == images.contiguous(memory_format=layout).stride()
        assert (resample(given, maps).double() - expected).abs().max().item() <= bound


def test_pictures_without_a_turn_and_plain_pictures_stay_as_they_are() -> None:
    images = torch.rand(3, 2, 7, 11)
    assert torch.equal(resample(images, np.tile(np.eye(3)[:2], (3, 1, 1))), images)
    plain = torch.full((50, 1, 9, 6), 0.7)
    assert torch.equal(resample(plain, maps_of(50, 9, 6)), plain)


def test_memory_of_any_strides_is_read_and_dense_layouts_are_kept() -> None:
    wide, maps = torch.rand(3, 4, 10, 14), maps_of(3, 5, 7)
    images = wide[:, 1:4, ::2, 1::2]
    assert torch.equal(resample(images, maps), resample(images.contiguous(), maps))
    one = torch.rand(1, 3, 5, 7)
    assert torch.equal(resample(one.expand(3, 3, 5, 7), maps), resample(one.repeat(3, 1, 1, 1), maps))
    last = images.contiguous(memory_format=torch.channels_last)
    result = resample(last, maps)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, resample(images.contiguous(), maps))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_pixel_that_is_not_finite_spreads_to_the_pixels_that_read_it(value: float) -> None:
    images, maps = torch.rand(40, 2, 9, 7), maps_of(40, 9, 7)
    images[:, :, 2, 4] = value
    images[:, 1, 8, 6] = value  # in a corner, which the border repeats
    expected = expected_of(images, maps).isfinite()
    x, y = places(maps, 9, 7)
    # A place on a whole number to within rounding reads its neighbour or does not: not asked.
    apart = (((x + 3) - (x + 3).round()).abs() > 1e-9) & (((y + 4) - (y + 4).round()).abs() > 1e-9)
    assert 0.01 < (~expected).double().mean() < 0.9
    assert torch.equal(resample(images, maps).isfinite() & apart[:, None], expected & apart[:, None])


def test_places_that_are_nowhere_read_the_border_and_never_beyond_it() -> None:
    image = guarded_like(torch.rand(1, 1, 5, 7))
    for far in (1e300, -1e300, math.inf, -math.inf, 2.0**63, math.nan):
        result = resample(image, np.array([[[1.0, 0, far], [0, 1.0, far]]]))
        corner = image[0, 0, -1, -1] if far > 0 else image[0, 0, 0, 0]
        assert (result == corner).all()


def test_no_pictures_give_no_pictures() -> None:
    for shape in ((0, 3, 5, 7), (2, 0, 5, 7), (2, 3, 0, 7)):
        assert resample(torch.empty(shape), maps_of(shape[0], 5, 7)).shape == shape
        assert shifted(torch.empty(shape), np.zeros((shape[0], 3), np.int64)).shape == shape


def test_a_picture_has_the_same_bits_in_any_batch_on_any_number_of_threads() -> None:
    images, maps = torch.rand(41, 3, 19, 23), maps_of(41, 19, 23)
    moves = np.random.default_rng(0).integers(-3, 4, (41, 3))
    threads = torch.get_num_threads()
    together: dict[int, tuple[Tensor, Tensor]] = {}
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            together[count] = resample(images, maps), shifted(images, moves)
            for part in (slice(0, 1), slice(3, 20), slice(40, 41)):
                assert torch.equal(resample(images[part], maps[part]), together[1][0][part])
                assert torch.equal(shifted(images[part], moves[part]), together[1][1][part])
    finally:
        torch.set_num_threads(threads)
    for found in together.values():
        assert torch.equal(found[0], together[1][0])
        assert torch.equal(found[1], together[1][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shifted_picture_equals_slices_of_the_padded_one_bit_for_bit(
    shape: tuple[int, int, tuple[int, int]], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, c, (h, w) = shape
    images = torch.rand(n, c, h, w).to(dtype)
    images[:, :, 0, 0] = math.nan
    moves = np.random.default_rng(h * w).integers([-h - 2, -w - 2, 0], [h + 3, w + 3, 2], (n, 3))
    monkeypatch.setattr(module.torch, "empty_like", guarded_like)
    for given in (guarded_like(images), images.contiguous(memory_format=torch.channels_last)):
        result = shifted(given, moves)
        for i, (down, right, mirrored) in enumerate(moves):
            source = images[i].flip(2) if mirrored else images[i]
            rows = torch.from_numpy(np.pad(np.arange(h), h + 2, mode="edge"))[h + 2 + down :][:h]
            columns = torch.from_numpy(np.pad(np.arange(w), w + 2, mode="edge"))[w + 2 + right :][:w]
            assert torch.equal(result[i].nan_to_num(7), source[:, rows][:, :, columns].nan_to_num(7))


def test_where_no_kernel_serves_torch_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images, maps = torch.rand(6, 3, 9, 7), maps_of(6, 9, 7, degrees=20, size=0.2, shift=0.1)
    moves = np.random.default_rng(1).integers(-3, 4, (6, 3))
    by_kernel = resample(images, maps), shifted(images, moves)
    learned = images.clone().requires_grad_()
    torch.autograd.backward(resample(learned, maps).sum() + shifted(learned, moves).sum())
    assert learned.grad is not None
    assert learned.grad.sum().item() == pytest.approx(2 * images.numel(), rel=1e-5)  # weights of a place sum to 1
    monkeypatch.setattr(module, "why_no_kernels", lambda: "none here")
    assert torch.allclose(resample(images, maps), by_kernel[0], atol=1e-5)
    assert torch.equal(shifted(images, moves), by_kernel[1])
    assert torch.allclose(resample(images.bfloat16(), maps).float(), by_kernel[0], atol=0.1)
    assert resample(images[:0], maps[:0]).shape == (0, 3, 9, 7)


def _digest() -> str:
    chance = torch.Generator().manual_seed(3)
    return hashlib.sha256(
        resample(torch.rand(4, 3, 9, 7, generator=chance), maps_of(4, 9, 7)).numpy().tobytes()
    ).hexdigest()


def test_another_processors_code_gives_the_same_bits() -> None:
    environment = {**os.environ, "NUMBA_CPU_NAME": "haswell", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", "from test_resample import _digest; print(_digest())"]
    directory = os.path.dirname(__file__)
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == _digest(), done.stderr
