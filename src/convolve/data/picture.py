"""One picture, from any file that Pillow reads to uint8 values: upright, opaque, grey or RGB, of the size asked for.

Rotation is EXIF's. Transparent pixels are laid on white. Grey is ITU-R 601-2 luma, as Pillow has it. 16-bit and float
pictures are scaled by their own type's range, never clipped. A file whose header claims more than 89 million pixels
(Pillow's own limit) is refused before it is decoded, and so are a JPEG of more than MAX_SCANS scans and a damaged PNG (png.py).
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from convolve.data import png
from convolve.errors import InputError

MAX_PIXELS = 89_478_485  # Pillow's: a quarter of a gibibyte of RGB
MAX_SCANS = 100  # of a JPEG: ten are usual, each goes over all pixels, and one of no news takes 15 bytes
SCAN = b"\xff\xda"  # its mark; among coded pixels it cannot stand
BILINEAR = Image.Resampling.BILINEAR
# Only formats of pictures: never those that Pillow hands to another program (EPS) or that are documents or films.
FORMATS = ["JPEG", "PNG", "MPO", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "HEIF", "PPM", "JPEG2000", "TGA", "ICO"]
FITS = ("stretch", "crop", "pad")  # what may happen to a picture of other proportions than those asked for
MAGIC = {b"\xff\xd8\xff": ("JPEG",), b"\x89PNG\r\n": ("PNG",)}  # spares Pillow trying every format
DEEP = {"F", "I", "I;16", "I;16B", "I;16L", "I;16N"}
GREY = DEEP | {"1", "L", "LA", "La"}
ONE_COLOUR = 2  # levels that the pixels of a plain picture may differ by, for a JPEG's sake
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values that swap height and width


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before it is decoded: upright height and width, grey or not, turned by EXIF or not."""

    h: int
    w: int
    grey: bool
    turned: bool


@dataclass(frozen=True, eq=False)
class Examined:
    """What a file's picture is, once it was decoded: its header, Pillow's names of format and mode, whether all its pixels have
    one colour, and its miniature, uint8 [side, side, 3]."""

    header: Header
    format: str
    mode: str
    one_colour: bool
    miniature: np.ndarray


def read_header(content: bytes, name: str) -> Header:
    """The Header of a file's bytes. Raises InputError as `open_picture` does."""
    with _opened(content, name, in_full=True) as image:
        return _header(image, content)


def examine(content: bytes, name: str, side: int) -> Examined:
    """Decode a file's bytes, a JPEG at a fraction of its size, and look at the picture. Raises InputError as `open_picture` does."""
    with _opened(content, name, in_full=True) as image:
        header, kind, mode = _header(image, content), image.format or "", image.mode
        if kind == "JPEG":
            image.draft(None, (2 * side, 2 * side))
        image.load()
        upright = ImageOps.exif_transpose(image) if header.turned else image
        colours = to_colours(upright, 3)
        one_colour = bool((np.diff(np.array(colours.getextrema())) <= ONE_COLOUR).all())
        small = colours.resize((side, side), Image.Resampling.BOX, reducing_gap=3.0)
        return Examined(header, kind, mode, one_colour, np.asarray(small))


def _header(image: Image.Image, content: bytes) -> Header:
    # Pillow decodes a whole PNG to look for EXIF behind its pixels, so look for the mark of it first.
    may_turn = image.format != "PNG" or b"eXIf" in content or b"Raw profile type" in content or b"tiff:Ori" in content
    orientation = _orientation(image) if may_turn else 1
    h, w = (image.width, image.height) if orientation in SIDEWAYS else (image.height, image.width)
    return Header(h, w, image.mode in GREY, orientation not in (0, 1))


def _orientation(image: Image.Image) -> int:
    """As EXIF has it; upright where EXIF is damaged, which is no reason to lose a picture."""
    try:
        found: int = image.getexif().get(ORIENTATION, 1)
    except Exception:  # what it is about the pixels is said when they are decoded
        return 1
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block Pillow's warnings are not heard, in no thread: what is wrong with a picture is an error that names it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def open_picture(source: Path | bytes, size: tuple[int, int] | None = None, name: str | None = None) -> Image.Image:
    """A decoded picture, upright. `size` (h, w) lets a JPEG be decoded at a fraction that is still at least that large.

    Raises InputError naming the file (`name`, or the path) when it cannot be read, is no image, is cut off or too large.
    """
    called = name or str(source if isinstance(source, Path) else "image")
    try:
        content = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise InputError("cannot read an image", f"{called}: {error.strerror or error}", "check the file") from error
    with _opened(content, called, in_full=isinstance(source, Path)) as image:  # other bytes were examined before
        if size is not None and image.format == "JPEG":
            side = max(size)  # either side may turn out to be the height, once it is upright
            image.draft(None, (side, side))
        image.load()
        upright = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
        return _eight_bits(upright) if upright.mode in DEEP else upright


