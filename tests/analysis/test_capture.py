"""What a trace sees: functional calls, residuals, shared layers, several inputs; and what it leaves behind: nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convolve
from convolve.analysis.rules import Facts, layer_rule
from convolve.analysis.rules.registry import _TABLE
from convolve.errors import UsageError


class Residual(nn.Module):
    """Functional calls, a shared layer, a branch, and control flow on a shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.weight = nn.Parameter(torch.ones(8, 1, 3, 3))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.first(x))
        if x.shape[-1] > 4:
            x = F.max_pool2d(x, 2)
        y = self.shared(self.shared(x)) + x
        y = F.conv2d(y, self.weight, padding=1, groups=8)
        return {"scores": self.head(y.mean((2, 3)) * scale), "map": y}


def test_functional_calls_residuals_and_shared_layers_are_rows_with_edges() -> None:
    report = convolve.inspect(Residual(), ["3x9x7", "1"])
    assert [(row.name, row.op, row.sources) for row in report.rows] == [
        ("first", "conv2d", ("input",)),
        ("relu", "relu", ("first",)),
        ("max_pool2d", "max_pool2d", ("relu",)),
        ("shared", "conv2d", ("max_pool2d",)),
        ("shared#2", "conv2d", ("shared",)),
        ("add", "add", ("shared#2", "max_pool2d")),
        ("conv2d", "conv2d", ("add",)),
        ("mean", "mean", ("conv2d",)),
        ("mul", "mul", ("mean", "input1")),
        ("head", "linear", ("mul",)),
    ]
    assert report.outputs == ((1, 5), (1, 8, 4, 3))
    # A shared layer's parameters are counted where it is first used, once.
    assert [row.parameters for row in report.rows if row.parameters] == [3 * 8 * 9 + 8, 8 * 8 * 9, 8 * 9, 8 * 5 + 5]
    assert report.totals.parameters == sum(p.numel() for p in Residual().parameters())
    # 63 and 12 positions; products with padding zeros left out by hand: (3n-2)(3m-2) taps of an n x m map
    assert [row.macs for row in report.rows if row.macs] == [63 * 216, 12 * 576, 12 * 576, 12 * 72, 40]
    assert report.row("first").macs_valid == 25 * 19 * 24
    assert report.row("shared").macs_valid == 10 * 7 * 64
    assert report.row("conv2d").macs_valid == 10 * 7 * 8


def test_tied_weights_are_counted_once() -> None:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    net[2].weight = net[0].weight
    assert convolve.inspect(net, "4").totals.parameters == 16


def test_the_model_and_the_world_come_back_as_they_were() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            self.norm = nn.BatchNorm2d(2)
            self.drop = nn.Dropout(0.5)
            self.last: Tensor | None = None
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = self.drop(self.norm(self.conv(x)))
            self.fresh = self.last
            return self.last

    net = Remembers().train()
    net.norm.eval()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    identities = {name: tensor.data_ptr() for name, tensor in net.state_dict().items()}
    generator = torch.get_rng_state()
    convolve.inspect(net, "1x6x5", optimizer="adam")
    assert net.training
    assert net.drop.training
    assert not net.norm.training
    assert net.last is None
    assert net.calls == 0
    assert not hasattr(net, "fresh")
    assert not net.conv._forward_hooks
    assert not net.conv._forward_pre_hooks
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert {name: tensor.data_ptr() for name, tensor in net.state_dict().items()} == identities
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()


def test_nothing_is_allocated_for_a_network_larger_than_memory() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(1 << 20, 1 << 20), nn.ReLU(), nn.Linear(1 << 20, 1 << 20))
    report = convolve.inspect(net, str(1 << 20), batch=1 << 10)
    assert report.totals.parameters == 2 * ((1 << 40) + (1 << 20))
    assert report.totals.macs == 2 << 50
    assert report.memory.inference.parameters == 4 * report.totals.parameters


def test_an_operator_without_a_rule_is_shown_as_unknown_and_never_counted_as_zero() -> None:
    class Strange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(F.relu(x))

    report = convolve.inspect(Strange(), "1x5x4")
    unknown = [row for row in report.rows if row.status == "unknown"]
    assert unknown
    assert all(row.macs is None and row.flops is None for row in unknown)
    assert report.totals.uncounted == tuple(f"{row.name} ({row.op})" for row in unknown)
    assert "not counted" in str(report)
    assert not unknown[0].fields[0].exact
    with pytest.raises(UsageError, match=r"every operator must be known exactly.*linalg_svd"):
        convolve.inspect(Strange(), "1x5x4", strict=True)


