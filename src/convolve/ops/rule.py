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

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from convolve.ops import export
from convolve.ops.call import derived_text, remembered_call
from convolve.ops.execute import execute
from convolve.ops.windows import format_of, layout_of
from convolve.problem import Role

# role of the result: by each operand (a, b), the role that computes the gradient, and from which two (g: the result's).
DERIVATIVE: dict[Role, tuple[tuple[Role, str, str], tuple[Role, str, str]]] = {
    "output": (("input_gradient", "g", "b"), ("weight_gradient", "a", "g")),
    "input_gradient": (("output", "g", "b"), ("weight_gradient", "g", "a")),
    "weight_gradient": (("input_gradient", "b", "g"), ("output", "a", "g")),
}


def convolve(a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Tensor:
    """The convolution of the call that `text` describes, differentiable by every means of torch that can be right."""
    result: Tensor
    if torch.compiler.is_compiling():
        # torch.func inside a compiled function reaches neither operator nor Function rightly; torch's own can.
        plain = torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active()
        result = export.convolution(a, b, bias, text) if plain else _OPERATOR(a, b, bias, text)
    # Asked before any "no gradient needed" shortcut: requires_grad says nothing about tangents.
    elif torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        result = _Transformed.apply(a, b, bias, text)  # type: ignore[no-untyped-call]
    elif torch.is_grad_enabled() and (a.requires_grad or b.requires_grad or (bias is not None and bias.requires_grad)):
        result = _Differentiable.apply(a, b, bias, text)  # type: ignore[no-untyped-call]
    else:
        result = _bare(a, b, bias, text)
    return result


def _bare(a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Any:
    """The operator without its derivative, whose wrapper in Python costs as much as the rest of the call.

    Its body at once where nobody would see the difference: torch's way to it costs as much once more. (No gradient is recorded there:
    none is needed, or a Function has turned that off.)
    """
    if _unwatched(a, b, bias):
        return execute(a, b, bias, text)
    with torch._C._AutoDispatchBelowAutograd():
        return _OPERATOR(a, b, bias, text)


def _unwatched(a: Tensor, b: Tensor, bias: Tensor | None) -> bool:
    """Whether an operator of torch would neither be seen by a mode, a tracer or a profiler, nor be given other tensors than these."""
    if _dispatch_modes() or _function_modes() or _tracing() or _profiling():
        return False
    return _is_plain(a) and _is_plain(b) and (bias is None or _is_plain(bias))


def _is_plain(t: Tensor) -> bool:
    """Whether it is numbers in the memory of a CPU and nothing else: not fake, not batched, not negated or zero lazily."""
    return type(t) in _PLAIN and _dispatch_keys(t).raw_repr() in _PLAIN_KEYS


_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_tracing, _profiling = torch._C._get_tracing_state, torch._C._autograd._profiler_enabled
_dispatch_keys = torch._C._dispatch_keys
_PLAIN = (Tensor, torch.nn.Parameter)
with torch.inference_mode():
    _PLAIN_KEYS = {_dispatch_keys(torch.empty(0, device="cpu")).raw_repr()}
with torch.inference_mode(False):
    _PLAIN_KEYS.add(_dispatch_keys(torch.empty(0, device="cpu")).raw_repr())


def gradients(
    a: Tensor, b: Tensor, g: Tensor, text: str, needed: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients by a, b and bias, each only where it is needed."""
    tensors = {"a": a, "b": b, "g": g}

    def by(operand: Tensor, role: Role, first: str, second: str) -> Tensor:
        return convolve(tensors[first], tensors[second], None, derived_text(text, role, operand.shape[2:]))

    by_a, by_b = DERIVATIVE[remembered_call(text).role]
    return (
        by(a, *by_a) if needed[0] else None,
        by(b, *by_b) if needed[1] else None,
        g.sum((0, *range(2, g.dim()))) if needed[2] else None,
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 - torch passes it by name
    a, b, _, ctx.text = inputs
    ctx.save_for_backward(a, b)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    a, b = ctx.saved_tensors
    return (*gradients(a, b, g, ctx.text, ctx.needs_input_grad), None)


class _Differentiable(torch.autograd.Function):
    """Door 3."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Any:
        ctx.save_for_backward(a, b)
        ctx.text = text
        return _bare(a, b, bias, text)

    backward = staticmethod(_backward)


class _Transformed(torch.autograd.Function):
    """Door 2."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Any:
        return _OPERATOR(a, b, bias, text)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, inputs, output)
        ctx.save_for_forward(*inputs[:2])
        ctx.set_materialize_grads(False)  # an operand without a tangent costs nothing

    backward = staticmethod(_backward)

    @staticmethod
    def jvp(ctx: Any, da: Tensor | None, db: Tensor | None, dbias: Tensor | None, _: None) -> Any:
        a, b = ctx.saved_tensors
        if da is None:
            return convolve(a, torch.zeros_like(b) if db is None else db, dbias, ctx.text)
        tangent = convolve(da, b, dbias, ctx.text)
        return tangent if db is None else tangent + convolve(a, db, None, ctx.text)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Any:
        """Many convolutions are one with as many times the groups."""
        copies, call = info.batch_size, remembered_call(text)
        a, b = _first(a, in_dims[0], copies), _first(b, in_dims[1], copies)
        if bias is not None:
            bias = _first(bias, in_dims[2], copies).flatten()
        weights = call.role == "weight_gradient"
        merged = convolve(
            _merge(a, False), _merge(b, not weights), bias, str(replace(call, groups=call.groups * copies))
        )
        return _split(merged, weights, copies), 0


def _first(t: Tensor, dim: int | None, copies: int) -> Tensor:
    return t.expand(copies, *t.shape) if dim is None else t.movedim(dim, 0)


def _merge(t: Tensor, weight: bool) -> Tensor:
    """(copies, n, c, ...) as (n, copies c, ...); a weight (copies, k, c, ...) as (copies k, c, ...)."""
    return t.flatten(0, 1) if weight else t.transpose(0, 1).flatten(1, 2)


def _split(t: Tensor, weight: bool, copies: int) -> Tensor:
    if weight:
        return t.reshape(copies, t.shape[0] // copies, *t.shape[1:])
    return t.reshape(t.shape[0], copies, t.shape[1] // copies, *t.shape[2:]).transpose(0, 1)


_LIBRARY = torch.library.Library("convolve", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("conv(Tensor a, Tensor b, Tensor? bias, str window) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.impl("conv", execute, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
_OPERATOR = torch.ops.convolve.conv.default


def _fake(a: Tensor, b: Tensor, bias: Tensor | None, window: str) -> Tensor:  # noqa: ARG001 - the operator's schema
    """The result without its numbers: all that fake and meta tensors need."""
    shape = remembered_call(window).result_shape(a.shape, b.shape)
    return torch.empty(shape, dtype=a.dtype, device=a.device, memory_format=format_of(layout_of(a, b), a.dim() - 2))


torch.library.register_fake("convolve::conv", _fake, lib=_LIBRARY)
torch.library.register_autograd("convolve::conv", _backward, setup_context=_save, lib=_LIBRARY)
