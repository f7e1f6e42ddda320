"""The body of the operator: what happens once the operands and their sizes are real."""

from __future__ import annotations

import torch
from torch import Tensor

from convolve.ops import roles
from convolve.ops.algorithm import Algorithm
from convolve.ops.call import format_of, remembered_call
from convolve.ops.choose import choose, find
from convolve.ops.windows import with_bias
from convolve.problem import ConvProblem

_PLANS: dict[tuple[object, ...], tuple[ConvProblem, Algorithm]] = {}
_MOST_PLANS = 4096
AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")  # asking about any other raises


def execute(a: Tensor, b: Tensor, bias: Tensor | None, text: str) -> Tensor:
    """The result of the call that `text` describes, in the memory format of its operands."""
    problem, row = plan(a, b, text)
    if a.device.type in AUTOCAST_DEVICES and torch.is_autocast_enabled(a.device.type):
        with torch.autocast(a.device.type, enabled=False):  # the operands were cast at the public call; sums stay wide
            return _compute(row, problem, a, b, bias)
    return _compute(row, problem, a, b, bias)


def plan(a: Tensor, b: Tensor, text: str) -> tuple[ConvProblem, Algorithm]:
    """The problem and its row, remembered per call and shapes."""
    key = (text, a.shape, b.shape, a.dtype, a.device.type, a.stride(), b.stride())
    found = _PLANS.get(key)
    if found is None:
        call = remembered_call(text)
        problem = call.problem(a, b).validate()
        found = problem, choose(problem, call.algorithm, call.precision)
        if len(_PLANS) >= _MOST_PLANS:
            _PLANS.clear()
        _PLANS[key] = found
    return found


def _compute(row: Algorithm, problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    if problem.macs == 0:
        result = with_bias(a.new_zeros(problem.result_shape), bias)
    elif problem.role in row.roles:
        result = row.run(problem, a, b, bias)
    else:
        y = row.run(problem.as_convolution(), *roles.operands(problem, a, b), bias)
        result = roles.result(problem, y)
    if not row.local or problem.role not in row.roles:
        result = _checked(result, problem, a, b, bias)
    return result.contiguous(memory_format=format_of(problem.layout, problem.axes))


def _checked(result: Tensor, problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    """The result, or, where it is not finite, that of the definition: NaN, Inf and overflow then spread as they should."""
    if not result.is_floating_point() or bool(torch.isfinite(result.sum(dtype=torch.float64))):
        return result
    direct = find("torch")
    row = direct if direct.why_not(problem) is None else find("reference")
    return row.run(problem, a, b, bias)
