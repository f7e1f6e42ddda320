"""What holds for every test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _by_estimate() -> None:
    """Every test chooses by estimates, whatever this machine has measured; tests of wisdom bring their own."""
    from convolve.ops import measure, wisdom

    if wisdom.in_use() != (None, False):
        measure.use_wisdom(enabled=False)
