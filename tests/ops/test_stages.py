"""Stages (convolution, ReLU, 2x2 maximum in one kernel): against torch in float64, between guard pages, and never noticed in a network."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convolve
from convolve.errors import UsageError
from convolve.kernels.machine import machine
from convolve.models import create
from convolve.nn.sequential import Sequential
from convolve.ops import engine, stages
from convolve.ops.kept import kept_choices
from guard_pages import guarded_like
from kernels_support import guard_allocations

pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")

# images, channels, (h, w), filters, kernel, padding, dtype: odd sizes, a last vector that is not full, tiles that overlap or hang over
CASES = [
    (33, 1, (28, 28), 6, (5, 5), ((2, 2), (2, 2)), torch.float32),
    (40, 6, (14, 14), 16, (5, 5), ((0, 0), (0, 0)), torch.float32),
    (35, 3, (9, 11), 5, (3, 2), ((1, 0), (2, 1)), torch.float32),
    (37, 2, (3, 5), 1, (2, 3), ((0, 0), (0, 1)), torch.float32),
    (32, 2, (13, 7), 3, (1, 3), ((0, 0), (1, 1)), torch.float64),
]


def composed(x: Tensor, w: Tensor, bias: Tensor, padding: stages.Padding) -> Tensor:
    (top, bottom), (left, right) = padding
    return F.max_pool2d(F.relu(F.conv2d(F.pad(x, (left, right, top, bottom)), w, bias)), 2)


def operands(case: int) -> tuple[Tensor, Tensor, Tensor, stages.Padding]:
    n, c, size, k, kernel, padding, dtype = CASES[case]
    chance = torch.Generator().manual_seed(case)
    # Small whole numbers: sums are exact, and maxima are often equal.
    shapes = (n, c, *size), (k, c, *kernel), (k,)
    x, w, bias = (torch.randint(-2, 3, shape, generator=chance).to(dtype) for shape in shapes)
    return x, w, bias, padding


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_results_and_gradients_are_torchs_between_guard_pages(
    case: int, at_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w, bias, padding = operands(case)
    guard_allocations(monkeypatch, at_end)
    leaves = [guarded_like(tensor, at_end).requires_grad_() for tensor in (x, w, bias)]
    with convolve.precision("exact"):
        assert stages.why_not(leaves[0], leaves[1], padding) is None
        result = stages.stage(*leaves, padding)
    exact = [tensor.double().requires_grad_() for tensor in (x, w, bias)]
    expected = composed(*exact, padding)
    assert torch.equal(result.double(), expected)
    g = torch.randint(-2, 3, expected.shape, generator=torch.Generator().manual_seed(9))
    found = torch.autograd.grad(result, leaves, guarded_like(g.to(x.dtype), at_end))
    for mine, theirs in zip(found, torch.autograd.grad(expected, exact, g.double()), strict=True):
        assert torch.equal(mine.double(), theirs)


# images, channels, (h, w), filters, padding, dtype: odd sizes; filters and channels that do not fill a register tile
FEWER_PRODUCTS = [
    (40, 6, (14, 14), 16, ((0, 0), (0, 0)), torch.float32),
    (33, 7, (9, 11), 6, ((2, 2), (2, 2)), torch.float32),
    (35, 6, (6, 7), 9, ((3, 0), (0, 1)), torch.float32),
    (32, 8, (5, 12), 17, ((1, 4), (4, 0)), torch.float64),
]


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("case", FEWER_PRODUCTS)
def test_with_fewer_products_they_are_torchs_up_to_rounding(
    case: tuple[int, int, tuple[int, int], int, stages.Padding, torch.dtype],
    at_end: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n, c, size, k, padding, dtype = case
    chance = torch.Generator().manual_seed(n)
    shapes = (n, c, *size), (k, c, 5, 5), (k,)
    x, w, bias = (torch.randn(shape, generator=chance, dtype=dtype) for shape in shapes)
    guard_allocations(monkeypatch, at_end)
    leaves = [guarded_like(tensor, at_end).requires_grad_() for tensor in (x, w, bias)]
    run: list[str] = []
    loaded = stages.loaded
    monkeypatch.setattr(stages, "loaded", lambda kernel: run.append(kernel.name) or loaded(kernel))
    result = stages.stage(*leaves, padding)
    exact = [tensor.double().requires_grad_() for tensor in (x, w, bias)]
    expected = composed(*exact, padding)
    g = torch.randn(expected.shape, generator=chance, dtype=dtype)
    found = torch.autograd.grad(result, leaves, guarded_like(g, at_end))
    assert len(run) == 3
    assert all(name.startswith("stages_winograd") for name in run)
    bound = 2e-5 if dtype == torch.float32 else 4e-14  # of the root mean square, as BOUND of ops/algorithms/winograd.py
    theirs = torch.autograd.grad(expected, exact, g.double())
    for mine, right in zip((result, *found), (expected, *theirs), strict=True):
        assert float((mine - right).detach().abs().max()) < bound * float(right.detach().square().mean().sqrt())


def test_what_is_not_finite_is_computed_again_by_plain_sums() -> None:
    x, w, bias = torch.randn(40, 6, 9, 9), torch.randn(6, 6, 5, 5), torch.randn(6)
    x[3, 0, 4, 4], x[20, 0, 0, 0], x[39, 0, 7, 7] = math.nan, math.inf, -math.inf
    found = []
    for function in (stages.stage, composed):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, w, bias)]
        y = function(*leaves, ((2, 2), (2, 2)))
        found.append((y, *torch.autograd.grad(y[:, 0].sum(), leaves)))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, equal_nan=True, rtol=1e-4, atol=1e-4)


def test_a_run_that_began_with_plain_sums_goes_on_with_them() -> None:
    x, w = torch.randn(40, 6, 9, 9), torch.randn(6, 6, 5, 5)
    none = ((0, 0), (0, 0))
    with convolve.precision("exact"):
        plain = stages.stage(x, w, None, none)
    with kept_choices() as choices:
        assert stages.why_not(x, w, none) is None
        fewer = stages.stage(x, w, None, none)
    assert not torch.equal(plain, fewer)
    ((key, way),) = choices.items()
    assert way == [stages.WINOGRAD]
    with kept_choices({key: [stages.STAGE]}):
        assert stages.why_not(x, w, none) is None
        assert torch.equal(stages.stage(x, w, None, none), plain)
    with kept_choices({key: [stages.WINOGRAD]}), convolve.precision("exact"):
        assert torch.equal(stages.stage(x, w, None, none), plain)


def test_an_image_has_the_same_bits_in_any_batch_and_on_any_number_of_threads() -> None:
    x, w, bias = torch.randn(70, 6, 9, 9), torch.randn(7, 6, 5, 5), torch.randn(7)
    none = ((0, 0), (0, 0))
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = x.clone().requires_grad_()
            y = stages.stage(leaf, w, bias, none)
            results.append((y.detach(), torch.autograd.grad(y.sum(), leaf)[0]))
    finally:
        torch.set_num_threads(threads)
    for y, dx in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(dx, results[0][1])
    assert torch.equal(stages.stage(x[5:40].contiguous(), w, bias, none), results[0][0][5:40])


def test_nan_and_infinity_spread_as_in_torch_and_to_no_other_image() -> None:
    x, w, bias = torch.randn(40, 1, 8, 8), torch.randn(2, 1, 3, 3), torch.randn(2)
    x[3, 0, 4, 4], x[20, 0, 0, 0], x[39, 0, 7, 7] = math.nan, math.inf, -math.inf
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = (
        stages.stage(leaf, w, bias, ((1, 1), (1, 1))),
        composed(other, w, bias, ((1, 1), (1, 1))),
    )
    torch.testing.assert_close(y, expected, equal_nan=True)
    torch.testing.assert_close(
        torch.autograd.grad(y[:, 0].sum(), leaf)[0], torch.autograd.grad(expected[:, 0].sum(), other)[0], equal_nan=True
    )


def test_weight_gradients_are_right_on_fewer_threads_than_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, bias, padding = operands(1)
    monkeypatch.setattr(engine, "thread_count", lambda: 3)
    run, empty = engine.run, torch.empty
    monkeypatch.setattr(engine, "run", lambda address, arguments, _: run(address, arguments, 1))
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(1))
    gradients = []
    for function in (stages.stage, composed):
        leaves = [w.clone().requires_grad_(), bias.clone().requires_grad_()]
        with convolve.precision("exact"):
            gradients.append(torch.autograd.grad(function(x, *leaves, padding).sum(), leaves))
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.equal(mine, theirs)


def test_second_derivatives_are_those_of_torchs_operators() -> None:
    x, w, bias, padding = operands(4)
    leaf = (x + 0.1 * torch.rand_like(x)).requires_grad_()
    seconds = []
    for function in (stages.stage, composed):
        weight = w.clone().requires_grad_()
        (dx,) = torch.autograd.grad(function(leaf, weight, bias, padding).square().sum(), leaf, create_graph=True)
        seconds.append(torch.autograd.grad(dx.square().sum(), weight)[0])
    torch.testing.assert_close(*seconds)


# -- in a network


def nets() -> tuple[nn.Sequential, nn.Sequential]:
    """lenet_relu, ours and with the same layers one by one."""
    torch.manual_seed(0)
    ours = create("lenet_relu")
    assert type(ours) is Sequential
    return ours, nn.Sequential(*ours)


def test_a_networks_results_and_gradients_are_those_of_its_layers() -> None:
    ours, plain = nets()
    x, y = torch.randn(40, 1, 28, 28), torch.arange(40) % 10
    gradients = []
    for net in (ours, plain):
        net.zero_grad()
        loss = F.cross_entropy(net(x), y)
        gradients.append([loss, *torch.autograd.grad(loss, list(net.parameters()))])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def calls(net: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many stages are computed in one piece."""
    counted = []
    stage = stages.stage
    monkeypatch.setattr(stages, "stage", lambda *args: counted.append(1) or stage(*args))
    net(x)
    monkeypatch.setattr(stages, "stage", stage)
    return len(counted)


