"""The layers that torch lacks, each against sums written out by hand or torch's parts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import convolve.nn as layers
from convolve.errors import ShapeError, UsageError


def _double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_table_of_lenet5_connects_as_table_i_of_the_paper() -> None:
    """By rows of the paper's table (maps of S2) and by the sentences around it."""
    table = layers.LENET5_TABLE
    rows = ["".join("X" if s2 in maps else "." for maps in table) for s2 in range(6)]
    assert rows == [
        "X...XXX..XXXX.XX",
        "XX...XXX..XXXX.X",
        "XXX...XXX..X.XXX",
        ".XXX..XXXX..X.XX",
        "..XXX..XXXX.XX.X",
        "...XXX..XXXX.XXX",
    ]
    assert [len(maps) for maps in table] == [3] * 6 + [4] * 9 + [6]
    assert all(sorted((start + i) % 6 for i in range(3)) == list(table[start]) for start in range(6))


def test_a_table_convolution_is_the_sum_over_the_connected_maps() -> None:
    torch.manual_seed(0)
    layer = layers.TableConv2d(3, ((0,), (0, 2), (2, 1)), 3, padding=1).double()
    x = _double(2, 3, 5, 4).requires_grad_()
    kernels = iter(layer.weight)
    maps = []
    for output, sources in enumerate(((0,), (0, 2), (2, 1))):
        total = layer.bias[output]
        for source in sources:
            total = total + F.conv2d(x[:, source : source + 1], next(kernels)[None, None], padding=1)
        maps.append(total)
    expected = torch.cat(maps, 1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    weights = _double(2, 3, 5, 4, seed=1)
    ours = torch.autograd.grad((layer(x) * weights).sum(), [x, layer.weight, layer.bias])
    theirs = torch.autograd.grad((expected * weights).sum(), [x, layer.weight, layer.bias])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("table", [((),), ((0, 0),), ((3,),)])
def test_a_wrong_connection_table_is_refused(table: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(UsageError, match="a row of a connection table names different maps of 0 to 2"):
        layers.TableConv2d(3, table, 3)


@pytest.mark.parametrize(("mode", "reduce"), [("sum", torch.sum), ("avg", torch.mean), ("max", torch.amax)])
def test_subsampling_scales_and_shifts_each_window(mode: str, reduce: object) -> None:
    layer = layers.TrainableSubsampling(2, 2, mode=mode).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -2.0]))
        layer.bias.copy_(torch.tensor([1.0, 3.0]))
    x = _double(3, 2, 5, 4)
    out = layer(x)
    assert out.shape == (3, 2, 2, 2)
    for n, c, p, q in ((0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 0)):
        window = x[n, c, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2]
        expected = reduce(window) * layer.weight[c] + layer.bias[c]  # type: ignore[operator]
        torch.testing.assert_close(out[n, c, p, q], expected)
    assert torch.autograd.gradcheck(layer, (x[:1].clone().requires_grad_(),))


def test_subsampling_refuses_other_channels() -> None:
    with pytest.raises(ShapeError, match="made for 2 channels; got 3"):
        layers.TrainableSubsampling(2)(torch.zeros(1, 3, 4, 4))


def test_rbf_distances_are_the_sums_of_squares_and_the_prototypes_stay() -> None:
    prototypes = _double(4, 7, seed=1)
    rbf = layers.EuclideanRBF(prototypes)
    x = _double(5, 7)
    expected = torch.tensor(
        [[sum((x[n, j] - prototypes[i, j]) ** 2 for j in range(7)) for i in range(4)] for n in range(5)]
    )
    torch.testing.assert_close(rbf(x), expected.double())
    assert list(rbf.parameters()) == []
    assert list(rbf.state_dict()) == ["prototypes"]
    assert [p.shape for p in layers.EuclideanRBF(prototypes, trainable=True).parameters()] == [(4, 7)]
    assert torch.autograd.gradcheck(rbf, (x.requires_grad_(),))
    with pytest.raises(ShapeError, match=r"takes \(n, 7\)"):
        rbf(torch.zeros(2, 8))


