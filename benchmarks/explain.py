"""How long the pages take: VGG-16 explained on a photo (promise: < 15 s on 2 cores), a 7x7 animation (< 2 s), and their sizes.

python -m benchmarks.explain [ROUNDS]      whole commands, imports included; the page's own seconds are the command's word
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import spread, write

COMMANDS = {
    "explain vgg16": ("explain", "vgg16", "sample:china", "--json"),
    "explain googlenet": ("explain", "googlenet", "sample:china", "--json"),
    "animate conv 7x7": ("animate", "conv", "--input", "7x7", "--to", "html", "--json"),
}


def _run(words: tuple[str, ...]) -> tuple[float, dict[str, Any], int]:
    """Wall seconds of the command, its document, and the page's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "convolve", *words, "--out", f"{folder}/out"]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
        return seconds, json.loads(done.stdout), next(Path(folder).rglob("*.html")).stat().st_size


def main(rounds: int) -> None:
    figures: dict[str, Any] = {}
    for name, words in COMMANDS.items():
        found = [_run(words) for _ in range(rounds)]
        document = found[0][1]
        figures[name] = {"command (s)": spread([seconds for seconds, *_ in found]), "page (bytes)": found[0][2]}
        if words[0] == "explain":
            figures[name]["in the command, without imports (s)"] = spread([each[1]["seconds"] for each in found])
            figures[name]["layers"] = len(document["layers"])
            figures[name]["measured units"] = sum(layer["measured"] for layer in document["layers"])
    write("explain", figures)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
