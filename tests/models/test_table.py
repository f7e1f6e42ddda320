"""The table of models: names, sizes and the errors that teach."""

from __future__ import annotations

import pytest
import torch

import convolve.models
from convolve.errors import ShapeError, UnknownNameError, UsageError
from convolve.models import MODELS, create

VARIANTS = [(model.name, variant.name) for model in MODELS.values() for variant in model.variants]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_smallest_size_is_the_smallest(name: str, variant: str) -> None:
    smallest = convolve.models.find(name, variant)[1].smallest
    with torch.device("meta"):
        net = create(name, variant=variant, img_size=smallest).eval()
        channels = convolve.models.find(name, variant)[1].channels
        out = net(torch.empty(2, channels, *smallest))
    assert out.shape == (2, convolve.models.find(name, variant)[1].num_classes)
    with pytest.raises(ShapeError, match=f"at least {smallest[0]} x {smallest[1]}"):
        create(name, variant=variant, img_size=(smallest[0] - 1, smallest[1]))


def test_lists_take_a_pattern() -> None:
    assert convolve.models.list("lenet_*") == ["lenet_relu"]
    assert convolve.models.list() == list(MODELS)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="got 'lenet_rely'; use lenet_relu"):
        create("lenet_rely")
    with pytest.raises(UnknownNameError, match="unknown variant of lenet; got 'shusen'; use shusentang"):
        create("lenet", variant="shusen")
    with pytest.raises(UnknownNameError, match="unknown option of lenet; got 'inits'; use init"):
        create("lenet", inits="xavier")


def test_a_name_may_carry_its_variant_but_not_two() -> None:
    assert str(create("lenet-shusentang")) == str(create("lenet", variant="shusentang"))
    with pytest.raises(UsageError, match="one variant"):
        create("lenet-shusentang", variant="d2l")


@pytest.mark.parametrize("argument", ["num_classes", "in_channels"])
def test_counts_are_positive(argument: str) -> None:
    with pytest.raises(UsageError, match=f"{argument} must be at least 1; got 0"):
        create("lenet", **{argument: 0})
