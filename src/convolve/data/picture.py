"""One picture, from any file that Pillow reads to uint8 values: upright, opaque, grey or RGB, of the size asked for.

Rotation is EXIF's. Transparent pixels are laid on white. Grey is ITU-R 601-2 luma, as Pillow has it. 16-bit and float
pictures are scaled by their own type's range, never clipped. A file whose header claims more than 89 million pixels
(Pillow's own limit) is refused before it is decoded.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from convolve.errors import InputError

MAX_PIXELS = 89_478_485  # Pillow's: a quarter of a gibibyte of RGB
BILINEAR = Image.Resampling.BILINEAR


def open_picture(source: Path | bytes, size: tuple[int, int] | None = None, name: str | None = None) -> Image.Image:
    """A decoded picture, upright. `size` (h, w) lets a JPEG be decoded at a fraction that is still at least that large.

    Raises InputError naming the file (`name`, or the path) when it cannot be read, is no image, is cut off or too large.
    """
    called = name or str(source if isinstance(source, Path) else "image")
    try:
        content = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise InputError("cannot read an image", f"{called}: {error.strerror or error}", "check the file") from error
    if not content:
        raise InputError("an image needs content", f"{called} is empty", "remove it or get it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that we do not use; sizes are checked below
            image = Image.open(io.BytesIO(content))
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if size is not None and image.format == "JPEG":
                side = max(size)  # either side may turn out to be the height, once it is upright
                image.draft(None, (side, side))
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise InputError("a file must be an image that Pillow can read", f"{called} is not", _hint(called)) from error
    except Image.DecompressionBombError as error:
        received = f"{called} claims more"
        raise InputError(f"an image may have up to {MAX_PIXELS:,} pixels", received, "scale it down") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        received = f"{called}: {error or type(error).__name__}"
        raise InputError("an image must be whole", received, "remove it or get it again") from error


def to_colours(image: Image.Image, channels: int) -> Image.Image:
    """The picture in mode "L" (one channel) or "RGB" (three), whatever its mode was."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def fit(image: Image.Image, channels: int, size: tuple[int, int], resample: Image.Resampling = BILINEAR) -> Image.Image:
    """The picture in the colours and the size (h, w) asked for, stretched where its proportions differ."""
    image = to_colours(image, channels)
    h, w = size
    return image if image.size == (w, h) else image.resize((w, h), resample, reducing_gap=3.0)


def to_pixels(image: Image.Image) -> np.ndarray:
    """uint8 [c, h, w] of an "L" or "RGB" picture."""
    array = np.array(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale by the range of the type: 16 bits by 65535; float by 1 if its values lie in 0..1, else by 255."""
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ValueError("a pixel is NaN or infinite")
    top = float(values.max(initial=0))
    # Mode "I" holds 16-bit files and 8-bit ones alike, "F" levels of 0..1 or 0..255: the values tell.
    scale = {"F": (255.0 if top <= 1 else 1.0), "I": (1.0 if top <= 255 else 255 / 65535)}.get(image.mode, 255 / 65535)
    return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))


def _hint(name: str) -> str:
    if name.lower().endswith((".heic", ".heif")):
        return "convert it to JPEG, or `pip install pillow-heif`"
    return "remove it, or convert it to PNG or JPEG"
