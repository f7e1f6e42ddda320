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
    "inspect": "convolve.jobs.inspect",
    "receptive_field": "convolve.jobs.inspect",
    "layer_rule": "convolve.analysis.rules.registry",
}

__all__ = ["PUBLIC", "__version__", *PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'convolve' has no attribute {name!r}")
    value = getattr(importlib.import_module(PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
