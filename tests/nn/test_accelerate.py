"""`accelerate`: the same model, the same numbers, other operators; and back."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convolve
from convolve.errors import UsageError
from convolve.nn.accelerate import OURS
from convolve.ops import choose, execute
from convolve.ops.algorithms import winograd

KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv1d": (lambda: nn.Conv1d(3, 4, 5, stride=2, padding=1, dilation=2), (2, 3, 23)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), padding=(1, 0), groups=2, bias=False), (2, 4, 7, 9)),
    "Conv2d same": (lambda: nn.Conv2d(3, 5, (5, 3), padding="same"), (2, 3, 7, 9)),
    "Conv2d reflect": (lambda: nn.Conv2d(3, 5, 3, padding=2, padding_mode="reflect"), (2, 3, 7, 9)),
    "Conv2d circular": (lambda: nn.Conv2d(3, 5, 3, padding=(1, 2), padding_mode="circular"), (2, 3, 7, 9)),
    "Conv2d replicate, same": (lambda: nn.Conv2d(3, 5, 3, padding="same", padding_mode="replicate"), (2, 3, 7, 9)),
    "Conv2d unbatched": (lambda: nn.Conv2d(3, 5, 3), (3, 7, 9)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2, padding=1), (1, 2, 4, 5, 6)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 4, 5, stride=3, output_padding=2), (2, 3, 7)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 5, 6)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 3, 4, 3)),
    "MaxPool1d": (lambda: nn.MaxPool1d(3, 2, 1), (2, 3, 11)),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 3, 8, 9)),
    "MaxPool2d dilated": (lambda: nn.MaxPool2d(2, 1, dilation=2), (2, 3, 8, 9)),
    "MaxPool3d": (lambda: nn.MaxPool3d(2), (1, 2, 4, 5, 6)),
    "AvgPool1d": (lambda: nn.AvgPool1d(3, 2, 1, count_include_pad=False), (2, 3, 11)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1, divisor_override=7), (2, 3, 8, 9)),
    "AvgPool3d": (lambda: nn.AvgPool3d(2), (1, 2, 4, 5, 6)),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(4), (2, 3, 11)),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((None, 2)), (2, 3, 8, 9)),
    "AdaptiveAvgPool3d": (lambda: nn.AdaptiveAvgPool3d(1), (1, 2, 4, 5, 6)),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(4), (2, 3, 11)),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d(3), (2, 3, 8, 9)),
    "AdaptiveMaxPool3d": (lambda: nn.AdaptiveMaxPool3d(2), (1, 2, 4, 5, 6)),
}


def test_every_layer_that_is_exchanged_is_tried_here() -> None:
    assert {kind.__name__ for kind in OURS} == {name.split()[0] for name in KINDS}


def _numbers(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """The output, and the gradients by input and parameters."""
    x = x.clone().requires_grad_()
    y = layer(x)
    weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("name", KINDS)
def test_values_and_gradients_are_those_of_torchs_layer_and_undoing_is_exact(name: str) -> None:
    make, shape = KINDS[name]
    torch.manual_seed(0)
    layer, x = make(), torch.randn(shape)
    before, kind, attributes = _numbers(layer, x), type(layer), set(layer.__dict__)
    assert convolve.accelerate(layer) is layer
    assert type(layer) is OURS[kind]
    for mine, theirs in zip(_numbers(layer, x), before, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=2e-5)
    convolve.restore(layer)
    assert type(layer) is kind
    assert set(layer.__dict__) == attributes
    assert all(map(torch.equal, _numbers(layer, x), before))


class Net(nn.Module):
    """Shared, nested and listed layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), self.shared, nn.BatchNorm2d(4))
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.shared(self.first(x)))
        y: Tensor = self.pool(self.up(x)).flatten(1)
        return y


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(1)
    return Net().eval()


X = torch.randn(3, 1, 12, 12, generator=torch.Generator().manual_seed(2))


def test_state_dict_parameters_hooks_and_names_stay(net: nn.Module) -> None:
    before, tensors, names = net.state_dict(), list(net.parameters()), [name for name, _ in net.named_modules()]
    calls: list[str] = []
    net.first.register_forward_hook(lambda *_: calls.append("hook"))
    y = net(X)
    convolve.accelerate(net)
    torch.testing.assert_close(net(X), y, atol=1e-5, rtol=1e-5)
    assert calls == ["hook", "hook"]
    assert list(net.state_dict()) == list(before)
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(net.state_dict().values(), before.values(), strict=True)
    )
    assert all(mine is theirs for mine, theirs in zip(net.parameters(), tensors, strict=True))
    assert [name for name, _ in net.named_modules()] == names
    assert net.shared is net.body[2]
    Net().load_state_dict(net.state_dict())


