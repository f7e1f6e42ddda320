"""Machine code on disk: kept, never stale, never damaged, and never in the way."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convolve.kernels import cache, table
from convolve.kernels.cache import Kernel
from convolve.kernels.preamble import PREAMBLE

SHARED = """
def doubled(number):
    return 2 * number
"""


def kernel(name: str = "double", factor: str = "doubled(i)") -> Kernel:
    """It writes factor(i) to the double at position i, this thread's share of arguments[5] numbers."""
    source = f"""
def kernel(arguments):
{PREAMBLE}
    values, count = pointer(arguments[4]), arguments[5]
    for i in range(thread * count // threads, (thread + 1) * count // threads):
        values[i] = {factor}
"""
    return Kernel(name, "float64", lambda: source, lambda: SHARED)


def call(address: int, count: int = 7, thread: int = 0, threads: int = 1) -> list[float]:
    values = np.full(count, -1.0)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(address)
    entry(struct.pack("6q", 0, 0, thread, threads, values.ctypes.data, count))
    return [float(value) for value in values]


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., cache.Loaded]:
    """Load a kernel as a new process would, with the cache in tmp_path."""
    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_LOADED", {})
    monkeypatch.setattr(table, "every", lambda: {"double": None})

    def load(**change: str) -> cache.Loaded:
        cache._LOADED.clear()
        return cache.loaded(kernel(**change))

    return load


def files(folder: Path) -> list[Path]:
    return sorted((folder / "kernels").iterdir())


def test_a_kernel_computes_its_threads_share(fresh: Callable[..., cache.Loaded]) -> None:
    address = fresh().address
    assert call(address) == [0, 2, 4, 6, 8, 10, 12]
    assert call(address, thread=1, threads=2) == [-1, -1, -1, 6, 8, 10, 12]


def test_the_second_process_compiles_nothing(fresh: Callable[..., cache.Loaded], tmp_path: Path) -> None:
    assert fresh().compile_seconds > 0
    again = fresh()
    assert again.compile_seconds == 0
    assert call(again.address)[3] == 6
    assert len(files(tmp_path)) == 1


def test_another_source_or_shared_function_is_other_code(
    fresh: Callable[..., cache.Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh()
    assert call(fresh(factor="doubled(i) + 1").address)[3] == 7
    monkeypatch.setitem(globals(), "SHARED", SHARED.replace("2 *", "3 *"))
    assert call(fresh().address)[3] == 9
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
@pytest.mark.fault("damaged machine code in the kernel cache", outcome="compiled again, never run")
def test_damaged_code_is_compiled_again_and_never_run(
    damage: str, fresh: Callable[..., cache.Loaded], tmp_path: Path
) -> None:
    fresh()
    (path,) = files(tmp_path)
    code = bytearray(path.read_bytes())
    code[len(code) // 2] ^= 4
    path.write_bytes({"flipped": bytes(code), "cut": bytes(code[:100]), "empty": b""}[damage])
    again = fresh()
    assert again.compile_seconds > 0
    assert call(again.address)[3] == 6
    assert fresh().compile_seconds == 0, "what was damaged is whole again"


@pytest.mark.fault("a kernel cache that cannot be written", outcome="only costs the compilation")
def test_a_cache_that_cannot_be_written_only_costs_the_compilation(
    fresh: Callable[..., cache.Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels").write_text("a file where the folder should be")
    assert call(fresh().address)[3] == 6
    monkeypatch.setenv("CONVOLVE_CACHE", "/proc/nowhere")
    assert call(fresh().address)[3] == 6


def test_sixteen_threads_compile_a_kernel_once(fresh: Callable[..., cache.Loaded]) -> None:
    fresh()
    cache._LOADED.clear()
    found: list[cache.Loaded] = []
    barrier = threading.Barrier(16)

    def work() -> None:
        barrier.wait()
        found.append(cache.loaded(kernel()))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len({one.address for one in found}) == 1


_PROCESS = """
import ctypes, struct, numpy as np
from convolve.ops.algorithms import planes
import torch
from convolve.problem import ConvProblem
x, w = torch.ones(1, 1, 9, 40), torch.ones(1, 1, 1, 1)
print(float(planes.run(ConvProblem.parse("1x1x9x40 k1 1"), x, w, None).sum()))
"""


def test_two_processes_may_compile_the_same_kernel_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "CONVOLVE_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _PROCESS]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["360.0", "360.0"]
    assert len(files(tmp_path)) == 1


def test_loading_what_is_on_disk_takes_no_compiler(tmp_path: Path) -> None:
    environment = {**os.environ, "CONVOLVE_CACHE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    probe = _PROCESS + "import sys\nprint('convolve.kernels.compile' in sys.modules)"
    runs = [
        subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [run.stdout.split()[-1] for run in runs] == ["True", "False"]


def test_a_forked_child_computes_alone(tmp_path: Path) -> None:
    program = (
        _PROCESS
        + """
import os
pid = os.fork()
if pid == 0:
    print("child", float(planes.run(ConvProblem.parse("1x1x9x40 k1 1"), x, w, None).sum()), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "child 360.0" in run.stdout
