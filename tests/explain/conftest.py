"""The fixtures of jobs_support, for this folder; and a budget of gradients that a test can wait for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from convolve.explain import measuring
from jobs_support import photos, run

__all__ = ["photos", "run"]

_FULL = measuring.MACS


def full_budget() -> int:
    """What a user's page may spend on gradients."""
    return _FULL


@pytest.fixture(scope="session", autouse=True)
def few_gradients() -> Iterator[None]:
    """Less arithmetic than a user's page may spend."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "MACS", 8_000_000_000)
        yield
