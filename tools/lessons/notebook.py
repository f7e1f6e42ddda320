"""A lesson as a Jupyter notebook: text in Markdown cells with the picture inside, code in code cells with what it printed."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from tools.lessons.text import FOLDER

from convolve.files import atomic_write

_PART = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:^```text\n(?P<output>.*?)^```\n)?", re.DOTALL | re.MULTILINE)


def cells(lesson: str) -> list[dict[str, Any]]:
    """The cells of a lesson, in order; joined again they hold everything but the fences."""
    found: list[dict[str, Any]] = []

    def words(part: str) -> None:
        if part.strip():
            pictures: dict[str, dict[str, str]] = {}

            def attached(link: re.Match[str]) -> str:
                file = FOLDER / link[2]
                kind = "image/svg+xml" if file.suffix == ".svg" else "image/png"
                pictures[file.name] = {kind: base64.b64encode(file.read_bytes()).decode()}
                return f"![{link[1]}](attachment:{file.name})"

            source = re.sub(r"!\[([^\]]*)\]\((images/[^)]+)\)", attached, part.strip("\n"))
            source = re.sub(r"\]\((\d\d-[^)]+)\.md\)", r"](\1.ipynb)", source)
            source = re.sub(r"(?<!!)\[([^\]]+)\]\((?!\d\d-|http)[^)]+\)", r"\1", source)  # outside of the notebooks
            cell: dict[str, Any] = {"cell_type": "markdown", "metadata": {}, "source": source}
            found.append(cell | ({"attachments": pictures} if pictures else {}))

    end = 0
    for part in _PART.finditer(lesson):
        words(lesson[end : part.start()])
        output = [] if part["output"] is None else [{"name": "stdout", "output_type": "stream", "text": part["output"]}]
        code = part["code"].rstrip("\n")
        found.append({"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": output, "source": code})
        end = part.end()
    words(lesson[end:])
    return [{"id": f"cell-{number}", **cell} for number, cell in enumerate(found)]


def write(lesson: str, folder: str | Path, stem: str) -> None:
    """Write `folder`/`stem`.ipynb (nbformat 4.5)."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {"cells": cells(lesson), "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    Path(folder).mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(folder) / f"{stem}.ipynb", "w") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
