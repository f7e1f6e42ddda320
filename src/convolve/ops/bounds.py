"""Error bounds: the largest error of one result over the rms of its neighbourhood, for operands of random sign."""

from __future__ import annotations

import math

import torch

from convolve.problem import ConvProblem

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}


def direct_bound(problem: ConvProblem) -> float:
    """For any sum of plain products, in any order: a random walk of roundings, `summed` steps long; 0 for integers.

    Half precision is summed in float32 and rounded once at the end.
    """
    if problem.dtype not in EPSILON:
        return 0.0
    once = EPSILON[problem.dtype]
    summing = min(once, EPSILON["float32"])
    return 4.0 * once + summing * (4.0 + 2.0 * math.sqrt(problem.summed))


def summing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which our rows sum: half precision is summed in float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
