"""A network from a name, a spec or a file, and the errors that teach."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from convolve.errors import InputError, ShapeError, UnknownNameError, UsageError
from convolve.models import create, spec
from convolve.models.lenet import SPECS
from convolve.models.source import build, is_spec

FILE = """
from torch import nn
from helper import WIDTH

class Net(nn.Sequential):
    def __init__(self, num_classes=2, in_channels=1, depth=1):
        layers = [nn.Conv2d(in_channels, WIDTH, 3)] + [nn.ReLU()] * depth
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, num_classes))

def needs(size):
    return Net()

def wrong():
    return 7

ready = Net(4)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("WIDTH = 5\n")
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


def test_a_name_a_spec_and_a_file_build_a_network(file: Path) -> None:
    before = list(sys.path)
    assert str(build("lenet-shusentang")) == str(create("lenet", variant="shusentang"))
    assert str(build(SPECS["d2l"])) == str(create("lenet"))
    net = build(f"{file}:Net", num_classes=3, in_channels=2, img_size=9)
    assert net(torch.zeros(1, 2, 9, 9)).shape == (1, 3)
    assert len(build(f"{file}:Net(depth=4)")) == 8
    assert build(f"{file}:Net(6)", num_classes=3)[-1].out_features == 6
    assert build(f"{file}:ready", num_classes=3)[-1].out_features == 4
    assert sys.path == before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ("need", UnknownNameError, "unknown network in .*net.py; got 'need'; use needs"),
        ("needs", InputError, "could not be built; TypeError: .*missing 1 required positional argument: 'size'"),
        ("wrong", UsageError, "must give a torch.nn.Module; got int"),
        ("Net(depth=open)", UsageError, "is written FILE.py:NAME"),
        ("a.b", UsageError, "the name must be a plain one"),
    ],
)
def test_a_file_that_does_not_give_a_network_is_explained(
    file: Path, call: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(f"{file}:{call}")


def test_a_file_that_is_missing_or_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        build(f"{tmp_path}/absent.py:Net")
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(InputError, match=r"bad.py failed while it ran; ZeroDivisionError"):
        build(f"{tmp_path}/bad.py:Net")


def test_specs_are_told_from_names() -> None:
    assert is_spec("conv 6 5")
    assert is_spec("gap,flatten")
    assert not is_spec("alexnet-d2l")
    with pytest.raises(UsageError, match="takes no options; got init"):
        build("conv 6 5, fc 10", init="xavier")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("conv 6 5, rleu", UnknownNameError, "unknown layer; got 'rleu'; use relu"),
        ("conv 6", UsageError, r"written 'conv OUT KERNEL .*'; got 'conv 6': kernel is missing"),
        ("conv 6 5 7", UsageError, "7 is one number too many"),
        ("conv 6 5 q2", UsageError, "'q2' is not one of its options"),
        ("conv 6 5, 2*(relu", UsageError, "parentheses in a network spec must match"),
        ("  ,", UsageError, "at least one layer"),
        ("conv 6 5, max 2, conv 8 9, max 4", ShapeError, r"layer max2 \('max 4'\) does not fit .* at least 28 x 28"),
        ("conv 6 5, conv 8 3 g4", ShapeError, r"layer conv2 \('conv 8 3 g4'\).*divisible by groups.*change this layer"),
    ],
)
def test_a_spec_that_cannot_be_built_teaches(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        spec.build(text, img_size=(24, 24))


def test_the_size_that_the_error_of_a_spec_names_is_the_smallest_that_fits() -> None:
    text = "conv 6 5, max 2, conv 8 9, max 4, fc 2"
    assert spec.build(text, img_size=(28, 28))(torch.zeros(1, 1, 28, 28)).shape == (1, 2)
    with pytest.raises(ShapeError):
        spec.build(text, img_size=(27, 27))


def test_repetitions_kernels_and_flags_mean_what_they_say() -> None:
    net = spec.build(
        "2*(conv 4 1x3 same, bn, relu), dw 3 s2 p1 nobias, max 3 s2 ceil, gap, fc classes", img_size=(9, 7)
    )
    assert list(dict(net.named_children())) == [
        "conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "dw1", "max1", "gap1", "fc1",
    ]  # fmt: skip
    assert (net.conv2.kernel_size, net.conv2.padding, net.dw1.groups, net.dw1.bias) == ((1, 3), "same", 4, None)
    assert net.max1.ceil_mode
    assert net[:6](torch.zeros(1, 1, 9, 7)).shape == (1, 4, 9, 7)
