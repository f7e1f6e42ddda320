"""An animation as one HTML page, and as pictures for slides."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from convolve.draw import animation_pictures
from convolve.draw.animation_data import TINTS, scene_data
from convolve.draw.page import MOST_BYTES, data_uri, plain, png, render
from convolve.errors import UsageError

if TYPE_CHECKING:
    from convolve.jobs.animate import Animation


def page(shown: Animation) -> str:
    """The whole page. Raises UsageError above MOST_BYTES, which several large stages with long numbers can reach together."""
    html = render("animate.html", title=shown.title, data=page_data(shown), theme=shown.theme)
    size = len(html.encode())
    if size > MOST_BYTES:
        raise UsageError(
            f"a page has up to {MOST_BYTES:,} bytes",
            f"this animation's would have {size:,}",
            "use a smaller input, fewer channels or filters, or a larger stride",
        )
    return html


def page_data(shown: Animation) -> dict[str, Any]:
    """What the page's script shows, as `convolve.data`."""
    given = shown.given
    data: dict[str, Any] = {
        "operator": shown.operator,
        "scenes": [scene_data(scene) for scene in shown.scenes],
        "channel_names": list(given.names),
        "tints": {name: TINTS[name] for name in given.names},
        "picture": None,
        "credit": given.credit,
    }
    if given.picture is not None:
        pixels = given.x.numpy().astype(np.uint8)
        tinted = [
            (channel[:, :, None] * np.array(TINTS[name])).astype(np.uint8)
            for channel, name in zip(pixels, given.names, strict=True)
        ]
        small = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        data["picture"] = data_uri(png(given.picture))
        data["small"] = data_uri(png(np.ascontiguousarray(small)))
        data["channel_pictures"] = [data_uri(png(channel)) for channel in tinted]
    return data


def render_as(shown: Animation, kind: str, step: int | None) -> bytes:
    """The content of a file of `kind`: html, svg, png or gif; still pictures show `step` (from 1), or the last."""
    if kind == "html":
        return page(shown).encode()
    return animation_pictures.render_as(_scenes(shown), shown.title, shown.theme, kind, step)


def left_out_of_gif(shown: Animation) -> int:
    """How many of its steps a GIF would not show; the page shows all."""
    return animation_pictures.left_out(_scenes(shown))


def _scenes(shown: Animation) -> list[dict[str, Any]]:
    """The scenes as plain lists; what reads a photo knows the names of its channels."""
    scenes: list[dict[str, Any]] = [plain(scene_data(scene)) for scene in shown.scenes]
    for scene in scenes:
        scene["stages"][0]["names"] = list(shown.given.names)
    return scenes


def frame_for_notebook(html: str) -> str:
    """The page inside a frame of its own, so that its styles and scripts and the notebook's do not meet."""
    return (
        f'<iframe srcdoc="{escape(html)}" sandbox="allow-scripts" style="width:100%;height:900px;border:0" '
        'title="convolve animation"></iframe>'
    )
