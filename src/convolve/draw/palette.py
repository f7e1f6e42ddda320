"""The pages' colours for pictures that are no pages: read from `pages/base.css`, where they are written once."""

from __future__ import annotations

import importlib.resources
import re
from functools import cache

_STARTS = {"light": ":root {", "dark": "macro dark()", "print": "macro paper()"}


@cache
def palette(theme: str) -> dict[str, str]:
    """Name to "#rrggbb" of the theme "light", "dark" or "print"; "auto" is light.

    >>> palette("dark")["ground"]
    '#0d1117'
    """
    css = (importlib.resources.files("convolve") / "draw" / "pages" / "base.css").read_text(encoding="utf-8")
    start = css.index(_STARTS["light" if theme == "auto" else theme])
    end = min(css.find(mark, start) for mark in ("endmacro", "\n}") if css.find(mark, start) > 0)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", css[start:end]))


def mix(colour: str, other: str, share: float) -> str:
    """`share` of a colour over another, as CSS color-mix does it in srgb.

    >>> mix("#000000", "#ffffff", 0.5)
    '#808080'
    """
    parts = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in parts)
