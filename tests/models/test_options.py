"""Options of the networks: Inception's table, widths, initialisation; and errors for wrong ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from convolve.errors import UnknownNameError, UsageError
from convolve.models import MODELS, create
from convolve.models.initial import RULES, initialise


def _meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return create(name, **options)


def test_inceptions_channel_counts_are_the_users_to_set() -> None:
    net = _meta("googlenet", table={"3a": (8, 4, 12, 2, 6, 5), "5b": [10, 3, 20, 3, 30, 40]})
    block = net.inception3a
    widths = [block.branch1.conv, *(unit.conv for unit in block.branch2), *(unit.conv for unit in block.branch3)]
    assert [conv.out_channels for conv in (*widths, block.branch4[1].conv)] == [8, 4, 12, 2, 6, 5]
    assert net.inception3b.branch1.conv.in_channels == 8 + 12 + 6 + 5
    assert net.fc.in_features == 10 + 20 + 30 + 40


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"3c": (1, 1, 1, 1, 1, 1)}, UnknownNameError, "unknown Inception block; got '3c'; use 4c"),
        ({"3a": (1, 2, 3)}, UsageError, r"has 6 widths of at least 1: c1x1, .*; got \(1, 2, 3\) for 3a"),
        ({"3a": (1, 2, 3, 0, 5, 6)}, UsageError, "of at least 1"),
    ],
)
def test_a_wrong_inception_table_is_explained(table: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create("googlenet", table=table)


@pytest.mark.parametrize(
    ("name", "options"), [("vgg11", {"width_divisor": 65}), ("smallnet", {"width": 0}), ("mobilenet_v1", {"alpha": 0})]
)
def test_widths_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        create(name, **options)


def test_alphas_scale_every_layer() -> None:
    assert _meta("mobilenet_v1", alpha=0.5).fc.in_features == 512
    wide = _meta("mobilenet_v2", alpha=1.4)  # the paper's: 6.9 M parameters, 585 M multiply-adds
    assert round(sum(p.numel() for p in wide.parameters()) / 1e6, 1) == 6.1
    assert wide.features[18][0].out_channels == 1792


@pytest.mark.parametrize("name", list(MODELS))
def test_every_network_builds_on_the_meta_device_with_other_channels_and_classes(name: str) -> None:
    net = _meta(name, in_channels=2, num_classes=7).eval()
    size = MODELS[name].default.size
    assert net(torch.empty(2, 2, *size, device="meta")).shape == (2, 7)


def test_weights_start_as_the_papers_say() -> None:
    torch.manual_seed(0)
    net = create("alexnet", num_classes=20, width_divisor=8)
    biases = {name: layer.bias.unique().tolist() for name, layer in net.named_children() if hasattr(layer, "bias")}
    assert biases == {
        "conv1": [0], "conv2": [1], "conv3": [0], "conv4": [1], "conv5": [1], "fc1": [1], "fc2": [1], "fc3": [0],
    }  # fmt: skip
    assert net.fc2.weight.std().item() == pytest.approx(0.01, rel=0.02)
    five = create("lenet5")
    for weight, fan_in in ((five.c1.weight, 25), (five.c5.weight, 400), (five.f6.weight, 120), (five.s2.weight, 4)):
        assert weight.abs().max().item() <= 2.4 / fan_in
    assert five.c5.weight.std().item() == pytest.approx(2.4 / 400 / math.sqrt(3), rel=0.02)
    kernels = iter(five.c3.weight)
    for maps in five.c3.table:
        for _ in maps:
            assert next(kernels).abs().max().item() <= 2.4 / (25 * len(maps))


@pytest.mark.parametrize(
    ("rule", "deviation"),
    [
        ("xavier", math.sqrt(2 / (300 + 200))),
        ("xavier_sigmoid", 4 * math.sqrt(2 / (300 + 200))),
        ("kaiming", math.sqrt(2 / 200)),
        ("normal", 0.01),
        ("lecun", 2.4 / 300 / math.sqrt(3)),
    ],
)
def test_an_initialisation_has_its_rules_deviation(rule: str, deviation: float) -> None:
    torch.manual_seed(0)
    layer = initialise(nn.Linear(300, 200), rule)
    assert isinstance(layer, nn.Linear)
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert not layer.bias.any()


def test_unknown_initialisations_list_the_known_ones() -> None:
    assert len(RULES) == 5
    with pytest.raises(UnknownNameError, match="unknown initialisation; got 'xaver'; use xavier"):
        create("lenet", init="xaver")
    default = create("lenet", init="torch").conv1.bias
    assert default.any()  # torch's own defaults draw biases too


def test_lenet5_takes_other_numbers_of_classes() -> None:
    few, many = create("lenet5", num_classes=3), create("lenet5", num_classes=26)
    assert torch.equal(few.out.prototypes, create("lenet5").out.prototypes[:3])
    assert many.out.prototypes.shape == (26, 84)
    assert torch.equal(many.out.prototypes, create("lenet5", num_classes=26).out.prototypes)
    assert create("lenet5", img_size=(36, 44))(torch.zeros(1, 1, 36, 44)).shape == (1, 10)


def test_the_callers_random_state_decides_the_weights() -> None:
    torch.manual_seed(3)
    first = create("lenet").conv1.weight
    torch.manual_seed(3)
    assert torch.equal(create("lenet").conv1.weight, first)
