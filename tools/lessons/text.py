"""A lesson is a Markdown file: its ```python blocks run in order in one namespace, and what one prints stands in a ```text block behind it.

run(text)      the same text with every output renewed, and the namespace that the code left
lessons()      the files, in order;   index(files), trail(files, i)   the lines that link them
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "lessons"
_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n?^```text\n.*?^```\n)?", re.DOTALL | re.MULTILINE)
_TRAIL = re.compile(r"\n---\n[^\n]*\n\Z")
_LINE = re.compile(r"\A# (?P<title>[^\n]+)\n\n\*(?P<about>[^\n]+)\*\n")


def lessons() -> list[Path]:
    """The lessons in order: 01-…, 02-…"""
    return sorted(FOLDER.glob("[0-9][0-9]-*.md"))


def run(text: str, name: str = "lesson") -> tuple[str, dict[str, Any]]:
    """The lesson with its outputs renewed, and its namespace. Whatever the code raises passes, with the block's line."""
    namespace: dict[str, Any] = {"__name__": "__lesson__"}

    def renewed(block: re.Match[str]) -> str:
        code = block["code"]
        first = text.count("\n", 0, block.start()) + 1
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * first + code, name, "exec"), namespace)
        output = printed.getvalue()
        return f"```python\n{code}```\n" + (f"```text\n{output.rstrip()}\n```\n" if output.strip() else "")

    return _BLOCK.sub(renewed, text), namespace


def title(text: str) -> tuple[str, str]:
    """A lesson's title, and its one line in italics below it."""
    line = _LINE.match(text)
    assert line is not None, "a lesson begins with '# title', an empty line and one line in *italics*"
    return line["title"], line["about"]


def trail(files: list[Path], place: int) -> str:
    """The last line of the lesson at `place`: back, index, on."""
    links = ["[all lessons](README.md)"]
    if place > 0:
        links.insert(0, f"[← {title(files[place - 1].read_text(encoding='utf-8'))[0]}]({files[place - 1].name})")
    if place + 1 < len(files):
        links.append(f"[{title(files[place + 1].read_text(encoding='utf-8'))[0]} →]({files[place + 1].name})")
    return "\n---\n" + " · ".join(links) + "\n"


def with_trail(text: str, line: str) -> str:
    return _TRAIL.sub("", text).rstrip("\n") + "\n" + line


def index(files: list[Path]) -> str:
    """The table of the lessons, for docs/lessons/README.md."""
    rows = ["| lesson | what it shows |", "|---|---|"]
    for file in files:
        name, about = title(file.read_text(encoding="utf-8"))
        rows.append(f"| [{name}]({file.name}) | {about} |")
    return "\n".join(rows) + "\n"


def with_index(readme: str, table: str) -> str:
    """The README with the table between its two comments renewed."""
    return re.sub(r"(<!-- index -->\n).*?(<!-- end -->)", lambda m: m[1] + table + m[2], readme, flags=re.DOTALL)
