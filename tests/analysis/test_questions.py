"""Lessons, findings, inverse questions and other tools' numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import convolve
from convolve.analysis.inspecting import inputs_of
from convolve.analysis.inverse import reaching, runs, sizes_for_output, smallest_input
from convolve.analysis.profiles import reconcile
from convolve.errors import ShapeError


def failing(net: nn.Module, size: str) -> ShapeError:
    with pytest.raises(ShapeError) as caught:
        convolve.inspect(net, size)
    return caught.value


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 10),
    )


LESSON = """\
Sequential   input 1x3x36x36

layer  operator               output  params     MACs    memory  RF  stride
0      conv2d 5x5         1x16x32x32   1,216  1.229 M  64.0 KiB   5       1
1      relu               1x16x32x32                   64.0 KiB   5       1
2      max_pool2d 2x2 s2  1x16x16x16                   16.0 KiB   6       2
3      conv2d 5x5         1x16x12x12   6,416  921,600   9.0 KiB  14       2
4      max_pool2d 2x2 s2    1x16x6x6                    2.2 KiB  16       4
5      flatten                 1x576                             16       4"""


def test_the_commonest_error_teaches() -> None:
    error = failing(lenet(), "3x36x36")
    assert error.rule == "at 6 (linear): Linear expects 400 features"
    assert error.received == "16x6x6 = 576 arrive"
    assert error.remedy == (
        "use in_features=576; or put AdaptiveAvgPool2d(5) before the flattening; "
        "or give it an input of 35x35 or 34x34 instead of 36x36"
    )
    assert error.__notes__ == [LESSON]
    assert runs(lenet(), inputs_of("3x35x35"))
    assert runs(lenet(), inputs_of("3x34x34"))
    fixed = lenet()
    fixed.insert(5, nn.AdaptiveAvgPool2d(5))
    assert runs(fixed, inputs_of("3x36x36"))


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 3, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.up(self.down(x))], 1)


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


class View(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 400)


@pytest.mark.parametrize(
    ("net", "size", "rule", "received", "remedy"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(8, 4, 3)), "3x9x9", "at 1 (conv2d): it expects 8 channels",
         "1x4x7x7 arrives: 4 channels", "use in_channels=4; or let 0 have 8 out_channels"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "1x9x9", "at 0 (conv2d): it expects 3 channels",
         "1x1x9x9 arrives: 1 channels", "use in_channels=1; or give it an input with 3 channels"),
        (nn.Sequential(nn.Conv2d(3, 4, 7, padding=1)), "3x4x9", "at 0 (conv2d): the kernel covers 7 positions",
         "4 + 1 + 1 = 6 are there", "pad it by 1 more; or give it an input of"),
        (nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(2)), "1x7x7",
         "at 2 (max_pool2d): the kernel covers 2 positions", "1 are there", "leave this pooling out; or give it an input of 8x8"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(5)), "3x6x6", "at 1 (batch_norm): the norm is for 5 channels",
         "1x4x4x4 arrives: 4 channels", "use num_features=4"),
        (nn.Sequential(nn.Linear(8, 4)), "3x2x4", "at 0 (linear): Linear expects 8 features", "", "use in_features=4"),
        (nn.Sequential(nn.Linear(24, 4)), "3x2x4", "at 0 (linear): Linear expects 24 features",
         "3x2x4 = 24 arrive, not flattened", "put Flatten() before it"),
        (Skip(), "3x9x9", "at cat: cat along dimension 1 joins input and up", "1x3x9x9 and 1x3x10x10 arrive: 9 is not 10",
         "use an input size that all strides divide; or give it an input of 10x10 or 8x8"),
        (Wrong(), "3x5x5", "at add: add joins a and b", "1x4x5x5 and 1x6x5x5 arrive: 4 is not 6",
         "project one branch with a 1x1 convolution to 4 channels"),
        (View(), "16x6x6", "at view: view keeps the number of elements", "1x16x6x6 = 576", "576"),
    ],
)  # fmt: skip
def test_each_error_names_the_layer_the_sum_and_a_fix(
    net: nn.Module, size: str, rule: str, received: str, remedy: str
) -> None:
    error = failing(net, size)
    assert error.rule.startswith(rule.replace("input and up", "the input and up"))
    assert received in error.received
    assert remedy in error.remedy


def test_our_own_layers_teach_too() -> None:
    net = nn.Sequential(convolve.nn.Conv2d(3, 4, 3), nn.ReLU(), convolve.nn.Conv2d(8, 4, 3))
    error = failing(net, "3x9x9")
    assert error.rule.startswith("at 2: ")
    assert "0 " in error.__notes__[0]


FINDINGS = [
    (nn.Sequential(*(nn.Conv2d(1, 1, 3, dilation=2, padding=2) for _ in range(3))), "1x40x40", "gridding", "sees 7 of"),
    (nn.Sequential(nn.ConvTranspose2d(1, 1, 3, 2)), "1x9x9", "checkerboard", "use kernel 4"),
    (
        nn.Sequential(*(nn.Conv2d(1, 1, 7, padding=3) for _ in range(4))),
        "1x12x12",
        "too wide",
        "13x13 exceeds the 12x12",
    ),
    (
        nn.Sequential(nn.Conv2d(1, 1, 3, 2)),
        "1x8x8",
        "dropped",
        "the last 1 of 8 positions along axis 2 are in no window",
    ),
    (nn.Sequential(nn.Conv2d(1, 1, 3, 2)), "1x8x8", "unseen", "1 of its 8 rows: 7"),
    (nn.Sequential(nn.Conv2d(1, 1, 4, padding="same")), "1x8x8", "even kernel", "half a pixel"),
    (
        nn.Sequential(nn.Conv2d(4, 4, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=2)),
        "4x8x8",
        "isolated",
        "2 parts",
    ),
]


@pytest.mark.parametrize(("net", "size", "kind", "says"), FINDINGS)
@pytest.mark.filterwarnings("ignore:Using padding=.same.")
def test_findings_say_what_and_why(net: nn.Module, size: str, kind: str, says: str) -> None:
    found = [lint.says for lint in convolve.inspect(net, size).lints if lint.kind == kind]
    assert any(says in said for said in found), found


def test_a_sound_network_has_no_findings() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1),
        nn.ConvTranspose2d(8, 4, 4, 2, 1),
    )  # fmt: skip
    assert convolve.inspect(net, "3x32x32").lints == ()


def test_two_branches_half_a_pixel_apart_are_found() -> None:
    class Apart(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(x, 3, 2, 1) + nn.functional.avg_pool2d(x, 2, 2)

    found = [lint for lint in convolve.inspect(Apart(), "1x8x8").lints if lint.kind == "misaligned"]
    assert "centred 0.5 pixels apart" in found[0].says


def test_shuffling_between_groups_is_no_finding() -> None:
    assert not [lint for lint in convolve.inspect("shufflenet_v1-g3").lints if lint.kind == "isolated"]


def test_the_smallest_input_is_the_smallest_that_runs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 11, 4), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 5, padding=2), nn.MaxPool2d(3, 2))
    side = smallest_input(net, inputs_of("3x224x224"))
    assert side == 35  # 11 + 4 * 6: seven positions for two 3/2 poolings
    with torch.no_grad():
        net(torch.zeros(1, 3, side, side))
        with pytest.raises(RuntimeError):
            net(torch.zeros(1, 3, side - 1, side - 1))


def test_sizes_for_an_output_are_all_that_give_it() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 5, 3, 1), nn.MaxPool2d(2, ceil_mode=True))
    found = sizes_for_output(net, inputs_of("1x40x40"), "1", 4)
    with torch.no_grad():
        assert found == [n for n in range(3, 60) if net(torch.zeros(1, 1, n, 40)).shape[2] == 4]
    assert found


def test_changes_that_reach_a_field_are_verified_and_undone() -> None:
    net = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(4)))
    found = reaching(net, inputs_of("1x64x64"), 13)
    assert {(c.layer, c.change, c.field) for c in found} == {
        *((str(n), "dilation 4, padding 4", (15, 15)) for n in range(4)),
        ("0", "stride 2", (15, 15)), ("1", "stride 2", (13, 13)),
        ("0", "stride 3", (21, 21)), ("1", "stride 3", (17, 17)), ("2", "stride 3", (13, 13)),
    }  # fmt: skip
    assert [c.macs for c in found] == sorted(c.macs for c in found)
    assert all(layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.padding == (1, 1) for layer in net)
    net[0].stride = (3, 3)
    after = convolve.inspect(net, "1x64x64")
    best = next(c for c in found if (c.layer, c.change) == ("0", "stride 3"))
    assert (after.rows[-1].fields[0].axes[0].size, after.totals.macs) == (21, best.macs)


def test_other_tools_numbers_are_reproduced_and_explained() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 5),
    )  # fmt: skip
    report = convolve.inspect(net, "3x10x10", batch=2)
    torchinfo = reconcile(report, "torchinfo")
    # (parameters x batch x output pixels) of each convolution, parameters x batch of the norm and the linear layer
    assert torchinfo.theirs == 2 * (64 * 224 + 256 * 132 + 16 + 25)
    assert torchinfo.ours == report.totals.macs == 2 * (64 * 216 + 64 * 128 + 20)
    assert torchinfo.theirs - torchinfo.ours == sum(d.amount for d in torchinfo.differences)
    fvcore = reconcile(report, "fvcore")
    assert fvcore.theirs == report.totals.macs + 2 * (8 * 64) * 2 + 2 * 4 * 256
    assert fvcore.theirs - fvcore.ours == sum(d.amount for d in fvcore.differences)
    assert reconcile(report, "torch").differences == ()
    with pytest.raises(convolve.UsageError, match="unknown profile"):
        reconcile(report, "thopp")


def test_the_summary_says_every_total_and_what_is_not_trained() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1, bias=False))
    net[2].weight.requires_grad_(False)
    lines = str(convolve.inspect(net, "1x4x4")).split("\n")[-4:]
    # 18 + 2, 2 + 2 and 2 parameters; 2 + 2 + 1 buffers. A 3x3 on 4x4 meets (3 * 4 - 2)^2 = 100 of its 144 pixels
    assert lines[0] == "parameters   26 (24 trainable), buffers 5"
    assert lines[1] == "MACs         320, 232 without padding zeros (27.5% less)"
    assert lines[2].startswith("FLOPs        7")
    assert lines[3].startswith("memory       inference ")
