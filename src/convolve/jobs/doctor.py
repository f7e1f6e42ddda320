"""What this machine has, and what looks wrong: the first thing to put into a bug report."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from convolve.data.get import data_folder
from convolve.jobs.versions import processor, versions


@dataclass(frozen=True)
class Health:
    """Versions, machine and folders; `warnings` says in words what would make convolve slow or fail."""

    versions: dict[str, str]
    system: str
    processor: str
    cores: int
    threads: int
    accelerator: str | None
    capability: str
    folders: dict[str, str]
    free_bytes: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        return {**asdict(self), "warnings": list(self.warnings)}


def doctor() -> Health:
    """Look at the machine; nothing is changed."""
    here = Path.cwd()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free = shutil.disk_usage(here).free
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    warnings = []
    if torch.get_num_threads() > cores:
        warnings.append(f"torch uses {torch.get_num_threads()} threads on {cores} cores: set OMP_NUM_THREADS={cores}")
    if not torch._C._has_mkldnn:
        warnings.append("this torch was built without oneDNN: convolutions will be slow")
    if free < 2**30:
        warnings.append(f"only {free / 2**20:,.0f} MiB free here: runs may not fit")
    if not _writable(here):
        warnings.append("the current folder cannot be written: use --out for runs")
    return Health(
        versions=versions(),
        system=f"{sys.platform}, Python at {sys.prefix}",
        processor=processor(),
        cores=cores,
        threads=torch.get_num_threads(),
        accelerator=None if accelerator is None else str(accelerator),
        capability=torch.backends.cpu.get_cpu_capability(),
        folders={"runs": str(here / "runs"), "data": str(data_folder())},
        free_bytes=free,
        warnings=tuple(warnings),
    )


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
