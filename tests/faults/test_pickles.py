"""Weight files of others that hold code, lie about their sizes, or unpack to gigabytes: refused within a second, and no code runs."""

from __future__ import annotations

import builtins
import collections
import io
import pickle
import pickletools
import subprocess
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from convolve.errors import ModelFileError
from convolve.models import create, weights


class Calls:
    """Unpickling this calls `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Sets(Calls):
    """Unpickling this hands `arguments` to `function` as its state."""

    def __reduce__(self) -> tuple[Any, ...]:
        return collections.OrderedDict, (), None, None, iter([(Calls(self.function, *self.arguments), 1)])


class Dictionary(collections.OrderedDict):  # type: ignore[type-arg]
    """A state dict that is more than one."""

    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.eval, ("open(__import__('os').environ['CANARY'], 'w')",)


# Each would create the file `canary` if it were unpickled by a reader that trusts it.
GADGETS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda canary: Calls(__import__("os").system, f"touch {canary}"),
    "builtins.eval": lambda canary: Calls(builtins.eval, f"open({canary!r}, 'w')"),
    "builtins.exec": lambda canary: Calls(builtins.exec, f"open({canary!r}, 'w')"),
    "builtins.open": lambda canary: Calls(builtins.open, canary, "w"),
    "subprocess.Popen": lambda canary: Calls(subprocess.Popen, ["touch", canary]),
    "subprocess.check_output": lambda canary: Calls(subprocess.check_output, ["touch", canary]),
    "pathlib.Path.touch": lambda canary: Calls(Path.touch, Path(canary)),
    "runpy.run_path": lambda canary: Calls(__import__("runpy").run_path, canary),
    "importlib.import_module": lambda canary: Calls(__import__("importlib").import_module, "antigravity"),
    "getattr": lambda canary: Calls(getattr, Calls(__import__, "os"), "system"),
    "a pickle in a pickle": lambda canary: Calls(pickle.loads, pickle.dumps(Calls(builtins.open, canary, "w"))),
    "torch.load": lambda canary: Calls(torch.load, canary),
    "torch.hub.load": lambda canary: Calls(torch.hub.load, "evil/repo", "net"),
    "torch.jit.load": lambda canary: Calls(torch.jit.load, canary),
    "a whole torch.nn.Module": lambda canary: torch.nn.Linear(2, 2),
    "a subclass of OrderedDict": lambda canary: Dictionary(),
    "a call among the keys": lambda canary: Sets(builtins.open, canary, "w"),
    "functools.partial": lambda canary: Calls(__import__("functools").partial, builtins.open, canary, "w"),
    "collections.deque of calls": lambda canary: collections.deque([Calls(builtins.open, canary, "w")]),
    "shutil.rmtree": lambda canary: Calls(__import__("shutil").rmtree, canary),
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    return tmp_path / "canary"


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize(
    "gadget",
    [
        pytest.param(
            gadget, marks=pytest.mark.fault(f"weight file: {gadget}", outcome="refused within 1 s; no code runs")
        )
        for gadget in GADGETS
    ],
)
def test_code_in_a_weight_file_never_runs(gadget: str, form: str, canary: Path, tmp_path: Path) -> None:
    content = {"fc.weight": torch.zeros(2), "more": GADGETS[gadget](str(canary))}
    path = tmp_path / "w.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content["more"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    started = time.process_time()
    with pytest.raises(ModelFileError, match=r"w\.pth"):
        weights.read(path)
    assert time.process_time() - started < 1
    assert not canary.exists()


def test_a_gadget_does_run_where_it_is_trusted(canary: Path) -> None:
    pickle.loads(pickle.dumps(GADGETS["pathlib.Path.touch"](str(canary))))
    assert canary.exists()


def archive(content: Any) -> dict[str, bytes]:
    """The entries of what torch.save writes."""
    file = io.BytesIO()
    torch.save(content, file)
    with zipfile.ZipFile(file) as packed:
        return {entry.filename: packed.read(entry) for entry in packed.infolist()}


def packed(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def _shorter_storage(entries: dict[str, bytes]) -> None:
    name = next(name for name in entries if "/data/" in name and not name.endswith(".pkl"))
    entries[name] = entries[name][:8]


def _larger_tensor(entries: dict[str, bytes]) -> None:
    """The pickle says 10**9 elements of a storage that has 16."""
    name = next(name for name in entries if name.endswith("data.pkl"))
    before = pickle.BININT1 + bytes([16])
    assert entries[name].count(before) == 2, pickletools.dis(entries[name])
    entries[name] = entries[name].replace(before, pickle.BININT + (10**9).to_bytes(4, "little"))


def _no_storage(entries: dict[str, bytes]) -> None:
    del entries[next(name for name in entries if "/data/" in name and not name.endswith(".pkl"))]


LIES: dict[str, Callable[[dict[str, bytes]], None]] = {
    "a storage shorter than declared": _shorter_storage,
    "a tensor larger than its storage": _larger_tensor,
    "a storage that is not there": _no_storage,
}


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lie, marks=pytest.mark.fault(f"weight file: {lie}", outcome="refused without taking the memory"))
        for lie in LIES
    ],
)
def test_sizes_that_disagree_are_refused(lie: str, tmp_path: Path) -> None:
    entries = archive({"fc.weight": torch.zeros(16)})
    LIES[lie](entries)
    path = packed(tmp_path / "w.pth", entries)
    with pytest.raises(ModelFileError, match=r"w\.pth"):
        weights.read(path)


@pytest.mark.fault(
    "weight file: 10**15 elements that share one number", outcome="refused by their shape; no memory is taken"
)
def test_a_tensor_of_ten_to_the_fifteen_elements_of_one_number_takes_no_memory(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1).expand(10**15)}, tmp_path / "w.pth")
    net = create("lenet_relu")
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match=r"conv1\.weight is missing"):
            weights.put(net, weights.read(tmp_path / "w.pth"), "w.pth")
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.fault("weight file: compressed 1000:1", outcome="refused as a decompression bomb, not unpacked")
def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    entries = archive({"fc.weight": torch.zeros(4)})
    name = next(name for name in entries if "/data/" in name and not name.endswith(".pkl"))
    path = packed(tmp_path / "w.pth", {**entries, name: bytes(30_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 40_000
    started = time.process_time()
    with pytest.raises(ModelFileError, match=r"is a decompression bomb; it has .* claim 30,0"):
        weights.read(path)
    assert time.process_time() - started < 0.5


@pytest.mark.fault("weight file: the entries of an archive overlap", outcome="refused as a decompression bomb")
def test_entries_that_claim_more_than_the_file_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "w.pth", archive({"fc.weight": torch.zeros(64)}))
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 20 : directory + 28] = (10**8).to_bytes(4, "little") * 2
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="decompression bomb"):
        weights.read(path)


@pytest.mark.fault("weight file: 100 truncations", outcome="every one is refused")
def test_every_truncation_of_a_weight_file_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(300)}, tmp_path / "whole.pth")
    content, path = (tmp_path / "whole.pth").read_bytes(), tmp_path / "w.pth"
    for step in range(100):
        path.write_bytes(content[: step * len(content) // 100])
        with pytest.raises(ModelFileError):
            weights.read(path)


@pytest.mark.fault("weight file: an archive inside an archive", outcome="refused")
def test_an_archive_inside_an_archive_is_refused(tmp_path: Path) -> None:
    inner = packed(tmp_path / "inner.pth", archive({"fc.weight": torch.zeros(4)})).read_bytes()
    path = packed(tmp_path / "w.pth", {"archive/data.pkl": inner, "archive/version": b"3\n"})
    with pytest.raises(ModelFileError, match=r"cannot read .*w\.pth"):
        weights.read(path)


@pytest.mark.fault("weight file: names with ../, NUL and 10,000 letters", outcome="refused; nothing is written")
@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "evil\0", "x" * 10_000])
def test_names_that_no_network_has_are_refused_and_write_nothing(name: str, tmp_path: Path) -> None:
    torch.save({name: torch.zeros(1)}, tmp_path / "w.pth")
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(ModelFileError, match="do not fit the network"):
        create("lenet_relu", weights=tmp_path / "w.pth")
    assert sorted(tmp_path.parent.rglob("*")) == before
