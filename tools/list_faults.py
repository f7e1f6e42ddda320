"""The faults that the tests inject, with what must happen: `python tools/list_faults.py` writes docs/faults.md.

A test names its fault by `@pytest.mark.fault("name", outcome="...")`; a row of a parametrised test does so in its `pytest.param(…,
marks=…)`. The marks are read from the imported test files, without running anything.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"

HEAD = """\
# Faults that convolve survives

What goes wrong in real life, injected in a test, and what must happen then. Nothing here is a promise without a test: the list is
made of the tests' own marks (`python tools/list_faults.py`), and the suite fails when it is out of date.
In every case no other file is changed, no code from a file runs, and an error is one message that says what, why and how to fix it.
"""


@dataclass(frozen=True)
class Fault:
    name: str
    outcome: str
    test: str  # file::function


def faults(root: Path = ROOT) -> list[Fault]:
    """Every fault that a test under tests/ names, in the order of files and lines."""
    files = [path for path in sorted((root / "tests").rglob("test_*.py")) if "mark.fault(" in path.read_text("utf-8")]
    return [fault for path in files for fault in _of(path, root)]


def page(found: list[Fault]) -> str:
    """docs/faults.md."""
    rows, file = [], ""
    for number, fault in enumerate(found, 1):
        if fault.test.partition("::")[0] != file:
            file = fault.test.partition("::")[0]
            rows += ["", f"## {file}", "| | fault | what happens |", "|---|---|---|"]
        rows.append(f"| {number} | {_cell(fault.name)} | {_cell(fault.outcome)} |")
    return HEAD + f"\n{len(found)} faults.\n" + "\n".join(rows) + "\n"


def _of(path: Path, root: Path) -> Iterator[Fault]:
    where = path.relative_to(root).as_posix()
    for name, function in vars(_module(path)).items():
        if name.startswith("test") and callable(function):
            for mark in _marks(function):
                assert len(mark.args) == 1, f"{where}::{name}: a fault has one name"
                assert set(mark.kwargs) == {"outcome"}, f"{where}::{name}: a fault has an outcome"
                yield Fault(mark.args[0], mark.kwargs["outcome"], f"{where}::{name}")


def _marks(function: Any) -> Iterator[Any]:
    for mark in getattr(function, "pytestmark", []):
        if mark.name == "fault":
            yield mark
        elif mark.name == "parametrize":
            for row in mark.args[1] if len(mark.args) > 1 else mark.kwargs["argvalues"]:
                yield from (inner for inner in getattr(row, "marks", ()) if inner.name == "fault")


def _module(path: Path) -> ModuleType:
    name = f"_faults_of_{path.stem}_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    for folder in (ROOT, ROOT / "src", ROOT / "tests"):
        sys.path.insert(0, str(folder))
    PAGE.write_text(page(faults()), encoding="utf-8")
