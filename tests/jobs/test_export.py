"""`convolve export`: every family as standard operators in ONNX, equal to float64; what is refused leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
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
from jobs_support import CARD, CLASSES

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

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
    "swiftnet: batch normalisation": ("swiftnet", 28, {}, {"Conv": 2, "MaxPool": 2, "Gemm": 2}),
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
        "classes": list(CLASSES),
        "preprocessing": rule.to_dict(),
        "statistics": CARD["statistics"],
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


SLOW = {"vgg", "mobilenet_v2", "resnet18"}  # large, or of the operators of the others; `pytest -m slow` runs them


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[pytest.mark.slow] * (name.split(":")[0] in SLOW)) for name in FAMILIES],
)
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


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of a small grey network."""
    return of_family("lenet_relu", 28, {}, tmp_path_factory.mktemp("lenet") / "model.safetensors")[0]


@pytest.mark.parametrize("to", export_formats.FORMATS)
def test_each_format_tells_classes_preprocessing_metrics_and_the_digest_of_its_source(
    to: str, lenet: Path, tmp_path: Path
) -> None:
    made = convolve.export(lenet, to, out=tmp_path / "file")
    notes = export_formats.FORMATS[to].read_notes(made.file)
    assert notes["schema"] == "convolve.export/1"
    assert json.loads(notes["classes"]) == list(CLASSES)
    assert json.loads(notes["preprocessing"]) == convolve.load(lenet).preprocessing.to_dict()
    assert json.loads(notes["metrics"])["validation"]["accuracy"] == 0.5
    assert json.loads(notes["exported_with"])["torch"] == torch.__version__
    assert (notes["source"], notes["source_sha256"]) == ("model.safetensors", digest(lenet))
    assert made.source_sha256 == digest(lenet)
    assert made.bytes == made.file.stat().st_size


def test_the_command_prints_input_outputs_and_the_check(
    lenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(lenet), "--to", "torch", "--out", str(tmp_path / "a.pt2")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'a.pt2'}  0.")
    assert lines[1:4] == [
        "input     images uint8 [batch, 1, 28, 28]",
        "output    logits float32 [batch, 3]",
        "output    probabilities float32 [batch, 3]",
    ]
    assert lines[4].startswith("checked   on 64 images (digits): top-1 agreement 64/64, largest difference ")
    assert main(["export", str(lenet), "--to", "safetensors", "--out", str(tmp_path / "b"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["input"], document["check"]["agreement"]) == ("convolve.export", {}, 64)
    assert document["classes"] == list(CLASSES)


def test_safetensors_are_the_networks_own_tensors_and_start_another_network(run: Run, tmp_path: Path) -> None:
    made = convolve.export(run.folder, "safetensors", out=tmp_path / "w.safetensors")
    net = run.load().net
    with safe_open(made.file, framework="pt") as file:
        assert set(file.keys()) == set(net.state_dict())
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in net.state_dict().items())
    other = create("smallnet", num_classes=3, weights=made.file)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())


ALONE = "import sys\nsys.modules.update(dict.fromkeys({}))\n"  # None in sys.modules: the import fails


