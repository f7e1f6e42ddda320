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
