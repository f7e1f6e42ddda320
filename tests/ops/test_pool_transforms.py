"""Pooling through every door of torch: compile, export, vmap, func, second order, forward mode, fake, meta, autocast.

Each function is compared with a plain composition of torch's elementary operations (pad, unfold, max, sum) that shares no code
with it, or with its own eager result where only the door is in question.
"""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import convolve

# Torch's forward mode compiles its own decompositions with the deprecated torch.jit, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

CASES = {
    "max, torch's own": lambda x: convolve.max_pool2d(x, 3, 2, 1),
    "max, uneven padding": lambda x: convolve.max_pool2d(x, 3, 2, ((0, 2), (2, 1))),
    "max, much padding, dilated": lambda x: convolve.max_pool2d(x, 2, 1, 4, 2),
    "max, sequence": lambda x: convolve.max_pool1d(x.flatten(-2), 3, 2, "same_lower"),
    "max, volume": lambda x: convolve.max_pool3d(x.unsqueeze(-3), (1, 2, 2), 1, ((1, 1), (2, 0), (0, 1))),
    "average, torch's own": lambda x: convolve.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "average, uneven padding": lambda x: convolve.avg_pool2d(x, 3, 2, ((0, 2), (2, 1)), True, False),
    "average, dilated": lambda x: convolve.avg_pool2d(x, 3, 1, 2, dilation=2),
    "average, torch's own, ceil": lambda x: convolve.avg_pool2d(x, 3, 2, 1, True),
    "average, sequence": lambda x: convolve.avg_pool1d(x.flatten(-2), 3, 2, "same", divisor_override=2),
    "adaptive max": lambda x: convolve.adaptive_max_pool2d(x, (2, 3)),
    "adaptive average": lambda x: convolve.adaptive_avg_pool2d(x, (2, 3)),
    "global max": convolve.global_max_pool2d,
    "global average": convolve.global_avg_pool2d,
    "trainable": lambda x: convolve.trainable_pool2d(
        x, torch.linspace(1, -2, 3, dtype=x.dtype, device=x.device), None, 2, mode="sum"
    ),
}
# Their padding depends on the size: torch.export keeps that as a guard, and the graph refuses what does not meet it.
REFUSED_AT_ANOTHER_SIZE = ("max, sequence", "average, uneven padding", "average, sequence")
every_case = pytest.mark.parametrize("case", CASES)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape or (2, 3, 5, 7), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def curved(case: str):
    """A scalar function with a second derivative: the pooled values cubed."""
    return lambda x: (CASES[case](x).nan_to_num(0, 0, 0) ** 3).sum()


@every_case
def test_gradients_of_first_and_second_order_are_right(case: str) -> None:
    x = images(1, 3, 3, 4).requires_grad_()

    def finite(x: Tensor) -> Tensor:
        return CASES[case](x).nan_to_num(0, 0, 0)

    assert torch.autograd.gradcheck(finite, x)
    assert torch.autograd.gradgradcheck(finite, x)


@every_case
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_equals_a_loop(case: str) -> None:
    x = images(4, 2, 3, 5, 7)
    torch.testing.assert_close(torch.func.vmap(CASES[case])(x), torch.stack([CASES[case](one) for one in x]))
    second = torch.func.vmap(CASES[case], in_dims=1)(x)
    torch.testing.assert_close(second, torch.stack([CASES[case](one) for one in x.unbind(1)]))


