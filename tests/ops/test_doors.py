"""The whole matrix of torch's machinery: what it gives on our operators is what it gives on torch's own, or is refused.

Once for `auto`, which ends in torch's own kernel, and once for a row of ours behind the operator `convolve::conv`.
"""

from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

import convolve
from convolve.errors import ConvolveError, UsageError
from convolve.geometry import Window
from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.call import ConvCall
from convolve.problem import ROLES

# torch's own functorch decompositions use what torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

FORWARD = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
BACK = {"stride": (2, 1), "padding": (1, 2), "output_padding": (1, 0), "dilation": (1, 2), "groups": 2}
generator = torch.Generator().manual_seed(0)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)


class Case:
    """An operator of ours, torch's own, and operands; `loss` makes a scalar of either."""

    def __init__(self, kind: str, algorithm: str) -> None:
        w = randn(6, 2, 3, 2)
        if kind == "conv":
            self.ours = lambda x, w, b: convolve.conv2d(x, w, b, algorithm=algorithm, **FORWARD)
            self.torchs: Callable[..., Tensor] = lambda x, w, b: F.conv2d(x, w, b, **FORWARD)
            self.operands = (randn(2, 4, 7, 6), w, randn(6))
            self.small = (randn(1, 4, 4, 5), w, self.operands[2])
        else:
            self.ours = lambda x, w, b: convolve.conv_transpose2d(x, w, b, algorithm=algorithm, **BACK)
            self.torchs = lambda x, w, b: F.conv_transpose2d(x, w, b, **BACK)
            self.operands = (randn(2, 6, 4, 8), w, randn(4))
            self.small = (randn(1, 6, 2, 4), w, self.operands[2])

    def leaves(self, operands: tuple[Tensor, ...] | None = None) -> list[Tensor]:
        return [t.clone().requires_grad_() for t in operands or self.operands]


