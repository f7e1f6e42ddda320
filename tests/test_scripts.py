"""Benchmarks and tools run seldom: what they import from this package, and the lines that they change, must still be there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path for folder in ("benchmarks", "tools") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_imports_only_names_that_exist(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "convolve":
            module = importlib.import_module(str(node.module))
            for name in (alias.name for alias in node.names):
                if not hasattr(module, name):
                    importlib.import_module(f"{node.module}.{name}")


@pytest.mark.parametrize("name", ["plant_faults", "pooling_faults"])
def test_every_fault_is_planted_in_a_line_that_the_code_still_has(name: str) -> None:
    known: dict[str, object] = {}
    for node in ast.parse((ROOT / f"tools/{name}.py").read_text(encoding="utf-8")).body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if isinstance(target, ast.Name) and target.id in ("ROWS", "FAULTS"):
            code = compile(ast.Module([node], []), name, "exec")
            exec(code, known)  # the tables alone: the tools import what would slow this process down
    lost = [
        f"{file}: {old!r}"
        for file, edits in known["FAULTS"].items()  # type: ignore[attr-defined]
        for old, _ in edits
        if old not in (ROOT / "src/convolve" / file).read_text(encoding="utf-8")
    ]
    assert lost == []
