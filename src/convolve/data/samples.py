"""Two real photographs that come with scikit-learn: a Chinese temple and a flower, 427 x 640, creative commons CC BY 2.0.

Credit, from scikit-learn's own README: china.jpg by danielbuechele, flower.jpg by vultilion, both on Flickr.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from convolve.errors import UnknownNameError

SAMPLES = {
    "china": "photo: danielbuechele, CC BY 2.0, by way of scikit-learn",
    "flower": "photo: vultilion, CC BY 2.0, by way of scikit-learn",
}


def sample_photo(name: str) -> bytes:
    """The JPEG file of the sample photo called `name`."""
    if name not in SAMPLES:
        raise UnknownNameError.of("sample photo", name, SAMPLES)
    found = importlib.util.find_spec("sklearn")  # its folder, without importing it: that takes a second
    assert found is not None
    assert found.submodule_search_locations is not None
    return (Path(found.submodule_search_locations[0]) / "datasets" / "images" / f"{name}.jpg").read_bytes()
