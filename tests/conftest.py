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
def _by_estimate() -> None:
    """Every test chooses by estimates, whatever this machine has measured; tests of wisdom bring their own."""
    from convolve.ops import measure, wisdom

    if wisdom.in_use() != (None, False):
        measure.use_wisdom(enabled=False)
