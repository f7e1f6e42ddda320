"""Which versions and machine made something: written into runs and model files, printed by `convolve doctor`."""

from __future__ import annotations

import platform
from importlib import metadata

import convolve

_PACKAGES = ("torch", "numpy", "pillow", "safetensors", "scikit-learn")


def versions() -> dict[str, str]:
    """Package name to version, convolve and Python first."""
    found = {"convolve": convolve.__version__, "python": platform.python_version()}
    return found | {name: metadata.version(name) for name in _PACKAGES}


def processor() -> str:
    """The CPU's own name where the system tells it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  (Linux only)
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
