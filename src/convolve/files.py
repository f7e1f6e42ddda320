"""Files that are whole or absent: atomic writes, digests, and the names of run folders.

A file is written beside its target under a temporary name, flushed to the disk (fsync), renamed over the target, and the
folder is flushed too: a crash at any point leaves the old content or the new one. Leftovers of a crash are called
`.NAME.PID.RANDOM.partial`; no reader looks at them, and the next write of the same NAME removes those of dead processes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from convolve.errors import ConvolveError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PARTIAL = ".partial"


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `target`; what the block wrote there becomes `target`, durably, when the block succeeds.

    Raises ConvolveError, naming the target, when the file cannot be written; the previous content is then intact.

    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_path(target) as path:
    ...     _ = path.write_text("whole")
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('whole', 1)
    """
    # A link is followed, so that the file behind it is replaced and the link stays.
    real = Path(os.path.realpath(target))
    partial = real.with_name(f".{real.name}.{os.getpid()}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        _remove_leftovers(real)
        yield partial
        _flush(partial)
        partial.replace(real)
        _flush(real.parent)
    except OSError as error:
        _discard(partial)
        raise _cannot_write(real, error) from error
    except BaseException:
        _discard(partial)
        raise


@contextlib.contextmanager
def atomic_write(target: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Like `atomic_path`, but yields the open file; text is UTF-8 with `\\n` line ends.

    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "bytes.bin"
    >>> with atomic_write(target, "wb") as file:
    ...     _ = file.write(b"abc")
    >>> digest(target)[:8]
    'ba7816bf'
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with atomic_path(target) as path, path.open(mode, **text) as file:  # type: ignore[call-overload]
        yield file


def digest(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's content, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def new_folder(parent: str | os.PathLike[str], name: str) -> Path:
    """Create and return `parent/name`, or `parent/name-2`, `-3`, … when it exists. Two processes never get the same one."""
    number = 1
    while True:
        folder = Path(parent) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if Path(parent).exists() and not Path(parent).is_dir():
                raise UsageError("the parent of a folder must be a folder", f"got {parent}", "name another") from None
            number += 1
        except OSError as error:
            raise _cannot_write(folder, error) from error
        else:
            return folder


def safe_name(name: str, otherwise: str) -> str:
    """A name that is safe in a path: letters, digits, dot, dash and underscore of any alphabet; `otherwise` where none is left.

    >>> safe_name("my photos/2026", "data"), safe_name("...", "data")
    ('my-photos-2026', 'data')
    """
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip(".-")
    return kept[:60] or otherwise


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where this user's caches lie: $CONVOLVE_CACHE, else $XDG_CACHE_HOME/convolve, else ~/.cache/convolve."""
    environment = os.environ if environment is None else environment
    if environment.get("CONVOLVE_CACHE"):
        return Path(environment["CONVOLVE_CACHE"])
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convolve"


@contextlib.contextmanager
def one_at_a_time(target: str | os.PathLike[str]) -> Iterator[None]:
    """Within the block no other process is in a block for the same `target` (which `NAME.lock` beside it stands for).

    For reading a file, changing it and writing it again. Where the system has no such locks (Windows), nothing is waited for.
    """
    if fcntl is None:
        yield
        return
    with open(f"{os.path.realpath(target)}.lock", "a", encoding="utf-8") as lock:  # noqa: PTH123
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, also by a crash
        yield


@contextlib.contextmanager
def only_writer(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Within the block no other process is in a block for the same folder: raises UsageError instead of waiting.

    The folder itself is locked, so nothing is left behind, also by a crash. Where a system has no such locks, nothing is checked.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            received = f"another process is writing into {folder}"
            raise UsageError(
                "one run at a time writes into a folder", received, "wait for it, or name another"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def is_leftover(path: Path) -> bool:
    """Whether a crash left this file: the beginning of what was to replace another."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


def _cannot_write(path: Path, error: OSError) -> ConvolveError:
    remedy = (
        "free some space, or choose another place" if error.errno in _FULL else "choose a place that you may write to"
    )
    return ConvolveError(f"cannot write {path}", error.strerror or str(error), f"{remedy}; nothing was overwritten")


_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def _flush(path: Path) -> None:
    """fsync a file or folder. Folders cannot be opened on Windows, where renames are journalled anyway."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(target: Path) -> None:
    start = f".{target.name}."
    for leftover in target.parent.iterdir():
        if leftover.name.startswith(start) and leftover.name.endswith(_PARTIAL):
            process = leftover.name.removeprefix(start).partition(".")[0]
            if process.isdigit() and not _alive(int(process)):
                _discard(leftover)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
