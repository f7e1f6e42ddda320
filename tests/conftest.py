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


@pytest.fixture(autouse=True, scope="session")
def _by_formula() -> Iterator[None]:
    """Every test chooses by the rows' own formulas, whatever was measured on some processor; tests of estimates bring their own."""
    from convolve.ops import costs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "fitted", lambda: costs.Fitted("", "", {}, {}))
        yield


@pytest.fixture(autouse=True)
def _without_wisdom() -> None:
    """Whatever this machine has measured; tests of wisdom bring their own."""
    from convolve.ops import measure, wisdom

    if wisdom.in_use() != (None, False):
        measure.use_wisdom(enabled=False)
