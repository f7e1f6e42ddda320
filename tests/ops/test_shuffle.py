"""Channel and pixel shuffles against torch, against a count by hand, and as inverses of each other."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import convolve
from convolve.errors import ShapeError, UsageError


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_channel_shuffle_is_torchs_and_undone_by_the_other_factor(groups: int) -> None:
    x = torch.randn(2, 6, 3, 5, requires_grad=True)
    shuffled = convolve.channel_shuffle(x, groups)
    assert shuffled.equal(F.channel_shuffle(x, groups))
    assert convolve.channel_shuffle(shuffled, 6 // groups).equal(x)
    assert convolve.channel_shuffle(x[0], groups).equal(shuffled[0])
    for i, j in itertools.product(range(groups), range(6 // groups)):
        assert shuffled[:, j * groups + i].equal(x[:, i * (6 // groups) + j])
    weights = torch.randn_like(x)
    (gradient,) = torch.autograd.grad(shuffled, x, weights)
    assert gradient.equal(convolve.channel_shuffle(weights, 6 // groups))


def test_interleaved_groups_are_a_shuffle_before_contiguous_ones() -> None:
    x, w = torch.randn(1, 4, 5, 5), torch.randn(2, 2, 3, 3)
    interleaved = convolve.conv2d(x, w, groups=2, group_order="interleaved")
    torch.testing.assert_close(interleaved, F.conv2d(F.channel_shuffle(x, 2), w, groups=2))


@pytest.mark.parametrize("shape", [(4, 2, 3), (2, 8, 3, 1), (2, 3, 12, 5, 4), (0, 4, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_pixel_shuffle_is_torchs_in_two_axes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randint(0, 2, shape).to(dtype)
    up = convolve.pixel_shuffle(x, 2)
    assert up.equal(F.pixel_shuffle(x, 2))
    assert convolve.pixel_unshuffle(up, 2).equal(x)
    if x.numel():  # torch 2.13 gives an empty batch the wrong shape, silently
        assert F.pixel_unshuffle(up, 2).equal(x)


@pytest.mark.parametrize(("axes", "factor"), [(1, 3), (2, (3, 2)), (3, (2, 1, 3)), (3, 2)])
def test_pixel_shuffle_places_every_element_by_the_formula(axes: int, factor) -> None:
    factors = (factor,) * axes if isinstance(factor, int) else factor
    size = (2, 3, 2)[:axes]
    block = torch.tensor(factors).prod().item()
    x = torch.arange(2 * block * torch.tensor(size).prod().item()).reshape(2 * block, *size)
    up = convolve.pixel_shuffle(x, factor, axes=axes)
    for c, *place in itertools.product(range(2), *(range(n * r) for n, r in zip(size, factors, strict=True))):
        tap = 0
        for i, r in zip(place, factors, strict=True):
            tap = tap * r + i % r
        assert up[(c, *place)] == x[(c * block + tap, *(i // r for i, r in zip(place, factors, strict=True)))]
    assert convolve.pixel_unshuffle(up, factor, axes=axes).equal(x)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_shuffles_pass_through_vmap_jvp_and_compile() -> None:
    x = torch.randn(3, 2, 8, 4, 6)
    torch._dynamo.reset()
    for operator in (
        lambda x: convolve.channel_shuffle(x, 4),
        lambda x: convolve.pixel_shuffle(x, 2),
        lambda x: convolve.pixel_unshuffle(x, 2),
    ):
        expected = torch.stack([operator(one) for one in x])
        assert torch.func.vmap(operator)(x).equal(expected)
        assert torch.func.jvp(operator, (x[0],), (x[1],))[1].equal(expected[1])
        assert torch.compile(operator, fullgraph=True, backend="aot_eager")(x[0]).equal(expected[0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda x: convolve.channel_shuffle(x, 4),
            "groups must divide the channels; got 6 channels, groups=4; use 1, 2, 3, 6",
        ),
        (lambda x: convolve.channel_shuffle(x, 0), "groups must be at least 1"),
        (lambda x: convolve.channel_shuffle(x[0, 0], 2), "takes"),
        (lambda x: convolve.pixel_shuffle(x, 2), "channels must be a multiple of 4; got 6"),
        (lambda x: convolve.pixel_unshuffle(x, 2), "size must be a multiple of downscale_factor"),
        (lambda x: convolve.pixel_shuffle(x, 0), "upscale_factor must be at least 1"),
        (lambda x: convolve.pixel_shuffle(x, 2, axes=7), "needs at least 8 axes"),
        (lambda x: convolve.pixel_shuffle(x, 2, axes=0), "needs at least"),
        (lambda x: convolve.pixel_unshuffle(x[0, 0], 1, axes=2), "needs at least 3 axes"),
        (lambda x: convolve.pixel_unshuffle(x, (3, 2)), "size must be a multiple of downscale_factor"),
    ],
)
def test_bad_arguments_are_refused_in_words(call, words: str) -> None:
    with pytest.raises((ShapeError, UsageError), match=words):
        call(torch.zeros(1, 6, 3, 5))
