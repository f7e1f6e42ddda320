"""torchvision's weight files fit: synthetic files of the right names and shapes load, strictly, with nothing left over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from convolve.models import create
from models import published_names as names

FILES = {
    "alexnet-torchvision": names.alexnet(),
    **{name: names.vgg(name, norm=False) for name in names.VGG},
    **{f"{name}-bn": names.vgg(name, norm=True) for name in names.VGG},
    "googlenet-torchvision": names.googlenet(),
    "mobilenet_v2": names.mobilenet_v2(),
    "resnet18": names.resnet((2, 2, 2, 2), bottleneck=False),
    "resnet34": names.resnet((3, 4, 6, 3), bottleneck=False),
    "resnet50": names.resnet((3, 4, 6, 3), bottleneck=True),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_names_and_shapes_are_those_of_the_published_file(name: str) -> None:
    with torch.device("meta"):
        net = create(name)
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == FILES[name]


def test_a_synthetic_file_loads_and_its_numbers_are_used(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        key: torch.zeros((), dtype=torch.int64) if not shape else torch.rand(shape, generator=generator) * 0.1
        for key, shape in FILES["mobilenet_v2"].items()
    }
    save_file(tensors, tmp_path / "mobilenet_v2.safetensors")
    net = create("mobilenet_v2").eval()
    net.load_state_dict(load_file(tmp_path / "mobilenet_v2.safetensors"))
    x = torch.rand(1, 3, 33, 33, generator=generator)
    before = net(x)
    with torch.no_grad():
        net.get_parameter("classifier.1.bias").add_(1)
    torch.testing.assert_close(net(x), before + 1)
