"""The classic networks: totals and receptive fields as published, read from the tables."""

from __future__ import annotations

import pytest

import convolve
from convolve.jobs.inspection import Questions, inspection
from convolve.jobs.published import PUBLISHED, Published, like


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.model} by {row.source}")
def test_totals_are_the_published_ones_to_the_unit(row: Published) -> None:
    report = convolve.inspect(row.model)
    assert not report.totals.uncounted
    compared = like(report, row.model, row.source)
    assert compared.values
    assert compared.agrees, compared.lines


def last_map(name: str, size: str) -> tuple[int, str]:
    """The receptive field and stride of the last window (or concatenation) before the global pooling or the classifier."""
    report = convolve.inspect(name, size)
    rows = [
        row
        for row in report.rows
        if row.op.startswith(("conv", "max_pool", "cat"))
        and row.fields
        and not row.fields[0].axes[0].whole
        and row.output[-1] > 1
    ]
    axis = rows[-1].fields[0].axes
    assert axis[0] == axis[1]
    return axis[0].size, str(axis[0].stride)


@pytest.mark.parametrize(
    ("name", "size", "field", "stride"),
    [
        # feature maps before the classifier; VGG's from its paper's configurations, the others from the reference tables
        ("lenet-shusentang", "1x28x28", 16, "4"),
        ("alexnet", "3x227x227", 195, "32"),
        ("vgg11", "3x224x224", 150, "32"),
        ("vgg13", "3x224x224", 156, "32"),
        ("vgg16", "3x224x224", 212, "32"),
        ("vgg19", "3x224x224", 268, "32"),
        ("mobilenet_v1", "3x224x224", 315, "32"),
        ("googlenet", "3x224x224", 715, "32"),
    ],
)
def test_receptive_fields_are_the_published_ones(name: str, size: str, field: int, stride: str) -> None:
    assert last_map(name, size) == (field, stride)


def test_a_receptive_field_does_not_depend_on_the_resolution() -> None:
    small, large = (convolve.inspect("vgg16", size) for size in ("3x224x224", "3x2048x2048"))
    for a, b in zip(small.rows, large.rows, strict=True):
        if a.op.startswith(("conv", "max_pool")):
            assert a.fields == b.fields


def test_like_says_what_differs_and_fails_the_check() -> None:
    found = inspection("vgg16", "3x160x160", Questions(like="paper"))
    assert found.failures == ("the totals differ from paper's",)
    assert all("differs by -" in line for line in found.answer)
    with pytest.raises(convolve.UsageError, match=r"unknown published total of vgg16; got 'd2l'; use .*torchvision"):
        inspection("vgg16", None, Questions(like="d2l"))


def by_hand(network: str) -> tuple[int, int]:
    """(receptive field, stride) of the last map by the recursion r += (k - 1) S, S *= s along the path that sees most."""
    stages = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3], "resnet50": [3, 4, 6, 3], "shufflenet_v1": [4, 8, 4]}[
        network
    ]
    windows = [(7, 2), (3, 2)]
    if network == "shufflenet_v1":
        windows = [(3, 2), (3, 2)]  # the stem and its pooling; in a unit only the 3x3 widens, and the first one strides
        windows += [(3, 2 if first else 1) for units in stages for first in [True] + [False] * (units - 1)]
    else:
        for number, blocks in enumerate(stages):
            for block in range(blocks):
                s = 2 if number and not block else 1
                # a basic block has two 3x3, the first strides; a bottleneck has 1x1, 3x3, 1x1, and the 3x3 strides
                windows += [(3, s)] if network == "resnet50" else [(3, s), (3, 1)]
    size = stride = 1
    for k, s in windows:
        size, stride = size + (k - 1) * stride, stride * s
    return size, stride


@pytest.mark.parametrize("network", ["resnet18", "resnet34", "resnet50", "shufflenet_v1"])
def test_residual_and_shuffle_networks_see_what_the_recursion_along_their_longest_path_gives(network: str) -> None:
    rows = [row for row in convolve.inspect(network).rows if row.fields and not row.fields[0].axes[0].whole]
    axes = [row.fields[0].axes for row in rows if row.output[-1] == 7]
    size, stride = by_hand(network)
    assert {(axis.size, axis.stride) for axis in axes[-1]} == {(size, stride)}


def test_lenet_5_has_the_connections_of_its_paper_and_a_wider_one_has_not() -> None:
    compared = like(convolve.inspect("lenet5"), "lenet5", "paper")
    assert ("connections", 340_908, 340_908) in compared.values
    larger = inspection("lenet5", "1x36x36", Questions(like="paper"))
    assert larger.failures == ("the totals differ from paper's",)
    # the output layer's 10 x 84 fixed values count, as in the table at the head of models/lenet5.py
    assert 122_304 + 5_880 + 151_600 + 2_000 + 48_120 + 10_164 + 840 == 340_908
