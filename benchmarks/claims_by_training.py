"""The claims that only training decides, on more than the embedded digits: MNIST, and CIFAR-10 (JPEG) for the filters.

python -m benchmarks.claims_by_training [CLAIM [DATA]]      about fifteen minutes on a quiet core; one part of it, where it is named

Writes after each part, and keeps the other parts that are written already.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.record import DATA, RESULTS, write
from convolve.data.load import load
from convolve.data.records import Dataset
from convolve.jobs.claims import trained
from convolve.jobs.claims.record import Fact

CLAIMS: tuple[tuple[str, Callable[[Dataset], Sequence[Fact]], tuple[str, ...]], ...] = (
    ("S001-13", trained.learned_against_designed, ("digits", "mnist", "cifar10-jpeg.zip")),
    ("S003-7", trained.neighbours_matter, ("digits", "mnist")),
    ("S001-14", trained.against_overfitting, ("digits", "mnist")),
    ("S003-9", trained.batch_sizes, ("digits",)),
)


def main(only: Sequence[str]) -> None:
    kept = RESULTS / "claims_by_training.json"
    figures: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))["figures"] if kept.exists() else {}
    for claim, facts, sources in CLAIMS:
        for source in sources:
            if any(word not in (claim, source) for word in only):
                continue
            data = load(source if source == "digits" else DATA / source)
            started = time.perf_counter()
            found = {fact.what.partition(": ")[2]: fact.got for fact in facts(data)}
            figures.setdefault(claim, {})[data.name] = {**found, "seconds": round(time.perf_counter() - started, 1)}
            write("claims_by_training", figures)


if __name__ == "__main__":
    main(sys.argv[1:])
