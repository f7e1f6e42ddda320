"""Strange and hostile pictures in a folder: each is read right or set aside by name, soon, and training goes on with the others."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from convolve.data import image_folder
from convolve.data.image_folder import prefetched
from convolve.data.load import load
from convolve.data.picture import to_pixels
from convolve.data.preprocess import Preprocessing
from convolve.errors import InputError

Tree = Callable[..., Path]
RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)


def stored(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


PICTURE = Image.fromarray(COLOUR)
WHOLE = stored(PICTURE, "PNG")
TEXT = PngImagePlugin.PngInfo()
TEXT.add_text("comment", "x" * 80_000_000, zip=True)
ICO = bytearray(struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, 0, 22))

# file name, bytes, what the reason says
UNUSABLE: dict[str, tuple[str, bytes, str]] = {
    "zero bytes": ("x.png", b"", "it is empty"),
    "one byte": ("x.jpg", b"\xff", "no image"),
    "text named .jpg": ("x.jpg", b"this is a letter, not a picture", "no image"),
    "HTML named .png": ("x.png", b"<!doctype html><h1>404</h1>", "no image"),
    "SVG with a script named .png": (
        "x.png",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
        "no image",
    ),
    "PostScript named .png": ("x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) show\n", "no image"),
    "half a JPEG": ("x.jpg", stored(PICTURE, "JPEG")[:400], "Truncated|truncated"),
    "half a PNG": ("x.png", WHOLE[: len(WHOLE) // 2], ""),
    "half a WebP": ("x.webp", stored(PICTURE, "WEBP")[:300], ""),
    "half a TIFF": ("x.tif", stored(PICTURE, "TIFF")[:3000], ""),
    "half a GIF": ("x.gif", stored(PICTURE, "GIF")[:500], ""),
    "half a BMP": ("x.bmp", stored(PICTURE, "BMP")[:500], ""),
    "a PNG without pixels": ("x.png", png(40, 50), ""),
    "a PNG of 0 x 0": ("x.png", png(0, 0, chunk(b"IDAT", zlib.compress(b""))), ""),
    "a PNG with a damaged header": ("x.png", WHOLE[:20] + b"\x7f" + WHOLE[21:], ""),
    "a PNG of 100 megapixels": ("x.png", png(10_000, 10_000, chunk(b"IDAT", b"")), "decompression bomb"),
    "a PNG of 4 thousand million pixels": ("x.png", png(2**16, 2**16, chunk(b"IDAT", b"")), "decompression bomb"),
    "a PNG of 2**31 x 2**31": ("x.png", png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", b"")), "decompression bomb"),
    "a GIF of 65,535 x 65,535": (
        "x.gif",
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\1\0\1\0\0\2\0;",
        "decompression bomb",
    ),
    "a BMP of 30,000 x 30,000": (
        "x.bmp",
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "decompression bomb",
    ),
    "a PGM of 10**6 x 10**6": ("x.pgm", b"P5 1000000 1000000 255\n", "decompression bomb"),
    "text of 80 MB inside a PNG": ("x.png", stored(PICTURE, "PNG", pnginfo=TEXT), "too large|whole|Decompressed"),
    "an icon that holds a bomb": ("x.ico", b"", ""),
    "NaN in a float TIFF": ("x.tif", stored(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), "NaN"),
    "infinity in a float TIFF": (
        "x.tif",
        stored(Image.fromarray(np.full((9, 9), np.inf, np.float32)), "TIFF"),
        "infinite",
    ),
    "HEIC": ("x.heic", b"\0\0\0\x18ftypheic" + bytes(40), "no image"),
}
_BOMB = png(20_000, 20_000, chunk(b"IDAT", zlib.compress(bytes(1000))))
ICO[14:18] = len(_BOMB).to_bytes(4, "little")
UNUSABLE["an icon that holds a bomb"] = ("x.ico", bytes(ICO) + _BOMB, "")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, marks=pytest.mark.fault(f"in a folder: {case}", outcome="named and set aside; the others are read")
        )
        for case in UNUSABLE
    ],
)
def test_what_is_no_usable_picture_is_set_aside_by_name(case: str, tree: Tree, two_classes: list[str]) -> None:
    name, content, why = UNUSABLE[case]
    folder = tree(two_classes)
    (folder / "cat" / name).write_bytes(content)
    started = time.process_time()
    data = load(folder)
    assert time.process_time() - started < 5
    ((path, reason),) = [(one.path, one.reason) for one in data.quarantined]
    assert path == f"cat/{name}"
    if why:
        assert any(word in reason for word in why.split("|")), reason
    assert len(data.train) + len(data.validation) == 20


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    return stored(frames[0], kind, save_all=True, append_images=frames[1:])


RED = [255, 0, 0]
USABLE: dict[str, tuple[str, bytes, list[int]]] = {
    "a PNG named .jpg": ("x.jpg", stored(Image.new("RGB", (8, 6), "red"), "PNG"), RED),
    "a JPEG without an end of its name": ("x", stored(Image.new("RGB", (8, 6), "red"), "JPEG", quality=100), RED),
    "an animated GIF": ("x.gif", animated("GIF"), RED),
    "an animated PNG": ("x.png", animated("PNG"), RED),
    "a TIFF of several pages": ("x.tif", animated("TIFF"), RED),
    "one pixel": ("x.png", stored(Image.new("RGB", (1, 1), "red"), "PNG"), RED),
    "60,000 pixels in one row": ("x.png", stored(Image.new("RGB", (60_000, 1), "red"), "PNG"), RED),
    "CMYK": ("x.jpg", stored(Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "JPEG", quality=100), RED),
    "16-bit grey, full white": ("x.png", stored(Image.fromarray(np.full((6, 8), 65535, np.uint16)), "PNG"), [255] * 3),
    "one bit per pixel": ("x.png", stored(Image.new("1", (8, 6), 1), "PNG"), [255] * 3),
    "wholly transparent": ("x.png", stored(Image.new("RGBA", (8, 6), (9, 9, 9, 0)), "PNG"), [255] * 3),
    "a damaged EXIF block": (
        "x.jpg",
        stored(Image.new("RGB", (8, 6), "red"), "JPEG", quality=100, exif=b"Exif\0\0II*\0\xff\xff"),
        RED,
    ),
    "bytes behind the end": ("x.png", stored(Image.new("RGB", (8, 6), "red"), "PNG") + b"<script>" * 99, RED),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            marks=pytest.mark.fault(
                f"in a folder: {case}", outcome="read as what it shows (of several pictures the first)"
            ),
        )
        for case in USABLE
    ],
)
def test_what_is_strange_but_a_picture_is_read_as_it_looks(case: str, tmp_path: Path) -> None:
    name, content, colour = USABLE[case]
    (tmp_path / name).write_bytes(content)
    pixels = Preprocessing(3, (4, 4), (0.5,) * 3, (0.5,) * 3).apply(tmp_path / name)
    assert (pixels.int() - torch.tensor(colour)[:, None, None]).abs().max() <= 2


@pytest.mark.fault(
    "in a folder: a pipe, a socket and a folder named like pictures",
    outcome="set aside at once; nothing waits for them",
)
def test_what_is_no_regular_file_is_never_waited_for(tree: Tree, two_classes: list[str]) -> None:
    folder = tree(two_classes)
    os.mkfifo(folder / "cat/pipe.png")
    (folder / "dog/folder.png").mkdir()
    data = load(folder)
    assert [(one.path, one.reason) for one in data.quarantined] == [("cat/pipe.png", "it is no regular file")]
    assert len(data.train) + len(data.validation) == 20


@pytest.fixture
def streamed(tree: Tree, two_classes: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(image_folder, "BUDGET", 100)  # bytes: pictures are decoded when a batch asks for them
    return tree(two_classes)


@pytest.mark.fault("the whole folder removed between scan and epoch", outcome="an error names a file of it")
def test_a_folder_that_vanishes_is_an_error_with_a_name(streamed: Path) -> None:
    data = load(streamed)
    shutil.rmtree(streamed)
    with pytest.raises(InputError, match=r"(cat|dog)/\d\.png: it is gone"):
        list(prefetched(data.train.images, [torch.arange(4)]))


@pytest.mark.fault("a file cut off between scan and epoch", outcome="an error names it")
def test_a_file_that_is_cut_off_after_the_check_is_an_error_with_its_name(streamed: Path) -> None:
    data = load(streamed)
    name = data.train.ids[0]
    (streamed / name).write_bytes((streamed / name).read_bytes()[:60])
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        list(prefetched(data.train.images, [torch.arange(4)]))


@pytest.mark.fault("a file made unreadable between scan and epoch", outcome="an error names it and the reason")
def test_a_file_that_loses_its_rights_after_the_check_is_an_error(
    streamed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(streamed)
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == Path(data.train.ids[0]).name:
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match="Input/output error"):
        list(prefetched(data.train.images, [torch.arange(4)]))


@pytest.mark.fault("a decoding thread fails", outcome="its error ends the batch; nothing waits for it")
def test_what_goes_wrong_in_a_decoding_thread_is_raised_where_the_batch_is_waited_for(
    streamed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(streamed)
    calls = itertools.count()

    def fail(image: Image.Image) -> np.ndarray:
        if next(calls) == 5:
            raise MemoryError("no memory for a picture")
        return to_pixels(image)

    monkeypatch.setattr(image_folder, "to_pixels", fail)
    pictures = prefetched(data.train.images, [torch.arange(4)] * 3)
    assert len(next(pictures)) == 4
    with pytest.raises(MemoryError, match="no memory for a picture"):
        list(pictures)


@pytest.mark.fault("80 truncations of a JPEG and of a PNG", outcome="an error names the file, or the picture was whole")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_cut_anywhere_is_refused_or_whole(kind: str, tmp_path: Path) -> None:
    whole, path = stored(PICTURE, kind), tmp_path / "x"
    rule = Preprocessing(3, (40, 50), (0.5,) * 3, (0.5,) * 3)
    path.write_bytes(whole)
    expected = rule.apply(path)
    read = 0
    for step in range(80):
        path.write_bytes(whole[: step * len(whole) // 80])
        try:
            pixels = rule.apply(path)
        except InputError as error:
            said = str(error)
        else:
            read += 1
            said = f"{path}" if torch.equal(pixels, expected) else "something else"
        assert str(path) in said
    assert read <= 2
