"""Whatever is taken out of a network, its twin notices. tools/delete_layers.py tries every variant; here, the quick ones."""

from __future__ import annotations

import pytest

from models.deletions import survivors


@pytest.mark.parametrize(
    ("name", "variant", "least"),
    [
        ("lenet5", "1998", 6),
        ("lenet", "d2l", 7),
        ("smallnet", "smallnet", 24),
        ("alexnet", "2012", 18),
        ("nin", "cifar", 16),
    ],
)
def test_no_deletion_goes_unnoticed(name: str, variant: str, least: int) -> None:
    tried, unnoticed = survivors(name, variant)
    assert unnoticed == []
    assert tried >= least
