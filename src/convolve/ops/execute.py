"""The body of the operator: what happens once the operands and their sizes are real."""

from __future__ import annotations

import torch
from torch import Tensor

from convolve.ops import roles
from convolve.ops.algorithm import Algorithm
from convolve.ops.call import remembered_call
from convolve.ops.choose import declined, find, ranked
from convolve.ops.windows import format_of, with_bias
from convolve.problem import ConvProblem

_PLANS: dict[tuple[object, ...], tuple[ConvProblem, tuple[Algorithm, ...]]] = {}
_MOST_PLANS = 4096
AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")  # asking about any other raises


def execute(a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Tensor:
    """The result of the call that `text` describes, in the memory format of its operands."""
    problem, rows = plan(a, b, text)
    if a.device.type in AUTOCAST_DEVICES and torch.is_autocast_enabled(a.device.type):
        with torch.autocast(a.device.type, enabled=False):  # the operands were cast at the public call; sums stay wide
            return _first_able(rows, problem, a, b, bias)
    return _first_able(rows, problem, a, b, bias)


def plan(a: Tensor, b: Tensor, text: str) -> tuple[ConvProblem, tuple[Algorithm, ...]]:
    """The problem and its rows, the choice first; remembered per call and shapes."""
    key = (text, a.shape, b.shape, a.dtype, a.device.type, a.stride(), b.stride())
    found = _PLANS.get(key)
    if found is None:
        call = remembered_call(text)
        problem = call.problem(a, b).validate()
        found = problem, ranked(problem, call.algorithm, call.precision)
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        _PLANS[key] = found
    return found


def _first_able(rows: tuple[Algorithm, ...], problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """The result of the first row that serves these values."""
    if problem.macs == 0 or 0 in problem.result_shape:
        empty = with_bias(a.new_zeros(problem.result_shape), bias)
        return empty.contiguous(memory_format=format_of(problem.layout, problem.axes))
    reason: str | None = None
    for row in rows:
        as_served, x, w = problem, a, b
        if problem.role not in row.roles:
            as_served, (x, w) = problem.as_convolution(), roles.operands(problem, a, b)
        reason = row.not_these(as_served, x, w) if row.not_these is not None else None
        if reason is None:
            break
    else:
        raise declined(row, problem, str(reason))
    result = row.run(as_served, x, w, bias)
    if as_served is not problem:
        result = roles.result(problem, result)
    if not row.local or as_served is not problem:
        result = _checked(result, problem, a, b, bias)
    return result.contiguous(memory_format=format_of(problem.layout, problem.axes))


def _checked(result: Tensor, problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """The result, or, where it is not finite, that of a direct row: NaN, Inf and overflow then spread as they should."""
    if not result.is_floating_point() or bool(torch.isfinite(result.sum(dtype=torch.float64))):
        return result
    direct = find("torch")
    row = direct if direct.why_not(problem) is None else find("reference")
    return row.run(problem, a, b, bias)
