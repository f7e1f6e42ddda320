"""Get a well-known data set into the user's cache; `convolve data get` is this function."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convolve.data.get import KNOWN, Known, get


@dataclass(frozen=True)
class DataGot:
    """Where a data set is now; `downloaded`, `taken` (from a folder) and `present` name its files."""

    name: str
    folder: Path
    downloaded: tuple[str, ...]
    taken: tuple[str, ...]
    present: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values."""
        lists = {"downloaded": list(self.downloaded), "taken": list(self.taken), "present": list(self.present)}
        return {"name": self.name, "folder": str(self.folder), **lists}


def data_get(
    name: str,
    from_folder: str | Path | None = None,
    *,
    tell: Callable[[str], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    table: Mapping[str, Known] = KNOWN,
) -> DataGot:
    """Get the data set `name`; CONVOLVE_OFFLINE=1 forbids the network. Raises what `convolve.data.get.get` raises."""
    offline = os.environ.get("CONVOLVE_OFFLINE", "") not in ("", "0")
    got = get(name, from_folder=from_folder, offline=offline, tell=tell, progress=progress, table=table)
    return DataGot(got.name, got.folder, got.downloaded, got.taken, got.present)
