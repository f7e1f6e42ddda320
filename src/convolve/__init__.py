"""Convolutional networks you can see through.

`import convolve` is quick: a public name is imported from its room when it is first used (PEP 562). PUBLIC is the whole
surface of the package, one row per name.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

PUBLIC: dict[str, str] = {
    "ConvolveError": "convolve.errors",
    "UsageError": "convolve.errors",
    "InputError": "convolve.errors",
    "train": "convolve.jobs.train",
    "resume": "convolve.jobs.train",
    "load": "convolve.jobs.classifier",
    "evaluate": "convolve.jobs.evaluate",
    "data_check": "convolve.jobs.data_check",
    "report": "convolve.jobs.report",
    "export": "convolve.jobs.export",
    "explain_image": "convolve.jobs.explain",
    "inspect": "convolve.jobs.inspect",
    "receptive_field": "convolve.jobs.inspect",
    "layer_rule": "convolve.analysis.rules.registry",
    "max_pool1d": "convolve.ops.pool",
    "max_pool2d": "convolve.ops.pool",
    "max_pool3d": "convolve.ops.pool",
    "avg_pool1d": "convolve.ops.pool",
    "avg_pool2d": "convolve.ops.pool",
    "avg_pool3d": "convolve.ops.pool",
    "adaptive_max_pool1d": "convolve.ops.pool_adaptive",
    "adaptive_max_pool2d": "convolve.ops.pool_adaptive",
    "adaptive_max_pool3d": "convolve.ops.pool_adaptive",
    "adaptive_avg_pool1d": "convolve.ops.pool_adaptive",
    "adaptive_avg_pool2d": "convolve.ops.pool_adaptive",
    "adaptive_avg_pool3d": "convolve.ops.pool_adaptive",
    "global_max_pool1d": "convolve.ops.pool_adaptive",
    "global_max_pool2d": "convolve.ops.pool_adaptive",
    "global_max_pool3d": "convolve.ops.pool_adaptive",
    "global_avg_pool1d": "convolve.ops.pool_adaptive",
    "global_avg_pool2d": "convolve.ops.pool_adaptive",
    "global_avg_pool3d": "convolve.ops.pool_adaptive",
    "trainable_pool1d": "convolve.ops.pool_trainable",
    "trainable_pool2d": "convolve.ops.pool_trainable",
    "trainable_pool3d": "convolve.ops.pool_trainable",
    "unfold": "convolve.ops.fold",
    "fold": "convolve.ops.fold",
    "kernel_matrix": "convolve.ops.kernel_matrix",
    "channel_shuffle": "convolve.ops.shuffle",
    "pixel_shuffle": "convolve.ops.shuffle",
    "pixel_unshuffle": "convolve.ops.shuffle",
    "corr2d": "convolve.ops.plain",
    "Conv2D": "convolve.nn.plain",
    "animate": "convolve.jobs.animate",
    "filter_image": "convolve.jobs.filter_image",
    "learn_kernel": "convolve.jobs.learn_kernel",
    "check_claims": "convolve.jobs.claims",
    "measure": "convolve.ops.measure",
    "use_wisdom": "convolve.ops.measure",
    "accelerate": "convolve.nn.accelerate",
    "acceleration": "convolve.nn.accelerate",
    "restore": "convolve.nn.accelerate",
    "unfreeze": "convolve.nn.accelerate",
    "tune_memory": "convolve.jobs.memory",
    "ConvProblem": "convolve.problem",
    "Algorithm": "convolve.ops.algorithm",
    "precision": "convolve.ops.precision",
    "why": "convolve.ops.why",
    "conv1d": "convolve.ops.conv",
    "conv2d": "convolve.ops.conv",
    "conv3d": "convolve.ops.conv",
    "conv_transpose1d": "convolve.ops.conv",
    "conv_transpose2d": "convolve.ops.conv",
    "conv_transpose3d": "convolve.ops.conv",
}

__all__ = ["PUBLIC", "__version__", *PUBLIC]


ROOMS = ("models", "nn")  # reached as convolve.nn.Conv2d and convolve.models.create after `import convolve`


def __getattr__(name: str) -> Any:
    if name in ROOMS:
        return importlib.import_module(f"convolve.{name}")
    if name not in PUBLIC:
        raise AttributeError(f"module 'convolve' has no attribute {name!r}")
    value = getattr(importlib.import_module(PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *ROOMS])