def test_the_map_loss_is_equation_9_of_the_paper() -> None:
    distances, targets, j = _double(6, 4).square() * 5, torch.tensor([0, 3, 1, 1, 2, 0]), 0.7
    total = 0.0
    for y, right in zip(distances.tolist(), targets.tolist(), strict=True):
        total += y[right] + math.log(math.exp(-j) + sum(math.exp(-each) for each in y))
    loss = layers.MAPLoss(j)(distances, targets)
    assert loss.item() == pytest.approx(total / 6, rel=1e-12)
    # with e^-j gone it is the cross-entropy of the negated distances; far distances do not overflow
    torch.testing.assert_close(layers.MAPLoss(1e4)(distances, targets), F.cross_entropy(-distances, targets))
    assert layers.MAPLoss(j)(torch.tensor([[1e4, 2e4]]), torch.tensor([0])).item() == pytest.approx(1e4 - j)
    assert torch.autograd.gradcheck(lambda y: layers.MAPLoss(j)(y, targets), (distances.requires_grad_(),))


def test_the_bitmaps_are_ten_different_pictures_of_ink_and_paper() -> None:
    bitmaps = layers.digit_bitmaps()
    assert bitmaps.shape == (10, 84)
    assert set(bitmaps.unique().tolist()) == {-1.0, 1.0}
    apart = torch.cdist(bitmaps, bitmaps).square() / 4  # in cells
    # 7 and 1 differ least of most pairs; no two digits share less than a handful of cells
    assert apart[~torch.eye(10, dtype=torch.bool)].min() >= 8
    pictures = bitmaps.view(10, 12, 7)
    for digit in (0, 8):  # symmetric glyphs
        assert torch.equal(pictures[digit], pictures[digit].flip(1))
    assert (pictures[:, 10:] == -1).all(dim=(1, 2)).tolist() == [digit != 4 for digit in range(10)]  # only 4 descends


def test_scaled_tanh_reaches_one_at_one_with_its_greatest_curvature_there() -> None:
    f = layers.ScaledTanh().double()
    assert f(torch.tensor([1.0, -1.0], dtype=torch.float64)).tolist() == pytest.approx([1, -1], abs=1e-4)
    x = torch.linspace(0.2, 3, 2801, dtype=torch.float64)
    second = f(x[2:]) - 2 * f(x[1:-1]) + f(x[:-2])
    assert x[1 + second.abs().argmax()].item() == pytest.approx(1, abs=0.05)


def test_local_response_normalisation_divides_by_the_papers_sum() -> None:
    layer = layers.LocalResponseNorm(5, alpha=0.3, beta=0.75, k=2.0)
    a = _double(2, 7, 3, 2)
    out = layer(a)
    for i in range(7):
        squares = sum(a[:, j] ** 2 for j in range(max(0, i - 2), min(6, i + 2) + 1))
        torch.testing.assert_close(out[:, i], a[:, i] / (2 + 0.3 * squares) ** 0.75)
    assert torch.autograd.gradcheck(layer, (a[:1].clone().requires_grad_(),))
    with pytest.raises(UsageError, match="size must be odd"):
        layers.LocalResponseNorm(4)


def test_a_locally_connected_layer_has_filters_of_its_own_at_each_position() -> None:
    torch.manual_seed(0)
    layer = layers.LocallyConnected2d(2, 3, (5, 6), (3, 2), stride=(2, 1), padding=(1, 0)).double()
    x = _double(2, 2, 5, 6).requires_grad_()
    out = layer(x)
    padded = F.pad(x, (0, 0, 1, 1))
    assert out.shape == (2, 3, 3, 5)
    for p in range(3):
        for q in range(5):
            window = padded[:, :, 2 * p : 2 * p + 3, q : q + 2].reshape(2, -1)
            torch.testing.assert_close(out[:, :, p, q], window @ layer.weight[p * 5 + q].T + layer.bias[:, p, q])
    assert torch.autograd.gradcheck(layer, (x[:1].detach().requires_grad_(),))


