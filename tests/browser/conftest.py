"""A headless Chromium that opens pages from file://, as a double click does. `make test-browser` runs these tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def _chromium() -> str:
    found = os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if not found:
        pytest.skip("no Chromium on PATH: install chromium, or set CHROMIUM to its path")
    return found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser, started once."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = _chromium()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`open_page(html or path, width=1280, height=800, scheme="light")` -> a playwright page, loaded from file://.

    When the test ends, it fails if the page logged an error, threw, or asked for anything outside itself.
    """
    contexts, faults = [], []

    def opened(page: str | Path, width: int = 1280, height: int = 800, scheme: str = "light", **options: Any) -> Any:
        if isinstance(page, str):
            path = tmp_path / f"page-{len(contexts)}.html"
            path.write_text(page, encoding="utf-8")
        else:
            path = page
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        contexts.append(context)
        tab = context.new_page()
        url = path.resolve().as_uri()
        tab.on("pageerror", lambda error: faults.append(f"threw: {error}"))
        tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        tab.on("request", lambda request: _own(request.url, url) or faults.append(f"asked for {request.url}"))
        tab.goto(url)
        return tab

    opened.faults = faults  # type: ignore[attr-defined]  # a test that provokes one clears it
    yield opened
    for context in contexts:
        context.close()
    assert not faults, faults


def _own(requested: str, page: str) -> bool:
    return requested.partition("#")[0] == page or requested.startswith(("data:", "blob:"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("browser")
