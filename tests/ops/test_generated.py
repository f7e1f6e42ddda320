"""Generated convolutions, all arguments at once, by every algorithm: values and gradients against torch in float64."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import convolve
from convolve.errors import DeclinedError
from convolve.ops.algorithms import ALGORITHMS
from convolve.ops.bounds import EPSILON
from ops import independent
from problems import DENSE, INTEGERS

CONV = {1: convolve.conv1d, 2: convolve.conv2d, 3: convolve.conv3d}
TRANSPOSED = {1: convolve.conv_transpose1d, 2: convolve.conv_transpose2d, 3: convolve.conv_transpose3d}
NAMES = ("auto", *(row.name for row in ALGORITHMS))
BOUNDS = {row.name: row.bound for row in ALGORITHMS}


@dataclass
class Case:
    axes: int
    batch: int | None
    groups: int
    channels: int
    filters: int
    size: list[int]
    kernel: list[int]
    stride: list[int]
    pairs: list[tuple[int, int]]
    dilation: list[int]
    mode: str
    algorithm: str
    seed: int
    bias: bool
    flip: bool
    interleaved: bool

    def draw(self, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + len(shape) + sum(shape))
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    @property
    def window(self) -> tuple[Any, ...]:
        return self.stride, self.pairs, self.dilation, self.groups, self.mode

    def keywords(self, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.pairs,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.mode,
            "flip_kernel": self.flip,
            "group_order": "interleaved" if self.interleaved else "contiguous",
            "algorithm": self.algorithm,
        }

    def weight(self) -> Tensor:
        per_group = self.channels // self.groups
        if self.algorithm == "separable" and self.axes == 2:  # it serves kernels of rank one only
            outer = self.draw(self.filters, per_group, self.kernel[0], 1) * self.draw(1, 1, 1, self.kernel[1])
            return outer.detach().requires_grad_()
        return self.draw(self.filters, per_group, *self.kernel)

    def interleave(self, x: Tensor) -> Tensor:
        """Channels so that contiguous groups are what interleaved groups of x are: channel i of group g is i * groups + g."""
        if not self.interleaved:
            return x
        order = [i * self.groups + g for g in range(self.groups) for i in range(self.channels // self.groups)]
        return x[:, order]

    def deinterleave(self, x: Tensor) -> Tensor:
        if not self.interleaved:
            return x
        order = [i * self.groups + g for g in range(self.groups) for i in range(self.channels // self.groups)]
        return x[:, [order.index(c) for c in range(self.channels)]]

    def flipped(self, w: Tensor) -> Tensor:
        return w.flip(tuple(range(2, w.dim()))) if self.flip else w


@st.composite
def cases(draw: st.DrawFn) -> Case:
    axes = draw(st.sampled_from((1, 2, 2, 3)))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    winograd = draw(st.booleans()) and axes < 3
    plain = draw(st.booleans())

    def per(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(axes)]

    phases = draw(st.integers(1, 4)) if winograd else 1  # the strides that Winograd's rows take apart
    kernel = per(phases + 1, 2 * phases) if phases > 1 else [draw(st.integers(2, 3))] * axes if winograd else per(1, 4)
    stride = [phases] * axes if winograd else per(1, 4)
    dilation = [1] * axes if winograd or plain else per(1, 3)
    mode = draw(st.sampled_from(("zeros", "zeros", "zeros", "reflect", "replicate", "circular")))
    size = per(1, (23, 11, 6)[axes - 1])
    pairs = list(zip(per(0, 3), per(0, 3), strict=True))
    if mode in ("reflect", "circular"):
        most = [n - 1 if mode == "reflect" else n for n in size]
        pairs = [(min(p, m), min(q, m)) for (p, q), m in zip(pairs, most, strict=True)]
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [max(n, extent - p - q) for n, extent, (p, q) in zip(size, extents, pairs, strict=True)]
    return Case(
        axes, draw(st.sampled_from((1, 2, 3, None))), groups, groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)), size, kernel, stride, pairs, dilation, mode,
        draw(st.sampled_from(NAMES)), draw(st.integers(0, 2**20)), draw(st.booleans()), draw(st.booleans()),
        draw(st.booleans()),
    )  # fmt: skip


def _check(case: Case, got: Tensor, want: Tensor, scale: Tensor, dtype: torch.dtype, grown: float = 1.0) -> None:
    """Within the widest bound of the table for this many products, relative to the rms of the neighbourhood (here: of all)."""
    assert got.dtype == dtype
    assert got.shape == want.shape
    epsilon = EPSILON[str(dtype).removeprefix("torch.")]
    base = 4e-4 if "winograd" in case.algorithm else 5e-5
    bound = base * epsilon / EPSILON["float32"] * grown
    assert bool(torch.isfinite(got).all())
    error = (got.double() - want).abs()
    assert bool((error <= bound * (scale.max() + 1e-300)).all()), (float(error.max()), float(bound * scale.max()))


def _run(case: Case, transposed: bool, dtype: torch.dtype) -> None:
    n, kernel = case.batch or 1, case.kernel
    w = case.weight()
    x = case.draw(n, case.channels, *case.size)
    forward = independent.convolution(case.interleave(x), case.flipped(w), *case.window)
    y = case.draw(*forward.shape)
    if transposed:
        first, bias = y, case.draw(case.channels) if case.bias else None
        total = [
            m + p + q - d * (k - 1) - 1
            for m, (p, q), d, k in zip(case.size, case.pairs, case.dilation, kernel, strict=True)
        ]
        extra = {"output_padding": [t % s for t, s in zip(total, case.stride, strict=True)]}
        want = case.deinterleave(independent.adjoint(y, case.flipped(w), case.size, *case.window))
    else:
        first, bias, extra, want = x, case.draw(case.filters) if case.bias else None, {}, forward
    if bias is not None:
        want = want + bias.reshape(-1, *[1] * case.axes)
    operator = (TRANSPOSED if transposed else CONV)[case.axes]
    operands = [t.detach().to(dtype).requires_grad_() for t in (first, w, *([bias] if case.bias else []))]
    exact = [t.detach().double().requires_grad_() for t in operands]
    given_first = operands[0][0] if case.batch is None else operands[0]
    try:
        got = operator(given_first, *operands[1:], **extra, **case.keywords(dtype))
    except DeclinedError:
        case.algorithm = "auto"
        got = operator(given_first, *operands[1:], **extra, **case.keywords(dtype))
    got = got[None] if case.batch is None else got
    if dtype != torch.float64:  # what torch gives on the rounded operands
        again = exact[:2]
        if transposed:
            want = case.deinterleave(independent.adjoint(again[0], case.flipped(again[1]), case.size, *case.window))
        else:
            want = independent.convolution(case.interleave(again[0]), case.flipped(again[1]), *case.window)
        if case.bias:
            want = want + exact[2].reshape(-1, *[1] * case.axes)
        sources = exact
    else:
        sources = [first, w, *([bias] if bias is not None else [])]
    scale = want.detach().abs().max() + w.detach().abs().max() * first.detach().abs().max()
    _check(case, got, want.detach(), scale, dtype)
    g = case.draw(*want.shape).detach()
    found = torch.autograd.grad(got, operands, g.to(dtype))
    expected = torch.autograd.grad(want, sources, g.to(dtype).double(), allow_unused=True)
    for mine, theirs, operand in zip(found, expected, operands, strict=True):
        theirs = torch.zeros_like(operand, dtype=torch.float64) if theirs is None else theirs
        _check(case, mine, theirs, theirs.abs().max() + g.abs().max() * 3, dtype, grown=4.0)


# With planted faults (tools/plant_faults.py) one counter-example is enough; making it small takes longer than finding it.
PHASES = (Phase.explicit, Phase.generate) if "CONVOLVE_FAULTS" in os.environ else tuple(Phase)
FAST = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=PHASES)


@settings(FAST, max_examples=900)
@given(cases())
def test_convolutions_and_their_gradients_are_torchs(case: Case) -> None:
    _run(case, transposed=False, dtype=torch.float64)


@settings(FAST, max_examples=700)
@given(cases())
def test_transposed_convolutions_and_their_gradients_are_the_adjoints(case: Case) -> None:
    _run(case, transposed=True, dtype=torch.float64)


@settings(FAST, max_examples=300)
@given(cases())
def test_convolutions_in_float32_stay_within_bounds_of_float64(case: Case) -> None:
    _run(case, transposed=False, dtype=torch.float32)


@settings(FAST, max_examples=200)
@given(cases())
def test_transposed_convolutions_in_float32_stay_within_bounds_of_float64(case: Case) -> None:
    _run(case, transposed=True, dtype=torch.float32)


@settings(FAST, max_examples=200)
@given(cases())
def test_small_integers_in_float32_come_out_exact_from_every_exact_row(case: Case) -> None:
    rows = [
        row.name
        for row in ALGORITHMS
        if row.exact and row.name in DENSE and (case.axes > 1 or row.name != "torch_channels_last")
    ]
    case.algorithm = case.algorithm if case.algorithm in rows else rows[case.seed % len(rows)]
    generator = torch.Generator().manual_seed(case.seed)
    x = torch.randint(-8, 9, (case.batch or 1, case.channels, *case.size), generator=generator)
    w = torch.randint(-8, 9, (case.filters, case.channels // case.groups, *case.kernel), generator=generator)
    want = independent.convolution(case.interleave(x.double()), case.flipped(w.double()), *case.window)
    operator = CONV[case.axes]
    got = operator(x.float(), w.float(), **case.keywords(torch.float32))
    assert torch.equal(got.double(), want)
    if case.algorithm in INTEGERS:
        assert torch.equal(operator(x.to(torch.int8), w.to(torch.int16), **case.keywords(torch.int64)), want.long())
