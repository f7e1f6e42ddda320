"""The weights of the first convolutions, as they are."""

from __future__ import annotations

from torch import nn

from convolve.analysis.inspecting import examine
from convolve.analysis.records import Tensor as TensorRecord
from convolve.analysis.report import Report
from convolve.analysis.trace import Input
from convolve.explain.layers import convolutions
from convolve.explain.records import Filters

SHOWN_LAYERS = 2
MOST_FILTERS, MOST_KERNELS = 64, 8
MOST_DEEP_FILTERS = 6  # of a layer behind the first, whose filters have many kernels


def filters_of(model: nn.Module, report: Report) -> tuple[Filters, ...]:
    """The filters of the first convolution and of the second, each at most MOST_FILTERS by MOST_KERNELS; not those of 1x1."""
    found: list[Filters] = []
    parameters = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    for row in convolutions(report):
        given = report.trace.steps[row.index].arguments.get("weight")
        name = given.parameter if isinstance(given, TensorRecord) else None
        if name not in parameters:
            continue  # a weight that the network computes
        weight = parameters[name].detach().float().cpu()
        if weight.ndim != 4 or (weight.shape[2] == 1 and weight.shape[3] == 1):
            continue
        filters = MOST_FILTERS if weight.shape[1] <= 3 else MOST_DEEP_FILTERS
        found.append(Filters(row.name, weight[:filters, :MOST_KERNELS].clone(), (weight.shape[0], weight.shape[1])))
        if len(found) == SHOWN_LAYERS:
            break
    return tuple(found)


def first_filters(model: nn.Module, shape: tuple[int, ...]) -> Filters | None:
    """The filters of the first convolution of a network whose input is `shape` (1, c, h, w); None without one.

    >>> from torch import nn
    >>> first_filters(nn.Sequential(nn.Conv2d(1, 6, 5)), (1, 1, 9, 9)).total
    (6, 1)
    """
    report = examine(model, [Input(shape)])
    if not any(row.op.startswith("conv") for row in report.rows):
        return None
    return next(iter(filters_of(model, report)), None)
