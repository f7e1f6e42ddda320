"""What was measured on this machine: seconds of each algorithm for each problem, remembered in a file.

FFTW's words: an *estimate* costs nothing and may be wrong; *measure* runs the candidates; what it learns is *wisdom*. `auto` asks wisdom
first. The file holds one machine (CPU, threads, torch, table of algorithms); whatever it cannot be trusted for is ignored, with one
warning: damage, another machine, another version. Seconds are kept for every row, not the winner alone, so that `convolve.precision` may
exclude the winner.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import convolve
from convolve.errors import ConvolveError, UsageError
from convolve.files import atomic_write, cache_folder, one_at_a_time
from convolve.ops.algorithms import ALGORITHMS
from convolve.ops.machine import processor
from convolve.problem import ConvProblem

FORMAT = 1
Seconds = dict[str, float]
"""By the name of a row."""


class WisdomWarning(UserWarning):
    """A wisdom file that is ignored, or could not be written."""


class _Memory:
    """The wisdom of this process: what was read, by file, and what was learned since."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.place: Path | None = None
        self.used = True
        self.known: dict[Path, dict[str, Seconds]] = {}
        self.changes = 0


_MEMORY = _Memory()


def machine() -> dict[str, Any]:
    """What measured seconds depend on besides the problem."""
    names = ",".join(row.name for row in ALGORITHMS)
    table = hashlib.sha256(f"{convolve.__version__} {names}".encode()).hexdigest()[:16]
    return {"cpu": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__, "table": table}


def default_place() -> Path:
    """The file of this machine, with this number of threads, in the user's cache."""
    slug = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-") or "cpu"
    return cache_folder() / f"wisdom-{slug}-{torch.get_num_threads()}.json"


def place() -> Path:
    """The file that is in use."""
    return _MEMORY.place if _MEMORY.place is not None else default_place()


def changes() -> int:
    """Grows with every change of what is known: a choice made before is not to be remembered after."""
    return _MEMORY.changes


def key(problem: ConvProblem, frozen: bool = False) -> str:
    """How a problem is named in the file; with a frozen weight it is another one."""
    return f"{problem}{' frozen' * frozen}"


def lookup(problem: ConvProblem, frozen: bool = False) -> Mapping[str, float]:
    """The measured seconds of the rows that were measured for this problem; empty where nothing is known."""
    if not _MEMORY.used or problem.device != "cpu":
        return {}
    here = place()
    found = _MEMORY.known.get(here)
    if found is None:
        found = _load(here)
    return found.get(key(problem, frozen), {})


def learn(problem: ConvProblem, seconds: Seconds, frozen: bool = False) -> None:
    """Know these seconds in this process; `save` keeps them."""
    lookup(problem)  # the file first
    with _MEMORY.lock:
        _MEMORY.known[place()][key(problem, frozen)] = dict(seconds)
        _MEMORY.changes += 1


def use(path: Path | None, used: bool = True) -> None:
    """Take wisdom from this file (None: the machine's own), or from none."""
    with _MEMORY.lock:
        _MEMORY.place, _MEMORY.used = path, used
        if path is None:
            _MEMORY.known.clear()
        else:
            _MEMORY.known.pop(path, None)
        _MEMORY.changes += 1


def in_use() -> tuple[Path | None, bool]:
    return _MEMORY.place, _MEMORY.used


def check_writable_by_us(path: Path) -> None:
    """Raise UsageError if the file holds the wisdom of another machine, which would be lost."""
    content = _content(path)
    if isinstance(content, dict) and isinstance(content.get("machine"), dict):
        theirs, ours = content["machine"], machine()
        other = [f"{key} {theirs.get(key)!r}" for key in ("cpu", "threads") if theirs.get(key) != ours[key]]
        if other:
            raise UsageError(
                "a wisdom file belongs to one machine and one number of threads",
                f"{path} holds that of {', '.join(other)}",
                "name another file",
            )


def save() -> None:
    """Add what this process knows to the file: read, merged and written while no other process does. Never an error."""
    here = place()
    with _MEMORY.lock:
        known = dict(_MEMORY.known.get(here, {}))
    try:
        here.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(here):
            merged = _seconds(_content(here))[0] | known
            with atomic_write(here) as file:
                json.dump({"format": FORMAT, "machine": machine(), "seconds": merged}, file, indent=1)
                file.write("\n")
    except (OSError, ConvolveError) as error:
        warnings.warn(f"the wisdom was not kept: {error}", WisdomWarning, stacklevel=2)


_ABSENT = object()


def _load(path: Path) -> dict[str, Seconds]:
    """The file's seconds, or nothing, with the reason in a warning; read once."""
    with _MEMORY.lock:
        if path in _MEMORY.known:
            return _MEMORY.known[path]
        seconds, reason = _seconds(_content(path))
        _MEMORY.known[path] = seconds
    if reason:
        warnings.warn(f"{path} is ignored: {reason}; `convolve measure` writes a new one", WisdomWarning, stacklevel=4)
    return seconds


def _content(path: Path) -> Any:
    """The JSON value in a file; an error as itself."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except (OSError, ValueError, RecursionError) as error:
        return error


def _seconds(content: Any) -> tuple[dict[str, Seconds], str]:
    """The seconds in a file's content, and why there are none."""
    if content is _ABSENT:
        return {}, ""
    if isinstance(content, OSError):
        return {}, f"it cannot be read ({content.strerror or content})"
    if isinstance(content, Exception):
        return {}, "it is damaged (no JSON)"
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return {}, "it is no wisdom file of this version"
    if content.get("machine") != machine():
        theirs = content["machine"] if isinstance(content.get("machine"), dict) else {}
        ours = machine()
        differs = ", ".join(
            f"{key} {theirs.get(key)!r}, here {ours[key]!r}" for key in ours if theirs.get(key) != ours[key]
        )
        return {}, f"it was measured elsewhere ({differs or 'more is said than we know'})"
    seconds = content.get("seconds")
    if not isinstance(seconds, dict) or not all(map(_is_entry, seconds.values())):
        return {}, "it is damaged (a time is no time)"
    return seconds, ""


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(time, (int, float)) and not isinstance(time, bool) and math.isfinite(time) and time > 0
        for time in entry.values()
    )
