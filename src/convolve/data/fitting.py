"""How pictures of other proportions get the network's size: chosen from the training pictures, and said.

A crop to the target's proportions keeps the share min(r, 1/r) of a picture, r = (w/h) / (target w / target h). That
one number decides: pictures that keep nearly all of it need nothing; where 95 % of them keep three quarters (4:3 in a
square), the middle is cropped, since an object that fills a photo is there; with less, all of it is kept between borders.
Nothing is stretched unasked: where proportions vary, stretching changes the shapes that the network is to learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convolve.data.picture import FITS
from convolve.errors import UnknownNameError

SAME = 0.98  # a picture that keeps so much has the target's proportions
KEPT = 0.74  # 4:3 in a square keeps 0.75
NEARLY_ALL = 0.95  # of the pictures
OTHER = {
    "crop": "--fit pad keeps all of them, --fit stretch distorts them",
    "pad": "--fit crop keeps their middle only, --fit stretch distorts them",
    "stretch": "--fit crop keeps their middle, --fit pad all of them",
}


def choose_fit(
    sizes: Sequence[tuple[int, int]], target: tuple[int, int], asked: str = "auto"
) -> tuple[str, tuple[str, ...]]:
    """The fit for pictures of these sizes (h, w) and what to say of it: nothing, where all have the target's proportions.

    >>> choose_fit([(480, 640), (640, 480)], (64, 64))[0], choose_fit([(480, 640), (300, 900)], (64, 64))[0]
    ('crop', 'pad')
    >>> choose_fit([(480, 640), (960, 1280)], (48, 64))
    ('stretch', ())
    """
    if asked != "auto" and asked not in FITS:
        raise UnknownNameError.of("fit", asked, ("auto", *FITS))
    kept = kept_by_a_crop(sizes, target)
    if (kept >= SAME).all():
        return ("stretch" if asked == "auto" else asked), ()
    fit = asked if asked != "auto" else "crop" if np.quantile(kept, 1 - NEARLY_ALL) >= KEPT else "pad"
    ratios = np.array([w / h for h, w in sizes])
    span = f"{ratios.min():.2f}" if ratios.max() - ratios.min() < 0.005 else f"{ratios.min():.2f} to {ratios.max():.2f}"
    most = f"{1 - kept.min():.0%}"
    done = {
        "crop": f"cropped to the middle: up to {most} of a picture is cut off",
        "pad": f"kept whole between plain borders: up to {most} of the input is border",
        "stretch": f"stretched: up to {1 / kept.min():.2f} times as wide or as high as they were",
    }[fit]
    words = f"width / height is {span}, the network's {target[1] / target[0]:.2f}: pictures are {done}"
    return fit, (f"{words} ({OTHER[fit]})",)


def kept_by_a_crop(sizes: Sequence[tuple[int, int]], target: tuple[int, int]) -> np.ndarray:
    """Of each picture (h, w), the share of its area that a crop to the target's proportions keeps; also the share of the target
    that a padded one fills."""
    ratios = np.array([w / h for h, w in sizes]) * (target[0] / target[1])
    shares: np.ndarray = np.minimum(ratios, 1 / ratios)
    return shares