def test_weight_sharing_saves_what_the_text_says() -> None:
    local = layers.LocallyConnected2d(3, 64, (6, 6), 3, stride=2, bias=False)
    shared = layers.Conv2d(3, 64, 3, stride=2, bias=False)
    full = torch.nn.Linear(3 * 6 * 6, 64 * 2 * 2, bias=False)
    assert [sum(p.numel() for p in m.parameters()) for m in (full, local, shared)] == [27_648, 6_912, 1_728]
    # with every position's filters set to the same, it is the convolution
    with torch.no_grad():
        local.weight.copy_(shared.weight.view(1, 64, 27).expand(4, 64, 27))
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(local(x), shared(x))


def test_local_layers_refuse_another_size() -> None:
    with pytest.raises(ShapeError, match=r"takes \(n, 2, 5, 6\)"):
        layers.LocallyConnected2d(2, 3, (5, 6), 3)(torch.zeros(1, 2, 5, 5))
    with pytest.raises(ShapeError, match="must fit its input"):
        layers.LocallyConnected2d(2, 3, (2, 6), 3)


def test_depthwise_then_pointwise_is_the_product_of_their_kernels() -> None:
    torch.manual_seed(0)
    layer = layers.DepthwiseSeparableConv2d(3, 5, 3, multiplier=2, padding=1, bias=False).double()
    x = _double(2, 3, 5, 4)
    depthwise, pointwise = layer.depthwise.weight, layer.pointwise.weight  # (6, 1, 3, 3), (5, 6, 1, 1)
    whole = torch.einsum("kcm,cmrs->kcrs", pointwise.view(5, 3, 2), depthwise.view(3, 2, 3, 3))
    torch.testing.assert_close(layer(x), F.conv2d(x, whole, padding=1), rtol=1e-12, atol=1e-12)


def test_pointwise_is_a_matrix_at_every_pixel() -> None:
    layer = layers.PointwiseConv2d(3, 2, bias=False).double()
    x = _double(1, 3, 3, 3)
    expected = (layer.weight.view(2, 3) @ x.view(3, 9)).view(1, 2, 3, 3)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_the_shuffle_deals_round_robin_and_undoes_itself(groups: int) -> None:
    x = _double(2, 6, 3, 2)
    shuffled = layers.ChannelShuffle(groups)(x)
    for channel in range(6):
        group, place = divmod(channel, 6 // groups)
        assert torch.equal(shuffled[:, place * groups + group], x[:, channel])
    assert torch.equal(layers.ChannelShuffle(6 // groups)(shuffled), x)


def test_the_shuffle_refuses_groups_that_do_not_divide() -> None:
    with pytest.raises(ShapeError, match="groups must divide the channels"):
        layers.ChannelShuffle(4)(torch.zeros(1, 6, 2, 2))


def test_inception_without_reductions_costs_what_the_paper_avoids() -> None:
    """Claim S001-15: block 3a has 163,328 weights; its windows on all 192 maps would take 387,072 for 416 maps."""
    block = layers.Inception(192, layers.InceptionWidths(64, 96, 128, 16, 32, 32))
    assert sum(p.numel() for p in block.parameters() if p.dim() == 4) == 163_328
    naive = 192 * (64 + 128 * 9 + 32 * 25)
    assert (naive, 64 + 128 + 32 + 192) == (387_072, 416)


def test_residual_blocks_say_what_they_cannot_add() -> None:
    with pytest.raises(UsageError, match="keeps its channels"):
        layers.ShuffleUnit(24, 48, groups=3)
    with pytest.raises(UsageError, match="at least one convolution"):
        layers.VGGBlock(0, 3, 4)
