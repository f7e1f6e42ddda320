"""Draw the pictures of the README and the docs: `make docs`. Nothing in docs/images is made by hand."""

from __future__ import annotations

import io
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


if __name__ == "__main__":
    edges()
    animation()
