"""`convolve filter`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json


def filter_image(
    image: str,
    /,
    *filters: str,
    kernel: Annotated[str | None, Parameter(("--kernel", "-k"))] = None,
    flip: Annotated[bool, Parameter(negative=())] = False,
    on: Literal["auto", "channels", "luminance"] = "auto",
    out: Annotated[Path | None, Parameter(("--out", "-o"))] = None,
    json: Json = False,
) -> None:
    """Apply kernels to an image: one PNG each, and a contact sheet.

    Parameters
    ----------
    image
        An image file, or sample:china or sample:flower.
    filters
        identity, box, gaussian, sharpen, emboss, laplacian; sobel, prewitt, scharr (also with -x or -y);
        edge-horizontal, edge-vertical, edge-rising, edge-falling; gabor (also gabor-0, -45, -90, -135). [default: all]
    kernel
        A kernel of your own, rows separated by semicolons: "0 1 2; 2 2 0; 0 1 2".
    flip
        Turn the kernel around first: the convolution of mathematics. Without it, cross-correlation.
    on
        Filter each colour channel, or the luminance; auto takes the luminance for kernels that sum to zero.
    out
        The folder to write, which must not exist. [default: runs/NAME-filtered, then -2, -3, ...]
    """
    from convolve.draw.tables import table
    from convolve.jobs.filter_image import filter_image as job

    found = job(image, filters, kernel, flip=flip, on=on, out=out)
    if json:
        output.document("filter", found.to_json())
        return
    rows = [
        (row.kernel.name, row.on, f"{row.values.min():.3f}", f"{row.values.max():.3f}", row.shown)
        for row in found.responses
    ]
    output.message(found.operation)
    if all(row.kernel.symmetric for row in found.responses):
        output.message("every kernel here equals its own turn, so flipping changes nothing")
    output.result(table(("filter", "on", "least", "most", "shown"), rows, right=(2, 3)))
    output.result(f"wrote {found.folder}/: sheet.png and {len(rows)} picture{'s' if len(rows) != 1 else ''}")
