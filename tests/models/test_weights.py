"""Weight files: synthetic ones of torchvision's names and shapes start a network; everything else is refused by name."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import convolve
from convolve.cli import main
from convolve.errors import ModelFileError, UnknownNameError
from convolve.models import create, weights
from jobs_support import draw, folder_of
from models import published_names as names

RESNET = names.resnet((2, 2, 2, 2), bottleneck=False)


def synthetic(entries: names.Entries, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors of a release's names and shapes; running variances are positive, counters whole."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.tensor(7) if not shape else torch.rand(shape, generator=generator) * 0.1
        for name, shape in entries.items()
    }


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("nested", [None, "state_dict", "model"])
def test_a_file_of_each_kind_is_put_in_tensor_by_tensor(ending: str, nested: str | None, tmp_path: Path) -> None:
    tensors, path = synthetic(RESNET), tmp_path / f"resnet18{ending}"
    if ending == ".safetensors":
        if nested is not None:
            pytest.skip("safetensors files are flat")
        save_file(tensors, path)
    else:
        torch.save({nested: tensors, "epoch": 90} if nested else tensors, path)
    net = create("resnet18", weights=path)
    state = net.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)


def test_other_classes_leave_the_classifier_as_it_was_made_and_take_the_rest() -> None:
    tensors = synthetic(RESNET)
    torch.manual_seed(3)
    net = create("resnet18", num_classes=7)
    torch.manual_seed(3)
    before = create("resnet18", num_classes=7).state_dict()
    taken = weights.put(net, tensors, "resnet18.pth")
    assert taken == weights.Taken(len(RESNET) - 2, ("fc.weight", "fc.bias"), ())
    state = net.state_dict()
    for name in state:
        assert torch.equal(state[name], before[name] if name.startswith("fc.") else tensors[name]), name


def test_heads_that_the_network_was_built_without_are_left_out_and_those_it_has_are_taken() -> None:
    tensors = synthetic(names.googlenet())
    taken = weights.put(create("googlenet-torchvision", aux=False), tensors, "g.pth")
    assert set(taken.left_out) == {name for name in tensors if name.startswith("aux")}
    assert taken.tensors == len(tensors) - len(taken.left_out)
    taken = weights.put(create("googlenet-torchvision", num_classes=5), tensors, "g.pth")
    assert set(taken.anew) == {
        f"{layer}.{part}" for layer in ("fc", "aux1.fc2", "aux2.fc2") for part in ("weight", "bias")
    }
    assert taken.left_out == ()


def test_batch_counters_may_be_missing_as_in_old_releases() -> None:
    tensors = {name: t for name, t in synthetic(RESNET).items() if not name.endswith("num_batches_tracked")}
    net = create("resnet18")
    assert weights.put(net, tensors, "old.pth").tensors == len(tensors)
    assert torch.equal(net.state_dict()["bn1.running_var"], tensors["bn1.running_var"])


@pytest.mark.parametrize(
    ("model", "options", "change", "says"),
    [
        ("resnet34", {}, {}, r"layer1\.2\.conv1\.weight is missing, .* and \d+ more; choose the model and variant"),
        ("resnet18", {}, {"extra.weight": torch.zeros(1)}, r"extra\.weight is not in this network; choose the model"),
        ("resnet18", {"in_channels": 1}, {}, r"conv1\.weight is \[64, 3, 7, 7\], here \[64, 1, 7, 7\]; .*--channels 3"),
        ("resnet18", {"stem": "small"}, {}, r"conv1\.weight is \[64, 3, 7, 7\], here \[64, 3, 3, 3\]; .*options"),
        ("resnet18", {}, {"layer1.0.conv1.weight": torch.zeros(7, 64, 3, 3)}, r"layer1\.0\.conv1\.weight is \[7, 64, 3, 3\]"),
        ("resnet18", {}, {"fc.weight": torch.zeros(1000, 8)}, r"fc\.weight is \[1000, 8\], here \[1000, 512\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_the_way_out_and_nothing_is_changed(
    model: str, options: dict[str, object], change: dict[str, torch.Tensor], says: str
) -> None:
    net = create(model, **options)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ModelFileError, match=says):
        weights.put(net, {**synthetic(RESNET), **change}, "resnet18.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


class Bomb:
    """What unpickling this would write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_file_that_holds_code_is_refused_and_its_code_never_runs(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1), "more": Bomb(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(ModelFileError, match="holds more than weights; reading it would run code"):
        weights.read(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", b""),
        ("w.pth", b"\x80\x02."),
        ("w.pt", b"not a file of torch"),
        ("w.safetensors", b"\x00" * 20),
        ("w.bin", b"whatever"),
        ("absent.pth", None),
    ],
)
def test_a_file_that_is_no_weight_file_is_one_error(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError):
        weights.read(tmp_path / name)


