"""The library's own convolution, in the other memory layout: channels innermost.

oneDNN reorders channels-first maps before and after each call, and falls back to slow code for wide depthwise kernels there.
Stored with channels innermost the same call can be several times faster; the copies there and back are counted.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from convolve.ops.algorithm import Algorithm, Cost
from convolve.ops.algorithms import torch_row
from convolve.ops.bounds import direct_bound
from convolve.ops.windows import format_of
from convolve.problem import ROLES, ConvProblem


def why_not(problem: ConvProblem) -> str | None:
    if problem.axes == 1:
        return "torch knows no channels_last for one axis"
    if not problem.dtype.startswith(("float", "bfloat")):
        return "torch convolves integers in one layout only"
    return torch_row.why_not(replace(problem, layout="channels_last"))


def run(problem: ConvProblem, a: Tensor, b: Tensor, bias: Tensor | None) -> Tensor:
    last = format_of("channels_last", problem.axes)
    a, b = a.contiguous(memory_format=last), b.contiguous(memory_format=last)
    return torch_row.run_in_layout(problem, "channels_last", a, b, bias)


def _cost(problem: ConvProblem) -> Cost:
    inner = torch_row.cost_in_layout(problem, "channels_last")
    copies = 0 if problem.layout == "channels_last" else problem.bytes
    return Cost(inner.seconds + 1e-5 + 2e-10 * copies, inner.workspace_bytes + copies)


ALGORITHM = Algorithm(
    name="torch_channels_last",
    summary="the library's own, channels innermost",
    run=run,
    why_not=why_not,
    cost=_cost,
    bound=direct_bound,
    roles=ROLES,
)