@every_case
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_functional_gradient_and_hessian_equal_autograd(case: str) -> None:
    x = images(1, 3, 2, 3)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(curved(case)(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(curved(case))(x), expected)
    hessian = torch.autograd.functional.hessian(curved(case), x)
    torch.testing.assert_close(torch.func.hessian(curved(case))(x), hessian)
    per_sample = torch.func.vmap(torch.func.grad(curved(case)))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(per_sample[0], expected)


@every_case
def test_forward_mode_equals_the_directional_derivative(case: str) -> None:
    x, direction = images(1, 3, 4, 5), images(1, 3, 4, 5, seed=1)
    leaf = x.clone().requires_grad_()
    result = CASES[case](leaf)
    _, tangent = torch.func.jvp(CASES[case], (x,), (direction,))
    weights = images(*result.shape, seed=2)
    (gradient,) = torch.autograd.grad(result, leaf, weights)
    empty = ~result.isfinite()
    assert tangent[empty].equal(torch.zeros_like(tangent[empty]))
    torch.testing.assert_close((tangent * weights).sum(), (gradient * direction).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)
        again = torch.autograd.forward_ad.unpack_dual(CASES[case](dual)).tangent
    torch.testing.assert_close(again, tangent)


@every_case
def test_fake_and_meta_tensors_have_the_real_shape_and_dtype(case: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = images().to(dtype)
        expected = CASES[case](x)
        meta = CASES[case](x.to("meta"))
        assert (meta.shape, meta.dtype, meta.device.type) == (expected.shape, dtype, "meta")
        with FakeTensorMode() as mode:
            fake = CASES[case](mode.from_tensor(x))
        assert (fake.shape, fake.dtype) == (expected.shape, dtype)


@every_case
def test_autocast_leaves_the_dtype_alone(case: str) -> None:
    x = images().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert CASES[case](x).dtype == torch.float32


@every_case
def test_export_gives_a_graph_that_computes_the_same_for_another_batch(case: str) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return CASES[case](x)

    x = images(3, 3, 5, 7)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(Net(), (x,), dynamic_shapes=({0: batch},))
    other = images(5, 3, 5, 7, seed=4)
    torch.testing.assert_close(program.module()(other), CASES[case](other))


@every_case
def test_export_of_one_image_size_serves_another(case: str) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return CASES[case](x)

    size = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(Net(), (images(2, 3, 9, 11),), dynamic_shapes=(size,))
    other = images(2, 3, 12, 8, seed=4)
    if case in REFUSED_AT_ANOTHER_SIZE:
        with pytest.raises(AssertionError, match="Guard failed"):
            program.module()(other)
    else:
        torch.testing.assert_close(program.module()(other), CASES[case](other))


@pytest.mark.parametrize("case", [name for name in CASES if "own" in name or "adaptive" in name])
def test_export_emits_torchs_own_operator_where_it_can_express_the_problem(case: str) -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return CASES[case](x)

    graph = torch.export.export(Net(), (images(),)).graph
    calls = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert any("pool" in call for call in calls), calls


@pytest.mark.parametrize(
    "case",
    ["max, uneven padding", "max, much padding, dilated", "average, dilated", "average, uneven padding", "trainable"],
)
def test_compiled_in_one_graph_equals_eager_in_value_and_gradient(case: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(CASES[case], fullgraph=True, backend="aot_eager")
    for shape in ((2, 3, 5, 7), (4, 3, 8, 9)):
        x = images(*shape).requires_grad_()
        expected, got = CASES[case](x), compiled(x)
        torch.testing.assert_close(got, expected)
        weights = images(*expected.shape, seed=2)
        torch.testing.assert_close(torch.autograd.grad(got, x, weights), torch.autograd.grad(expected, x, weights))


def test_one_compiled_graph_serves_several_sizes() -> None:
    torch._dynamo.reset()

    def several(x: Tensor) -> tuple[Tensor, ...]:
        values, indices = convolve.max_pool2d(x, 2, 2, 3, return_indices=True)
        uneven = convolve.max_pool2d(x, 3, 2, ((0, 1), (2, 1)))
        return values, indices, uneven, convolve.avg_pool2d(x, 3, 2, "same", dilation=2)

    compiled = torch.compile(several, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 3, 9, 11), (3, 3, 12, 8), (1, 5, 7, 7)):
        x = images(*shape)
        torch.testing.assert_close(compiled(x), several(x))


def test_a_compiled_functional_gradient_is_right() -> None:
    torch._dynamo.reset()
    for case in ("max, uneven padding", "average, dilated"):
        x = images()
        compiled = torch.compile(torch.func.grad(curved(case)), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), torch.func.grad(curved(case))(x))


def test_a_tracer_sees_the_pooling_and_not_the_slices() -> None:
    from torch.overrides import TorchFunctionMode

    class Watch(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_function__(self, function, types, arguments=(), keywords=None):
            self.names.append(getattr(function, "__name__", ""))
            return function(*arguments, **(keywords or {}))

    x = torch.randn(1, 8, 32, 32)
    with torch.no_grad(), Watch() as watch:
        watched = convolve.max_pool2d(x, 2), convolve.avg_pool2d(x, 2)
    assert [name for name in watch.names if "pool" in name] == ["max_pool2d", "avg_pool2d"]
    assert not any("maximum" in name or "add" in name for name in watch.names)
    assert watched[0].equal(convolve.max_pool2d(x, 2))


def test_what_watches_is_shown_the_pooling_whatever_its_size() -> None:
    """Derivative levels, vmap and dispatch modes, on maps large enough that plain inference goes by slices."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            self.names.append(str(function))
            return function(*arguments, **(keywords or {}))

    x, direction = images(2, 3, 41, 43), images(2, 3, 41, 43, seed=1)
    for function, own in ((convolve.max_pool2d, F.max_pool2d), (convolve.avg_pool2d, F.avg_pool2d)):
        with Watch() as watch:
            function(x, 3, 2, 1)
        assert [name for name in watch.names if "pool" in name]
        assert not [name for name in watch.names if "maximum" in name or "add" in name]
        torch.testing.assert_close(torch.func.vmap(lambda x: function(x, 3, 2, 1))(x[None])[0], own(x, 3, 2, 1))  # noqa: B023
        (leaf := x.clone()).requires_grad_()
        result = own(leaf, 3, 2, 1)
        weights = images(*result.shape, seed=2)
        (gradient,) = torch.autograd.grad(result, leaf, weights)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, direction)
            tangent = torch.autograd.forward_ad.unpack_dual(function(dual, 3, 2, 1)).tangent
        torch.testing.assert_close((tangent * weights).sum(), (gradient * direction).sum())


def test_an_exported_average_carries_no_divisor() -> None:
    """ONNX's average has none, and torch's exporter drops it silently: it is written as a mean times the window's size."""

    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            plain = convolve.avg_pool2d(x, 3, 2, 1, divisor_override=7)
            return plain, convolve.avg_pool2d(x, 3, 2, ((0, 2), (2, 1)), count_include_pad=False)

    x = images()
    program = torch.export.export(Net(), (x,))
    calls = [node for node in program.graph.nodes if "avg_pool" in str(node.target)]
    assert calls
    for node in calls:
        assert len(node.args) < 7 or node.args[6] is None
        assert node.kwargs.get("divisor_override") is None
    for got, expected in zip(program.module()(x), Net()(x), strict=True):
        torch.testing.assert_close(got, expected)
    torch.testing.assert_close(program.module()(x)[0], F.avg_pool2d(x, 3, 2, 1, divisor_override=7))


def test_inference_mode_equals_training_mode_to_rounding() -> None:
    x = images(2, 3, 11, 13)
    for case, function in CASES.items():
        with torch.inference_mode():
            fast = function(x)
        torch.testing.assert_close(fast, function(x.clone().requires_grad_()).detach(), msg=case)


def test_ties_under_vmap_and_jvp_follow_the_first_maximum_as_in_eager() -> None:
    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    direction = images(2, 1, 4, 4)
    _, tangent = torch.func.jvp(CASES["max, much padding, dilated"], (x,), (direction,))
    _, indices = convolve.max_pool2d(x, 2, 1, 4, 2, return_indices=True)
    expected = direction.flatten(2).gather(2, indices.flatten(2).clamp(min=0)).reshape(indices.shape)
    torch.testing.assert_close(tangent, expected.masked_fill(indices < 0, 0))


def test_functions_survive_copy_and_pickle() -> None:
    for function in (convolve.max_pool2d, convolve.avg_pool2d, convolve.trainable_pool2d):
        assert copy.deepcopy(function) is function
        assert pickle.loads(pickle.dumps(function)) is function


def test_the_caller_keeps_input_and_generator() -> None:
    x = images()
    before, state = x.clone(), torch.get_rng_state()
    for function in CASES.values():
        function(x)
    assert x.equal(before)
    assert torch.get_rng_state().equal(state)
    assert x._version == 0


def test_minus_infinity_alone_in_a_window_still_has_a_place_and_a_gradient() -> None:
    x = torch.full((1, 1, 3, 3), -math.inf, requires_grad=True)
    values, indices = convolve.max_pool2d(x, 2, 1, ((1, 0), (1, 0)), return_indices=True)
    assert indices.flatten().tolist() == [0, 0, 1, 0, 0, 1, 3, 3, 4]
    values.sum().backward()
    native = torch.full((1, 1, 3, 3), -math.inf, requires_grad=True)
    F.max_pool2d(native, 2, 1, 1)[..., :3, :3].sum().backward()
    assert x.grad.equal(native.grad)
