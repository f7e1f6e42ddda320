"""`tune_memory` says whether it did something."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Any

import pytest

import convolve
from convolve.jobs import memory


def test_it_says_true_with_glibc_and_false_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert convolve.tune_memory() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert convolve.tune_memory() is False


def test_a_c_library_that_is_not_glibc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        def mallopt(self, *_: Any) -> int:
            raise AssertionError("it must not be called")

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: Musl())
    assert convolve.tune_memory() is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")
def test_freed_memory_stays_and_is_used_again() -> None:
    code = (
        "import sys, resource, ctypes, convolve\n"
        "if sys.argv[1] == 'tuned': assert convolve.tune_memory()\n"
        "libc = ctypes.CDLL(None); libc.malloc.restype = ctypes.c_void_p; libc.malloc.argtypes = [ctypes.c_size_t]\n"
        "libc.free.argtypes = [ctypes.c_void_p]\n"
        "def once():\n"
        "    block = libc.malloc(64 << 20); ctypes.memset(block, 1, 64 << 20); libc.free(block)\n"
        "once(); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(3): once()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("tuned", "default")
    }
    # 64 MiB has 16,384 pages of 4 KiB (or 32 of 2 MiB, where the system uses such).
    assert faults["tuned"] * 3 < faults["default"]