def test_a_user_adds_an_operator_in_five_lines() -> None:
    @torch.library.custom_op("convolve_test::blur", mutates_args=())
    def blur(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1)

    @blur.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return blur(x)

    assert convolve.inspect(Net(), "1x5x5").rows[0].status == "unknown"
    try:

        @layer_rule("convolve_test::blur", "input")
        def rule(call):  # type: ignore[no-untyped-def]
            from convolve.analysis.rules.windows import windowed
            from convolve.geometry import Window

            return Facts(macs=9 * call.output.numel, reads=(windowed(call, Window.of(3, padding=1, axes=2)),))

        row = convolve.inspect(Net(), "1x5x5").rows[0]
        assert (row.macs, row.status, [axis.size for axis in row.fields[0].axes]) == (225, "exact", [3, 3])
    finally:
        _TABLE.pop("convolve_test::blur", None)


def test_a_rule_for_a_module_class_makes_it_one_step() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * 2

    try:
        layer_rule(Block)(lambda call: Facts(macs=7, reads=(call.same(),)))
        report = convolve.inspect(nn.Sequential(Block(), nn.ReLU()), "2x4x4")
        assert [(row.name, row.macs, row.parameters) for row in report.rows] == [("0", 7, 38), ("1", 0, 0)]
        assert not report.lints
    finally:
        _TABLE.pop(Block, None)


def test_a_model_that_needs_data_says_where_and_can_be_run_for_real() -> None:
    class Data(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum().item() > 0 else x

    with pytest.raises(UsageError, match=r"values of a tensor.*x\.sum\(\)\.item\(\).*data=True"):
        convolve.inspect(Data(), "3x4x4")
    report = convolve.inspect(Data(), "3x4x4", data=True)
    assert (report.rows[0].op, report.rows[-1].op, report.outputs) == ("sum", "mul", ((1, 3, 4, 4),))


def test_lazy_layers_are_completed_on_a_copy() -> None:
    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))
    assert convolve.inspect(net, "3x5x5").totals.parameters == 3 * 4 * 9 + 4 + 36 * 2 + 2
    assert isinstance(net[0], nn.LazyConv2d)


def test_an_input_that_nothing_reads_is_reported() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.avg_pool2d(x, 2)

    report = convolve.inspect(Half(), ["1x4x4", "1x6x6"])
    assert [(lint.kind, lint.where) for lint in report.lints] == [("unseen", "input1")]
    assert convolve.receptive_field(report, "avg_pool2d", (0, 1)).inputs[0].hull == ((0, 1), (2, 3))
    assert convolve.receptive_field(report, "avg_pool2d").inputs[1].count == 0


def test_attention_and_recurrent_layers_are_counted() -> None:
    report = convolve.inspect(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), "5x16")
    # q, k, v, output: 4 e^2; the feed-forward: 2 e f; per position, and 2 l^2 e for the attention
    assert report.totals.macs == 5 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 5 * 5 * 16
    assert not report.totals.uncounted
    lstm = convolve.inspect(nn.LSTM(4, 3, batch_first=True), "5x4").totals
    assert (lstm.macs, lstm.uncounted) == (5 * 4 * 3 * (4 + 3), ())


def test_an_unbatched_image_has_positions_in_its_last_two_dimensions() -> None:
    report = convolve.inspect(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.empty(3, 9, 7))
    assert report.outputs == ((4, 7, 5),)
    assert [axis.size for axis in report.rows[0].fields[0].axes] == [3, 3]
    assert report.totals.macs == 35 * 4 * 27


def test_our_operators_are_single_steps_with_torchs_names_and_numbers() -> None:
    from convolve import nn as ours

    def net(kind) -> nn.Module:  # type: ignore[no-untyped-def]
        return nn.Sequential(
            kind.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), kind.MaxPool2d(2), kind.AvgPool2d(3, 1, 1),
            kind.ConvTranspose2d(8, 4, 4, 2, 1, groups=2), kind.AdaptiveAvgPool2d(3),
        )  # fmt: skip

    mine, theirs = (convolve.inspect(net(kind), "3x23x17") for kind in (ours, nn))
    for a, b in zip(mine.rows, theirs.rows, strict=True):
        assert (a.name, a.op, a.output, a.macs, a.macs_valid, a.flops, a.fields) == (
            b.name, b.op, b.output, b.macs, b.macs_valid, b.flops, b.fields
        )  # fmt: skip
    # a padding that torch does not have: one step as well
    same = convolve.inspect(
        nn.Sequential(ours.MaxPool2d(3, 2, padding="same"), ours.Conv2d(1, 1, 4, 3, padding="same")), "1x8x9"
    )
    assert [(row.op, row.output) for row in same.rows] == [("max_pool2d", (1, 1, 4, 5)), ("conv2d", (1, 1, 2, 2))]
    with torch.no_grad():
        probe = torch.zeros(1, 1, 8, 9)
        pool = ours.MaxPool2d(3, 2, padding="same")
        for i in range(4):
            for j in range(5):
                seen = convolve.receptive_field(same, "0", (i, j)).inputs[0].pixels
                for y in range(8):
                    for x in range(9):
                        image = probe.clone()
                        image[0, 0, y, x] = 1
                        assert bool(pool(image)[0, 0, i, j] > 0) == ((y, x) in seen)
