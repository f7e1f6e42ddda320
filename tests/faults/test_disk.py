"""Disks that fill, folders that cannot be written, targets that are something else: an error names the path, the old file is intact."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import convolve
from convolve.errors import ConvolveError
from convolve.files import atomic_write
from convolve.jobs.log import RunLog
from convolve.models.file import read, write
from convolve.training.records import Epoch, Silent
from jobs_support import untrained

TENSORS = {"a": torch.arange(2000.0), "b": torch.ones(3, 5)}


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Within the block the kernel refuses to let a file grow beyond `size` bytes, as a full disk does (EFBIG for ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


INTACT = "an error names the file; the old one is intact; no leftovers"
OFFSETS = (0, 1, 7, 8, 100, 1000, 4096, 8000, 8192)


@pytest.mark.parametrize(
    "offset",
    [
        pytest.param(
            offset, marks=pytest.mark.fault(f"the disk is full after {offset:,} bytes of a model file", outcome=INTACT)
        )
        for offset in OFFSETS
    ],
)
def test_a_disk_that_is_full_after_some_bytes_keeps_the_old_model(offset: int, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write(path, TENSORS, {"step": 1})
    before = path.read_bytes()
    assert len(before) > 8192
    with (
        files_of_at_most(offset),
        pytest.raises(ConvolveError, match=r"cannot write .*m\.safetensors; .*free some space"),
    ):
        write(path, TENSORS, {"step": 2})
    assert path.read_bytes() == before
    assert read(path)[1]["step"] == 1
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.fault("the disk is full while a .csv is written", outcome="an error names the file; the old one is intact")
def test_a_text_file_that_does_not_fit_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("old")
    with (
        files_of_at_most(5000),
        pytest.raises(ConvolveError, match=r"split\.csv"),
        atomic_write(tmp_path / "split.csv") as file,
    ):
        for _ in range(10_000):
            file.write("a line\n")
    assert (tmp_path / "split.csv").read_text() == "old"
    assert os.listdir(tmp_path) == ["split.csv"]


REFUSALS = {
    "a quota is used up": (errno.EDQUOT, "Disk quota exceeded.*free some space"),
    "the disk breaks (EIO)": (errno.EIO, "Input/output error"),
    "the file system is read-only": (errno.EROFS, "Read-only file system.*that you may write to"),
    "no right to write": (errno.EACCES, "Permission denied.*that you may write to"),
    "the operation is not permitted": (errno.EPERM, "Operation not permitted.*that you may write to"),
    "the network file went stale": (errno.ESTALE, "Stale file handle"),
}


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.fault(f"while saving: {case}", outcome="an error names file and reason"))
        for case in REFUSALS
    ],
)
def test_a_refusal_at_any_step_is_an_error_with_its_reason(
    case: str, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, message = REFUSALS[case]
    path = tmp_path / "m"
    write(path, TENSORS, {"step": 1})

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*{"open": (Path, "open"), "fsync": (os, "fsync"), "replace": (Path, "replace")}[step], refuse)
    with pytest.raises(ConvolveError, match=f"cannot write {path}; {message}"):
        write(path, TENSORS, {"step": 2})
    monkeypatch.undo()
    assert read(path)[1]["step"] == 1
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.fault("the folder is removed while a file is written", outcome="an error names the file")
def test_a_folder_that_is_removed_meanwhile_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ConvolveError, match=r"cannot write .*run/a"), atomic_write(tmp_path / "run/a") as file:
        file.write("x")
        shutil.rmtree(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.fault("the target is a link to nowhere", outcome="the file is written where the link leads")
def test_a_link_to_nowhere_gets_the_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("new")
    write(tmp_path / "link", TENSORS, {"step": 1})
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "new")[1]["step"] == 1


@pytest.mark.fault("the target is a link to itself", outcome="an error names it, or the link becomes the file")
def test_a_link_to_itself_never_loses_the_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    with contextlib.suppress(ConvolveError):
        write(tmp_path / "link", TENSORS, {"step": 1})
        assert read(tmp_path / "link")[1]["step"] == 1


@pytest.mark.fault("folder and file names of emoji, spaces and 100 letters", outcome="written and read like any other")
def test_names_of_any_alphabet_work(tmp_path: Path) -> None:
    path = tmp_path / "мои фото 📷 # %20" / ("x" * 100 + ".safetensors")
    path.parent.mkdir()
    write(path, TENSORS, {"step": 1})
    assert torch.equal(read(path)[0]["a"], TENSORS["a"])


@pytest.mark.fault(
    "a model file replaced while its weights are in use", outcome="the weights that were read do not change"
)
def test_weights_that_were_read_do_not_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write(path, TENSORS, {})
    tensors, _ = read(path)
    content = bytearray(path.read_bytes())
    content[-4000:] = bytes(4000)
    path.write_bytes(content)  # in place, as a careless tool would
    assert torch.equal(tensors["a"], TENSORS["a"])


@pytest.mark.fault("saving fails in Python: a value that JSON has no word for", outcome="the old file is intact")
def test_a_description_that_cannot_be_written_keeps_the_old_file(tmp_path: Path) -> None:
    write(tmp_path / "m", TENSORS, {"step": 1})
    with pytest.raises(TypeError):
        write(tmp_path / "m", TENSORS, {"step": object()})
    assert read(tmp_path / "m")[1]["step"] == 1
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.fault("the log cannot be written any more", outcome="said once; training goes on to its result")
def test_a_log_on_a_full_disk_does_not_stop_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(path: Path, *words: Any, **choices: Any) -> Any:
        if path.name == "log.txt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, *words, **choices)

    class Told(Silent):
        def __init__(self) -> None:
            self.said: list[str] = []

        def say(self, text: str) -> None:
            self.said.append(text)

    told = Told()
    log = RunLog(tmp_path / "log.txt", told)
    log.say("before")
    monkeypatch.setattr(Path, "open", full)
    log.say("one")
    log.epoch(Epoch(1, 0.5, 0.5, 0.5, 0.5, 0.1, 1.0, 10.0, True), 2, 1.0)
    monkeypatch.undo()
    log.say("two")
    assert told.said[::2] == ["before", "one"]
    assert told.said[1].startswith(
        f"warning   cannot write {tmp_path / 'log.txt'}: No space left on device; training goes on"
    )
    assert told.said[3:] == ["two"]
    assert (tmp_path / "log.txt").read_text() == "before\ntwo\n"


@pytest.mark.fault("export: the disk is full", outcome="an error names the file; an earlier export is intact")
def test_an_export_that_does_not_fit_keeps_the_old_one(tmp_path: Path) -> None:
    model = untrained(tmp_path / "model.safetensors")
    target = tmp_path / "w.safetensors"
    target.write_bytes(b"old")
    with files_of_at_most(20_000), pytest.raises(ConvolveError, match=r"cannot write .*w\.safetensors"):
        convolve.export(model, "safetensors", out=target)
    assert target.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "w.safetensors"]
