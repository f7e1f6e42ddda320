"""The code of docs/operators-pooling.md runs in reading order, and computes what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

import convolve

PAGE = Path(__file__).parents[2] / "docs" / "operators-pooling.md"


def test_every_block_runs_and_gives_what_its_comments_say() -> None:
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    x, weight = names["x"], names["weight"]
    assert convolve.max_pool2d(x, 3, stride=2, padding="same").shape[-2:] == (4, 4)
    assert names["columns"].shape == (1, 27, 49)
    torch.testing.assert_close(names["same"], convolve.conv2d(x, weight, padding="same"), atol=1e-5, rtol=1e-5)
    assert names["matrix"].shape == (8 * 4 * 4, 3 * 7 * 7)
    torch.testing.assert_close(names["y"][None], convolve.conv2d(x, weight, stride=2, padding=1), atol=1e-5, rtol=1e-5)
