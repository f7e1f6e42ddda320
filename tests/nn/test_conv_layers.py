"""Our convolution and pooling layers against torch's own: values, gradients, state dicts; and what torch does not have."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import convolve.nn as ours
from convolve.errors import ShapeError, UnknownNameError

CONVS = [
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}, (2, 4, 11)),
    ("Conv2d", (4, 6, (3, 5)), {"stride": (2, 1), "padding": (1, 2), "groups": 2, "bias": False}, (2, 4, 7, 9)),
    ("Conv2d", (3, 5, 4), {"padding": "same", "padding_mode": "reflect"}, (2, 3, 7, 5)),
    ("Conv2d", (3, 5, 3), {"padding": 2, "padding_mode": "circular"}, (3, 7, 5)),
    ("Conv3d", (2, 3, (1, 2, 3)), {"padding": (0, 1, 1)}, (1, 2, 3, 4, 5)),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "output_padding": 1, "groups": 2}, (2, 4, 5)),
    ("ConvTranspose2d", (4, 6, (3, 2)), {"stride": (3, 2), "padding": (1, 0), "output_padding": (2, 1)}, (2, 4, 3, 5)),
    ("ConvTranspose2d", (2, 3, 3), {"stride": 2, "dilation": 2, "bias": False}, (2, 2, 4, 3)),
    ("ConvTranspose3d", (2, 3, 2), {"stride": 2}, (1, 2, 2, 3, 4)),
]
POOLS = [
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, (2, 3, 11)),
    ("MaxPool2d", (3,), {"stride": 2, "ceil_mode": True, "dilation": 2}, (2, 3, 11, 8)),
    ("MaxPool3d", ((2, 1, 3),), {}, (1, 2, 5, 4, 7)),
    ("AvgPool1d", (4,), {"stride": 3, "padding": 2, "count_include_pad": False}, (2, 3, 11)),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 10, 7)),
    ("AvgPool2d", (2,), {"divisor_override": 3}, (2, 3, 5, 4)),
    ("AvgPool3d", (2,), {"padding": 1}, (1, 2, 5, 4, 3)),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 3, 7)),
    ("AdaptiveAvgPool2d", ((3, None),), {}, (2, 3, 7, 5)),
    ("AdaptiveAvgPool3d", (2,), {}, (1, 2, 5, 4, 3)),
    ("AdaptiveMaxPool1d", (3,), {}, (2, 3, 7)),
    ("AdaptiveMaxPool2d", ((2, 3),), {}, (2, 3, 7, 5)),
    ("AdaptiveMaxPool3d", (2,), {}, (1, 2, 5, 4, 3)),
]


def _run(layer: Callable[[Tensor], Tensor], x: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = layer(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), [x, *parameters])]


@pytest.mark.parametrize(("name", "sizes", "options", "shape"), CONVS + POOLS)
def test_a_layer_equals_torchs_in_values_gradients_and_state(
    name: str, sizes: Any, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    theirs = getattr(nn, name)(*sizes, **options).double()
    layer = getattr(ours, name)(*sizes, **options).double()
    assert isinstance(layer, getattr(nn, name))
    layer.load_state_dict(theirs.state_dict())
    assert repr(layer) == repr(theirs)
    x = torch.randn(shape, dtype=torch.float64)
    for a, b in zip(_run(layer, x, list(layer.parameters())), _run(theirs, x, list(theirs.parameters())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_max_pooling_returns_indices_as_torch_does() -> None:
    x = torch.randn(2, 3, 7, 5)
    for a, b in zip(ours.MaxPool2d(3, return_indices=True)(x), nn.MaxPool2d(3, return_indices=True)(x), strict=True):
        assert torch.equal(a, b)


def test_four_sided_padding_and_same_with_stride_equal_a_padded_torch() -> None:
    torch.manual_seed(0)
    layer = ours.Conv2d(3, 4, 3, stride=2, padding=((0, 2), (3, 1))).double()
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    padded = F.conv2d(F.pad(x, (3, 1, 0, 2)), layer.weight, layer.bias, 2)
    torch.testing.assert_close(layer(x), padded, rtol=1e-10, atol=1e-12)
    same = ours.Conv2d(3, 4, 4, stride=3, padding="same").double()
    # 7 -> 3 and 6 -> 2: total padding 3 and 1, the odd one after
    torch.testing.assert_close(
        same(x), F.conv2d(F.pad(x, (0, 1, 1, 2)), same.weight, same.bias, 3), rtol=1e-10, atol=1e-12
    )
    assert same(x).shape == (2, 4, 3, 2)


def test_a_transposed_layer_is_the_adjoint_of_the_layer() -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"stride": 2, "padding": ((0, 1), (2, 1)), "bias": False, "flip_kernel": True}
    forward = ours.Conv2d(3, 4, 3, **options).double()
    backward = ours.ConvTranspose2d(4, 3, 3, **options).double()
    backward.load_state_dict(forward.state_dict())
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    y = torch.randn_like(forward(x))
    left, right = (forward(x) * y).sum(), (x * backward(y, output_size=[7, 6])).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=0)


def test_the_flip_and_the_interleaved_groups_mean_what_they_say() -> None:
    torch.manual_seed(0)
    layer = ours.Conv2d(4, 2, 3, groups=2, group_order="interleaved", flip_kernel=True, algorithm="torch").double()
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    expected = F.conv2d(x[:, [0, 2, 1, 3]], layer.weight.flip(2, 3), layer.bias, groups=2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-12)
    assert repr(layer).endswith("flip_kernel=True, group_order=interleaved, algorithm=torch)")


def test_hooks_copies_pickles_pruning_and_parametrisations_work() -> None:
    layer = ours.Conv2d(2, 3, 3, padding="same", stride=2)
    x = torch.randn(1, 2, 5, 5)
    seen: list[torch.Size] = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    expected = layer(x)
    assert seen == [(1, 3, 3, 3)]
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    plain = ours.Conv2d(2, 3, 3, padding="same", stride=2)
    assert torch.equal(pickle.loads(pickle.dumps(plain))(x), plain(x))
    prune.l1_unstructured(plain, "weight", 0.5)
    torch.testing.assert_close(plain(x), F.conv2d(F.pad(x, (1, 1, 1, 1)), plain.weight, plain.bias, 2))
    assert int((plain.weight == 0).sum()) == 27
    normed = parametrizations.weight_norm(ours.Conv2d(2, 3, 3))
    torch.testing.assert_close(normed(x), F.conv2d(x, normed.weight, normed.bias))


def test_wrong_names_and_sizes_are_explained() -> None:
    with pytest.raises(UnknownNameError, match="unknown padding; got 'smae'; use same"):
        ours.Conv2d(1, 1, 3, padding="smae")
    with pytest.raises(UnknownNameError, match="unknown padding_mode; got 'mirror'"):
        ours.Conv2d(1, 1, 3, padding_mode="mirror")
    with pytest.raises(UnknownNameError, match="unknown group_order"):
        ours.Conv2d(2, 2, 3, groups=2, group_order="mixed")
    with pytest.raises(ShapeError):
        ours.Conv2d(3, 4, 3)(torch.zeros(1, 2, 5, 5))
