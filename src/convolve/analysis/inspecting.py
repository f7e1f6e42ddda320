"""Inspect a module: its inputs from loose words, one or two traces, one report; and an error that teaches where it fails."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from convolve.analysis import trace as tracing
from convolve.analysis.memory import OPTIMIZERS
from convolve.analysis.report import Report, build, require_exact
from convolve.analysis.trace import Input, StoppedTraceError
from convolve.errors import UnknownNameError, UsageError

InputLike = str | torch.Tensor | Input | tuple[int, ...] | torch.Size


def examine(
    model: nn.Module,
    inputs: Sequence[Input],
    *,
    optimizer: str | None = None,
    strict: bool = False,
    data: bool = False,
    unbatched: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> Report:
    """The report of a module on `inputs`; with an `optimizer`, a training step is traced too, for its memory.

    Raises ShapeError where the shapes do not fit, with the table up to that layer as a note (PEP 678).
    """
    if optimizer is not None and optimizer not in OPTIMIZERS:
        raise UnknownNameError.of("optimizer", optimizer, OPTIMIZERS)
    model = completed(model, inputs)
    try:
        forward = tracing.run(model, inputs, data=data, arguments=arguments)
        training = None
        if optimizer is not None:
            training = tracing.run(model, inputs, training=True, backward=True, data=data, arguments=arguments)
    except StoppedTraceError as stopped:
        from convolve.analysis.teach import lesson

        raise lesson(model, inputs, stopped, arguments) from (None if stopped.failed else stopped.error)
    report = build(forward, training, optimizer, unbatched)
    if strict:
        require_exact(report)
    return report


def inputs_of(value: InputLike | Sequence[InputLike], batch: int = 1) -> list[Input]:
    """The inputs from words: "3x224x224" or (3, 224, 224), without the batch; "16:int64"; a tensor as it is; or several.

    >>> [item.shape for item in inputs_of("3x8x8, 5")]
    [(1, 3, 8, 8), (1, 5)]
    """
    if batch < 1:
        raise UsageError("a batch has at least one element", f"got {batch}", "use 1 or more")
    if isinstance(value, str):
        return [_parsed(part.strip(), batch) for part in value.split(",")]
    if isinstance(value, (torch.Tensor, Input)):
        return [_one(value, batch)]
    items = list(value)
    if items and all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        return [_shaped(tuple(int(item) for item in items), torch.float32, batch, str(value))]  # type: ignore[arg-type]
    if not items:
        raise UsageError("a network needs an input", f"got {value!r}", 'give a shape without the batch, as "3x224x224"')
    return [_one(item, batch) for item in items]  # type: ignore[arg-type]


def _one(item: InputLike, batch: int) -> Input:
    if isinstance(item, Input):
        return item
    if isinstance(item, torch.Tensor):
        return Input(tuple(item.shape), item.dtype)
    if isinstance(item, str):
        return _parsed(item, batch)
    return _shaped(tuple(item), torch.float32, batch, str(item))


def _parsed(text: str, batch: int) -> Input:
    sizes, _, dtype = text.partition(":")
    kind = getattr(torch, dtype, None) if dtype else torch.float32
    if not isinstance(kind, torch.dtype):
        raise UsageError("an input's type is one of torch's", f"got {dtype!r}", "use float32, float16, int64, …")
    try:
        shape = tuple(int(size) for size in sizes.lower().split("x"))
    except ValueError:
        raise UsageError(
            "an input is sizes joined by x, without the batch", f"got {text!r}", 'write "3x224x224", or "16:int64"'
        ) from None
    return _shaped(shape, kind, batch, text)


def _shaped(shape: tuple[int, ...], dtype: torch.dtype, batch: int, given: str) -> Input:
    if any(size < 1 for size in shape):
        raise UsageError("an input's sizes are at least 1", f"got {given}", "write channels x height x width")
    return Input((batch, *shape), dtype)


def completed(model: nn.Module, inputs: Sequence[Input]) -> nn.Module:
    """The model, or a copy with its lazy layers completed on the meta device."""
    if not any(nn.parameter.is_lazy(p) for p in (*model.parameters(), *model.buffers())):
        return model
    clone = copy.deepcopy(model).eval()
    for module in clone.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None and nn.parameter.is_lazy(tensor):
                module._parameters[name] = nn.UninitializedParameter(device="meta")
            elif tensor is not None:
                module._parameters[name] = nn.Parameter(tensor.to("meta"), tensor.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None and nn.parameter.is_lazy(buffer):
                module._buffers[name] = nn.UninitializedBuffer(device="meta")  # type: ignore[call-arg]
            elif buffer is not None:
                module._buffers[name] = buffer.to("meta")
    with torch.no_grad():
        clone(*(torch.empty(item.shape, dtype=item.dtype, device="meta") for item in inputs))
    return clone
