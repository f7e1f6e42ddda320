"""What an explanation says equals what the network and `convolve.receptive_field` say, asked directly."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import convolve
from convolve.analysis.inspecting import examine
from convolve.analysis.trace import Input
from convolve.errors import UnknownNameError, UsageError
from convolve.explain import activations, attribution, layers
from convolve.explain.explaining import Wishes, explain
from convolve.explain.records import Findings
from convolve.models import create
from explain.models import Dilated, UNet

SMALL = 79  # AlexNet and GoogLeNet at this size have maps of more than one position and odd borders


def net(name: str) -> nn.Module:
    torch.manual_seed(3)
    match name:
        case "unet":
            return UNet()
        case "dilated":
            return Dilated()
        case "alexnet":
            return create("alexnet", in_channels=3, img_size=SMALL, num_classes=7)
    return create(name, in_channels=3, img_size=SMALL, num_classes=7)


NETS = {"alexnet": SMALL, "googlenet": SMALL, "unet": 28, "dilated": 20}


def found_for(name: str, wishes: Wishes | None = None) -> tuple[nn.Module, Tensor, Findings]:
    model, side = net(name), NETS[name]
    image = torch.randn(1, 3, side, side - 4 if name == "unet" else side, generator=torch.Generator().manual_seed(1))
    with torch.random.fork_rng(devices=[]):
        found = explain(
            model, image, [("now", lambda: None)], None, wishes or Wishes(methods=("none",) if name != "unet" else ())
        )
    return model, image, found


@pytest.fixture(scope="module", params=NETS)
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module, Tensor, Findings]:
    return (request.param, *found_for(request.param))


Case = tuple[str, nn.Module, Tensor, Findings]


def test_the_overlay_of_every_unit_equals_receptive_field(case: Case) -> None:
    _, model, image, found = case
    report = convolve.inspect(model, image)
    for layer in found.layers:
        _, h, w = layer.shape
        for index in {(0, 0), (h // 2, w // 2), (h - 1, w - 1), (h // 3, w - 1)}:
            seen = convolve.receptive_field(report, layer.name, index).inputs[0]
            mask = activations.covered(layer, index, found.size)
            assert set(map(tuple, mask.nonzero().tolist())) == seen.pixels, (layer.name, index)
            assert layer.sight.exact == seen.exact


def test_every_pixel_with_a_gradient_lies_in_the_overlay(case: Case) -> None:
    """Of every layer the corners and the middle, with our own backward pass through a copy; not only the units that are shown."""
    _, model, image, found = case
    model = copy.deepcopy(model).eval()
    pixels = image.clone().requires_grad_()
    _, kept = activations.run(model, pixels, found.layers)
    touched = 0
    for layer in found.layers:
        _, h, w = layer.shape
        for row, column in {(0, 0), (h // 2, w // 2), (h - 1, w - 1)}:
            (slope,) = torch.autograd.grad(
                kept[layer.name][0, :, row, column].sum(), pixels, retain_graph=True, materialize_grads=True
            )
            gradient = slope[0].abs().sum(0) > 0
            assert not (gradient & ~activations.covered(layer, (row, column), found.size)).any(), (
                layer.name,
                row,
                column,
            )
            touched += int(gradient.sum())
    assert touched > 0
    assert all(row.outside == 0 for row in found.last.measured)


def test_the_overlay_is_no_larger_than_what_positive_weights_reach() -> None:
    """With all weights positive and no zeros after activations the gradient is positive on the whole field: the sets are equal."""
    model = UNet()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    for name in ("pool",):
        setattr(model, name, nn.AvgPool2d(2))  # a maximum passes a gradient to one pixel only
    model.double()
    image = torch.rand(1, 3, 28, 24, dtype=torch.float64) + 0.5
    found = explain(model, image, [("now", lambda: None)], None, Wishes())
    pixels = image.clone().requires_grad_()
    _, kept = activations.run(model, pixels, found.layers)
    for layer in found.layers:
        _, h, w = layer.shape
        for row, column in {(0, 0), (h // 2, w // 2 + 1), (h - 1, w - 1)}:
            (slope,) = torch.autograd.grad(kept[layer.name][0, 0, row, column], pixels, retain_graph=True)
            assert torch.equal(slope[0].abs().sum(0) > 0, activations.covered(layer, (row, column), found.size)), (
                layer.name
            )


def test_maps_and_strongest_units_are_what_the_modules_return(case: Case) -> None:
    _, model, image, found = case
    heard: dict[str, list[Tensor]] = {}
    model = copy.deepcopy(model).eval()

    def listener(path: str) -> Callable[..., None]:
        def listen(_module: nn.Module, _args: object, result: Tensor) -> None:
            if isinstance(result, Tensor):
                heard.setdefault(path, []).append(result.detach().clone())

        return listen

    for path, module in model.named_modules():
        module.register_forward_hook(listener(path))
    with torch.no_grad():
        model(image)
    for layer, maps in zip(found.layers, found.last.maps, strict=True):
        truth = heard[layer.path][layer.call][0]
        assert tuple(truth.shape) == layer.shape
        shown = truth[list(layer.channels), :: layer.step, :: layer.step]
        torch.testing.assert_close(maps.values, shown, rtol=1e-4, atol=1e-5)
        for unit in maps.strongest:
            assert abs(truth[unit.channel, unit.row, unit.column].item() - unit.value) < 1e-4
            assert truth[unit.channel].abs().max().item() <= abs(unit.value) + 1e-4


def test_layers_are_chains_and_blocks_in_order() -> None:
    report = convolve.inspect(net("googlenet"), "3x79x79")
    everything = layers.candidates(report)
    names = [layer.name for layer in everything]
    assert "conv1.act" in names
    assert "conv1.conv" not in names  # shown together with its activation
    shown, left_out = layers.chosen(everything, (), report)
    assert [layer.path for layer in shown if layer.path.startswith("inception")] == [
        f"inception{number}" for number in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
    ]
    assert set(left_out) == set(names) - {layer.name for layer in shown}
    two, _ = layers.chosen(everything, ("inception4a.branch1", "conv1.conv"), report)
    assert [layer.name for layer in two] == ["inception4a.branch1.act", "conv1.act"]
    with pytest.raises(UnknownNameError, match=r"inception3a"):
        layers.chosen(everything, ("inceptoin3a",), report)
    with pytest.raises(UsageError, match="only a layer with maps"):
        layers.named(
            layers.candidates(convolve.inspect("lenet", "1x28x28")), "fc2", convolve.inspect("lenet", "1x28x28")
        )


def test_large_maps_are_thinned_and_the_budget_holds() -> None:
    report = convolve.inspect(
        nn.Sequential(*(nn.Conv2d(3 if n == 0 else 8, 8, 3, padding=1) for n in range(12))), "3x512x480"
    )
    shown = layers.allotted(layers.candidates(report), 3)
    units = sum(len(r.channels) * -(-r.shape[1] // r.step) * -(-r.shape[2] // r.step) for r in shown)
    assert units <= layers.PAGE_UNITS / 3
    assert all(len(row.channels) >= 4 and row.step > 1 for row in shown)


def test_attributions_equal_their_definitions() -> None:
    """Grad-CAM, saliency and the rest from their formulas, in a few lines each, on a network of tanh."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(5, 4, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * 36, 6),
    )
    image = torch.randn(1, 3, 18, 18)
    names = tuple(row.name for row in attribution.METHODS)
    found = explain(model, image, [("now", lambda: None)], list("abcdef"), Wishes(target="d", methods=names))
    got = {row.method: row.values for row in found.last.attributions}
    assert [row.target for row in found.last.attributions] == ["d"] * 5
    assert found.last.attributions[0].layer == "4"
    assert model[0].weight.requires_grad
    assert model.training

    pixels = image.clone().requires_grad_()
    maps = model[:5](pixels)
    score = model[5:](maps)[0, 3]
    slope, by_map = torch.autograd.grad(score, (pixels, maps))
    cam = (by_map.mean((2, 3), keepdim=True) * maps).sum(1)[0].relu()
    torch.testing.assert_close(got["grad-cam"], cam.detach())
    torch.testing.assert_close(got["saliency"], slope[0].abs().amax(0))
    torch.testing.assert_close(got["input-x-gradient"], (slope * image)[0].sum(0))
    # Completeness (Sundararajan et al. 2017): integrated gradients sum to the score minus that of the baseline.
    with torch.no_grad():
        rise = model(image)[0, 3] - model(torch.zeros_like(image))[0, 3]
        without = image.clone()
        without[..., :3, :3] = 0  # the first patch: 18 / 8 rounded up
        fall = model(image)[0, 3] - model(without)[0, 3]
    torch.testing.assert_close(got["integrated-gradients"].sum(), rise, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(got["occlusion"][0, 0], fall, rtol=1e-4, atol=1e-6)


def test_a_module_called_twice_keeps_its_calls_apart() -> None:
    """resnet18's block calls one ReLU twice; each is a layer of its own, with its own values."""
    model = create("resnet18", num_classes=5).eval()
    image = torch.randn(1, 3, 64, 64)
    found = explain(
        model,
        image,
        [("now", lambda: None)],
        None,
        Wishes(layers=("layer1.0.relu", "layer1.0.relu#2"), methods=("none",)),
    )
    calls: list[Tensor] = []
    model.layer1[0].relu.register_forward_hook(lambda _m, _a, out: calls.append(out.detach().clone()))
    with torch.no_grad():
        model(image)
    by_name = {row.layer: row for row in found.last.maps}
    for name, truth in zip(("layer1.0.relu", "layer1.0.relu#2"), calls, strict=True):
        layer = next(row for row in found.layers if row.name == name)
        torch.testing.assert_close(by_name[name].values, truth[0, list(layer.channels)], rtol=1e-4, atol=1e-5)


def test_the_cost_of_a_layer_counts_every_branch_once() -> None:
    report = examine(Dilated(), [Input((1, 3, 20, 20))])
    last = layers.candidates(report)[-1]
    assert last.macs == 20 * 20 * (4 * 3 * 9 + 2 * 3 * 4 * 5 + 5 * 6)


class InPlace(nn.Module):
    """Changes the result of a convolution where it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mul_(0).sum((2, 3))


def test_what_is_shown_is_not_changed_by_an_operation_in_place() -> None:
    torch.manual_seed(0)
    model, image = InPlace(), torch.randn(1, 3, 9, 9)
    found = explain(model, image, [("now", lambda: None)], None, Wishes(methods=("none",)))
    with torch.no_grad():
        truth = model.conv(image)[0, list(found.layers[0].channels)]
    torch.testing.assert_close(found.last.maps[0].values, truth)
    assert all(row.touched == 27 // 3 for row in found.last.measured)
