"""Inspect a network before it runs: shapes, cost, memory, receptive fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from convolve.analysis import sets
from convolve.analysis.columns import renamed
from convolve.analysis.inspecting import InputLike, examine, inputs_of
from convolve.analysis.report import Report
from convolve.analysis.sets import ReceptiveField
from convolve.errors import UsageError
from convolve.jobs.networks import network


def inspect(
    model: nn.Module | str,
    input: InputLike | Sequence[InputLike] | None = None,  # noqa: A002  (what users call it)
    *,
    batch: int = 1,
    optimizer: str | None = None,
    strict: bool = False,
    data: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> Report:
    """Shapes, parameters, MACs, memory and receptive fields of any network, layer by layer, without running it.

    `model` is a torch.nn.Module, a name of our table, a one-line spec, "file.py:Class" or a saved model. `input` is a shape
    without the batch ("3x224x224", or (3, 224, 224)), a tensor, or a list of these; `arguments` are further keyword arguments
    of its forward. With an `optimizer` (sgd, sgd-momentum, adagrad, rmsprop, adam, adamw) a training step is traced too:
    the bytes that each layer keeps, and the peak. `data` runs it once for real, for models that look at values.

    The model is not changed. Raises ShapeError where shapes do not fit, with the layer, the sum and the smallest fix;
    with `strict`, UsageError for any operator that is not known exactly.

    >>> import convolve
    >>> report = convolve.inspect("lenet", "1x28x28")
    >>> report.totals.parameters, report.totals.macs
    (61706, 416520)
    >>> report.rows[-1].output
    (1, 10)
    """
    if isinstance(model, str):
        shape = None if input is None else inputs_of(input)[0].shape[1:]
        found = network(model, shape)
        module, name = found.module, found.name
        if input is None:
            input = found.input  # noqa: A001
    elif isinstance(model, nn.Module):
        module, name = model, ""
    else:
        raise UsageError(
            "inspect takes a module or its name",
            f"got {type(model).__name__}",
            "give an nn.Module, a name, a spec or file.py:Class",
        )
    if input is None:
        raise UsageError("a network needs an input", "none was given", 'give its shape without the batch: "3x224x224"')
    report = examine(
        module, inputs_of(input, batch), optimizer=optimizer, strict=strict, data=data, arguments=arguments
    )
    return renamed(report, name) if name else report


def receptive_field(
    model: nn.Module | str | Report,
    layer: str,
    index: Sequence[int] | None = None,
    *,
    input: InputLike | Sequence[InputLike] | None = None,  # noqa: A002
) -> ReceptiveField:
    """The exact set of input pixels that one element of a layer's output sees; the middle one when no `index` is given.

    `model` is anything that `convolve.inspect` takes (with its `input`), or its report. `index` is a spatial position of the
    layer's output. Borders are clipped at every layer, holes are holes, and branches are joined as sets.

    >>> import convolve
    >>> seen = convolve.receptive_field("lenet", "conv2", (0, 0), input="1x28x28")
    >>> seen.inputs[0].hull, seen.inputs[0].count
    (((0, 11), (0, 11)), 144)
    """
    report = model if isinstance(model, Report) else inspect(model, input)
    return sets.receptive_field(report, layer, index)
