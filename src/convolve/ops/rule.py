"""The derivative of a convolution, written once, and the four doors by which torch may come in.

A convolution is linear in each of its two operands, so the derivative is the convolution itself in another role: given the
gradient g of the result, the gradient by one operand is the role that computes this operand from the other one and g.

No single wrapper of torch serves all of its machinery, so `convolve` picks one of four:

    1  compiling, exporting    the operator `convolve::conv`; while exporting torch's own `aten::convolution`
    2  torch.func, dual level  an autograd.Function with rules for vmap and jvp
    3  a gradient is needed    a plain autograd.Function
    4  otherwise               the operator itself
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from convolve.ops import export
from convolve.ops.call import ConvCall, format_of, layout_of
from convolve.ops.execute import execute
from convolve.problem import Role

# role of the result: for each operand (a, b), the role that computes its gradient, and from what (g is the result's).
DERIVATIVE: dict[Role, tuple[tuple[Role, str], tuple[Role, str]]] = {
    "output": (("input_gradient", "gb"), ("weight_gradient", "ag")),
    "input_gradient": (("output", "gb"), ("weight_gradient", "ga")),
    "weight_gradient": (("input_gradient", "bg"), ("output", "ag")),
}


def convolve(a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Tensor:
    """The convolution of the call that `text` describes, differentiable by every means of torch that can be right."""
    if torch.compiler.is_compiling():
        if torch.compiler.is_exporting():
            return export.convolution(a, b, bias, text)
        return _OPERATOR(a, b, bias, text)
    # Asked before any "no gradient needed" shortcut: requires_grad says nothing about tangents.
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return _Transformed.apply(a, b, bias, text)
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad or (bias is not None and bias.requires_grad)):
        return _Differentiable.apply(a, b, bias, text)
    return _OPERATOR(a, b, bias, text)


def gradients(
    a: Tensor, b: Tensor, g: Tensor, text: str, needed: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    """The gradients by a, b and bias, each only where it is needed."""
    call = ConvCall.parse(text)
    tensors = {"a": a, "b": b, "g": g}
    found: list[Tensor | None] = []
    for wanted, operand, (role, (first, second)) in zip(needed[:2], (a, b), DERIVATIVE[call.role], strict=True):
        if wanted:
            derived = call.as_role(role, operand.shape[2:])
            found.append(convolve(tensors[first], tensors[second], None, str(derived)))
        else:
            found.append(None)
    by_bias = g.sum((0, *range(2, g.dim()))) if needed[2] else None
    return found[0], found[1], by_bias, None


class _Differentiable(torch.autograd.Function):
    """Door 3."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.text = text
        return _OPERATOR(a, b, bias, text)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        a, b = ctx.saved_tensors
        return gradients(a, b, g, ctx.text, ctx.needs_input_grad)


class _Transformed(torch.autograd.Function):
    """Door 2."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Tensor:
        return _OPERATOR(a, b, bias, text)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, b, _, ctx.text = inputs
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        a, b = ctx.saved_tensors
        return gradients(a, b, g, ctx.text, ctx.needs_input_grad)

    @staticmethod
    def jvp(ctx: Any, da: Tensor | None, db: Tensor | None, dbias: Tensor | None, _: None) -> Tensor | None:  # type: ignore[override]
        a, b = ctx.saved_tensors
        terms = []
        if da is not None:
            terms.append(convolve(da, b, dbias, ctx.text))
        if db is not None:
            terms.append(convolve(a, db, dbias if da is None else None, ctx.text))
        if not terms and dbias is not None:
            terms.append(convolve(torch.zeros_like(a), b, dbias, ctx.text))
        return sum(terms[1:], terms[0]) if terms else None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Any:  # type: ignore[override]
        """Many convolutions are one with as many times the groups."""
        copies = info.batch_size
        call = ConvCall.parse(text)
        a, b = (_first(t, dim, copies) for t, dim in zip((a, b), in_dims, strict=False))
        if bias is not None:
            bias = _first(bias, in_dims[2], copies).reshape(-1)
        a_is_weight, b_is_weight = False, call.role != "weight_gradient"
        merged = convolve(
            _merge(a, a_is_weight),
            _merge(b, b_is_weight),
            bias,
            str(ConvCall(**{**_fields(call), "groups": call.groups * copies})),
        )
        return _split(merged, call.role == "weight_gradient", copies), 0


def _fields(call: ConvCall) -> dict[str, Any]:
    return {name: getattr(call, name) for name in ConvCall.__slots__}


def _first(t: Tensor, dim: int | None, copies: int) -> Tensor:
    return t.expand(copies, *t.shape) if dim is None else t.movedim(dim, 0)


def _merge(t: Tensor, weight: bool) -> Tensor:
    """(copies, n, c, ...) as (n, copies c, ...); a weight (copies, k, c, ...) as (copies k, c, ...)."""
    return t.flatten(0, 1) if weight else t.transpose(0, 1).flatten(1, 2)


def _split(t: Tensor, weight: bool, copies: int) -> Tensor:
    return t.unflatten(0, (copies, -1)) if weight else t.unflatten(1, (copies, -1)).transpose(0, 1)


_LIBRARY = torch.library.Library("convolve", "DEF")
_LIBRARY.define("conv(Tensor a, Tensor b, Tensor? bias, str window) -> Tensor")
_LIBRARY.impl("conv", execute, "CompositeExplicitAutograd")
_OPERATOR = torch.ops.convolve.conv.default


@torch.library.register_fake("convolve::conv", lib=_LIBRARY)
def _fake(a: Tensor, b: Tensor, bias: Tensor | None, window: str) -> Tensor:
    shape = ConvCall.parse(window).result_shape(a.shape, b.shape)
    return a.new_empty(shape).contiguous(memory_format=format_of(layout_of(a, b), a.dim() - 2))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, _, ctx.text = inputs
    ctx.save_for_backward(a, b)


def _backward(ctx: Any, g: Tensor) -> Any:
    a, b = ctx.saved_tensors
    return gradients(a, b, g, ctx.text, ctx.needs_input_grad)


torch.library.register_autograd("convolve::conv", _backward, setup_context=_setup, lib=_LIBRARY)
