"""The house: which room may import what, no cycles, every public name documented. The table is the law."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pytest

import convolve

PACKAGE = Path(convolve.__file__).parent
DOCS = PACKAGE.parent.parent / "docs"

# room: (our rooms it may import; third parties it may import). Every room may import errors and files.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "files": (set(), set()),
    "geometry": (set(), set()),
    "problem": ({"geometry"}, set()),
    "kernels": (set(), {"llvmlite"}),
    "ops": ({"problem", "geometry", "kernels"}, {"torch", "numpy"}),
    "nn": ({"ops", "problem", "geometry"}, {"torch"}),
    "models": ({"nn"}, {"torch", "safetensors"}),
    "analysis": ({"problem", "geometry", "nn"}, {"torch"}),
    "data": (set(), {"numpy", "torch", "PIL", "sklearn", "kornia"}),
    "training": ({"data", "ops"}, {"numpy", "torch", "accelerate", "safetensors"}),
    "explain": ({"analysis", "data", "ops", "problem", "geometry"}, {"torch", "captum", "numpy"}),
    "draw": (set(), {"matplotlib", "PIL", "jinja2", "numpy", "rich"}),
    "jobs": (
        {"geometry", "problem", "ops", "nn", "models", "analysis", "data", "training", "explain", "draw"},
        {"numpy", "torch", "yaml", "PIL", "safetensors", "onnx", "onnxruntime"},
    ),
    "cli": ({"jobs", "draw"}, {"cyclopts", "rich"}),
    "__init__": (set(), set()),
    "__main__": ({"cli"}, set()),
}
FOUNDATION = {"errors", "files"}
TYPES_ONLY = {
    "draw": {"data", "training", "models", "analysis", "explain", "ops", "jobs"}
}  # records, under TYPE_CHECKING


def _rooms() -> dict[str, list[Path]]:
    rooms: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        first = path.relative_to(PACKAGE).parts[0]
        rooms.setdefault(first.removesuffix(".py"), []).append(path)
    return rooms


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Every module that a file imports anywhere, and whether only for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in for_types) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "convolve":
                found += [(f"convolve.{alias.name}", id(node) in for_types) for alias in node.names]
            else:
                found.append((node.module or "", id(node) in for_types))
    return found


@pytest.mark.parametrize("room", sorted(_rooms()))
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    assert room in MAY_IMPORT, f"{room} is not in the table: add it there and to docs/decisions.md"
    ours, others = MAY_IMPORT[room]
    for path in _rooms()[room]:
        for module, types_only in _imports(path):
            top, _, rest = module.partition(".")
            if top == "convolve":
                target = rest.partition(".")[0]
                allowed = ours | FOUNDATION | {room, "", "__version__"}
                if types_only:
                    allowed |= TYPES_ONLY.get(room, set())
                assert target in allowed, f"{path}: {room} may not import {target}"
            else:
                assert top in sys.stdlib_module_names or top in others, f"{path}: {room} may not import {top}"


def test_the_table_has_no_cycle() -> None:
    done: set[str] = set()

    def visit(room: str, above: tuple[str, ...]) -> None:
        assert room not in above, " -> ".join((*above, room))
        if room not in done:
            for lower in MAY_IMPORT[room][0]:
                visit(lower, (*above, room))
            done.add(room)

    for room in MAY_IMPORT:
        visit(room, ())


@pytest.mark.parametrize("name", sorted(convolve.PUBLIC))
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(convolve, name)
    assert (inspect.getdoc(value) or "").strip(), f"convolve.{name} has no docstring"
    if inspect.isclass(value) and issubclass(value, Exception):
        return
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    assert f"convolve.{name}" in text or f"import {name}" in text, f"convolve.{name} is not in docs/"


def test_no_public_name_hides_a_room() -> None:
    assert not set(convolve.PUBLIC) & set(MAY_IMPORT)
    for name, module in convolve.PUBLIC.items():
        assert hasattr(importlib.import_module(module), name)