def test_an_optimizer_that_was_made_before_trains_the_accelerated_model(net: nn.Module) -> None:
    twin = copy.deepcopy(net)
    mine, theirs = (torch.optim.SGD(model.parameters(), 0.1) for model in (net, twin))
    convolve.accelerate(net)
    for model, optimizer in ((net, mine), (twin, theirs)):
        model.train()
        for _ in range(3):
            optimizer.zero_grad()
            model(X).square().sum().backward()
            optimizer.step()
    for a, b in zip(net.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_copies_and_pickles_are_accelerated_and_equal(net: nn.Module) -> None:
    convolve.accelerate(net, freeze=True)
    with torch.no_grad():
        y = net(X)
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        for other in (copy.deepcopy(net), torch.load(file, weights_only=False)):
            assert convolve.acceleration(other) == convolve.acceleration(net)
            assert torch.equal(other(X), y)
            other.first.weight.zero_()
            assert torch.equal(net(X), y), "they share a weight or its transformed copy"
            convolve.restore(other)
            assert type(other.first) is nn.Conv2d


@pytest.mark.parametrize("freeze", [False, True])
def test_compiled_and_exported_models_agree(net: nn.Module, freeze: bool) -> None:
    y = net(X)
    convolve.accelerate(net, freeze=freeze)
    with torch.no_grad():
        compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(X), y, atol=1e-5, rtol=1e-5)
        exported = torch.export.export(net, (X,)).module()
        torch.testing.assert_close(exported(X), y, atol=1e-5, rtol=1e-5)


def test_parametrised_layers_keep_their_parametrisation() -> None:
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    x = torch.randn(2, 3, 6, 6)
    before = _numbers(layer, x)
    convolve.accelerate(layer, freeze=True)
    assert isinstance(layer, convolve.nn.Conv2d)
    assert layer.frozen is None, "its weight is computed anew in each call"
    for mine, theirs in zip(_numbers(layer, x), before, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    convolve.restore(layer)
    assert not isinstance(layer, convolve.nn.Conv2d)
    assert all(map(torch.equal, _numbers(layer, x), before))
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Conv2d


def test_a_parametrisation_removed_while_accelerated_leaves_one_of_ours() -> None:
    layer = convolve.accelerate(nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)))
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is convolve.nn.Conv2d
    assert type(convolve.restore(layer)) is nn.Conv2d


