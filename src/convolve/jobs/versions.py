"""Which versions and machine made something: written into runs and model files, printed by `convolve doctor`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata

import convolve
from convolve.ops.machine import processor

__all__ = ["processor", "versions"]

_PACKAGES = ("torch", "numpy", "pillow", "safetensors", "scikit-learn")


def versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Package name to version, convolve and Python first, the packages `more` last."""
    found = {"convolve": convolve.__version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in (*_PACKAGES, *more)}
