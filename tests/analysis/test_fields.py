"""Receptive fields: the edge cases that break other tools, each with its answer by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convolve
from convolve.analysis.report import Report
from convolve.analysis.sets import influences


def chain(*layers: nn.Module, size: str = "1x80x80") -> Report:
    return convolve.inspect(nn.Sequential(*layers), size)


def conv(k: int = 3, d: int = 1, s: int = 1, p: int = 0) -> nn.Conv2d:
    return nn.Conv2d(1, 1, k, s, p, d)


@pytest.mark.parametrize(
    ("dilations", "hull", "seen"),
    [
        ([1, 2, 5], 17, 17),
        ([1, 2, 9], 25, 21),
        ([2, 2, 2], 13, 7),
        ([1, 2, 3], 13, 13),
        ([2, 4, 8], 29, 15),
        ([1, 2, 4, 8], 31, 31),
        ([1, 1, 2, 4, 8, 16, 1], 67, 67),
    ],
)
def test_dilations_leave_the_holes_that_they_leave(dilations: list[int], hull: int, seen: int) -> None:
    axis = chain(*(conv(3, d) for d in dilations)).rows[-1].fields[0].axes[0]
    assert (axis.size, axis.seen) == (hull, seen)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a1, self.a2 = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.b1, self.b2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(4, 2, 2, 2)
        self.c1, self.c2 = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a2(self.a1(x))
        y = self.up(self.b2(self.b1(F.max_pool2d(x, 2))))
        return self.c2(self.c1(torch.cat([x, y], 1)))


def test_a_u_net_is_periodic_and_not_centred() -> None:
    report = convolve.inspect(UNet(), "1x64x64")
    axis = report.row("c2").fields[0].axes[0]
    assert (axis.size, axis.stride, axis.start) == (18, 1, -8)
    field = report.field("c2")
    reach = field.terms[0].factors[0].reach
    assert [reach.far(j).hull for j in (0, 1, 2, 3)] == [(-8, 9), (-8, 9), (-6, 11), (-6, 11)]


def test_borders_are_clipped_at_every_layer_and_not_once() -> None:
    report = chain(conv(5), conv(1, p=1), size="1x9x9")
    assert convolve.receptive_field(report, "1", (0, 0)).inputs[0].count == 0
    assert convolve.receptive_field(report, "1", (1, 1)).inputs[0].hull == ((0, 4), (0, 4))


def test_cropping_then_padding_does_not_bring_the_pixels_back() -> None:
    class Crop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(F.pad(x, (-2, 0, 0, 0)), (2, 0, 0, 0))

    report = convolve.inspect(Crop(), "1x5x6")
    name = report.rows[-1].name
    assert [convolve.receptive_field(report, name, (0, j)).inputs[0].count for j in range(6)] == [0, 0, 1, 1, 1, 1]


def test_the_last_row_and_column_of_alexnet_v2_at_224_are_never_seen() -> None:
    report = chain(nn.Conv2d(1, 1, 11, 4), nn.MaxPool2d(3, 2), size="1x224x224")
    said = {lint.kind: lint.says for lint in report.lints}
    # (224 - 11) mod 4 = 1 position is lost by the convolution; 54 -> 26 loses another
    assert "the last 1 of 224 positions" in said["dropped"] or "dropped" in said
    assert [lint.says for lint in report.lints if lint.kind == "unseen"] == [
        "no output sees 5 of its 224 rows: 219, 220, 221, 222, 223",
        "no output sees 5 of its 224 columns: 219, 220, 221, 222, 223",
    ]


def test_a_strided_shortcut_has_holes_that_the_main_branch_fills() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = nn.Sequential(nn.Conv2d(1, 1, 3, 2, 1), nn.Conv2d(1, 1, 3, 1, 1))
            self.short = nn.Conv2d(1, 1, 1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.main(x) + self.short(x)

    report = convolve.inspect(Block(), "1x16x16")
    short = report.row("short").fields[0].axes[0]
    assert (short.size, short.stride) == (1, 2)
    assert set(_unseen_rows(report, "short")) == set(range(1, 16, 2))
    joined = report.row("add").fields[0]
    assert (joined.axes[0].size, joined.axes[0].seen, joined.terms, joined.misaligned) == (7, 7, 1, False)


def _unseen_rows(report: Report, layer: str) -> list[int]:
    rows = {pixel[0] for j in range(report.row(layer).output[2]) for pixel in _pixels(report, layer, (j, 0))}
    return [row for row in range(report.inputs[0][1][2]) if row not in rows]


def _pixels(report: Report, layer: str, index: tuple[int, ...]) -> frozenset[tuple[int, ...]]:
    return convolve.receptive_field(report, layer, index).inputs[0].pixels


@pytest.mark.parametrize(
    ("k", "s", "d", "sizes"),
    [
        (2, 2, 1, [1, 1]),
        (3, 2, 1, [2, 1]),
        (4, 2, 1, [2, 2]),
        (5, 3, 1, [2, 2, 1]),
        (1, 2, 1, [1, 0]),
        (3, 2, 2, [3, 0]),
    ],
)
def test_a_transposed_convolution_has_phases(k: int, s: int, d: int, sizes: list[int]) -> None:
    report = convolve.inspect(nn.ConvTranspose2d(1, 1, k, s, dilation=d), "1x9x9")
    reach = report.field("conv_transpose2d").terms[0].factors[0].reach
    assert reach.sets is not None
    assert [part.mask.bit_count() for part in reach.sets] == sizes
    assert reach.stride == Fraction(1, s)


def test_adaptive_pooling_from_13_to_6_alternates() -> None:
    report = convolve.inspect(nn.AdaptiveAvgPool2d(6), "1x13x13")
    seen = [convolve.receptive_field(report, "adaptive_avg_pool2d", (j, 0)).inputs[0].hull[0] for j in range(6)]
    assert seen == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]


def test_an_even_kernel_is_centred_between_pixels() -> None:
    axis = chain(nn.Conv2d(1, 1, 2, padding=1), size="1x8x8").rows[0].fields[0].axes[0]
    assert (axis.size, axis.start, axis.centre) == (2, -1, Fraction(-1, 2))


def test_a_cross_of_1x3_and_3x1_is_two_products_and_not_their_square() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.tall = nn.Conv2d(1, 1, (1, 3), padding=(0, 1)), nn.Conv2d(1, 1, (3, 1), padding=(1, 0))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.wide(x), self.tall(x)], 1)

    report = convolve.inspect(Cross(), "1x7x7")
    seen = convolve.receptive_field(report, "cat", (3, 3)).inputs[0]
    assert seen.pixels == {(3, 2), (3, 3), (3, 4), (2, 3), (4, 3)}
    assert (seen.count, seen.density) == (5, 5 / 9)


def test_misaligned_branches_are_answered_index_by_index() -> None:
    class Misaligned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.avg_pool2d(x, 2)[:, :, :3, :3] + F.avg_pool2d(x, 3)

    report = convolve.inspect(Misaligned(), "1x9x9")
    field = report.rows[-1].fields[0]
    assert field.misaligned
    assert field.axes[0].stride is None
    assert [convolve.receptive_field(report, "add", (j, 0)).inputs[0].hull[0] for j in range(3)] == [
        (0, 2),
        (2, 5),
        (4, 8),
    ]
    # index 2: pixels 4, 5 of one branch and 6, 7, 8 of the other; their product is not seen
    assert convolve.receptive_field(report, "add", (2, 0)).inputs[0].count == 2 * 2 + 3 * 3
    assert any(lint.kind == "misaligned" and "stride 2" in lint.says and "3" in lint.says for lint in report.lints)


def test_squeeze_and_excitation_keeps_the_local_field_beside_the_global_one() -> None:
    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)
            self.gate = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]

    report = convolve.inspect(Squeeze(), "1x9x9")
    field = report.row("mul").fields[0]
    assert field.wide
    assert [axis.size for axis in field.axes] == [3, 3]
    assert convolve.receptive_field(report, "mul", (0, 0)).inputs[0].count == 81


def test_batch_norm_sees_the_whole_map_in_training_only() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    assert convolve.inspect(net, "1x9x9").row("1").fields[0].wide
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    assert not convolve.inspect(net, "1x9x9").row("1").fields[0].wide


@pytest.mark.parametrize("axes", [1, 3])
def test_one_and_three_dimensions_work_alike(axes: int) -> None:
    kind = nn.Conv1d if axes == 1 else nn.Conv3d
    size = "2x" + "x".join(["11"] * axes)
    report = convolve.inspect(nn.Sequential(kind(2, 2, 3, dilation=2), kind(2, 2, 2, stride=2)), size)
    assert [(a.size, a.seen, a.stride) for a in report.rows[1].fields[0].axes] == [(6, 6, 2)] * axes


def test_axes_are_independent() -> None:
    report = chain(nn.Conv2d(1, 1, (3, 5), (2, 1), (1, 0)), nn.MaxPool2d((1, 2)), size="1x11x13")
    assert [(a.size, a.stride, a.start) for a in report.rows[-1].fields[0].axes] == [(3, 2, -1), (6, 2, 0)]


def test_a_kernel_larger_than_its_input_sees_all_of_it() -> None:
    report = chain(conv(7, p=3), size="1x3x3")
    assert convolve.receptive_field(report, "0", (0, 0)).inputs[0].count == 9
    assert report.rows[0].macs == 9 * 49
    assert report.rows[0].macs_valid == 81


@pytest.mark.parametrize("layers", [3, 5])
def test_the_effective_field_of_a_chain_is_the_closed_form(layers: int) -> None:
    report = chain(*(conv(5, d=2, s=2) for _ in range(layers)), size="1x600x600")
    axis = report.rows[-1].fields[0].axes[0]
    variance = sum(4**level * 4 * (25 - 1) / 12 for level in range(layers))
    assert axis.spread == pytest.approx(variance**0.5)


def test_the_projective_field_is_the_transpose_of_the_receptive_fields() -> None:
    report = convolve.inspect(UNet(), "1x8x8")
    for pixel in ((0, 0), (3, 6)):
        expected = {
            (i, j)
            for i in range(8)
            for j in range(8)
            if pixel in convolve.receptive_field(report, "c1", (i, j)).inputs[0].pixels
        }
        assert influences(report, "c1", pixel) == expected


def test_a_wrong_layer_or_index_is_said() -> None:
    report = chain(conv(3), size="1x8x8")
    with pytest.raises(convolve.UsageError, match="unknown layer; got 'conf'"):
        convolve.receptive_field(report, "conf")
    with pytest.raises(convolve.UsageError, match="must lie inside the output; got \\(6, 0\\)"):
        convolve.receptive_field(report, "0", (6, 0))
    with pytest.raises(convolve.UsageError, match="2 spatial coordinates or all 4"):
        convolve.receptive_field(report, "0", (1,))


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("constant", [None, None, 0, 1, 2, 3, None]),
        ("reflect", [2, 1, 0, 1, 2, 3, 2]),
        ("replicate", [0, 0, 0, 1, 2, 3, 3]),
        ("circular", [2, 3, 0, 1, 2, 3, 0]),
    ],
)
def test_a_padding_position_holds_what_its_mode_says(mode: str, seen: list[int | None]) -> None:
    class Padded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.pad(x, (2, 1), mode=mode)

    report = convolve.inspect(Padded(), "1x4")
    found = [sorted(convolve.receptive_field(report, report.rows[0].name, (j,)).inputs[0].pixels) for j in range(7)]
    assert found == [[] if pixel is None else [(pixel,)] for pixel in seen]


def test_a_branch_that_is_smaller_inside_may_be_larger_at_the_border() -> None:
    class Border(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            cut = F.pad(x[:, :, 2:], (2, 0))
            return F.avg_pool1d(cut, 3, 1, 1) + x

    report = convolve.inspect(Border(), "1x8")
    found = [sorted(i for (i,) in convolve.receptive_field(report, "add", (j,)).inputs[0].pixels) for j in range(4)]
    assert found == [[0], [1, 2], [2, 3], [2, 3, 4]]


def test_what_a_pixel_influences_is_what_sees_it() -> None:
    report = chain(conv(3, s=2, p=1), nn.ConvTranspose2d(1, 1, 3, 2), conv(2, d=2), size="1x7x6")
    for layer in ("0", "1", "2"):
        h, w = report.row(layer).output[-2:]
        seen = {
            (i, j): convolve.receptive_field(report, layer, (i, j)).inputs[0].pixels for i in range(h) for j in range(w)
        }
        for pixel in ((0, 0), (3, 2), (6, 5), (5, 0)):
            assert influences(report, layer, pixel) == {place for place, pixels in seen.items() if pixel in pixels}


def test_groups_of_our_own_operators_divide_the_work() -> None:
    class Grouped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = convolve.conv2d(x, torch.zeros(6, 2, 3, 3, device=x.device), groups=2)
            return convolve.conv_transpose2d(y, torch.zeros(6, 2, 3, 3, device=x.device), groups=3)

    report = convolve.inspect(Grouped(), "4x9x7")
    # 6 maps of 7x5 from 2 channels each; then 6 channels of 7x5 spread into 2 of the 6 maps each
    rows = [row for row in report.rows if row.op.startswith("conv")]
    assert [row.macs for row in rows] == [6 * 2 * 9 * 35, 6 * 2 * 9 * 35]
    assert [report.trace.steps[row.index].arguments["groups"] for row in rows] == [2, 3]
