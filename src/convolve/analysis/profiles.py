"""What other tools count for the same network, reproduced by their rule, and why the numbers differ.

Each profile is a function from one report to a list of terms; their sum is that tool's number. Sources: torchinfo 1.8,
layer_info.py `calculate_macs`; fvcore 0.1.5, jit_handles.py; torch.utils.flop_counter of torch 2.13. Read, not copied;
tests/analysis/test_other_tools.py runs the first two beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from convolve.analysis.records import Step, Tensor
from convolve.analysis.report import Report
from convolve.errors import UnknownNameError


@dataclass(frozen=True)
class Difference:
    """Rows on which the tool and we differ for one reason: how many, by how much in sum, and why."""

    reason: str
    rows: tuple[str, ...]
    amount: int


@dataclass(frozen=True)
class Reconciliation:
    """`theirs` is the tool's number (named `unit` by it), `ours` the macs; the differences add up exactly."""

    tool: str
    unit: str
    theirs: int
    ours: int
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        lines = [f"{self.tool} counts {self.theirs:,} ({self.unit}); here it is {self.ours:,} MACs"]
        lines += [f"  {d.amount:+,}  {d.reason} ({_names(d.rows)})" for d in self.differences]
        return "\n".join(lines)


def _names(rows: tuple[str, ...]) -> str:
    return ", ".join(rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")


Counter = Callable[[Report, Step], tuple[int, str]]  # what the tool counts for a step, and the reason if it is not ours


def _torchinfo(report: Report, step: Step) -> tuple[int, str]:
    """Parameters called weight and bias x batch, of leaf modules; times the spatial output size if the class says Conv."""
    if not step.leaf or not step.path:
        return 0, "functional calls are not seen"
    last = max(s.index for s in report.trace.steps if (s.path, s.call) == (step.path, step.call))
    if step.index != last:
        return 0, "counted once per module"
    sizes = {
        name.rpartition(".")[2]: p.numel
        for p in report.trace.parameters
        if not p.buffer
        for name in p.names
        if name.rpartition(".")[0] == step.path
    }
    counted = {name: numel for name, numel in sizes.items() if name in ("weight", "bias")}
    output = step.outputs[0].shape
    if not counted:
        return 0, "a module without weight and bias counts nothing"
    if "Conv" in step.module:
        transposed = "Transpose" in step.module
        reason = "transposed convolution counted at its output size" if transposed else "the bias is counted as a MAC"
        return sum(counted.values()) * math.prod(output[:1] + output[2:]), reason
    if "Norm" in step.module:
        return output[0] * sum(counted.values()), "normalisation counted as parameters x batch"
    reason = "the bias is counted as a MAC" if len(output) == 2 else "positions besides the batch are not counted"
    return output[0] * sum(counted.values()), reason


def _fvcore(report: Report, step: Step) -> tuple[int, str]:
    """MACs of convolutions and products, a few numbers per element for norms, pooling and upsampling; called flops there."""
    ours = report.rows[step.index].macs or 0
    numel, out = (step.tensors[0].numel if step.tensors else 0), step.outputs[0].numel
    if step.op == "batch_norm":
        affine = isinstance(step.arguments.get("weight"), Tensor)
        if step.arguments.get("training"):
            return numel * (5 if affine else 4), "batch norm counted as 5 per element"
        return numel * (2 if affine else 1), "batch norm counted as 2 per element"
    if step.op in ("group_norm", "layer_norm", "instance_norm"):
        affine = isinstance(step.arguments.get("weight"), Tensor)
        return numel * (5 if affine else 4), "norms counted as 5 per element"
    if step.op == "adaptive_avg_pool2d":
        return numel, "adaptive pooling counted as 1 per input element"
    if step.op == "interpolate":
        scale = {"nearest": 1, "bilinear": 4}.get(step.arguments.get("mode", "nearest"), 0)
        return scale * out, "upsampling counted per output element"
    if step.op == "grid_sample":
        return 4 * out, "grid_sample counted as 4 per output element"
    known = ("conv", "linear", "matmul", "bmm", "addmm", "einsum", "mm")
    return (ours, "") if step.op.startswith(known) else (0, "no handle for this operator")


def _torch(report: Report, step: Step) -> tuple[int, str]:
    """torch.utils.flop_counter: two per MAC of convolutions, matrix products and attention; here halved."""
    return (report.rows[step.index].macs or 0), ""


PROFILES: dict[str, tuple[str, Counter]] = {
    "torchinfo": ("mult-adds", _torchinfo),
    "fvcore": ("flops, meaning MACs", _fvcore),
    "torch": ("half of FlopCounterMode's flops", _torch),
}


def reconcile(report: Report, tool: str) -> Reconciliation:
    """The number of another `tool` for the report's network, and the reasons why it differs.

    >>> import convolve, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3))
    >>> print(reconcile(convolve.inspect(net, "3x8x8"), "torchinfo"))
    torchinfo counts 8,064 (mult-adds); here it is 7,776 MACs
      +288  the bias is counted as a MAC (0)
    """
    if tool not in PROFILES:
        raise UnknownNameError.of("profile", tool, PROFILES)
    unit, count = PROFILES[tool]
    found: dict[str, list[tuple[str, int]]] = {}
    theirs = 0
    for step in report.trace.steps:
        amount, reason = count(report, step)
        theirs += amount
        ours = report.rows[step.index].macs or 0
        if amount != ours:
            found.setdefault(reason, []).append((report.rows[step.index].name, amount - ours))
    differences = tuple(
        Difference(reason, tuple(name for name, _ in rows), sum(amount for _, amount in rows))
        for reason, rows in found.items()
    )
    return Reconciliation(tool, unit, theirs, report.totals.macs, differences)
