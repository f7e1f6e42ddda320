"""The Chinese README keeps step with the English one, and the table of terms names only what exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import convolve
from convolve.cli.verbs import VERBS

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
TERMS = (ROOT / "docs" / "terms.md").read_text(encoding="utf-8")

# The Chinese text may point to these beside what the English one names: the English text itself, and what is for its readers.
MORE = {"README.md", "docs/terms.md", "docs/lessons/README.md"}


def without_figures(text: str) -> str:
    """The README without its measured figures, which are written once, in English."""
    return re.sub(r"## (?:Measured|实测)\n.*?(?=\n## )", "", text, flags=re.DOTALL)


def commands(text: str) -> set[str]:
    """Everything in code that a reader may type: make's targets, and the verbs with what follows in the same span."""
    spans = re.findall(r"`([^`\n]+)`", text) + [
        line for line in fences(text) if line.startswith(("make ", "convolve "))
    ]
    made = {" ".join(span.split()[:2]) for span in spans if span.startswith("make ")}
    typed = {re.split(r"\s{3,}", span)[0].strip() for span in spans if span.startswith("convolve ")}
    return made | typed


def fences(text: str) -> list[str]:
    return [
        line for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for line in block.splitlines()
    ]


def links(text: str) -> set[str]:
    return set(re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)) - {"README.zh-CN.md"}


def test_both_readmes_name_the_same_commands() -> None:
    found = commands(without_figures(CHINESE))
    assert found == commands(without_figures(ENGLISH))
    assert {"make demo", "make test", "convolve train PHOTOS/"} <= found


def test_both_readmes_link_the_same_files() -> None:
    assert links(without_figures(CHINESE)) - MORE == links(without_figures(ENGLISH)) - MORE


def test_the_links_of_the_chinese_readme_exist() -> None:
    for target in links(CHINESE) - links(ENGLISH):
        assert (ROOT / target).exists(), target


def test_both_readmes_have_the_same_sections_and_the_same_code() -> None:
    def heads(text: str) -> list[str]:
        return re.findall(r"^#+(?= )", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)

    def code(text: str) -> list[str]:
        (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        return [line.split("  #")[0].rstrip() for line in block.splitlines()]

    assert heads(CHINESE) == heads(ENGLISH)
    assert code(CHINESE) == code(ENGLISH)


def test_every_term_stands_in_both_languages_with_a_meaning_and_a_place() -> None:
    rows = [
        [cell.strip() for cell in row.strip("|").split(" | ")] for row in TERMS.splitlines() if row.startswith("| ")
    ]
    terms = [row for row in rows if row[0] != "English"]
    assert len(terms) > 50
    for row in terms:
        assert len(row) == 4, row
        assert all(row), row
    english = [row[0] for row in terms]
    assert len(set(english)) == len(english)


def test_every_place_that_a_term_names_exists() -> None:
    names = re.findall(r"`convolve\.([\w.]+)`", TERMS)
    assert len(names) > 25
    for name in names:
        room, _, rest = name.rpartition(".")
        assert hasattr(importlib.import_module(f"convolve.{room}") if room else convolve, rest), name
    for verb in re.findall(r"`convolve ([a-z-]+)", TERMS):
        assert verb in {row.name for row in VERBS}, verb
    for target in re.findall(r"\]\(([^)#]+)", TERMS):
        assert (ROOT / "docs" / target).exists(), target
