"""The README's example runs as printed, and what it links to exists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_has_at_most_twelve_lines_and_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 12
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(script)]
    env = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "[0.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0]"
    assert re.fullmatch(r"test accuracy \d\d\.\d\d% on 359 images", lines[1])
    assert lines[2] in set("0123456789")


def test_the_seconds_of_mnist_are_those_of_their_file_and_hold_what_is_claimed() -> None:
    figures = json.loads((ROOT / "benchmarks/results/mnist_in_seconds.json").read_text(encoding="utf-8"))["figures"]
    accuracy, training, command = (figures[name]["mean"] for name in ("test accuracy", "training (s)", "command (s)"))
    assert f"| {accuracy:.2%} test accuracy, {training:.1f} s, {command:.1f} s |".replace("%", " %") in README
    assert figures["test accuracy"]["n"] == 5
    assert accuracy >= 0.99
    assert training <= 3


def test_every_linked_file_exists() -> None:
    for text, folder in (
        (README, ROOT),
        *((path.read_text(encoding="utf-8"), path.parent) for path in (ROOT / "docs").rglob("*.md")),
    ):
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", text):
            assert (folder / target).exists(), f"{target} is linked from {folder}"
