"""One self-contained HTML page: opens by double click, asks nothing of a network, embeds its data once as JSON.

A page is a jinja2 template in `draw/pages/` that extends `base.html` and fills its blocks (style, controls, main, script);
the base brings the themes (light, dark, print: CSS variables), the header with its theme menu, and a few functions in
JavaScript under the name `convolve` (see `base.js`). The data that a script shows is `convolve.data`; tests read the same
JSON back. A Content-Security-Policy in the page forbids every request that is not a data URI.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from convolve.errors import UnknownNameError
from convolve.files import atomic_write

if TYPE_CHECKING:
    import jinja2
    import numpy as np

THEMES = ("auto", "light", "dark", "print")
MOST_BYTES = 2_000_000  # a page's size limit: it must open on a phone and fit into an e-mail


def render(template: str, *, title: str, data: Mapping[str, Any], theme: str = "auto", **context: Any) -> str:
    """The page of `template` (a file of `draw/pages/`); `data` becomes `convolve.data`, `context` the template's variables.

    In data and context, NumPy numbers become plain ones. NaN and infinities become the strings "NaN", "Infinity" and
    "-Infinity", which JavaScript's Number() reads back: JSON has none.
    """
    if theme not in THEMES:
        raise UnknownNameError.of("theme", theme, THEMES)
    return _environment().get_template(template).render(title=title, data=script_json(data), theme=theme, **context)


def write(page: str, path: str | os.PathLike[str]) -> None:
    """Write a page atomically."""
    with atomic_write(path) as file:
        file.write(page)


def script_json(data: Any) -> str:
    """`data` as JSON that can stand inside a <script> element: no `<`, `>`, `&` and no line separators of JavaScript.

    >>> script_json({"name": "</script>", "top": float("inf")})
    '{"name":"\\\\u003c/script\\\\u003e","top":"Infinity"}'
    """
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Bytes as a data URI, for `<img src>`.

    >>> data_uri(b"abc")
    'data:image/png;base64,YWJj'
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def png(pixels: np.ndarray) -> bytes:
    """A uint8 picture, h x w (grey), h x w x 3 (RGB) or h x w x 4 (RGBA), as the bytes of a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG", optimize=True)
    return out.getvalue()


def plain(value: Any) -> Any:
    """The value with plain numbers, lists and strings only; arrays and tensors become nested lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return _number(float(value))
    if value is None or isinstance(value, str | bool | int):
        return value
    if hasattr(value, "tolist"):  # arrays, NumPy scalars, tensors
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    raise TypeError(f"a page's data holds numbers, text, lists and mappings; got {type(value).__name__}")


def _number(value: float) -> float | str:
    """A whole number without its .0: a page full of small integers is half as long."""
    if math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    loader = jinja2.PackageLoader("convolve", "draw/pages")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["themes"] = THEMES
    return environment