def examples() -> list[str]:
    import re

    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def alone(code: str, without: tuple[str, ...], folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(without) + code, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "HOME": str(folder)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_example_of_the_page_predicts_photos_by_onnxruntime_alone(run: Run, photos: Path, tmp_path: Path) -> None:
    made = convolve.export(run.folder, out=tmp_path / "model.onnx", data=photos)
    assert made.check.of == str(photos)
    files = sorted(photos.rglob("*.png"))[::9]
    rows = [line.split("\t") for line in alone(examples()[0], ("convolve", "torch"), tmp_path, *map(str, files))]
    classifier = run.load()
    assert [row[0] for row in rows] == list(map(str, files))
    for file, (_, label, share) in zip(files, rows, strict=True):
        expected = classifier.predict(file)
        assert label == expected.label
        assert float(share) == pytest.approx(expected.confidence, abs=1e-5)


def test_a_pt2_runs_in_torch_where_convolve_is_not_installed(lenet: Path, tmp_path: Path) -> None:
    convolve.export(lenet, "torch", out=tmp_path / "model.pt2")
    assert alone(examples()[1], ("convolve", "onnx"), tmp_path)[0] in CLASSES


def test_a_network_of_a_file_and_one_in_a_line_are_exported(tmp_path: Path) -> None:
    line = "conv 4 3 s2 p1, relu, max 2, conv 6 3, relu, gap, fc classes"
    rule = Preprocessing(3, (21, 17), (0.5,) * 3, (0.25,) * 3)
    given = {"num_classes": 3, "in_channels": 3, "img_size": [21, 17]}
    net = build(line, num_classes=3, in_channels=3, img_size=(21, 17))
    made = convolve.export(stored(tmp_path / "line.safetensors", {"name": line, **given}, net, rule))
    assert made.file.name == "line.onnx"
    assert made.input == {"images": ("uint8", (None, 3, 21, 17))}
    (tmp_path / "net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.fc = torch.nn.Linear(3, 3)\n\n    def forward(self, x):\n"
        "        y = self.fc(x.mean((2, 3)))\n        return y if len(x) > 1 or y.sum() > 100 else y.tanh()\n",
        encoding="utf-8",
    )
    where = f"{tmp_path / 'net.py'}:Net"
    path = stored(tmp_path / "own.safetensors", {"name": where, **given}, build(where), rule)
    with pytest.raises(ConvolveError, match="the network cannot be traced into a program"):  # it decides on values
        convolve.export(path, "torch", network=where)
    assert convolve.export(path, "safetensors", network=where).check.agreement == 64
    assert not (tmp_path / "own.pt2").exists()


@pytest.mark.fault("an exported program that gives something else", outcome="an error; the old file is intact")
def test_a_program_that_gives_something_else_is_never_written(
    lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.pt2"
    target.write_bytes(b"before")
    normalise = export_formats.normalise
    monkeypatch.setattr(export_formats, "normalise", lambda images, rule: normalise(images, rule) * 1.05)
    with pytest.raises(
        ConvolveError, match=r"must give what its network gives; logits differ by .*nothing was written"
    ):
        convolve.export(lenet, "torch", out=target)
    assert target.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt2"]


@pytest.mark.fault("a network with NaN weights is exported", outcome="refused; nothing is written")
def test_a_network_with_nan_is_not_exported(tmp_path: Path) -> None:
    path, net, rule, _ = of_family("lenet_relu", 28, {}, tmp_path / "model.safetensors")
    with torch.no_grad():
        next(net.parameters())[0] = float("nan")
    stored(path, convolve.load(path).card["architecture"], net, rule)
    with pytest.raises(InputError, match="NaN or Inf on real images"):
        convolve.export(path, "safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.fault("a package that export needs is missing", outcome="an error names the extra that brings it")
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    lenet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = export_formats.importlib.util.find_spec
    monkeypatch.setattr(
        export_formats.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name)
    )
    assert main(["export", str(lenet)]) == 1
    err = capsys.readouterr().err
    assert "not installed: onnxscript" in err
    assert "pip install 'convolve[export]'" in err


def test_what_cannot_be_is_refused(lenet: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown format; got 'onxx'; use onnx"):
        convolve.export(lenet, "onxx")
    with pytest.raises(UsageError, match="an export never replaces its model"):
        convolve.export(lenet, "safetensors", out=lenet)
    with pytest.raises(UsageError, match="an export is a file"):
        convolve.export(lenet, "safetensors", out=tmp_path)
    with pytest.raises(InputError, match="no such file"):
        convolve.export(tmp_path / "absent", "safetensors")
    with pytest.raises(InputError, match="there is no"):
        convolve.export(lenet, "safetensors", out=tmp_path / "w", data=tmp_path / "absent")


@pytest.mark.parametrize(("kind", "images"), [("folder", 64), ("one", 1), ("zip", 64)])
def test_the_check_runs_on_what_data_names(kind: str, images: int, lenet: Path, photos: Path, tmp_path: Path) -> None:
    data = photos if kind == "folder" else next(photos.rglob("*.png"))
    if kind == "zip":
        data = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", photos))
    made = convolve.export(lenet, "safetensors", out=tmp_path / "w", data=data)
    assert (made.check.of, made.check.images) == (str(data), images)


def test_a_check_on_other_classes_or_on_nothing_readable_is_refused(lenet: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the classes are"):  # a data set is read as for evaluate
        convolve.export(lenet, "safetensors", out=tmp_path / "w", data="digits")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"checking needs images; none of .*bad can be read: .*x\.png"):
        convolve.export(lenet, "safetensors", out=tmp_path / "w", data=tmp_path / "bad")
    assert not (tmp_path / "w").exists()


def test_the_parts_of_photos_that_a_check_uses_all_differ() -> None:
    parts = job._parts_of_photos(Preprocessing(3, (96, 80), (0.5,) * 3, (0.5,) * 3))
    assert parts.shape == (64, 3, 96, 80)
    assert len({part.numpy().tobytes() for part in parts}) == 64
