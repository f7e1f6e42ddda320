"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nursery import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where real processes come from."""
    found = Nursery(tmp_path_factory.mktemp("nursery"))
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _by_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test chooses by the rows' own formulas, whatever was measured here or anywhere; tests of those bring their own."""
    from convolve.ops import costs, measure, wisdom

    monkeypatch.setattr(costs, "fitted", lambda: costs.Fitted("", "", {}, {}))
    if wisdom.in_use() != (None, False):
        measure.use_wisdom(enabled=False)
