"""What is wrong with a PNG file beyond what Pillow says: it passes over the pixels' checksums, and shows rows that are absent in black.

    signature, then chunks: length, name, content, checksum of name and content; IHDR first and once, PLTE before IDAT, IEND

Source: Portable Network Graphics, third edition (W3C 2025), sections 5 and 8. A file that lacks nothing but its end is whole.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE = 3  # the kind of colour that needs one
VALUES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the kind of colour
ADAM7 = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
"""The passes of an interlaced picture: first row, step, first column, step."""
PIECE = 1 << 20  # bytes that are unpacked at a time


def fault(content: bytes) -> str | None:
    """What is wrong with the chunks, in words, or None."""
    try:
        seen: set[bytes] = set()
        for name, part in _chunks(content):
            if (name == b"IHDR") is bool(seen):
                return "its header is not the first chunk, or not the only one"
            if zlib.crc32(part[:-4]) != int.from_bytes(part[-4:], "big"):
                return f"the checksum of its chunk {name.decode('latin-1')} is wrong"
            if name == b"IDAT" and b"PLTE" not in seen and _header(content)[3] == PALETTE:
                return "its palette is absent"
            seen.add(name)
    except EOFError:
        return "image file is truncated"  # as Pillow says of the others
    return None


def lacks_rows(content: bytes) -> bool:
    """Whether its pixels unpack to fewer rows than its header says; it must have no `fault`."""
    left, packed = _unpacked_bytes(*_header(content)), zlib.decompressobj()
    try:
        for name, part in _chunks(content):
            waiting = bytes(part[4:-4]) if name == b"IDAT" else b""
            while waiting and left > 0:
                left -= len(packed.decompress(waiting, PIECE))
                waiting = packed.unconsumed_tail
            if left <= 0:
                return False
    except zlib.error:
        return False  # of which Pillow speaks
    return True


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(name; name, content and checksum) up to the end. Raises EOFError where one is cut off."""
    view, place = memoryview(content), len(SIGNATURE)
    while place < len(content):
        end = place + 12 + int.from_bytes(view[place : place + 4], "big")
        if end > len(content):
            raise EOFError
        name = bytes(view[place + 4 : place + 8])
        yield name, view[place + 4 : end]
        if name == b"IEND":
            return
        place = end


def _header(content: bytes) -> tuple[int, int, int, int, int]:
    """Width, height, bits of a value, kind of colour, interlacing."""
    start = len(SIGNATURE) + 8
    w, h = (int.from_bytes(content[start + i : start + i + 4], "big") for i in (0, 4))
    return w, h, content[start + 8], content[start + 9], content[start + 12]


def _unpacked_bytes(w: int, h: int, bits: int, colour: int, interlacing: int) -> int:
    """Of all rows, each with one byte that names its filter."""
    passes = ADAM7 if interlacing else ((0, 1, 0, 1),)
    sizes = [(len(range(row, h, down)), len(range(column, w, right))) for row, down, column, right in passes]
    return sum(rows * (1 + -(-columns * bits * VALUES[colour] // 8)) for rows, columns in sizes if columns)