@contextmanager
def _opened(content: bytes, name: str, in_full: bool) -> Iterator[Image.Image]:
    """An image whose header was read and whose size was checked; what Pillow raises about it becomes an InputError. `in_full`
    unpacks a PNG once more, to count its rows."""
    if not content:
        raise InputError("an image needs content", f"{name}: it is empty", "remove it or get it again")
    try:
        image = Image.open(io.BytesIO(content), formats=_formats(content))
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        if image.format in ("JPEG", "MPO") and content.count(SCAN) > MAX_SCANS:
            raise ValueError(f"it goes over its pixels {content.count(SCAN):,} times (up to {MAX_SCANS} are read)")
        if image.format == "PNG" and (damage := png.fault(content)) is not None:
            raise ValueError(damage)
        if image.format == "PNG" and in_full and png.lacks_rows(content):
            raise ValueError("rows of pixels are absent")
        yield image
    except UnidentifiedImageError as error:
        raise InputError(
            "a file must be an image that Pillow can read", f"{name}: it is no image", _hint(name)
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        received = f"{name}: it claims more than {MAX_PIXELS:,} pixels (a decompression bomb)"
        raise InputError(f"an image may have up to {MAX_PIXELS:,} pixels", received, "scale it down") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others
        received = f"{name}: {error or type(error).__name__}"
        raise InputError("an image must be whole", received, "remove it or get it again") from error


def to_colours(image: Image.Image, channels: int) -> Image.Image:
    """The picture in mode "L" (one channel) or "RGB" (three), whatever its mode was."""
    if image.mode in DEEP:
        try:
            image = _eight_bits(image)
        except ValueError as error:
            raise InputError("a picture needs finite values", str(error)) from error
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def fit(
    image: Image.Image,
    channels: int,
    size: tuple[int, int],
    resample: Image.Resampling = BILINEAR,
    how: str = "stretch",
) -> Image.Image:
    """The picture in the colours and the size (h, w) asked for.

    Where its proportions differ, "stretch" distorts it, "crop" keeps its middle, and "pad" keeps all of it, centred between
    borders of its own ground: the median colour of its edge.
    """
    image = to_colours(image, channels)
    h, w = size
    if image.size == (w, h):
        return image
    if how == "stretch" or image.width * h == image.height * w:
        return image.resize((w, h), resample, reducing_gap=3.0)
    if how == "crop":
        scale = min(image.width / w, image.height / h)
        left, top = (image.width - w * scale) / 2, (image.height - h * scale) / 2
        box = (left, top, image.width - left, image.height - top)
        return image.resize((w, h), resample, box=box, reducing_gap=3.0)
    scale = min(w / image.width, h / image.height)
    inside = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    whole = image.resize(inside, resample, reducing_gap=3.0)
    padded = Image.new(whole.mode, (w, h), _ground(whole))
    padded.paste(whole, ((w - inside[0]) // 2, (h - inside[1]) // 2))
    return padded


def to_pixels(image: Image.Image) -> np.ndarray:
    """uint8 [c, h, w] of an "L" or "RGB" picture."""
    array = np.array(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _ground(image: Image.Image) -> int | tuple[int, ...]:
    """The median colour of the outermost pixels."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    middle = np.median(edge, axis=0).astype(int)
    return int(middle) if middle.ndim == 0 else tuple(middle.tolist())


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


@functools.cache
def _registered() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _formats(content: bytes) -> tuple[str, ...]:
    return next((formats for magic, formats in MAGIC.items() if content.startswith(magic)), _registered())


@functools.cache
def image_ends() -> frozenset[str]:
    """The ends of names (".jpg") that a picture may have; HEIC's too, so that such a file is named instead of overlooked."""
    known = {end for end, name in Image.registered_extensions().items() if name in _registered()}
    return frozenset(known | {".heic", ".heif"})