@pytest.mark.fault("a weight file cut off, or without tensors", outcome="refused with the reason")
def test_a_truncated_file_and_a_file_without_tensors_are_refused(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save(synthetic({"fc.weight": (3, 3)}), whole)
    (tmp_path / "cut.pth").write_bytes(whole.getvalue()[:-40])
    with pytest.raises(ModelFileError, match="cannot read"):
        weights.read(tmp_path / "cut.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(ModelFileError, match="holds no weights"):
        weights.read(tmp_path / "none.pth")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as file:
        file.writestr("data.txt", "hello")
    with pytest.raises(ModelFileError, match="cannot read"):
        weights.read(tmp_path / "zip.pth")


def test_train_starts_from_the_file_says_so_and_the_run_goes_on_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = synthetic(names.mobilenet_v2())
    save_file(tensors, tmp_path / "mobilenet_v2.safetensors")
    photos = folder_of(tmp_path / "photos", per_class=4)
    words = ["train", str(photos), "--model", "mobilenet_v2", "--weights", str(tmp_path / "mobilenet_v2.safetensors")]
    words += ["--img-size", "32", "--epochs", "1", "--lr", "1e-9", "--out", str(tmp_path / "run")]
    assert main([*words, "--json"]) == 0
    document = json.loads((captured := capsys.readouterr()).out)
    assert f"{len(tensors) - 2} tensors, classifier.1.weight and classifier.1.bias anew" in captured.err
    net = convolve.load(document["files"]["model"]).net
    name = "features.0.0.weight"
    torch.testing.assert_close(net.state_dict()[name], tensors[name], atol=1e-6, rtol=0)
    (tmp_path / "mobilenet_v2.safetensors").unlink()
    assert main(["train", "--resume", str(tmp_path / "run"), "--quiet"]) == 0


def test_grey_pictures_and_rgb_weights_meet_with_channels_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(synthetic(RESNET), tmp_path / "resnet18.pth")
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(4):
            draw("ab".index(name), np.random.default_rng(index)).convert("L").save(
                tmp_path / f"photos/{name}/{index}.png"
            )
    words = ["train", str(tmp_path / "photos"), "--model", "resnet18", "--weights", str(tmp_path / "resnet18.pth")]
    words += ["--img-size", "32", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main(words) == 3
    assert "--channels 3" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--channels", "3", "--quiet"]) == 0
    assert convolve.load(tmp_path / "run/model.safetensors").preprocessing.channels == 3


# Hand counts of the other stem: conv1 is 3·3·3·64 for 7·7·3·64 in ResNet; the published ResNet-18 for CIFAR-10 has 11,173,962 parameters.
SMALL = {
    "resnet18": (11_173_962, (1, 64, 32, 32), "layer1"),
    "mobilenet_v1": (4_231_976 - 990 * 1025 + 0, (1, 32, 32, 32), "stem"),
    "mobilenet_v2": (3_504_872 - 990 * 1281, (1, 32, 32, 32), "features.0"),
    "shufflenet_v1": (1_865_728 - 990 * 961, (1, 24, 32, 32), "pool"),
    "googlenet": (6_998_552 - 990 * 1025 - 64 * 3 * (49 - 9), (1, 64, 32, 32), "maxpool1"),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_small_stem_keeps_the_size_and_differs_by_the_first_kernel_alone(name: str) -> None:
    parameters, shape, layer = SMALL[name]
    options = {"aux": False} if name == "googlenet" else {}
    net = create(name, num_classes=10, img_size=32, stem="small", **options).eval()
    assert sum(p.numel() for p in net.parameters()) == parameters
    seen: list[tuple[int, ...]] = []
    net.get_submodule(layer).register_forward_hook(lambda module, given, out: seen.append(tuple(out.shape)))
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert seen == [shape]


def test_googlenets_heads_fit_behind_the_small_stem() -> None:
    net = create("googlenet", num_classes=10, img_size=32, stem="small", width_divisor=8).train()
    scores = net(torch.randn(2, 3, 32, 32))
    assert [part.shape for part in scores] == [(2, 10)] * 3


def test_a_network_without_such_a_stem_and_an_unknown_stem_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown option of vgg11; got 'stem'"):
        create("vgg11", stem="small")
    with pytest.raises(UnknownNameError, match="unknown stem; got 'tiny'; use paper or small"):
        create("resnet18", stem="tiny")
