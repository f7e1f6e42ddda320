"""Every layer of torch.nn's families has a rule, whose shape, arithmetic and field are known exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import convolve
from convolve.analysis.rules.registry import known

# layer, input without the batch, hull of the receptive field per axis (None: everything), exact
LAYERS: list[tuple[nn.Module, str, list[int | None]]] = [
    *((kind(2, 2, 3), f"2x{'x'.join(['9'] * axes)}", [3] * axes) for axes, kind in enumerate((nn.Conv1d, nn.Conv2d, nn.Conv3d), 1)),
    *(
        (kind(2, 2, 3, 1), f"2x{'x'.join(['9'] * axes)}", [3] * axes)
        for axes, kind in enumerate((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), 1)
    ),
    *((kind(3), f"2x{'x'.join(['9'] * axes)}", [3] * axes) for axes, kind in enumerate((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), 1)),
    *((kind(3), f"2x{'x'.join(['9'] * axes)}", [3] * axes) for axes, kind in enumerate((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), 1)),
    *((kind(2, 3), f"2x{'x'.join(['9'] * axes)}", [3] * axes) for axes, kind in enumerate((nn.LPPool1d, nn.LPPool2d, nn.LPPool3d), 1)),
    *(
        (kind(3), f"2x{'x'.join(['9'] * axes)}", [3] * axes)
        for kinds in ((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
                      (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d))
        for axes, kind in enumerate(kinds, 1)
    ),
    *(
        (kind(1), f"2x{'x'.join(['5'] * axes)}", [1] * axes)
        for kinds in ((nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d), (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
                      (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
                      (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d))
        for axes, kind in enumerate(kinds, 1)
    ),
    (nn.ConstantPad2d(1, 3.0), "2x5x5", [1, 1]),
    *(
        (kind(), "2x5x4", [1, 1])
        for kind in (
            nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus,
            nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.LogSigmoid,
            nn.PReLU, nn.RReLU, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity,
        )
    ),
    (nn.Threshold(0.1, 0.0), "2x5x4", [1, 1]),
    (nn.GLU(1), "2x5x4", [1, 1]),
    (nn.Softmax(1), "2x5x4", [1, 1]),
    (nn.LogSoftmax(1), "2x5x4", [1, 1]),
    (nn.Softmin(1), "2x5x4", [1, 1]),
    (nn.Softmax2d(), "2x5x4", [1, 1]),
    (nn.BatchNorm1d(2), "2x7", [1]),
    (nn.BatchNorm2d(2), "2x5x4", [1, 1]),
    (nn.BatchNorm3d(2), "2x3x4x5", [1, 1, 1]),
    (nn.SyncBatchNorm(2), "2x5x4", [1, 1]),
    (nn.InstanceNorm2d(2), "2x5x4", [1, 1]),
    (nn.GroupNorm(2, 4), "4x5x4", [1, 1]),
    (nn.LayerNorm([5, 4]), "2x5x4", [1, 1]),
    (nn.RMSNorm([5, 4]), "2x5x4", [1, 1]),
    (nn.LocalResponseNorm(3), "4x5x4", [1, 1]),
    (nn.CrossMapLRN2d(3), "4x5x4", [1, 1]),
    (nn.Linear(4, 3), "2x5x4", [1, None]),
    (nn.Flatten(), "2x5x4", [1, 1]),
    (nn.Unflatten(1, (1, 2)), "2x5x4", [1, 1]),
    (nn.Upsample(scale_factor=2), "2x5x4", [1, 1]),
    (nn.Upsample(scale_factor=2, mode="bilinear"), "2x5x4", [2, 2]),
    (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "2x5x5", [2, 2]),
    (nn.Upsample(scale_factor=2, mode="bicubic"), "2x5x4", [4, 4]),
    (nn.Upsample(scale_factor=2, mode="trilinear"), "2x3x4x5", [2, 2, 2]),
    (nn.UpsamplingNearest2d(scale_factor=3), "2x5x4", [1, 1]),
    (nn.UpsamplingBilinear2d(scale_factor=2), "2x5x5", [2, 2]),
    (nn.PixelShuffle(2), "4x5x4", [1, 1]),
    (nn.PixelUnshuffle(2), "2x6x4", [2, 2]),
    (nn.ChannelShuffle(2), "4x5x4", [1, 1]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "size", "hull"), LAYERS, ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else ""
)
def test_a_layer_of_torch_is_known_exactly(layer: nn.Module, size: str, hull: list[int | None]) -> None:
    if isinstance(layer, nn.CrossMapLRN2d):
        pytest.skip(
            "its forward is a Python function that needs values of a mutable buffer; traced as its parts elsewhere"
        )
    report = convolve.inspect(layer, size, strict=True)
    layer.eval()
    with torch.no_grad():
        real = layer(torch.zeros(1, *map(int, size.split("x"))))
    assert report.outputs == (tuple(real.shape),)
    if report.rows:
        row = report.rows[-1]
        assert [None if axis.whole else axis.size for axis in row.fields[0].axes] == hull


@pytest.mark.parametrize("layer", [nn.InstanceNorm2d(2), nn.GroupNorm(2, 4), nn.LayerNorm([4, 5, 4]), nn.Softmax(2)])
def test_what_averages_over_a_map_sees_all_of_it_besides(layer: nn.Module) -> None:
    report = convolve.inspect(layer, "4x5x4" if not isinstance(layer, nn.InstanceNorm2d) else "2x5x4")
    field = report.rows[-1].fields[0]
    assert field.wide or field.axes[0].whole
    rows = 5
    columns = 1 if isinstance(layer, nn.Softmax) else 4
    seen = convolve.receptive_field(report, report.rows[-1].name, (2, 1)).inputs[0]
    assert seen.count == rows * columns


def test_operators_that_follow_the_data_are_bounded_and_say_so() -> None:
    class Sample(nn.Module):
        def forward(self, x: Tensor, grid: Tensor) -> Tensor:
            return nn.functional.grid_sample(x, grid, align_corners=False)

    row = convolve.inspect(Sample(), ["2x6x5", "3x3x2"]).rows[-1]
    assert row.status == "data-dependent"
    assert row.macs is not None
    assert row.fields[0].axes[0].whole
    for layer in (nn.MaxUnpool2d(2), nn.FractionalMaxPool2d(2, output_ratio=0.5)):
        sizes = ["2x3x3", "2x3x3:int64"] if isinstance(layer, nn.MaxUnpool2d) else ["2x6x6"]
        assert convolve.inspect(layer, sizes).rows[-1].status in ("data-dependent", "unknown")


def test_windows_cut_by_reshaping_are_bounds_that_contain_the_truth() -> None:
    class Windows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            x = x.view(n, c, h // 2, 2, w // 3, 3).permute(0, 1, 3, 5, 2, 4).reshape(n, c * 6, h // 2, w // 3)
            return x.relu()

    report = convolve.inspect(Windows(), "1x4x9")
    row = report.rows[-1]
    assert row.status == "bound"
    assert convolve.receptive_field(report, row.name, (1, 2)).inputs[0].hull == ((2, 3), (6, 8))


def test_the_table_of_rules_names_every_family() -> None:
    names = set(known())
    assert {
        "conv2d",
        "conv_transpose3d",
        "max_pool1d",
        "adaptive_avg_pool2d",
        "pad",
        "batch_norm",
        "gelu",
        "linear",
    } <= names
    assert {"interpolate", "pixel_shuffle", "scaled_dot_product_attention", "einsum", "cat", "getitem", "roll"} <= names
