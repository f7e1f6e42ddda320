"""Compiled kernels, loaded into this process and kept on disk.

A kernel is compiled once per machine: its object code is kept in the user's cache folder, under a name that is the digest of
everything it depends on (the kernel's own source and that of the functions it calls, the files here that turn them into code, the
processor and its features, the versions of Numba and LLVM), with a digest of its own, so that stale or damaged code is never run
but compiled again. A folder that cannot be read or written only costs the compilation. Loading takes LLVM alone, not Numba.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from convolve.errors import ConvolveError
from convolve.files import atomic_write, cache_folder
from convolve.kernels.machine import machine, target_machine
from convolve.kernels.preamble import ENTRY

_COMPILER = ("compile", "machine", "preamble", "vector")  # the files that decide what a kernel's source becomes
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Kernel:
    """A kernel before it is machine code; `name` is unique, `dtype` that of its vectors."""

    name: str
    dtype: str
    source: Callable[[], str]
    shared: Callable[[], str]
    """The source of functions that `source` calls and other kernels too."""


@dataclass(frozen=True)
class Loaded:
    """A kernel in this process."""

    address: int
    """Of `void entry(int64_t *arguments)` (compile.py)."""
    compile_seconds: float
    """0 where it came from the disk."""


_LOADED: dict[str, Loaded] = {}
_ENGINES: list[Any] = []  # what keeps the machine code alive


def loaded(kernel: Kernel) -> Loaded:
    """The machine code of `kernel`, from this process, from the disk, or compiled now."""
    found = _LOADED.get(kernel.name)
    if found is None:
        with _LOCK:
            found = _LOADED.get(kernel.name) or _load(kernel)
            _LOADED[kernel.name] = found
    return found


def compiled() -> dict[str, float]:
    """The kernels of this process and the seconds that each took to compile (0: loaded from the disk)."""
    return {name: kernel.compile_seconds for name, kernel in _LOADED.items()}


def folder() -> Path:
    """Where machine code is kept."""
    return cache_folder() / "kernels"


def _load(kernel: Kernel) -> Loaded:
    from convolve.kernels.table import every

    assert kernel.name in every(), f"{kernel.name} is not in the table of kernels"
    source, shared = kernel.source(), kernel.shared()
    path = folder() / f"{kernel.name}-{_key(kernel.dtype, source, shared)}.o"
    code, seconds = _read(path), 0.0
    if code is None:
        from convolve.kernels.compile import object_code

        _report()
        started = time.perf_counter()
        code = object_code(kernel.name, kernel.dtype, source, shared)
        seconds = time.perf_counter() - started
        _write(path, code)
    return Loaded(_link(code), seconds)


@cache
def _report() -> None:
    """Said once in a process: the first call of a kernel takes seconds on a machine that has not met it."""
    logging.getLogger("convolve").warning("compiling kernels for this processor, once; they are kept in %s", folder())


def _link(code: bytes) -> int:
    """Load object code into this process; the address of its entry."""
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _ENGINES.append(engine)
    return int(engine.get_function_address(ENTRY))


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join((_surroundings(), *parts)).encode()).hexdigest()[:24]


@cache
def _surroundings() -> str:
    import llvmlite.binding as llvm

    room = Path(__file__).parent
    files = hashlib.sha256(b"".join((room / f"{name}.py").read_bytes() for name in _COMPILER)).hexdigest()
    versions = ",".join(metadata.version(name) for name in ("numba", "llvmlite"))
    return "\0".join((files, versions, machine().cpu, machine().features, llvm.get_process_triple()))


def _read(path: Path) -> bytes | None:
    try:
        digest, code = (data := path.read_bytes())[:32], data[32:]
    except OSError:
        return None
    return code if hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
    except (OSError, ConvolveError):
        return  # a cache that cannot be written costs time, not results
