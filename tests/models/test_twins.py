"""Every variant equals its twin written from the paper, in values and gradients, in training and in use."""

from __future__ import annotations

import pytest

from convolve.models import MODELS
from models import twins

# Batch normalisation of a 3x3 map over two images amplifies rounding; a missing layer shows at 1e-3 and more.
CLOSE = 1e-7


def test_every_variant_has_a_twin() -> None:
    assert set(twins.TWINS) == {(model.name, variant.name) for model in MODELS.values() for variant in model.variants}


@pytest.mark.parametrize(("name", "variant"), sorted(twins.TWINS))
def test_a_variant_equals_its_twin(name: str, variant: str) -> None:
    net = twins.network(name, variant)
    assert twins.difference(net, name, variant, training=False) < CLOSE
    assert twins.difference(net, name, variant, training=True) < CLOSE
