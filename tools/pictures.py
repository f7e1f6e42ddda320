"""Draw the pictures of the README and the docs: `make docs`. Nothing in docs/images is made by hand."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image

import convolve
from convolve.draw.filters import contact_sheet
from convolve.files import atomic_write

IMAGES = Path(__file__).parents[1] / "docs" / "images"
EDGES = ("gaussian", "sharpen", "laplacian", "sobel-x", "sobel-y", "sobel", "gabor")


def edges() -> None:
    """One photo and what seven kernels make of it."""
    with tempfile.TemporaryDirectory() as folder:
        found = convolve.filter_image("sample:flower", EDGES, out=Path(folder) / "edges")
    drawn = io.BytesIO()
    contact_sheet(found, columns=4).savefig(drawn, format="png", dpi=105)
    with atomic_write(IMAGES / "edges.png", "wb") as file:
        # A palette of 224 colours, dithered: a quarter of the bytes, and no difference at this size.
        Image.open(drawn).convert("RGB").quantize(224).save(file, format="PNG", optimize=True)


def animation() -> None:
    """The fifth stop of a strided, padded convolution."""
    convolve.animate("conv", "5x5", stride=2, padding=1, theme="light").save(IMAGES / "animate-conv.png", step=5)


def report() -> None:
    """The top of a run's report, as Chromium shows it; left as it is where there is no Chromium or playwright."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("report.png is left as it is: it needs chromium and playwright")
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = convolve.train("digits", epochs=5, out=Path(folder) / "run")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1400, "height": 1130})
        tab.goto(Path(run.files["report"]).as_uri())
        tab.wait_for_selector("html[data-ready=yes]")
        tab.wait_for_timeout(300)
        drawn = io.BytesIO(tab.screenshot())
        browser.close()
    with atomic_write(IMAGES / "report.png", "wb") as file:
        Image.open(drawn).convert("RGB").quantize(160).save(file, format="PNG", optimize=True)


if __name__ == "__main__":
    edges()
    animation()
    report()
