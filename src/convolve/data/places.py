"""Where image files lie: a folder, or a .zip that is read in place. Both list names and give the bytes of one.

A folder is walked through links, but never in a circle. A .zip is never extracted, so no entry can write anywhere;
entries that try (absolute names, `..`, links, devices) mark the whole archive as hostile and it is refused. An entry that
is damaged or longer than it declares is an error of that entry alone.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
import weakref
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

from convolve.errors import InputError

LARGEST_FILE = 256 * 2**20
BOMB_BYTES, BOMB_RATIO = (
    16 * 2**20,
    200,
)  # of one entry; photos are packed already, an even BMP unpacks to a few hundred times
HIDDEN = {"__macosx", "thumbs.db", "desktop.ini"}


class Place(Protocol):
    """`names` are relative paths with `/`; `folders` those of every folder, also empty ones; `hidden` ones are left out of both."""

    @property
    def origin(self) -> str: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def folders(self) -> list[str]: ...
    @property
    def hidden(self) -> list[str]: ...

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises InputError naming it."""


class Folder:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        self.origin = str(root)
        self._root = root
        self.names: list[str] = []
        self.folders: list[str] = []
        self.hidden: list[str] = []
        self._walk(root, "", ())
        self.names.sort()

    def _walk(self, folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        try:
            here = folder.stat()
            identity = (here.st_dev, here.st_ino)
            if identity in above:
                return  # a link back to a folder that we are in
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if hidden(entry.name):
                        self.hidden.append(name)
                        continue
                    if _is_folder(entry):
                        self.folders.append(name)
                        self._walk(folder / entry.name, name + "/", (*above, identity))
                    else:
                        self.names.append(name)
        except OSError as error:
            raise InputError(
                "cannot list a folder", f"{folder}: {error.strerror or error}", "check its rights"
            ) from error

    def read(self, name: str) -> bytes:
        path = self._root / name
        try:
            if not path.is_file():
                why = "it leads nowhere" if path.is_symlink() else "it is no regular file"
                raise InputError("cannot read an image", f"{path}: {why if os.path.lexists(path) else 'it is gone'}")
            if path.stat().st_size > LARGEST_FILE:
                raise InputError(f"an image file may have {LARGEST_FILE:,} bytes", f"{path} has more", "scale it down")
            return path.read_bytes()
        except OSError as error:
            raise InputError(
                "cannot read an image", f"{path}: {error.strerror or error}", "check its rights"
            ) from error


class Zip:
    """The entries of a .zip file. Reading one is thread-safe and touches only its own bytes."""

    def __init__(self, path: Path) -> None:
        self.origin = str(path)
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, self._file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise InputError("a .zip file must be whole", f"{path}: {error}", "get or pack it again") from error
        except OSError as error:
            raise InputError("cannot read a .zip file", f"{path}: {error.strerror or error}", "check it") from error
        self._lock = threading.Lock()
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self.folders: list[str] = []
        self.hidden: list[str] = []
        for entry in entries:
            name = self._checked(path, entry)
            if any(map(hidden, name.split("/"))):
                self.hidden.append(name)
                continue
            if entry.is_dir():
                self.folders.append(name)
                continue
            if name in self._entries:
                self._refuse(path, f"it has {name!r} twice")
            self._entries[name] = entry
        parents = {str(parent) for name in self._entries for parent in PurePosixPath(name).parents}
        self.folders = sorted((parents | set(self.folders)) - {"."})
        self.names = sorted(self._entries)

    def read(self, name: str) -> bytes:
        entry = self._entries[name]
        try:
            return self._content(entry)
        except (OSError, ValueError, struct.error, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
            received = f"{self.origin}: {name}: {error}"
            raise InputError("an entry of a .zip file must be whole", received, "pack it again") from error

    def _content(self, entry: zipfile.ZipInfo) -> bytes:
        if entry.flag_bits & 0x1:
            raise ValueError("it is encrypted")
        if entry.file_size > LARGEST_FILE:
            raise ValueError(f"it declares {entry.file_size:,} bytes, more than {LARGEST_FILE:,}")
        if entry.file_size > max(BOMB_BYTES, BOMB_RATIO * entry.compress_size):
            raise ValueError(f"it unpacks {entry.compress_size:,} bytes to {entry.file_size:,} (a decompression bomb)")
        header = self._at(entry.header_offset, 30)
        if header[:4] != b"PK\x03\x04":
            raise ValueError("its header is damaged")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        packed = self._at(entry.header_offset + 30 + name_length + extra_length, entry.compress_size)
        if len(packed) < entry.compress_size:
            raise ValueError("it is cut off")
        if entry.compress_type == zipfile.ZIP_STORED:
            content = packed
        elif entry.compress_type == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-15).decompress(packed, entry.file_size + 1)
        else:
            raise ValueError(f"its compression (type {entry.compress_type}) is not stored or deflated")
        if len(content) != entry.file_size:
            raise ValueError(
                f"it declares {entry.file_size:,} bytes and holds {_compared(len(content), entry.file_size)}"
            )
        if zlib.crc32(content) != entry.CRC:
            raise ValueError("its checksum is wrong")
        return content

    def _at(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file, length, offset)
        with self._lock:  # Windows has no pread
            os.lseek(self._file, offset, os.SEEK_SET)
            return os.read(self._file, length)

    def _checked(self, path: Path, entry: zipfile.ZipInfo) -> str:
        """The entry's name with `/`, after refusing what only a hostile archive holds."""
        raw = entry.orig_filename
        name = raw.replace("\\", "/")
        if "\0" in raw or name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
            self._refuse(path, f"its entry {raw!r} points outside of it")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            self._refuse(path, f"its entry {raw!r} is a link or a device")
        return str(PurePosixPath(name))

    def _refuse(self, path: Path, why: str) -> None:
        raise InputError("a hostile .zip file is refused", f"{path}: {why}", "pack the folder again yourself")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it will say so
        return False


def open_place(path: Path) -> Place:
    """The Place at a path. Raises InputError when it is neither a folder nor a .zip file."""
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise InputError("the data must exist", f"there is no {path}", "name a folder, a .zip file, or `digits`")
    if zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
        return Zip(path)
    raise InputError("data is a folder or a .zip file", f"{path} is neither", "name the folder that it lies in")


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's pictures."""
    return name.startswith(".") or name.lower() in HIDDEN


def _compared(actual: int, declared: int) -> str:
    return "more" if actual > declared else f"{actual:,}"
