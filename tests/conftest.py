"""What holds for every test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _by_estimate() -> None:
    """The tests choose by estimates, whatever this machine has measured; tests of wisdom bring their own."""
    import convolve

    convolve.use_wisdom(enabled=False)
