"""Apply named kernels, or one of the user's own, to a real image, and write what they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convolve.data.picture import GREY, open_picture, to_colours, to_pixels
from convolve.data.samples import SAMPLES, sample_photo
from convolve.draw.filters import contact_sheet
from convolve.errors import UnknownNameError, UsageError
from convolve.files import atomic_write, new_folder
from convolve.ops.conv import conv2d
from convolve.ops.named_kernels import NamedKernel, named_kernel, named_kernels, parse_kernel

On = Literal["auto", "channels", "luminance"]
SATURATED = 0.98  # of a signed response's magnitudes, this share lies within the range that is shown
BUSY = 0.02  # and the range is at least this much of full brightness, so that a flat picture is not blown up into noise


@dataclass(frozen=True, eq=False)
class Response:
    """What one filter gave: the response itself (c, h, w) with pixels 0..1, and as a picture with how it was made one."""

    kernel: NamedKernel
    on: str
    values: Tensor
    pixels: np.ndarray
    shown: str
    file: str | None


@dataclass(frozen=True, eq=False)
class Filtered:
    """All responses of one image, and where they were written."""

    image: str
    size: tuple[int, int]
    original: np.ndarray
    flipped: bool
    responses: tuple[Response, ...]
    folder: Path
    credit: str | None

    @property
    def operation(self) -> str:
        """What was computed, in words."""
        if self.flipped:
            return "convolution: the kernel is turned around first (flipped), as in mathematics"
        return "cross-correlation: the kernel is laid on as it stands, what deep learning calls convolution"

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        rows = [
            {
                "filter": row.kernel.name,
                "kernels": row.kernel.kernels.tolist(),
                "join": row.kernel.join,
                "on": row.on,
                "minimum": row.values.min().item(),
                "maximum": row.values.max().item(),
                "shown": row.shown,
                "file": row.file,
            }
            for row in self.responses
        ]
        return {
            "image": self.image,
            "height": self.size[0],
            "width": self.size[1],
            "flipped": self.flipped,
            "operation": self.operation,
            "folder": str(self.folder),
            "sheet": str(self.folder / "sheet.png"),
            "responses": rows,
        }


def filter_image(
    image: str | Path,
    filters: Sequence[str] = (),
    kernel: str | None = None,
    *,
    flip: bool = False,
    on: On = "auto",
    out: str | Path | None = None,
) -> Filtered:
    """Filter an image file, or "sample:china" or "sample:flower", and write one PNG per filter and a contact sheet.

    filters: names of the table (`named_kernels`); without any, and without `kernel`, all of them.
    kernel: numbers of a kernel of one's own, such as "0 1 2; 2 2 0; 0 1 2".
    flip: turn the kernel around first: true convolution.
    on: each colour channel by itself, or the luminance (ITU-R 601-2); "auto" takes the luminance for kernels whose response has a sign.
    out: the folder to write, which must not exist; without it runs/NAME-filtered, or -2, -3, …

    At the border the image is continued by its outermost pixels, and the result has the image's size. A response with a sign is
    shown around middle grey, scaled so that 98 % of it fits; the returned values are unscaled.
    Raises InputError for a file that is no image, UsageError for the rest.

    >>> import convolve, tempfile
    >>> found = convolve.filter_image("sample:china", ["sobel"], out=tempfile.mkdtemp() + "/china")
    >>> found.responses[0].values.shape, [path.name for path in sorted(found.folder.iterdir())]
    (torch.Size([1, 427, 640]), ['sheet.png', 'sobel.png'])
    """
    if on not in get_args(On):
        raise UnknownNameError.of("way to take colours", str(on), get_args(On))
    rows = [named_kernel(name) for name in dict.fromkeys(filters)]
    rows += [parse_kernel(kernel)] if kernel is not None else []
    rows = rows or list(named_kernels().values())
    name, picture, credit = _read(image)
    pixels = torch.from_numpy(to_pixels(to_colours(picture, 1 if picture.mode in GREY else 3)))
    colours = pixels.float() / 255
    grey = torch.from_numpy(to_pixels(to_colours(picture, 1))).float() / 255
    folder = _folder(out, name)
    responses = []
    for row in rows:
        alone = colours.shape[0] == 1 or on == "luminance" or (on == "auto" and row.signed)
        values = respond(grey if alone else colours, row, flip)
        shown, words = _as_picture(values, row)
        _write_png(shown, folder / f"{row.name}.png")
        word = "grey" if colours.shape[0] == 1 else "luminance" if alone else "each channel"
        responses.append(Response(row, word, values, shown, words, f"{row.name}.png"))
    size = (pixels.shape[1], pixels.shape[2])
    found = Filtered(name, size, pixels.permute(1, 2, 0).numpy(), flip, tuple(responses), folder, credit)
    with atomic_write(folder / "sheet.png", "wb") as file:
        contact_sheet(found).savefig(file, format="png")
    return found


def respond(pixels: Tensor, row: NamedKernel, flip: bool) -> Tensor:
    """The response (c, h, w) of each channel of `pixels` (c, h, w) by itself."""
    weight = row.kernels[:, None].to(pixels)
    maps = conv2d(pixels[:, None], weight, padding="same", padding_mode="replicate", flip_kernel=flip)
    if row.join == "magnitude":
        return maps.square().sum(1).sqrt()
    if row.join == "strongest":
        return maps.abs().amax(1)
    return maps[:, 0]


def _read(image: str | Path) -> tuple[str, Image.Image, str | None]:
    sample = str(image).removeprefix("sample:") if str(image).startswith("sample:") else None
    if sample is not None:
        return sample, open_picture(sample_photo(sample), name=str(image)), SAMPLES[sample]
    path = Path(image)
    if path.is_dir():
        raise UsageError("filter takes one image file", f"got the folder {path}", "name a file in it")
    return path.stem, open_picture(path), None


def _folder(out: str | Path | None, name: str) -> Path:
    if out is None:
        return new_folder("runs", f"{name}-filtered")
    path = Path(out)
    if path.exists():
        raise UsageError(
            "results are not written over others", f"{path} exists", "name a new folder, or leave --out away"
        )
    return new_folder(path.parent, path.name)


def _as_picture(values: Tensor, row: NamedKernel) -> tuple[np.ndarray, str]:
    """uint8 (h, w, c) and a line on how the response became what is seen."""
    if row.signed:
        strength = values.abs().flatten()
        # The k-th value instead of torch.quantile, which refuses more than 16 million elements.
        limit = max(strength.kthvalue(max(1, round(SATURATED * strength.numel()))).values.item(), BUSY)
        if row.join == "one":
            return _bytes(0.5 + values / (2 * limit)), f"grey = 0, white = {limit:.2f}, black = -{limit:.2f}"
        return _bytes(values / limit), f"black = 0, white = {limit:.2f}"
    total = row.kernels.sum().item()
    words = "as it is"
    if abs(total - 1) > 1e-3:
        values = values / total
        words = f"divided by the kernel's sum, {total:g}"
    outside = ((values < 0) | (values > 1)).float().mean().item()
    return _bytes(values), words if outside < 5e-4 else f"{words}; {outside:.1%} beyond black or white is cut"


def _bytes(values: Tensor) -> np.ndarray:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _write_png(pixels: np.ndarray, path: Path) -> None:
    with atomic_write(path, "wb") as file:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG")
