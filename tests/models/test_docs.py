"""The generated tables of docs/models.md are those of the code, and its examples run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import convolve
import convolve.nn
from convolve.models import MODELS, create

RANKS = ("AdaptiveAvgPool", "AdaptiveMaxPool", "AvgPool", "MaxPool", "ConvTranspose")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def _tool() -> ModuleType:
    definition = importlib.util.spec_from_file_location("model_docs", ROOT / "tools" / "model_docs.py")
    assert definition is not None
    assert definition.loader is not None
    module = importlib.util.module_from_spec(definition)
    definition.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_code() -> None:
    assert _tool().filled(PAGE) == PAGE, "run python tools/model_docs.py"
    assert all(f"| `{name}` |" in PAGE for name in MODELS)


def test_the_examples_run() -> None:
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, {})
    assert convolve.models.create is create


def test_every_layer_is_in_the_guide() -> None:
    text = PAGE + "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    ranks = re.compile(r"[123]d$")
    for name in convolve.nn.__all__:
        if name in ("conv_unit", "InceptionWidths") or ranks.sub("", name) in RANKS:
            continue
        assert f"`{name}`" in text, name
