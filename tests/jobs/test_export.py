"""`convolve export`: every family as standard operators in ONNX, equal to float64; what is refused leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import convolve
from convolve.cli import main
from convolve.data.preprocess import Preprocessing
from convolve.errors import ConvolveError, InputError, UnknownNameError, UsageError
from convolve.files import digest
from convolve.jobs import export as job
from convolve.jobs import export_formats
from convolve.jobs.results import Run
from convolve.models import MODELS, create, find
from convolve.models.file import write
from convolve.models.source import build
from jobs_support import CLASSES, folder_of

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

LABELS = ("zero", 'one, "two"', "猫<b>")
# The operators of ONNX that a network of ours may become; a pooling or convolution made of anything else is a fault of the export.
STANDARD = {
    *("Cast", "Mul", "Add", "Sub", "Div", "Neg", "Pow", "Sqrt", "Clip", "Relu", "Tanh", "Sigmoid", "Softmax", "BatchNormalization"),
    *("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Gemm", "MatMul", "LRN"),
    *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Pad", "Identity"),
}  # fmt: skip

# name, side, options, how many nodes of each kind: counted by hand in the papers' tables
FAMILIES: dict[str, tuple[str, int, dict[str, Any], dict[str, int]]] = {
    "lenet: sigmoid, average pooling": ("lenet", 28, {}, {"Conv": 2, "AveragePool": 2, "Gemm": 3, "Sigmoid": 4}),
    "lenet_relu: max pooling": ("lenet_relu", 28, {}, {"Conv": 2, "MaxPool": 2, "Gemm": 3}),
    "lenet5: table, subsampling, RBF": ("lenet5", 32, {}, {"Conv": 3, "AveragePool": 2, "Gemm": 1, "Tanh": 6}),
    "smallnet: residual blocks": ("smallnet", 16, {}, {}),
    "alexnet: groups, LRN, overlapping pools": ("alexnet", 67, {"width_divisor": 8}, {"Conv": 5, "MaxPool": 3, "Gemm": 3}),
    "vgg: batch normalisation": ("vgg11-bn", 32, {"width_divisor": 8}, {"Conv": 8, "MaxPool": 5, "Gemm": 3}),
    "nin: ceil-mode pools": ("nin", 17, {"width_divisor": 8}, {"Conv": 9, "MaxPool": 1, "AveragePool": 1}),
    "googlenet: heads, ceil-mode pools": ("googlenet-bn", 33, {"width_divisor": 8}, {"Conv": 57, "MaxPool": 13, "Gemm": 1}),
    "mobilenet_v1: depthwise": ("mobilenet_v1-0.25", 33, {}, {"Conv": 27, "Gemm": 1}),
    "mobilenet_v2: inverted residuals": ("mobilenet_v2", 33, {}, {"Conv": 52, "Gemm": 1}),
    "shufflenet_v1: shuffle, grouped 1x1": ("shufflenet_v1", 33, {}, {"Conv": 49, "MaxPool": 1, "AveragePool": 3}),
    "resnet18": ("resnet18", 33, {}, {"Conv": 20, "MaxPool": 1, "Gemm": 1}),
}  # fmt: skip


RANGE = {"low": 0.0, "middle": 0.5, "high": 1.0}
STATISTICS = {
    **{"pictures": 4, "channels": 3, "polarity": "none"},
    **dict.fromkeys(("height", "width", "mean", "contrast"), RANGE),
}


def photos_of(channels: int, side: int, count: int = 12) -> torch.Tensor:
    """Random parts of scikit-learn's photograph of a temple: uint8 [count, channels, side, side]."""
    from sklearn.datasets import load_sample_image

    photo, rng = load_sample_image("china.jpg"), np.random.default_rng(0)
    parts = []
    for _ in range(count):
        top, left = rng.integers(0, photo.shape[0] - 2 * side), rng.integers(0, photo.shape[1] - 2 * side)
        parts.append(photo[top : top + 2 * side : 2, left : left + 2 * side : 2, :channels].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(parts))


def stored(path: Path, architecture: dict[str, Any], net: torch.nn.Module, rule: Preprocessing) -> Path:
    """A model file as a run writes it, of a network that nobody trained."""
    card = {
        "architecture": architecture,
        "classes": list(LABELS),
        "preprocessing": rule.to_dict(),
        "statistics": STATISTICS,
        "metrics": {"validation": {"accuracy": 0.5, "loss": 0.7, "images": 10}},
        "versions": {"convolve": "0"},
    }
    write(path, net.state_dict(), card)
    return path


def of_family(
    name: str, side: int, options: dict[str, Any], path: Path
) -> tuple[Path, torch.nn.Module, Preprocessing, torch.Tensor]:
    """A model file of a network of the table whose layers all matter, the network, its preprocessing and pictures for it."""
    row, variant = find(name)
    channels = variant.channels
    mean, std = ((0.4,), (0.3,)) if channels == 1 else ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    rule = Preprocessing(channels, (side, side), mean, std)
    architecture = {
        "name": row.name,
        "variant": variant.name,
        "num_classes": 3,
        "in_channels": channels,
        "img_size": [side, side],
    }
    torch.manual_seed(0)
    net = create(name, num_classes=3, in_channels=channels, img_size=(side, side), **options)
    pictures = photos_of(channels, side)
    norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in norms:
        layer.momentum = 1.0
        torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
        torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
    if norms:
        with torch.no_grad():
            net.train()(normalised(pictures, rule).float())  # running statistics that are neither 0 nor 1
    return stored(path, architecture | options, net, rule), net.eval(), rule, pictures


def normalised(pictures: torch.Tensor, rule: Preprocessing) -> torch.Tensor:
    """(x/255 - mean) / std in float64."""
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (rule.mean, rule.std))
    return (pictures.double() / 255 - mean) / std


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_standard_operators_and_gives_what_float64_gives(family: str, tmp_path: Path) -> None:
    name, side, options, counts = FAMILIES[family]
    path, net, rule, pictures = of_family(name, side, options, tmp_path / "model.safetensors")
    made = convolve.export(path)
    assert made.file == tmp_path / "model.onnx"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "model.onnx",
        "model.safetensors",
    ]  # one file, no data beside it

    model = onnx.load(made.file)
    kinds = [node.op_type for node in model.graph.node]
    assert {node.domain for node in model.graph.node} <= {""}
    assert set(kinds) <= STANDARD
    assert {kind: kinds.count(kind) for kind in counts} == counts
    constants = {tensor.name for tensor in model.graph.initializer}
    assert all(
        node.input[1] in constants for node in model.graph.node if node.op_type == "Conv"
    )  # no weight is computed

    session = onnxruntime.InferenceSession(made.file, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = net.double()(normalised(pictures, rule)).numpy()
    allowed = (
        2e-4 * expected.std() + 1e-6 * abs(expected).max()
    )  # LeNet-5's distances are large and close to each other
    for n in (1, 3, 12):
        logits, probabilities = session.run(None, {"images": pictures[:n].numpy()})
        assert logits.shape == (n, 3)
        np.testing.assert_allclose(logits, expected[:n], rtol=0, atol=allowed)
        np.testing.assert_allclose(probabilities, torch.from_numpy(expected[:n]).softmax(1).numpy(), atol=2e-4)
    assert made.check.images == 64
    assert made.check.agreement >= 63
    assert made.check.max_difference <= allowed


def test_every_family_of_the_table_is_exported_here_or_is_a_deeper_one_of_the_same() -> None:
    here = {find(name)[0].name for name, *_ in FAMILIES.values()}
    assert set(MODELS) - here == {"vgg13", "vgg16", "vgg19", "resnet34", "resnet50"}
