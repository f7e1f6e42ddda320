"""The rows of the named kernels: what they answer to, how they are joined, and the rules of their numbers."""

from __future__ import annotations

import pytest
import torch

import convolve
from convolve.errors import UnknownNameError
from convolve.ops.named_kernels import gabor, named_kernel, named_kernels


def line(direction: str) -> torch.Tensor:
    """A white line through the middle of a black map of 5 x 5."""
    x = torch.zeros(5, 5)
    places = {
        "horizontal": [(2, i) for i in range(5)],
        "vertical": [(i, 2) for i in range(5)],
        "rising": [(4 - i, i) for i in range(5)],
        "falling": [(i, i) for i in range(5)],
    }[direction]
    for place in places:
        x[place] = 1
    return x


@pytest.mark.parametrize("direction", ["horizontal", "vertical", "rising", "falling"])
def test_an_edge_kernel_answers_most_to_the_line_it_is_named_after(direction: str) -> None:
    middle = {
        name: convolve.corr2d(line(name), named_kernel(f"edge-{direction}").kernels[0])[1, 1].item()
        for name in ("horizontal", "vertical", "rising", "falling")
    }
    assert max(middle, key=middle.__getitem__) == direction
    assert middle.pop(direction) == 6
    assert set(middle.values()) == {0}
    assert f"edge-{direction}" in named_kernels()


def test_emboss_is_lit_from_the_lower_right_and_keeps_flat_areas() -> None:
    kernel = named_kernel("emboss").kernels[0]
    brighter_down, brighter_right = torch.arange(3.0)[:, None].expand(3, 3), torch.arange(3.0).expand(3, 3)
    for ramp in (brighter_down, brighter_right):
        assert convolve.corr2d(ramp, kernel).item() > ramp[1, 1]
        assert convolve.corr2d(-ramp, kernel).item() < -ramp[1, 1]
    assert convolve.corr2d(torch.ones(3, 3), kernel).item() == 1
    assert torch.equal(kernel, kernel.T)


def test_the_identity_gives_the_picture_and_the_box_the_mean_of_25_pixels() -> None:
    x = torch.randn(7, 7)
    assert convolve.corr2d(x, named_kernel("identity").kernels[0]).equal(x[1:-1, 1:-1])
    torch.testing.assert_close(convolve.corr2d(x, named_kernel("box").kernels[0])[1, 1], x[1:6, 1:6].mean())


@pytest.mark.parametrize("name", ["sobel", "prewitt", "scharr"])
def test_a_gradient_joins_its_two_directions_by_their_length(name: str) -> None:
    both = named_kernel(name)
    parts = [named_kernel(f"{name}-{axis}").kernels[0] for axis in "xy"]
    assert both.kernels.equal(torch.stack(parts))
    assert both.join == "magnitude"
    right = torch.arange(3.0).expand(3, 3)
    assert convolve.corr2d(right, parts[0]).item() > 0 == convolve.corr2d(right, parts[1]).item()
    assert convolve.corr2d(right.T, parts[1]).item() > 0 == convolve.corr2d(right.T, parts[0]).item()
    assert both.signed


def test_the_gabor_bank_is_the_strongest_of_its_four_rows() -> None:
    bank = named_kernel("gabor")
    assert bank.join == "strongest"
    assert bank.kernels.equal(torch.cat([named_kernel(f"gabor-{angle}").kernels for angle in (0, 45, 90, 135)]))
    for angle, kernel in zip((0, 45, 90, 135), bank.kernels, strict=True):
        assert kernel.equal(gabor(angle))
        torch.testing.assert_close(kernel.abs().sum(), torch.tensor(2.0))
        torch.testing.assert_close(kernel.sum(), torch.tensor(0.0), atol=1e-6, rtol=0)
        assert named_kernel(f"gabor-{angle}").symmetric
        assert kernel[6, 6] == kernel.max()  # even: the wave has its crest in the middle


@pytest.mark.parametrize("name", ["identity", "box", "gaussian", "sharpen", "emboss"])
def test_pictures_stay_as_bright_under_the_unsigned_rows(name: str) -> None:
    row = named_kernel(name)
    assert not row.signed
    torch.testing.assert_close(row.kernels.sum(), torch.tensor(1.0))
    assert row.join == "one"


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown filter; got 'sobl'; use sobel"):
        named_kernel("sobl")
