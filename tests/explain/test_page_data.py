"""The page's data, read back from the page, equals the findings; what cannot be explained gets one clear error."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convolve
from convolve.draw.explain import GRADIENT_LEVELS, sprite, unpacked
from convolve.draw.page import MOST_BYTES
from convolve.errors import ConvolveError, InputError, ShapeError, UnknownNameError, UsageError
from convolve.explain import measuring
from convolve.jobs.explain import Explanation
from convolve.jobs.results import Run
from explain.conftest import full_budget
from explain.models import Dilated, Perceptron, UNet


def data_of(page: str | Path) -> dict[str, Any]:
    text = Path(page).read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    torch.manual_seed(0)
    return convolve.explain_image(
        Dilated(), "sample:flower", input="3x40x48", out=tmp_path_factory.mktemp("explain") / "flower"
    )


def test_a_sprite_carries_every_value_within_half_a_step() -> None:
    values = np.random.default_rng(0).normal(size=(3, 7, 5)) * 13
    for given, half in ((values, 0.5 / 127), (np.abs(values), 0.5 / 255)):
        packed = sprite(given)
        assert packed["signed"] == bool((given < 0).any())
        assert np.abs(unpacked(packed) - given).max() <= half * packed["limit"] * (1 + 1e-9)
    assert unpacked(sprite(np.zeros((1, 2, 2)))).max() == 0


def test_the_numbers_of_the_page_are_those_of_the_network(shown: Explanation) -> None:
    data = data_of(shown.files["page"])
    found = shown.findings
    picture = Image.open(io.BytesIO(base64.b64decode(data["picture"].partition(",")[2])))
    assert np.array_equal(np.asarray(picture), shown.pixels.permute(1, 2, 0).numpy())
    (moment,) = data["moments"]
    assert [name for name, _ in moment["probabilities"]] == [name for name, _ in found.last.probabilities]
    assert [share for _, share in moment["probabilities"]] == [share for _, share in found.last.probabilities]
    for layer, row, maps, page in zip(found.layers, data["layers"], found.last.maps, moment["maps"], strict=True):
        assert (row["name"], tuple(row["shape"]), tuple(row["channels"])) == (layer.name, layer.shape, layer.channels)
        step = page["sprite"]["limit"] / (254 if page["sprite"]["signed"] else 510)
        assert np.abs(unpacked(page["sprite"]) - maps.values.numpy()).max() <= step * 1.000001
        assert [unit["value"] for unit in page["strongest"]] == [unit.value for unit in maps.strongest]
        h, w = row["shape"][1:]
        for index in ((0, 0), (h - 1, w // 2)):
            seen: set[tuple[int, int]] = set()
            for axes in row["sight"]["terms"]:
                rows, columns = (axis["seen"][0 if axis["along"] is None else index[axis["along"]]] for axis in axes)
                seen |= {(i, j) for a, b in rows for i in range(a, b + 1) for c, d in columns for j in range(c, d + 1)}
            truth = convolve.receptive_field(Dilated(), layer.name, index, input="3x40x48").inputs[0].pixels
            assert seen == truth
    order = [layer.name for layer in found.layers]
    roots = {number: unpacked(packed["root"]) for number, packed in moment["measured"].items()}
    places = {number: [tuple(unit[:3]) for unit in packed["units"]] for number, packed in moment["measured"].items()}
    for row in found.last.measured:
        number = str(order.index(row.layer))
        index = places[number].index((row.unit.channel, row.unit.row, row.unit.column))
        touched, outside, strongest, *box = moment["measured"][number]["units"][index][3:]
        truth = row.gradient.numpy()
        h, w = truth.shape
        root = roots[number][index]
        assert moment["measured"][number]["block"] == row.block == 1
        assert np.array_equal(root[:h, :w] > 0, truth > 0)  # a gradient that is not zero is never drawn as zero
        assert not root[h:].any()
        assert not root[:, w:].any()
        assert (touched, outside) == (row.touched, 0)
        if not row.touched:  # a unit that rests
            assert (strongest, box) == (0, [])
            continue
        assert np.abs(root[:h, :w] - np.sqrt(truth / truth.max())).max() <= 1.001 / GRADIENT_LEVELS
        assert strongest == pytest.approx(truth.max(), rel=6e-3)
        inside, across = truth.nonzero()
        assert box == [inside.min(), inside.max(), across.min(), across.max()]
    for method, page in zip(found.last.attributions, moment["attributions"], strict=True):
        assert np.abs(unpacked(page["sprite"])[0] - method.values.numpy()).max() <= page["sprite"]["limit"] / 250
    weight = dict(Dilated().named_parameters())["wide.weight"]
    assert moment["filters"][0]["shape"] == list(weight.shape)


def test_probabilities_and_weights_are_the_models_own(run: Run, photos: Path, tmp_path: Path) -> None:
    image = sorted(photos.rglob("*.png"))[0]
    shown = convolve.explain_image(run.files["model"], image, out=tmp_path / "shown")
    truth = run.load().predict(image)
    assert shown.label == truth.label
    for (name, share), (same, true) in zip(shown.findings.last.probabilities, truth.probabilities, strict=True):
        assert name == same
        assert share == pytest.approx(true, abs=1e-6)
    first = next(p for p in run.load().net.parameters() if p.ndim == 4)
    assert torch.equal(shown.findings.last.filters[0].weight, first.detach()[:64, :8])
    assert not any("random" in note for note in shown.notes)
    page = Path(shown.files["page"]).read_text(encoding="utf-8")
    assert "<b>" + "猫" not in page  # class names and file names are escaped
    assert shown._repr_html_().startswith("<iframe srcdoc=")
    assert set(shown.files) == {"page", "maps", "receptive-field", "filters", "attribution"}
    for kind, path in shown.files.items():
        if kind != "page":
            with Image.open(path) as picture:
                assert picture.size[0] > 200
    json.dumps(shown.to_json(), allow_nan=False)


def test_random_weights_are_said_and_repeat(tmp_path: Path) -> None:
    first, second, other = (
        convolve.explain_image("lenet_relu", "sample:china", attribution=("none",), seed=seed, out=tmp_path / str(n))
        for n, seed in enumerate((5, 5, 6))
    )
    assert any("random (seed 5)" in note for note in first.notes)
    assert torch.equal(first.findings.last.maps[0].values, second.findings.last.maps[0].values)
    assert not torch.equal(first.findings.last.maps[0].values, other.findings.last.maps[0].values)


def test_a_network_of_maps_is_explained_without_classes(tmp_path: Path) -> None:
    shown = convolve.explain_image(UNet(), "sample:china", out=tmp_path / "unet")
    assert shown.label is None
    assert shown.findings.last.attributions == ()
    assert any("not one score per class" in note for note in shown.notes)
    assert any("taken to be 3x160x224" in note for note in shown.notes)
    assert Path(shown.files["page"]).stat().st_size < MOST_BYTES


def test_the_callers_model_and_random_state_come_back(tmp_path: Path) -> None:
    model = Dilated().train()
    model.wide.weight.requires_grad_(False)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    convolve.explain_image(model, "sample:china", input="3x20x20", out=tmp_path / "a")
    assert model.training
    assert not model.wide.weight.requires_grad
    assert model.head.weight.requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())


WRONG: dict[str, tuple[dict[str, Any], type[ConvolveError], str]] = {
    "an unknown layer": ({"layers": ("wied",)}, UnknownNameError, r"unknown layer; got 'wied'; use .*wide"),
    "an unknown layer for Grad-CAM": ({"cam_layer": "hed"}, UnknownNameError, "unknown layer"),
    "a layer without maps": ({"layers": ("head",)}, UsageError, "only a layer with maps can be shown; head gives 1x4"),
    "an unknown method": ({"attribution": ("gradcam",)}, UnknownNameError, "use grad-cam"),
    "an unknown class": ({"target": "dog"}, UnknownNameError, "unknown class; got 'dog'"),
    "no convolution": (
        {"model": Perceptron()},
        UsageError,
        "this model has none; Perceptron consists of Flatten, Linear",
    ),
    "an image too small": ({"model": nn.Sequential(nn.Conv2d(3, 4, 11)), "input": "3x8x8"}, ShapeError, "8"),
    "an unknown model": ({"model": "vgg61"}, UnknownNameError, "vgg16"),
    "no such file": ({"image": "nowhere.png"}, InputError, "nowhere.png"),
    "a folder for an image": ({"image": "."}, UsageError, "one image"),
    "attribution without classes": ({"model": UNet(), "attribution": ("saliency",)}, UsageError, "score per class"),
    "four channels": ({"model": nn.Sequential(nn.Conv2d(4, 4, 3)), "input": "4x9x9"}, UsageError, "1 channel"),
    "not a model": ({"model": 3}, UsageError, "got int"),
}


@pytest.mark.parametrize("what", WRONG)
def test_bad_input_gets_one_clear_error_and_leaves_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changed, kind, says = WRONG[what]
    given = {"model": Dilated(), "image": "sample:china", "out": tmp_path / "out", "input": "3x24x24", **changed}
    with pytest.raises(kind, match=says) as caught:
        convolve.explain_image(**given)
    assert caught.value.rule
    assert not (tmp_path / "out").exists()


def test_an_unwritable_target_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here", encoding="utf-8")
    with pytest.raises(UsageError, match="results are not written over others"):
        convolve.explain_image(Dilated(), "sample:china", out=tmp_path / "file")
    with pytest.raises(ConvolveError, match=r"cannot write .*; .*file is a file; choose a place"):
        convolve.explain_image(Dilated(), "sample:china", out=tmp_path / "file" / "deeper")


@pytest.mark.slow
def test_vgg16_on_a_photo_takes_less_than_15_seconds_and_2_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MACS", full_budget())
    shown = convolve.explain_image("vgg16", "sample:china", out=tmp_path / "vgg16")
    assert Path(shown.files["page"]).stat().st_size < MOST_BYTES
    assert shown.seconds < 15
    assert len(shown.findings.layers) == 18
    assert all(row.outside == 0 for row in shown.findings.last.measured)
    assert {row.layer for row in shown.findings.last.measured} == {layer.name for layer in shown.findings.layers}
