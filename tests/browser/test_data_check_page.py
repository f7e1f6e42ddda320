"""The page of `convolve data check`: the findings with their pictures, names shown and never run, at both widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convolve.jobs.data_check import data_check

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for label, name in enumerate(('cat, "big"', "猫" + HOSTILE, "a-very-long-class-name-" * 6)):
        place = root / "photos" / name
        place.mkdir(parents=True)
        for i in range(30):
            blots = np.random.default_rng(100 * label + i).integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(blots).resize((64, 48), Image.Resampling.BICUBIC).save(place / f"{i}.png")
    (place / f"{HOSTILE}.png").write_bytes((place / "0.png").read_bytes())
    (root / "photos" / 'cat, "big"' / "copy.png").write_bytes((place / "1.png").read_bytes())
    (place / "broken.png").write_bytes((place / "2.png").read_bytes()[:200])
    page = root / "check.html"
    data_check(root / "photos", html=page)
    return page


@pytest.mark.parametrize("width", [390, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_findings_stand_with_their_pictures_at_both_widths(
    open_page: Any, written: Path, width: int, scheme: str
) -> None:
    tab = open_page(written, width=width, scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    kinds = tab.evaluate("[...document.querySelectorAll('.finding')].map((section) => section.id)")
    assert kinds == [row["kind"] for row in tab.evaluate("convolve.data.findings")]
    assert kinds[0] == "label-conflict"
    tab.locator("#label-conflict img").first.scroll_into_view_if_needed()
    sizes = tab.evaluate(
        "[...document.querySelectorAll('#label-conflict img')].map((i) => [i.naturalWidth, i.naturalHeight])"
    )
    assert sizes == [[64, 48], [64, 48]]
    assert "broken.png" in tab.inner_text("#unreadable")


def test_names_are_shown_as_they_are_and_never_run(open_page: Any, written: Path) -> None:
    tab = open_page(written)
    assert HOSTILE in tab.inner_text("#duplicates")
    assert tab.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert tab.evaluate("document.querySelectorAll('.bars .name')[1].title").startswith(("猫", "a-very", "cat"))


def test_the_data_of_the_page_is_that_of_the_check(open_page: Any, written: Path) -> None:
    tab = open_page(written)
    found = data_check(written.parent / "photos").to_json()
    shown = tab.evaluate("convolve.data")
    assert shown["classes"] == json.loads(json.dumps(found["classes"]))
    assert shown["images"] == found["images"] == 92
    assert written.stat().st_size < 2_000_000