def loss(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *operands: f(*operands).sin().sum()


@pytest.fixture(params=[(kind, row) for kind in ("conv", "transposed") for row in ("auto", "direct")], ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


@pytest.fixture
def dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def close(got: object, want: object) -> None:
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


# --- torch.func -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mapped", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, None), (0, 0, 0), (2, 3, None)]
)
def test_vmap_over_any_operands(case: Case, mapped: tuple[int | None, ...]) -> None:
    stacked = [
        t if d is None else torch.stack([randn(*t.shape) for _ in range(3)], dim=d)
        for t, d in zip(case.operands, mapped, strict=True)
    ]
    close(vmap(case.ours, in_dims=mapped)(*stacked), vmap(case.torchs, in_dims=mapped)(*stacked))


def test_vmap_of_vmap_of_grad(case: Case) -> None:
    xs, ws = (
        torch.stack([randn(*case.small[0].shape) for _ in range(2)]),
        torch.stack([randn(*case.small[1].shape) for _ in range(3)]),
    )

    def both(f: Callable[..., Tensor]) -> object:
        one = grad(loss(f), argnums=(0, 1, 2))
        return vmap(vmap(one, in_dims=(0, None, None)), in_dims=(None, 0, None))(xs, ws, case.small[2])

    close(both(case.ours), both(case.torchs))


def test_grad_and_grad_of_grad(case: Case) -> None:
    close(
        grad(loss(case.ours), argnums=(0, 1, 2))(*case.operands),
        grad(loss(case.torchs), argnums=(0, 1, 2))(*case.operands),
    )

    def twice(f: Callable[..., Tensor]) -> object:
        return grad(lambda *t: sum(g.cos().sum() for g in grad(loss(f), argnums=(0, 1))(*t)), argnums=(0, 1, 2))(
            *case.operands
        )

    close(twice(case.ours), twice(case.torchs))


def test_hessian_and_jacobians(case: Case) -> None:
    for argnum in (0, 1):
        close(
            hessian(loss(case.ours), argnums=argnum)(*case.small),
            hessian(loss(case.torchs), argnums=argnum)(*case.small),
        )
    for jacobian in (jacfwd, jacrev):
        close(
            jacobian(case.ours, argnums=(0, 1, 2))(*case.small), jacobian(case.torchs, argnums=(0, 1, 2))(*case.small)
        )


def test_tangents_are_never_lost(case: Case) -> None:
    tangents = tuple(randn(*t.shape) for t in case.operands)
    close(jvp(case.ours, case.operands, tangents), jvp(case.torchs, case.operands, tangents))
    with forward_ad.dual_level():
        for which in ((0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)):
            operands = [
                forward_ad.make_dual(t, d) if i in which else t
                for i, (t, d) in enumerate(zip(case.operands, tangents, strict=True))
            ]
            got, want = forward_ad.unpack_dual(case.ours(*operands)), forward_ad.unpack_dual(case.torchs(*operands))
            assert got.tangent is not None
            close((got.primal, got.tangent), (want.primal, want.tangent))
        with torch.no_grad():
            dual = forward_ad.make_dual(case.operands[0], tangents[0])
            assert forward_ad.unpack_dual(case.ours(dual, *case.operands[1:])).tangent is not None


# --- autograd -------------------------------------------------------------------------------------------------------


def test_gradcheck_of_first_and_second_order_with_batches_and_tangents(case: Case) -> None:
    leaves = case.leaves(case.small)
    assert torch.autograd.gradcheck(case.ours, leaves, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(case.ours, leaves, fast_mode=True)


def test_second_derivatives_are_torchs(case: Case) -> None:
    def second(f: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        leaves = case.leaves()
        first = torch.autograd.grad(loss(f)(*leaves), leaves, create_graph=True)
        return torch.autograd.grad(sum(g.cos().sum() for g in first), leaves)

    close(second(case.ours), second(case.torchs))


def test_only_the_gradients_asked_for_are_made(case: Case) -> None:
    for which in range(3):
        operands = [t.clone().requires_grad_(i == which) for i, t in enumerate(case.operands)]
        case.ours(*operands).sum().backward()
        for i, t in enumerate(operands):
            assert (t.grad is not None) == (i == which)
    with torch.no_grad():
        assert not case.ours(*case.leaves()).requires_grad
    with torch.inference_mode():
        close(case.ours(*case.operands).clone(), case.torchs(*case.operands).clone())


def test_what_a_precision_block_said_holds_in_a_backward_pass_after_it() -> None:
    leaves = [randn(1, 3, 8, 8).requires_grad_(), randn(4, 3, 3, 3).requires_grad_()]
    seen: list[str] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.convolve.conv.default:
                seen.append(args[3])
            return function(*args, **(kwargs or {}))

    with convolve.precision("reproducible"):
        y = convolve.conv2d(*leaves)
    assert convolve.why("1x3x8x8 k4 3x3").chosen == "torch"
    with Watch():
        y.sum().backward()
    assert [text.split()[0] for text in seen] == ["input_gradient", "weight_gradient"]
    assert all(text.endswith("reproducible") for text in seen)


# --- compile and export ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("dynamo")
def test_compile_fullgraph_with_gradients(case: Case) -> None:
    compiled = torch.compile(case.ours, fullgraph=True, backend="aot_eager")
    leaves = case.leaves()
    got = compiled(*leaves)
    close(got, case.torchs(*leaves))
    close(torch.autograd.grad(got.sin().sum(), leaves), torch.autograd.grad(loss(case.torchs)(*leaves), leaves))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's default compiler needs g++")
@pytest.mark.usefixtures("dynamo")
def test_torchs_default_compiler_gets_the_strides_it_was_promised() -> None:
    """Inductor generates code for the strides of the fake result, and asserts them on the real one."""

    def network(x: Tensor, w: Tensor) -> Tensor:
        return convolve.conv2d(x, w, stride=2, padding="same", groups=2, algorithm="direct").relu()

    x, w = randn(2, 4, 9, 8).to(memory_format=torch.channels_last).requires_grad_(), randn(6, 2, 3, 3).requires_grad_()
    got = torch.compile(network, fullgraph=True)(x, w)
    want = F.conv2d(F.pad(x, (0, 1, 1, 1)), w, None, 2, groups=2).relu()
    close(got, want)
    close(torch.autograd.grad(got.sin().sum(), (x, w)), torch.autograd.grad(want.sin().sum(), (x, w)))


@pytest.mark.usefixtures("dynamo")
def test_compile_keeps_sizes_dynamic_and_the_gradient_right(case: Case) -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(case.ours, fullgraph=True, backend=counter, dynamic=True)
    for n, h, width in ((2, 7, 6), (3, 9, 8), (4, 11, 13), (5, 10, 10), (7, 13, 9), (6, 12, 11)):
        leaves = case.leaves((randn(n, case.operands[0].shape[1], h, width), *case.operands[1:]))
        got = torch.autograd.grad(loss(compiled)(*leaves), leaves)
        close(got, torch.autograd.grad(loss(case.torchs)(*leaves), leaves))
    assert counter.frame_count <= 3, "one graph, and one more per remainder of the size by the stride"


@pytest.mark.usefixtures("dynamo")
def test_compile_of_torch_func_is_right(case: Case) -> None:
    compiled = torch.compile(grad(loss(case.ours), argnums=(0, 1, 2)), fullgraph=True, backend="aot_eager")
    close(compiled(*case.operands), grad(loss(case.torchs), argnums=(0, 1, 2))(*case.operands))
    xs = torch.stack([case.operands[0]] * 3)
    compiled = torch.compile(vmap(case.ours, in_dims=(0, None, None)), fullgraph=True, backend="aot_eager")
    close(compiled(xs, *case.operands[1:]), vmap(case.torchs, in_dims=(0, None, None))(xs, *case.operands[1:]))


@pytest.mark.usefixtures("dynamo")
def test_compiled_code_obeys_the_precision_block_it_runs_in() -> None:
    seen: list[str] = []

    def backend(module: torch.fx.GraphModule, _: object) -> object:
        seen.extend(node.args[3] for node in module.graph.nodes if "convolve" in str(node.target))
        return module

    compiled = torch.compile(lambda x, w: convolve.conv2d(x, w), fullgraph=True, backend=backend)
    x, w = randn(1, 2, 6, 6), randn(3, 2, 3, 3)
    compiled(x, w)
    with convolve.precision("exact"):
        compiled(x, w)
    compiled(x, w)
    assert [text.split()[-1] for text in seen] == ["default", "exact"]


@pytest.mark.usefixtures("dynamo")
def test_compile_refuses_what_eager_refuses() -> None:
    compiled = torch.compile(lambda x, w: convolve.conv2d(x, w), fullgraph=True, backend="aot_eager")
    # Dynamo cannot trace the making of our exception, so its message is dynamo's; what matters is that nothing is computed.
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        compiled(randn(1, 2, 2, 6), randn(3, 2, 3, 3))


class Model(torch.nn.Module):
    def __init__(self, f: Callable[..., Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return self.f(x, w, b)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.usefixtures("dynamo")
def test_export_emits_torchs_own_convolution_with_dynamic_sizes(case: Case, strict: bool) -> None:
    batch, height = torch.export.Dim("n", min=2, max=64), torch.export.Dim("h", min=4, max=64)
    program = torch.export.export(
        Model(case.ours), case.operands, dynamic_shapes=({0: batch, 2: height}, None, None), strict=strict
    )
    assert "convolve" not in program.graph_module.code
    for n, h in ((2, 7), (5, 9)):
        operands = (randn(n, case.operands[0].shape[1], h, case.operands[0].shape[3]), *case.operands[1:])
        close(program.module()(*operands), case.torchs(*operands))
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    close(torch.export.load(saved).module()(*case.operands), case.torchs(*case.operands))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("dynamo")
@pytest.mark.parametrize("kind", ["conv", "transposed"])
def test_onnx_gets_conv_and_its_runtime_agrees(kind: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    if kind == "conv":
        f = lambda x, w, b: convolve.conv2d(x, w, b, padding=((1, 0), (2, 1)), stride=2, groups=2)  # noqa: E731
        operands, wanted = (randn(2, 4, 7, 6).float(), randn(6, 2, 3, 2).float(), randn(6).float()), "Conv"
    else:
        f = lambda x, w, b: convolve.conv_transpose2d(x, w, b, stride=2, padding=((1, 0), (0, 1)))  # noqa: E731
        operands, wanted = (randn(2, 6, 4, 5).float(), randn(6, 2, 3, 2).float(), randn(2).float()), "ConvTranspose"
    program = torch.onnx.export(Model(f), operands, dynamo=True, verbose=False)
    assert program is not None
    nodes = [node.op_type for node in program.model.graph]
    assert wanted in nodes, nodes
    saved = io.BytesIO()
    program.save(saved)
    session = runtime.InferenceSession(saved.getvalue(), providers=["CPUExecutionProvider"])
    inputs = {i.name: t.numpy() for i, t in zip(session.get_inputs(), operands, strict=True)}
    torch.testing.assert_close(torch.as_tensor(session.run(None, inputs)[0]), f(*operands), rtol=1e-4, atol=1e-5)


# --- modes and tensors ----------------------------------------------------------------------------------------------


def test_autocast_casts_as_torch_does_and_gradients_keep_their_dtype(case: Case) -> None:
    operands = [t.float() for t in case.operands]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = case.ours(*operands), case.torchs(*operands)
        assert got.dtype == want.dtype == torch.bfloat16
        torch.testing.assert_close(got, want, rtol=2e-2, atol=2e-2)
        leaves = case.leaves(tuple(operands))
        gradients = torch.autograd.grad(case.ours(*leaves).float().sin().sum(), leaves)
        assert case.ours(*case.operands).dtype == torch.float64  # torch leaves float64 alone
    assert {g.dtype for g in gradients} == {torch.float32}
    torch.testing.assert_close(gradients[1], grad(loss(case.torchs), argnums=1)(*operands), rtol=0.1, atol=0.3)


def test_rows_that_sum_wide_do_so_under_autocast() -> None:
    x, w = torch.ones(1, 1, 1, 4096), torch.ones(1, 1, 1, 4096) + 2.0**-7
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for row in ("im2col", "direct", "matrix"):
            assert convolve.conv2d(x, w, algorithm=row).item() == 4096 + 32


def test_meta_and_fake_tensors_have_the_right_shape_and_format(case: Case) -> None:
    want = case.torchs(*case.operands)
    got = case.ours(*(t.to("meta") for t in case.operands))
    assert (got.device.type, got.shape, got.stride()) == ("meta", want.shape, want.stride())
    with FakeTensorMode():
        leaves = [torch.empty(t.shape, dtype=t.dtype, requires_grad=True) for t in case.operands]
        got = case.ours(*leaves)
        assert got.shape == want.shape
        got.sum().backward()
        assert [t.grad.shape for t in leaves if t.grad is not None] == [t.shape for t in case.operands]
        last = torch.empty(case.operands[0].shape, dtype=torch.float64).to(memory_format=torch.channels_last)
        assert case.ours(last, *leaves[1:]).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("last", [False, True])
def test_opcheck_of_the_operator_in_every_role(role: str, last: bool) -> None:
    call = ConvCall(Window.of((3, 2), (2, 1), ((1, 0), (2, 3)), (1, 2), axes=2), 2, "output", (0, 0), "direct")
    x, w = randn(2, 4, 7, 6), randn(6, 2, 3, 2)
    y = torch.ops.convolve.conv.default(x, w, None, str(call))
    x = x.to(memory_format=torch.channels_last) if last else x
    operands = {"output": (x, w), "input_gradient": (y, w), "weight_gradient": (x, y)}[role]
    bias = {"output": randn(6), "input_gradient": randn(4), "weight_gradient": None}[role]
    leaves = [None if t is None else t.clone().requires_grad_() for t in (*operands, bias)]
    torch.library.opcheck(torch.ops.convolve.conv.default, (*leaves, str(call.as_role(role, x.shape[2:]))))


def test_the_operator_itself_differentiates_as_its_wrappers_do(case: Case) -> None:
    call = ConvCall(Window.of((3, 2), (2, 1), (1, 2), (1, 2), axes=2), 2, "output", (0, 0))
    x, w = randn(2, 4, 7, 6).requires_grad_(), randn(6, 2, 3, 2).requires_grad_()
    got = torch.ops.convolve.conv.default(x, w, None, str(call))
    want = F.conv2d(x, w, **FORWARD)
    close(torch.autograd.grad(got.sin().sum(), (x, w)), torch.autograd.grad(want.sin().sum(), (x, w)))


def test_tools_that_watch_a_model_see_torchs_own_operator() -> None:
    """Also where a row of ours would compute it: fake tensors hold no numbers."""
    seen: list[object] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    assert convolve.why("1x1x512x512 k1 63x63 p31").chosen != "torch"
    with FakeTensorMode(), Watch():
        y = convolve.conv2d(torch.empty(1, 1, 512, 512), torch.empty(1, 1, 63, 63), padding=31)
        convolve.conv_transpose1d(torch.empty(3, 4, 5), torch.empty(4, 2, 3))
    assert y.shape == (1, 1, 512, 512)
    assert F.conv2d in seen
    assert F.conv_transpose1d in seen


def test_a_call_is_prepared_once() -> None:
    from convolve.ops import conv, execute

    x, w = randn(3, 5, 11, 7), randn(2, 5, 3, 3)
    convolve.conv2d(x, w, algorithm="direct")
    ready, plans = len(conv._READY), len(execute._PLANS)
    for _ in range(3):
        convolve.conv2d(x + 1, w, algorithm="direct")
    assert (len(conv._READY), len(execute._PLANS)) == (ready, plans)
    assert ready > 0
    assert plans > 0


OF_TORCH = Algorithm(
    "of torch",
    "torch's operator behind ours",
    lambda _, x, w, bias: F.conv2d(x, w, bias),
    lambda _: None,
    lambda _: Cost(1.0, 0),
    lambda _: 1e-6,
)


def remembered(x: Tensor, w: Tensor) -> Tensor:
    """The last of three calls, which goes the short way."""
    return [convolve.conv2d(x, w, algorithm=OF_TORCH) for _ in range(3)][-1]


def test_a_remembered_call_is_seen_by_modes_tracers_and_profilers() -> None:
    x, w = randn(2, 3, 6, 5), randn(4, 3, 3, 2)
    remembered(x, w)
    seen: list[object] = []

    class Dispatch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    class Function(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    for mode in (Dispatch, Function):
        seen.clear()
        with mode():
            convolve.conv2d(x, w, algorithm=OF_TORCH)
        assert torch.ops.convolve.conv.default in seen
    with torch.autograd.profiler.profile() as profile:
        remembered(x, w)
    assert "convolve::conv" in {event.name for event in profile.function_events}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # sizes are checked as Python's
        traced = torch.jit.trace(lambda t: convolve.conv2d(t, w, algorithm=OF_TORCH), x)
    assert "convolve::conv" in str(traced.graph)


@pytest.mark.parametrize("row", ["torch", "planes", "winograd"])
def test_the_bias_learns_alone_where_input_and_weight_are_fixed(row: str) -> None:
    x, w = randn(2, 3, 6, 5), randn(4, 3, 3, 3)
    for _ in range(3):
        bias = randn(4).requires_grad_()
        y = convolve.conv2d(x, w, bias, algorithm=row)
        g = randn(*y.shape)
        close(torch.autograd.grad(y, bias, g)[0], g.sum((0, 2, 3)))


def test_a_remembered_call_reads_negated_and_zero_tensors_as_what_they_stand_for() -> None:
    x, w = randn(2, 3, 6, 5), randn(4, 3, 3, 2)
    negated = torch.complex(randn(2, 3, 6, 5), x).conj().imag
    zero = torch._efficientzerotensor(x.shape, dtype=x.dtype)
    assert negated.is_neg()
    for row in ("direct", "im2col"):
        for _ in range(3):
            close(convolve.conv2d(negated, w, algorithm=row), F.conv2d(-x, w))
            close(convolve.conv2d(zero, w, algorithm=row), torch.zeros(2, 4, 4, 4, dtype=x.dtype))


def test_a_remembered_call_still_refuses_what_it_was_not_remembered_for() -> None:
    x, w = randn(2, 3, 6, 5), randn(4, 3, 3, 2)
    for row in ("torch", "direct"):
        convolve.conv2d(x, w, algorithm=row)
        for wrong in (w.float(), w.to("meta")):
            with pytest.raises(UsageError, match="must"):
                convolve.conv2d(x, wrong, algorithm=row)
        with pytest.raises(ConvolveError, match="bias"):
            convolve.conv2d(x, w, randn(3), algorithm=row)


def test_errors_can_be_pickled_and_a_wrong_mode_is_an_error_not_a_default() -> None:
    import pickle

    with pytest.raises(ConvolveError) as caught, convolve.precision("exakt"):
        pass
    assert str(pickle.loads(pickle.dumps(caught.value))) == "unknown precision; got 'exakt'; use exact or default"
    with pytest.raises(UsageError):
        convolve.why("1x1x5x5 k1 3x3", precision="fast")


def test_channels_innermost_both_rows_of_the_library_are_its_one_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    from convolve.ops import conv

    monkeypatch.setattr(conv, "_READY", {})
    x, w = torch.randn(1, 3, 9, 8), torch.randn(16, 3, 3, 3)
    last = [t.contiguous(memory_format=torch.channels_last) for t in (x, w)]
    for operands, direct in ((last, True), ([x, w], False)):
        conv._READY.clear()
        result = convolve.conv2d(*operands, padding=1, algorithm="torch_channels_last")
        (ready,) = conv._READY.values()
        assert (ready.native is not None) is direct
        again = convolve.conv2d(*operands, padding=1, algorithm="torch_channels_last")
        assert again.equal(result)
        assert again.stride() == result.stride() == F.conv2d(*operands, padding=1).stride()
