"""An animation as plain lists for its page and its pictures. Nothing is computed: tensors are only reshaped.

One-dimensional stages are laid out as maps of one row. Maps are flat lists, one per channel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convolve.explain.animation import Scene
    from convolve.explain.stages import Stage

# How a photo's channels are tinted: parts of red, green and blue per level, light enough to see and to read on.
TINTS = {"R": (1.0, 0.12, 0.12), "G": (0.12, 1.0, 0.2), "B": (0.2, 0.35, 1.0), "grey": (1.0, 1.0, 1.0)}


def scene_data(scene: Scene) -> dict[str, Any]:
    """One scene with its stages."""
    return {
        "name": scene.name,
        "says": scene.says,
        "parameters": scene.parameters,
        "macs": scene.macs,
        "stages": [stage_data(stage) for stage in scene.stages],
    }


def stage_data(stage: Stage) -> dict[str, Any]:
    """One stage; the keys are the fields of `explain.stages.Stage`."""
    window = stage.window
    weight = stage.laid
    matrix = stage.matrix
    return {
        "kind": stage.kind,
        "operator": stage.operator,
        "axes": stage.axes,
        "kernel": _two(window.kernel),
        "stride": _two(window.stride),
        "dilation": _two(window.dilation),
        "padding": _two(window.padding, (0, 0)),
        "padding_mode": stage.padding_mode,
        "groups": stage.groups,
        "flipped": stage.flipped,
        "input_size": [stage.input.shape[0], *_two(stage.input.shape[1:])],
        "frame_size": [stage.frame.shape[0], *_two(stage.frame.shape[1:])],
        "output_size": [stage.output.shape[0], *_two(stage.output.shape[1:])],
        "inner": _two(stage.inner, (0, 1)),
        "input": stage.input.flatten(1),
        "frame": stage.frame.flatten(1),
        "output": stage.output.flatten(1),
        "reads": stage.reads,
        "rows": stage.rows,
        "products": stage.products if stage.kind in ("convolution", "transposed") else None,
        "partial": None if stage.partial is None else stage.partial.flatten(2),
        "weight": None if weight is None else weight.flatten(2),
        "given": None if stage.weight is None or not stage.flipped else stage.weight.flatten(2),
        "weight_shape": None if weight is None else list(weight.shape),
        "bias": stage.bias,
        "matrix": None
        if matrix is None
        else {"size": list(matrix.shape), "at": matrix.indices(), "values": matrix.values()},
        "matrix_input": stage.matrix_input.flatten(),
        "matrix_shape": [stage.matrix_input.shape[0], *_two(stage.matrix_input.shape[1:])],
        "returned": None if stage.returned is None else stage.returned.flatten(),
        "grown": None if stage.grown is None else stage.grown.flatten(2),
        "winners": stage.winners,
        "divisors": stage.divisors,
        "scale": stage.scale,
        "order": stage.order,
        "formulas": list(stage.size_formulas),
        "code": stage.code,
        "parameters": stage.parameters,
        "macs": stage.macs,
    }


def _two(values: Any, first: Any = 1) -> list[Any]:
    """Values per axis for two axes: a single axis becomes the second."""
    listed = [list(value) if isinstance(value, tuple) else value for value in values]
    return listed if len(listed) == 2 else [list(first) if isinstance(first, tuple) else first, *listed]
