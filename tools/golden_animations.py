"""Write the golden pictures of tests/jobs/test_animate.py anew. Look at them before you commit them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import convolve

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
PICTURES: dict[str, dict[str, Any]] = {
    "conv": {"stride": 2, "padding": 1},
    "conv-transpose": {"stride": 2},
    "max-pool": {},
    "avg-pool": {"kernel": 3},
}

for name, arguments in PICTURES.items():
    convolve.animate(name, **arguments).save(GOLDEN / f"animate-{name}.svg", step=2)
