"""Hostile pictures, made here byte by byte: what fuzzers found in the decoders of other people, written anew by the formats' own rules.

Each is a row: what is wrong, the bytes, and what must come of it: None where the file must be refused, else the pixels that it shows.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from convolve.data import png as png_rules

H, W = 12, 16
YS, XS = np.mgrid[:H, :W]
COLOUR = np.stack([XS * 15, YS * 20, (XS + YS) * 8], 2).astype(np.uint8)  # smooth, so that a JPEG keeps it
GREY = COLOUR[..., 0]
Case = tuple[bytes, np.ndarray | None]
ANY = np.zeros(0)
"""The bytes do not say what is shown: refused, or read as something."""


def stored(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    """What Pillow writes."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


# -- PNG: a signature, then chunks of (length, name, content, checksum)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BOMB = zlib.compress(bytes(80_000_000), 9)  # 78 KB


def chunk(name: bytes, content: bytes = b"", checksum: int | None = None) -> bytes:
    crc = zlib.crc32(name + content) if checksum is None else checksum
    return len(content).to_bytes(4, "big") + name + content + crc.to_bytes(4, "big")


def head(w: int = W, h: int = H, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlace))


def rows(pixels: np.ndarray) -> bytes:
    """The scan lines, unfiltered."""
    return b"".join(b"\0" + line.tobytes() for line in pixels)


def pixels_of(content: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(content))


END = chunk(b"IEND")
DATA = pixels_of(rows(COLOUR))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


def chunks_of(content: bytes) -> list[bytes]:
    """The signature and each chunk."""
    found, place = [content[:8]], 8
    while place < len(content):
        size = 12 + int.from_bytes(content[place : place + 4], "big")
        found.append(content[place : place + size])
        place += size
    return found


def cut_pngs() -> Iterator[tuple[str, Case]]:
    """A PNG of several chunks, cut at, before and behind each boundary."""
    body = zlib.compress(rows(COLOUR))
    parts = [SIGNATURE, head(), chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)), chunk(b"tEXt", b"k\0value")]
    parts += [chunk(b"IDAT", body[start : start + 40]) for start in range(0, len(body), 40)] + [END]
    assert len(parts) > 6
    whole = b"".join(parts)
    for number, place in enumerate(itertools.accumulate(map(len, parts[:-1]))):
        for where, shift in (("before", -1), ("at", 0), ("behind", 1)):
            only_the_end = number == len(parts) - 2 and shift == 0
            yield f"PNG: cut {where} boundary {number}", (whole[: place + shift], COLOUR if only_the_end else None)


