"""Pictures on disk for the tests of this room."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Tree = Callable[..., Path]


@pytest.fixture
def shared() -> Path:
    """The folder of real data beside the checkout."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("CONVOLVE_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder} (set CONVOLVE_TEST_DATA)")
    return folder


def noise(seed: int, h: int = 7, w: int = 5, mode: str = "RGB") -> Image.Image:
    """A picture of random values that is the same for the same seed."""
    shape = (h, w) if mode == "L" else (h, w, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode=None)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """`tree(["cat/1.png", ...])` writes a folder of different small pictures and returns it."""

    def write(names: list[str], root: str = "photos", **kind: object) -> Path:
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        for seed, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                noise(seed, **kind).save(folder / name)
            else:
                (folder / name).mkdir(exist_ok=True)
        return folder

    return write


@pytest.fixture
def two_classes() -> list[str]:
    return [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(10)]


def pack(folder: Path, target: Path, top: str = "") -> Path:
    """The folder as a .zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, top + path.relative_to(folder).as_posix())
    return target


@pytest.fixture
def make_noise() -> Callable[..., Image.Image]:
    return noise


@pytest.fixture
def zipped() -> Callable[..., Path]:
    return pack
