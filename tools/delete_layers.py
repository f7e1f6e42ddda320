"""Delete each activation, normalisation, pooling, dropout, branch, padding and shortcut of each network in turn, and see that
the comparison with its twin (tests/models/twins.py) fails every time.

    python tools/delete_layers.py             all variants (some minutes)
    python tools/delete_layers.py lenet5 vgg11-bn
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from models.deletions import survivors  # noqa: E402
from models.twins import TWINS  # noqa: E402


def main(wanted: list[str]) -> int:
    total = failed = 0
    for name, variant in TWINS:
        if wanted and name not in wanted and f"{name}-{variant}" not in wanted:
            continue
        tried, unnoticed = survivors(name, variant)
        print(f"{name}-{variant}: {tried} deletions, {tried - len(unnoticed)} noticed", flush=True)
        for what in unnoticed:
            print(f"    NOT NOTICED: {what}")
        total, failed = total + tried, failed + len(unnoticed)
    print(f"{total} deletions tried, {failed} not noticed")
    return 1 if failed or not total else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