def test_spectral_norm_by_hooks_works_and_is_not_frozen() -> None:
    torch.manual_seed(0)
    layer = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)).eval()
    x = torch.randn(2, 3, 6, 6)
    y = layer(x)
    convolve.accelerate(layer, freeze=True)
    assert layer.frozen is None
    torch.testing.assert_close(layer(x), y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("undo_before", [True, False])
def test_lazy_layers_become_ours_at_their_first_call(undo_before: bool) -> None:
    layer = convolve.accelerate(nn.LazyConv2d(4, 3))
    if undo_before:
        convolve.restore(layer)
    y = layer(torch.randn(1, 2, 5, 5))
    assert y.shape == (1, 4, 3, 3)
    assert type(layer) is (nn.Conv2d if undo_before else convolve.nn.Conv2d)
    assert type(convolve.restore(layer)) is nn.Conv2d
    assert "cls_to_become" not in layer.__dict__


class Doubling(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2 * super().forward(input)


def test_what_is_left_alone_says_why() -> None:
    replaced = nn.Conv2d(1, 1, 1)
    replaced.forward = lambda x: x  # type: ignore[method-assign]
    model = nn.Sequential(Doubling(1, 1, 1), replaced, convolve.nn.Conv2d(1, 1, 1), nn.Linear(1, 1), nn.MaxPool2d(1))
    assert convolve.acceleration(model).left_alone.keys() == {"0", "1", "4"}
    found = convolve.acceleration(convolve.accelerate(model))
    assert found.layers == ("4",)
    assert found.left_alone == {
        "0": "Doubling is a subclass that may compute something else",
        "1": "its forward was replaced",
    }
    x = torch.ones(1, 1, 1, 1)
    assert torch.equal(model[0](x), 2 * nn.Conv2d.forward(model[0], x))
    convolve.restore(model)
    assert type(model[2]) is convolve.nn.Conv2d, "it was ours before"


def test_twice_is_once(net: nn.Module) -> None:
    convolve.accelerate(convolve.accelerate(net))
    convolve.restore(convolve.restore(net))
    assert type(net.first) is nn.Conv2d


def test_no_module_is_refused() -> None:
    with pytest.raises(UsageError, match="takes a module"):
        convolve.accelerate(lambda x: x)  # type: ignore[type-var]


# -- frozen weights


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The row `winograd`, counting how often it transforms a weight, and chosen for everything that it serves."""
    counts = {"prepared": 0, "run": 0, "plain": 0}
    row = winograd.ALGORITHM
    assert row.preparation is not None
    prepared = row.preparation

    def count(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            counts[name] += 1
            return function(*arguments)

        return counting

    preparation = replace(prepared, prepare=count("prepared", prepared.prepare), run=count("run", prepared.run))
    counting_row = replace(row, run=count("plain", row.run), preparation=preparation)
    monkeypatch.setitem(choose._TABLE, "winograd", counting_row)
    execute.forget()
    yield counts
    monkeypatch.undo()
    execute.forget()


def frozen_layer() -> nn.Module:
    torch.manual_seed(0)
    layer = convolve.nn.Conv2d(8, 8, 3, padding=1, algorithm="winograd")
    return convolve.accelerate(layer, freeze=True)


def test_a_frozen_weight_is_transformed_once_for_all_sizes_and_changes_no_bit(counted: dict[str, int]) -> None:
    layer = frozen_layer()
    xs = [torch.randn(n, 8, size, size) for n, size in ((1, 9), (2, 9), (1, 14), (3, 5), (1, 9))]
    with torch.no_grad():
        mine = [layer(x) for x in xs]
        assert counted == {"prepared": 1, "run": 5, "plain": 0}
        convolve.unfreeze(layer)
        assert all(torch.equal(y, layer(x)) for x, y in zip(xs, mine, strict=True))
        assert counted == {"prepared": 1, "run": 5, "plain": 5}
        exact = torch.conv2d(xs[2].double(), layer.weight.double(), layer.bias.double(), padding=1)
        assert (mine[2] - exact).abs().max() < 2.5e-5 * exact.square().mean().sqrt()


def test_with_a_gradient_a_frozen_layer_is_an_ordinary_one(counted: dict[str, int]) -> None:
    layer = frozen_layer()
    layer(torch.randn(1, 8, 9, 9)).sum().backward()
    assert counted["prepared"] == counted["run"] == 0
    assert layer.weight.grad is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.weight.mul_(2),
        lambda layer: setattr(layer, "weight", nn.Parameter(torch.zeros(8, 8, 3, 3))),
        lambda layer: layer.double(),
        lambda layer: layer.load_state_dict({"weight": torch.ones(8, 8, 3, 3), "bias": torch.ones(8)}),
        lambda layer: torch.optim.SGD([layer.weight], 1.0).step() or layer.weight.add_(1),
    ],
    ids=["in place", "replaced", "converted", "loaded", "stepped"],
)
def test_a_frozen_weight_that_changes_is_an_error_until_it_is_frozen_again(change: Callable[[Any], Any]) -> None:
    layer, x = frozen_layer(), torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        layer(x)
        change(layer)
        with pytest.raises(UsageError, match="a frozen weight must not change"):
            layer(x.to(layer.weight.dtype))
        convolve.accelerate(layer, freeze=True)
        y = layer(x.to(layer.weight.dtype))
        exact = torch.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
        torch.testing.assert_close(y.double(), exact, atol=1e-4, rtol=1e-4)


def test_frozen_under_inference_mode_autocast_and_other_precisions(counted: dict[str, int]) -> None:
    layer, x = frozen_layer(), torch.randn(1, 8, 9, 9)
    with torch.inference_mode():
        y = layer(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow = layer(x)
    assert counted["prepared"] == 1
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.float(), y, atol=0.1, rtol=0.1)
    layer.algorithm = "auto"
    with torch.no_grad(), convolve.precision("exact"):
        exact = torch.conv2d(x, layer.weight, layer.bias, padding=1)
        torch.testing.assert_close(layer(x), exact, atol=1e-5, rtol=1e-5)
    assert counted["run"] == 1, "precision excludes Winograd"


def test_nan_reaches_what_it_should_with_a_frozen_weight() -> None:
    layer, x = frozen_layer(), torch.randn(1, 8, 9, 9)
    x[0, 0, 4, 4] = torch.nan
    with torch.no_grad():
        assert torch.equal(layer(x).isnan(), torch.conv2d(x, layer.weight, padding=1).isnan())