def test_stages_are_left_whole_wherever_somebody_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    net, _ = nets()
    x = torch.randn(2 * machine().lanes("float32"), 1, 28, 28)
    assert calls(net, x, monkeypatch) == 2
    assert calls(net, x[:-1], monkeypatch) == 0, "too few images"
    assert calls(net, x.flip(0).transpose(2, 3), monkeypatch) == 1, "another layout, until the second stage"
    seen: list[torch.Size] = []
    handle = net.relu1.register_forward_hook(lambda *args: seen.append(args[2].shape))
    assert calls(net, x, monkeypatch) == 1
    assert seen == [(len(x), 6, 28, 28)]
    handle.remove()
    net.max2.ceil_mode = True
    assert calls(net, x, monkeypatch) == 1
    net.max2.ceil_mode = False
    with convolve.precision("reproducible"):
        assert calls(net, x, monkeypatch) == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert calls(net, x, monkeypatch) == 0, "the layers decide what they compute in"
    net.conv1.algorithm = "torch"
    assert calls(net, x, monkeypatch) == 1
    del net.conv1.algorithm
    assert calls(nn.Sequential(*net), x, monkeypatch) == 0


def test_transforms_of_torch_see_the_layers() -> None:
    net, plain = nets()
    x = torch.randn(32, 1, 28, 28)
    gradients = [torch.func.grad(lambda x, f=f: f(x).square().sum())(x) for f in (net, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    batches = [torch.func.vmap(f)(torch.stack([x, -x])) for f in (net, plain)]
    torch.testing.assert_close(*batches, rtol=1e-4, atol=1e-5)


def test_accelerate_takes_torchs_sequential_in_and_restore_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
    x = torch.randn(32, 1, 9, 9)
    before = net(x)
    convolve.accelerate(net)
    assert calls(net, x, monkeypatch) == 1
    torch.testing.assert_close(net(x), before)
    assert convolve.acceleration(net).layers == ("0", "2")
    assert type(convolve.restore(net)) is nn.Sequential


def test_they_are_right_when_compiled_for_avx2() -> None:
    code = """
import torch
from torch.nn import functional as F
from convolve.kernels.machine import machine
from convolve.ops.stages import stage
assert machine().lanes("float32") == 8
for c, k, size in ((2, 3, 3), (6, 7, 5)):
    x, w, b = torch.randn(21, c, 9, 8).requires_grad_(), torch.randn(k, c, size, size).requires_grad_(), torch.randn(k)
    y, z = stage(x, w, b, ((1, 1), (0, 0))), F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=(1, 0))), 2)
    for mine, theirs in zip((y, *torch.autograd.grad(y.sum(), (x, w))), (z, *torch.autograd.grad(z.sum(), (x, w)))):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
"""
    env = {**os.environ, "NUMBA_CPU_NAME": "haswell", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_frozen_network_goes_by_stages_and_its_weights_must_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = create("lenet_relu"), torch.randn(40, 1, 28, 28)
    with torch.no_grad():
        expected = net(x)
        frozen = convolve.accelerate(net, freeze=True)
        assert calls(frozen, x, monkeypatch) == 2
        assert torch.equal(frozen(x), expected)
        frozen[0].weight[0, 0, 0, 0] += 1
        with pytest.raises(UsageError, match="a frozen weight must not change"):
            frozen(x)
