"""The list of injected faults: long enough, without doubles, and docs/faults.md is it."""

from __future__ import annotations

import collections
from pathlib import Path

from tools.list_faults import PAGE, ROOT, faults, page

FEWEST = 60


def test_at_least_sixty_faults_have_a_name_of_their_own_and_an_outcome() -> None:
    found = faults()
    assert len(found) >= FEWEST
    doubles = [name for name, count in collections.Counter(fault.name for fault in found).items() if count > 1]
    assert doubles == []
    assert all(fault.name.strip() and fault.outcome.strip() for fault in found)


def test_the_page_of_faults_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(faults()), "run: python tools/list_faults.py"


def test_marks_of_tests_and_of_their_rows_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_a.py").write_text(
        "import pytest\n\n"
        '@pytest.mark.fault("one", outcome="is refused")\n'
        "def test_one(): ...\n\n"
        '@pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.fault("two", outcome="is named"))])\n'
        "def test_two(x): ...\n",
        encoding="utf-8",
    )
    (folder / "test_b.py").write_text("def test_none(): ...\n", encoding="utf-8")
    assert [(fault.name, fault.outcome, fault.test) for fault in faults(tmp_path)] == [
        ("one", "is refused", "tests/test_a.py::test_one"),
        ("two", "is named", "tests/test_a.py::test_two"),
    ]
    assert Path(__file__).parents[2] == ROOT