def pngs() -> Iterator[tuple[str, Case]]:
    yield "PNG: a wrong checksum of the header", (png(head()[:-4] + bytes(4), DATA, END), None)
    yield "PNG: a wrong checksum of the pixels", (png(head(), DATA[:-4] + bytes(4), END), None)
    for number in range(8):
        place = 41 + number * 7  # within the pixels: behind signature, header, and the name
        flipped = bytes((DATA[place] ^ 1 << number,))
        yield (
            f"PNG: a flipped bit in byte {place} of the pixels",
            (png(head(), DATA[:place] + flipped + DATA[place + 1 :], END), None),
        )
    yield "PNG: a wrong checksum of a text", (png(head(), chunk(b"tEXt", b"k\0v", 7), DATA, END), None)
    yield "PNG: a colour profile that unpacks to 80 MB", (png(head(), chunk(b"iCCP", b"p\0\0" + BOMB), DATA, END), None)
    yield "PNG: a packed text of 80 MB", (png(head(), chunk(b"zTXt", b"k\0\0" + BOMB), DATA, END), None)
    yield "PNG: an international text of 80 MB", (png(head(), chunk(b"iTXt", b"k\0\1\0\0\0" + BOMB), DATA, END), None)
    yield (
        "PNG: packed texts of 1 MB, 70 of them",
        (
            png(head(), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000))) * 70, DATA, END),
            None,
        ),
    )
    yield "PNG: pixels that unpack to 80 MB", (png(head(), chunk(b"IDAT", BOMB), END), np.zeros((H, W, 3), np.uint8))
    yield "PNG: 30,000 empty pixel chunks", (png(head(), chunk(b"IDAT") * 30_000, DATA, END), COLOUR)
    yield "PNG: 30,000 texts", (png(head(), chunk(b"tEXt", b"k\0v") * 30_000, DATA, END), COLOUR)
    yield "PNG: a chunk of 2**31 - 1 bytes", (png(head(), (2**31 - 1).to_bytes(4, "big") + b"IDAT" + bytes(99)), None)
    yield "PNG: a chunk of 2**32 - 1 bytes", (png(head(), (2**32 - 1).to_bytes(4, "big") + b"tEXt" + bytes(99)), None)
    yield "PNG: 3 bits a value", (png(head(depth=3), DATA, END), None)
    yield "PNG: an unknown kind of colour", (png(head(colour=7), DATA, END), None)
    yield "PNG: an unknown interlacing", (png(head(interlace=9), DATA, END), None)
    yield "PNG: a header of 5 bytes", (png(chunk(b"IHDR", bytes(5)), DATA, END), None)
    yield "PNG: no header", (png(DATA, END), None)
    yield "PNG: a second header", (png(head(), head(1, 1), DATA, END), None)
    yield "PNG: an unknown filter", (png(head(), pixels_of(b"\x09" * (H * (3 * W + 1))), END), None)
    yield "PNG: pixels that are not packed", (png(head(), chunk(b"IDAT", rows(COLOUR)), END), None)
    yield "PNG: half of the rows", (png(head(), pixels_of(rows(COLOUR[: H // 2])), END), None)
    adam7 = b"".join(
        rows(COLOUR[row::down, column::right]) for row, down, column, right in png_rules.ADAM7 if column < W and row < H
    )
    yield "PNG: interlaced", (png(head(interlace=1), pixels_of(adam7), END), COLOUR)
    yield "PNG: interlaced, without its last row", (png(head(interlace=1), pixels_of(adam7[: -(3 * W + 1)]), END), None)
    bit = pixels_of(b"\0\xff\xff" * H)
    yield "PNG: one bit a value, whole", (png(head(depth=1, colour=0), bit, END), np.full((H, W, 3), 255))
    yield "PNG: one bit a value, a row too few", (png(head(h=H + 1, depth=1, colour=0), bit, END), None)
    yield "PNG: a row too many", (png(head(), pixels_of(rows(COLOUR) + bytes(3 * W + 1)), END), COLOUR)
    yield "PNG: a palette without its colours", (png(head(colour=3), pixels_of(rows(GREY)), END), None)
    palette = bytes(range(30))
    outside = np.full((H, W), 200, np.uint8)
    yield (
        "PNG: pixels outside of the palette",
        (
            png(head(colour=3), chunk(b"PLTE", palette), pixels_of(rows(outside)), END),
            np.zeros((H, W, 3), np.uint8),
        ),
    )
    yield (
        "PNG: a palette of 300 colours",
        (
            png(head(colour=3), chunk(b"PLTE", bytes(900)), pixels_of(rows(GREY)), END),
            None,
        ),
    )
    yield (
        "PNG: transparency of 3 bytes for grey",
        (
            png(head(colour=0), chunk(b"tRNS", b"\0"), pixels_of(rows(GREY)), END),
            None,
        ),
    )
    yield (
        "PNG: an animation of no frames",
        (
            png(head(), chunk(b"acTL", struct.pack(">II", 0, 0)), DATA, END),
            COLOUR,
        ),
    )
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 9999, 9999, 50, 50, 1, 1, 0, 0))
    yield (
        "PNG: a frame larger than its picture",
        (
            png(head(), chunk(b"acTL", struct.pack(">II", 2, 0)), frame, DATA, END),
            None,
        ),
    )
    yield (
        "PNG: a frame without pixels",
        (
            png(head(), chunk(b"acTL", struct.pack(">II", 2, 0)), frame[:8] + frame[8:], END),
            None,
        ),
    )
    yield "PNG: an EXIF block that is noise", (png(head(), chunk(b"eXIf", b"\xff" * 99), DATA, END), COLOUR)
    yield (
        "PNG: an EXIF block that points into itself",
        (
            png(head(), chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0"), DATA, END),
            COLOUR,
        ),
    )


# -- GIF: a screen, then frames of (place, size) with packed codes of growing length


def gif(
    *frames: bytes, w: int = W, h: int = H, colours: bytes | None = bytes((0, 0, 0, 255, 0, 0)), end: bytes = b";"
) -> bytes:
    screen = struct.pack("<HHBBB", w, h, 0x80 if colours else 0, 0, 0)
    return b"GIF89a" + screen + (colours or b"") + b"".join(frames) + end


def frame(x: int = 0, y: int = 0, w: int = W, h: int = H, first: int = 2, codes: bytes | None = None) -> bytes:
    """A frame of pixels of colour 1: a clear code before every third, so that codes stay short."""
    if codes is None:
        bits = "".join(f"{code:03b}"[::-1] for i in range(w * h) for code in ((4, 1) if i % 2 == 0 else (1,)))
        bits += "101"
        codes = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    blocks = b"".join(bytes((len(part),)) + part for part in batched(codes, 255))
    return b"," + struct.pack("<HHHHB", x, y, w, h, 0) + bytes((first,)) + blocks + b"\0"


def batched(content: bytes, size: int) -> Iterable[bytes]:
    return (content[start : start + size] for start in range(0, len(content), size))


RED = np.broadcast_to(np.array([255, 0, 0], np.uint8), (H, W, 3))


def gifs() -> Iterator[tuple[str, Case]]:
    yield "GIF: made by hand", (gif(frame()), RED)
    yield "GIF: a frame of no size", (gif(frame(w=0, h=0, codes=b"\x05")), None)
    yield "GIF: a screen of no size", (gif(frame(w=0, h=0, codes=b"\x05"), w=0, h=0), None)
    yield "GIF: no frame", (gif(), None)
    yield "GIF: a frame outside of the screen", (gif(frame(x=30_000, y=30_000)), None)
    for first in (0, 12, 13, 255):
        yield f"GIF: codes that begin with {first} bits", (gif(frame(first=first)), None if first else ANY)
    yield "GIF: a code that is not known yet", (gif(frame(codes=b"\x3c\xff\xff\xff\xff\xff")), None)
    yield "GIF: codes that end early", (gif(frame(codes=b"\x0c")), None)
    yield "GIF: a block cut off", (gif(frame())[:-9], None)
    yield "GIF: no colours", (gif(frame(), colours=None), ANY)
    yield "GIF: 60,000 comments", (gif(b"!\xfe\x01c\0" * 60_000, frame()), RED)
    yield "GIF: an extension without an end", (gif(b"!\xfe\xff" + b"c" * 99, end=b""), None)
    yield "GIF: 5,000 frames", (gif(frame() + frame(w=1, h=1) * 5_000), RED)


# -- BMP: two headers, then rows from the lowest up


def bmp(
    pixels: bytes = b"",
    *,
    w: int = W,
    h: int = H,
    bits: int = 24,
    packing: int = 0,
    size: int = 40,
    offset: int = 54,
    colours: int = 0,
    palette: bytes = b"",
) -> bytes:
    headers = struct.pack("<IHHI", 54 + len(palette) + len(pixels), 0, 0, offset)
    return (
        b"BM"
        + headers
        + struct.pack("<IiiHHIIiiII", size, w, h, 1, bits, packing, 0, 0, 0, colours, 0)
        + palette
        + pixels
    )


UP, DOWN = COLOUR[::-1, :, ::-1].tobytes(), COLOUR[:, :, ::-1].tobytes()


def bmps() -> Iterator[tuple[str, Case]]:
    yield "BMP: rows from the lowest up", (bmp(UP), COLOUR)
    yield "BMP: a negative height: rows from the highest down", (bmp(DOWN, h=-H), COLOUR)
    yield "BMP: a height of -2**31", (bmp(DOWN, h=-(2**31)), None)
    yield "BMP: a negative width", (bmp(UP, w=-W), None)
    yield "BMP: 2**31 - 1 squared", (bmp(UP, w=2**31 - 1, h=2**31 - 1), None)
    yield "BMP: no width", (bmp(UP, w=0), None)
    for bits in (0, 3, 255):
        yield f"BMP: {bits} bits a pixel", (bmp(UP, bits=bits), None)
    yield "BMP: an unknown packing", (bmp(UP, packing=77), None)
    yield "BMP: pixels behind the end of the file", (bmp(UP, offset=10**9), None)
    yield "BMP: a header of no bytes", (bmp(UP, size=0), None)
    yield "BMP: a header of 2**31 bytes", (bmp(UP, size=2**31), None)
    yield "BMP: 2**31 colours", (bmp(UP, bits=8, colours=2**31), None)
    red = bytes((0, 0, 0, 0, 0, 0, 255, 0))
    runs = b"".join(bytes((W, 1, 0, 0)) for _ in range(H)) + b"\0\1"
    yield "BMP: runs of equal pixels", (bmp(runs, bits=8, packing=1, offset=62, colours=2, palette=red), RED)
    yield (
        "BMP: runs that leave the picture",
        (
            bmp(b"\xff\1" * 50_000 + b"\0\1", bits=8, packing=1, offset=62, colours=2, palette=red),
            None,
        ),
    )
    yield "BMP: runs that end early", (bmp(b"\x05\1", bits=8, packing=1, offset=62, colours=2, palette=red), None)
    yield (
        "BMP: a jump out of the picture",
        (
            bmp(b"\0\2\xff\xff" * 9 + b"\0\1", bits=8, packing=1, offset=62, colours=2, palette=red),
            ANY,
        ),
    )


# -- TIFF: a directory of (tag, type, count, value)

BYTE, SHORT, LONG, RATIONAL, FLOAT = 1, 3, 4, 5, 11
Entry = tuple[int, int, int, int]


def tiff(
    entries: Sequence[Entry], pixels: bytes, following: int = 0, order: str = "<", count: int | None = None
) -> bytes:
    """The pixels at 8, then bits of three values and the directory."""
    place = 8 + len(pixels) + 6
    number = len(entries) if count is None else count
    directory = struct.pack(order + "H", number)
    for tag, kind, many, value in sorted(entries):
        short = kind == SHORT and many == 1 and order == ">"
        directory += struct.pack(order + "HHII", tag, kind, many, value << 16 if short else value)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    bits = struct.pack(order + "HHH", 8, 8, 8)
    return mark + struct.pack(order + "I", place) + pixels + bits + directory + struct.pack(order + "I", following)


def plain(pixels: bytes = COLOUR.tobytes(), **changes: Entry | None) -> list[Entry]:
    """The entries of an RGB picture in one strip; `changes` replace, add (any other name) or remove (None) some."""
    known: dict[str, Entry | None] = {
        "width": (256, LONG, 1, W),
        "height": (257, LONG, 1, H),
        "bits": (258, SHORT, 3, 8 + len(pixels)),
        "packing": (259, SHORT, 1, 1),
        "colour": (262, SHORT, 1, 2),
        "strips": (273, LONG, 1, 8),
        "samples": (277, SHORT, 1, 3),
        "rows": (278, LONG, 1, H),
        "bytes": (279, LONG, 1, len(pixels)),
    }
    return [entry for entry in (known | changes).values() if entry is not None]


def tiffs() -> Iterator[tuple[str, Case]]:
    data = COLOUR.tobytes()

    def changed(pixels: bytes = data, following: int = 0, count: int | None = None, **changes: Entry | None) -> bytes:
        return tiff(plain(pixels, **changes), pixels, following, count=count)

    grey: dict[str, Entry | None] = {
        "bits": (258, SHORT, 1, 8),
        "colour": (262, SHORT, 1, 1),
        "samples": (277, SHORT, 1, 1),
    }
    tiles: dict[str, Entry | None] = {"strips": None, "rows": None, "bytes": None}
    yield "TIFF: made by hand", (changed(), COLOUR)
    yield "TIFF: a strip behind the end of the file", (changed(strips=(273, LONG, 1, 10**9)), None)
    yield "TIFF: a strip of 4 GB", (changed(bytes=(279, LONG, 1, 2**32 - 1)), COLOUR)
    yield "TIFF: a strip that begins inside the header", (changed(strips=(273, LONG, 1, 0)), ANY)
    yield "TIFF: 2**30 strips", (changed(strips=(273, LONG, 2**30, 8), bytes=(279, LONG, 2**30, 8)), None)
    yield "TIFF: no strips", (changed(strips=None, bytes=None), None)
    yield "TIFF: no rows in a strip", (changed(rows=(278, LONG, 1, 0)), None)
    yield (
        "TIFF: tiles of no size",
        (changed(**tiles, a=(322, SHORT, 1, 0), b=(323, SHORT, 1, 0), c=(324, LONG, 1, 8)), None),
    )
    yield (
        "TIFF: 2**30 tiles",
        (
            changed(
                **tiles, a=(322, SHORT, 1, 16), b=(323, SHORT, 1, 16), c=(324, LONG, 2**30, 8), d=(325, LONG, 2**30, 8)
            ),
            None,
        ),
    )
    yield (
        "TIFF: a tile behind the end of the file",
        (
            changed(
                **tiles, a=(322, SHORT, 1, 16), b=(323, SHORT, 1, 16), c=(324, LONG, 1, 10**9), d=(325, LONG, 1, 768)
            ),
            None,
        ),
    )
    yield "TIFF: no width", (changed(width=(256, LONG, 1, 0)), None)
    yield "TIFF: 2**32 - 1 squared", (changed(width=(256, LONG, 1, 2**32 - 1), height=(257, LONG, 1, 2**32 - 1)), None)
    yield "TIFF: 20,000 squared", (changed(width=(256, LONG, 1, 20_000), height=(257, LONG, 1, 20_000)), None)
    yield "TIFF: 65,535 samples a pixel", (changed(samples=(277, SHORT, 1, 65_535)), None)
    yield "TIFF: 8,000 bits a sample", (changed(**(grey | {"bits": (258, SHORT, 1, 8_000)})), None)
    yield "TIFF: 2**32 - 1 widths of samples", (changed(bits=(258, SHORT, 2**32 - 1, 8)), None)
    yield "TIFF: an unknown packing", (changed(packing=(259, SHORT, 1, 60_000)), None)
    yield "TIFF: packed pixels that are noise", (changed(packing=(259, SHORT, 1, 8)), None)
    yield "TIFF: LZW that is noise", (changed(b"\xff" * 600, packing=(259, SHORT, 1, 5)), None)
    yield (
        "TIFF: fax codes that are noise",
        (changed(b"\xaa" * 600, **(grey | {"packing": (259, SHORT, 1, 4), "bits": (258, SHORT, 1, 1)})), ANY),
    )
    yield "TIFF: a JPEG inside that is none", (changed(packing=(259, SHORT, 1, 7)), None)
    yield (
        "TIFF: pixels that unpack to 80 MB",
        (changed(BOMB, packing=(259, SHORT, 1, 8)), np.zeros((H, W, 3), np.uint8)),
    )
    yield "TIFF: a directory that follows itself", (changed(following=8 + len(data) + 6), COLOUR)
    yield "TIFF: a directory of 65,535 entries", (changed(count=65_535), COLOUR)
    yield "TIFF: an empty directory", (tiff([], data), None)
    yield "TIFF: a directory behind the end of the file", (b"II*\0" + (10**9).to_bytes(4, "little") + data, None)
    yield "TIFF: resolutions of 0 by 0", (changed(x=(282, RATIONAL, 1, 8), y=(283, RATIONAL, 1, 8)), COLOUR)
    yield "TIFF: a text of 2**31 bytes", (changed(text=(270, 2, 2**31, 8)), COLOUR)
    yield "TIFF: an orientation of 999", (changed(turned=(274, SHORT, 1, 999)), COLOUR)
    yield "TIFF: an EXIF directory that is its own", (changed(exif=(34665, LONG, 1, 8 + len(data) + 6)), COLOUR)
    yield "TIFF: the other order of bytes", (
        tiff([(256, LONG, 1, W), (257, LONG, 1, H), (258, SHORT, 1, 16), (259, SHORT, 1, 1), (262, SHORT, 1, 1),
              (273, LONG, 1, 8), (277, SHORT, 1, 1), (278, LONG, 1, H), (279, LONG, 1, 2 * H * W)],
             (GREY.astype(">u2") * 257).tobytes(), order=">"),
        np.repeat(GREY[..., None], 3, 2),
    )  # fmt: skip


# -- JPEG: segments of (marker, length, content); a scan goes on to the next marker

JPEG = stored(COLOUR, "JPEG", quality=95, subsampling=0)
PROGRESSIVE = stored(COLOUR, "JPEG", quality=95, subsampling=0, progressive=True)
SHOWN = np.asarray(Image.open(io.BytesIO(JPEG)))


def segment(marker: int, content: bytes = b"") -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def place_of(marker: int, content: bytes = JPEG) -> int:
    """Where the (first) segment of this marker begins."""
    place = 2
    while content[place + 1] != marker:
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return place


def without(marker: int, content: bytes = JPEG) -> bytes:
    while True:
        try:
            place = place_of(marker, content[: place_of(0xDA, content) + 2])
        except IndexError:
            return content
        content = content[:place] + content[place + 2 + int.from_bytes(content[place + 2 : place + 4], "big") :]


def with_frame(**changes: int) -> bytes:
    """The JPEG with another frame header: bits, h, w, parts."""
    values = {"bits": 8, "h": H, "w": W, "parts": 3} | changes
    place = place_of(0xC0) + 4
    return JPEG[:place] + struct.pack(">BHHB", *values.values()) + JPEG[place + 6 :]


def jpegs() -> Iterator[tuple[str, Case]]:
    scan = place_of(0xDA)
    yield "JPEG: without its end marker", (JPEG[:-2], None)
    yield "JPEG: cut in its scan", (JPEG[: scan + 40], None)
    yield "JPEG: cut before its scan", (JPEG[:scan], None)
    scans = [i for i in range(len(PROGRESSIVE)) if PROGRESSIVE[i : i + 2] == b"\xff\xda"]
    assert len(scans) > 4
    for number, place in enumerate(scans):
        yield f"JPEG: progressive, cut at scan {number + 1} of {len(scans)}", (PROGRESSIVE[:place], None)
        yield f"JPEG: progressive, cut in scan {number + 1}", (PROGRESSIVE[: place + 14], None)
    many = stored(np.zeros((600, 600, 3), np.uint8), "JPEG", progressive=True)
    last = many.rfind(b"\xff\xda")
    yield "JPEG: 2,000 more scans", (many[:-2] + many[last:-2] * 2_000 + many[-2:], None)
    yield "JPEG: no height", (with_frame(h=0), None)
    yield "JPEG: no width", (with_frame(w=0), None)
    yield "JPEG: 65,535 squared", (with_frame(h=65_535, w=65_535), None)
    yield "JPEG: 12 bits a value", (with_frame(bits=12), None)
    yield "JPEG: 5 parts", (with_frame(parts=5), None)
    yield "JPEG: no parts", (with_frame(parts=0), None)
    yield "JPEG: no tables of steps", (without(0xDB), None)
    yield "JPEG: no tables of codes, so that the usual ones hold", (without(0xC4), SHOWN)
    yield "JPEG: no frame", (without(0xC0), None)
    place = place_of(0xC4)
    yield "JPEG: codes longer than there can be", (JPEG[: place + 5] + b"\xff" * 16 + JPEG[place + 21 :], None)
    yield "JPEG: a segment of no bytes", (JPEG[:2] + b"\xff\xe5\0\0" + JPEG[2:], SHOWN)
    yield "JPEG: a segment longer than the file", (JPEG[:2] + b"\xff\xe5\xff\xff" + JPEG[2:], None)
    yield "JPEG: 3,000 comments", (JPEG[:2] + segment(0xFE, bytes(1000)) * 3_000 + JPEG[2:], SHOWN)
    yield (
        "JPEG: an EXIF block whose directory is its own",
        (
            JPEG[:2]
            + segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\0\0\0\0")
            + JPEG[2:],
            SHOWN,
        ),
    )
    yield (
        "JPEG: parts of a colour profile that do not fit",
        (
            JPEG[:2] + segment(0xE2, b"ICC_PROFILE\0\x09\x02xx") * 3 + JPEG[2:],
            SHOWN,
        ),
    )
    yield (
        "JPEG: a list of pictures that points nowhere",
        (
            JPEG[:2] + segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60) + JPEG[2:],
            SHOWN,
        ),
    )
    cmyk = Image.new("CMYK", (W, H), (0, 255, 255, 0))
    yield "JPEG: CMYK as Adobe has it, upside down", (stored(cmyk, "JPEG", quality=100), RED)
    yield "JPEG: grey", (stored(GREY, "JPEG", quality=100), np.repeat(GREY[..., None], 3, 2))


# -- the others


def ppms() -> Iterator[tuple[str, Case]]:
    data, both = COLOUR.tobytes(), np.repeat(GREY[..., None], 3, 2)
    size = b"%d %d" % (W, H)
    yield "PPM: comments between the numbers", (b"P6 # a\n%d# b\n # c\n%d\n255\n" % (W, H) + data, COLOUR)
    yield "PPM: a comment of 100 KB", (b"P6\n#" + b"c" * 100_000 + b"\n" + size + b"\n255\n" + data, COLOUR)
    yield "PPM: a comment without an end", (b"P6 #" + b"c" * 200_000, None)
    for largest in (b"0", b"-1", b"65536", b"99999999999", b"x"):
        yield f"PPM: values up to {largest.decode()}", (b"P6 " + size + b" " + largest + b"\n" + data, None)
    yield (
        "PPM: values up to 65,535",
        (
            b"P5 " + size + b" 65535\n" + (GREY.astype(">u2") * 257).tobytes(),
            both,
        ),
    )
    yield "PPM: values up to 15", (b"P5 " + size + b" 15\n" + (GREY // 17).tobytes(), (both // 17) * 17)
    yield "PPM: a number of 10,000 digits", (b"P6 " + b"9" * 10_000 + b" 1 255\n", None)
    yield "PPM: a negative width", (b"P6 -5 5 255\n" + data, None)
    yield "PPM: no width", (b"P6 0 5 255\n" + data, None)
    yield "PPM: one byte too few", (b"P6 " + size + b" 255\n" + data[:-1], None)
    yield "PPM: in words", (b"P3 " + size + b" 255\n" + b" ".join(b"%d" % value for value in data), COLOUR)
    yield "PPM: in words, one above the largest", (b"P3 " + size + b" 99\n" + b" ".join([b"100"] * 3 * W * H), None)
    yield "PPM: in words that are none", (b"P3 " + size + b" 255\n" + b"x " * 3 * W * H, None)
    yield "PPM: bits in words", (b"P1 " + size + b"\n" + b"0" * W * H, np.full((H, W, 3), 255, np.uint8))
    yield "PFM: NaN", (b"Pf\n" + size + b"\n-1.0\n" + np.full((H, W), np.nan, "<f4").tobytes(), None)
    yield "PFM: a scale of 0", (b"Pf\n" + size + b"\n0\n" + bytes(4 * W * H), None)
    yield "PFM: a scale of NaN", (b"Pf\n" + size + b"\nnan\n" + bytes(4 * W * H), None)


def icons() -> Iterator[tuple[str, Case]]:
    def ico(count: int, *entries: tuple[int, int], content: bytes = b"") -> bytes:
        table = b"".join(struct.pack("<BBBBHHII", W, H, 0, 0, 1, 32, size, place) for size, place in entries)
        return struct.pack("<HHH", 0, 1, count) + table + content

    inside = stored(COLOUR, "PNG")
    yield "ICO: a PNG inside", (ico(1, (len(inside), 22), content=inside), COLOUR)
    yield "ICO: no pictures", (ico(0), None)
    yield "ICO: 65,535 pictures in 22 bytes", (ico(65_535, (9, 22)), None)
    yield "ICO: a picture behind the end of the file", (ico(1, (99, 10**9), content=inside), None)
    yield "ICO: a picture that is the icon itself", (ico(1, (38, 0)), None)
    yield "ICO: a picture of no bytes", (ico(1, (0, 22), content=b""), None)
    yield "ICO: a bitmap of noise", (ico(1, (99, 22), content=bmp(UP)[14:54] + b"\xff" * 9), None)
    yield "ICNS: a format of no photographs", (b"icns" + (8 + len(inside) + 8).to_bytes(4, "big") + inside, None)


def modern() -> Iterator[tuple[str, Case]]:
    webp = stored(COLOUR, "WEBP", lossless=True)
    moving = stored(
        Image.fromarray(COLOUR), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (W, H))]
    )
    yield "WebP: whole", (webp, COLOUR)
    yield "WebP: animated", (moving, COLOUR)
    for part in (12, 20, 30, len(webp) // 2, len(webp) - 9):
        yield f"WebP: cut after {part} bytes", (webp[:part], None)
    yield "WebP: animated, cut", (moving[: len(moving) * 2 // 3], None)
    yield "WebP: a length of 2**32 - 1", (webp[:4] + b"\xff\xff\xff\xff" + webp[8:], None)
    canvas = b"\0\0\0\0" + (16_383).to_bytes(3, "little") * 2
    wide = b"VP8X" + (10).to_bytes(4, "little") + canvas + webp[12:]
    yield "WebP: a canvas of 16,384 squared", (b"RIFF" + (len(wide) + 4).to_bytes(4, "little") + b"WEBP" + wide, None)
    jp2 = stored(COLOUR, "JPEG2000")
    yield "JPEG 2000: whole", (jp2, COLOUR)
    sizes = jp2.index(b"\xff\x51") + 6
    yield "JPEG 2000: cut", (jp2[: len(jp2) // 2], None)
    yield "JPEG 2000: cut in its header", (jp2[: sizes + 9], None)
    yield "JPEG 2000: 2**31 - 1 squared", (jp2[:sizes] + b"\x7f\xff\xff\xff" * 2 + jp2[sizes + 8 :], None)
    yield "JPEG 2000: tiles of no size", (jp2[: sizes + 16] + bytes(8) + jp2[sizes + 24 :], None)
    yield (
        "JPEG 2000: tiles of one pixel in 8,000 squared",
        (
            jp2[:sizes]
            + (8_000).to_bytes(4, "big") * 2
            + jp2[sizes + 8 : sizes + 16]
            + b"\0\0\0\1" * 2
            + jp2[sizes + 24 :],
            None,
        ),
    )
    avif = stored(COLOUR, "AVIF")
    yield "AVIF: cut", (avif[: len(avif) // 2], None)
    yield "AVIF: cut in its header", (avif[:60], None)

    def tga(w: int, h: int, kind: int = 2, bits: int = 24, colours: int = 0, content: bytes = b"") -> bytes:
        return (
            struct.pack("<BBBHHBHHHHBB", 0, colours > 0, kind, 0, colours, 24 * (colours > 0), 0, 0, w, h, bits, 0x20)
            + content
        )

    yield "TGA: whole", (tga(W, H, content=DOWN), COLOUR)
    yield "TGA: cut", (tga(W, H, content=DOWN[:-50]), None)
    yield "TGA: 65,535 squared", (tga(65_535, 65_535), None)
    yield "TGA: no width", (tga(0, H), None)
    yield "TGA: 7 bits a pixel", (tga(W, H, bits=7, content=DOWN), None)
    yield "TGA: runs that leave the picture", (tga(W, H, 10, content=b"\xff\0\0\xff" * 99_000), None)
    yield "TGA: 65,535 colours that are not there", (tga(W, H, 1, 8, 65_535), None)


def modes() -> Iterator[tuple[str, Case]]:
    """Every mode a file may have, against its own arithmetic: transparent pixels lie on white, deep ones are scaled by their range."""
    opacity = (XS * 17).astype(np.uint8)
    share = opacity[..., None] / 255
    on_white = np.round(COLOUR * share + 255 * (1 - share))
    both = np.repeat(GREY[..., None], 3, 2)
    grey_on_white = np.round(both * share + 255 * (1 - share))
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        yield f"{kind}: transparent", (stored(np.dstack([COLOUR, opacity]), kind, **options), on_white)
    for kind in ("PNG", "TIFF"):
        pair = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(opacity)])
        yield f"{kind}: grey, transparent", (stored(pair, kind), grey_on_white)
        deep = Image.fromarray(GREY.astype(np.uint16) * 257)
        yield f"{kind}: 16 bits", (stored(deep, kind), both)
        yield f"{kind}: 1 bit", (stored(Image.fromarray(GREY > 99), kind), np.where(both > 99, 255, 0))
    for top, scale in ((1.0, 255.0), (255.0, 1.0)):
        values = GREY.astype(np.float32) / np.float32(255 / top)
        values[0, 0] = top
        yield f"TIFF: floats up to {top:g}", (stored(values, "TIFF"), np.repeat((values * scale)[..., None], 3, 2))
    levels = Image.fromarray(np.minimum(GREY, 3))
    levels.putpalette(bytes((255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9)))
    seen = np.array([[255, 255, 255], [0, 255, 0], [0, 0, 255], [9, 9, 9]])[np.minimum(GREY, 3)]
    for kind in ("PNG", "GIF"):
        yield f"{kind}: a palette with a transparent colour", (stored(levels, kind, transparency=0), seen)
    half = bytes((0, 255, 127, 255))
    yield (
        "PNG: a palette with half transparent colours",
        (
            stored(levels, "PNG", transparency=half),
            np.where(np.minimum(GREY, 3)[..., None] == 2, [128, 128, 255], seen),
        ),
    )
    yield "TIFF: CMYK", (stored(Image.new("CMYK", (W, H), (0, 255, 255, 0)), "TIFF"), RED)
    yield "TIFF: YCbCr", (stored(Image.fromarray(COLOUR).convert("YCbCr"), "TIFF"), COLOUR)
    white = Image.new("LAB", (W, H), (255, 128, 128))
    yield "TIFF: L*a*b*", (stored(white, "TIFF"), np.full((H, W, 3), 255))


def cases() -> dict[str, Case]:
    """All of them."""
    rows = (cut_pngs(), pngs(), gifs(), bmps(), tiffs(), jpegs(), ppms(), icons(), modern(), modes())
    listed = list(itertools.chain(*rows))
    found = dict(listed)
    assert len(found) == len(listed), "a name twice"
    return found
