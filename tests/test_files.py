"""files.py: at every crash point a reader sees the old content or the new, and errors name the path."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convolve.errors import ConvolveError, UsageError
from convolve.files import atomic_path, atomic_write, digest, new_folder


class Crash(BaseException):
    """Stands for the process dying: nothing in the code under test may catch and hide it."""


def test_a_written_file_has_the_content_and_no_leftovers(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.txt") as file:
        file.write("é\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


STEPS = ("write", "fsync", "replace", "fsync-folder")


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(
            step, marks=pytest.mark.fault(f"crash before the step: {step}", outcome="the old content or the new")
        )
        for step in STEPS
    ],
)
def test_a_crash_before_any_step_leaves_the_old_content_or_the_new(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        calls.append("fsync-folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "fsync")
        if calls[-1] == step:
            raise Crash
        real_fsync(handle)

    def replace(self: Path, other: Path) -> Path:
        calls.append("replace")
        if step == "replace":
            raise Crash
        return real_replace(self, other)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(Crash), atomic_path(target) as path:
        path.write_text("new, and longer")
        if step == "write":
            raise Crash
    assert target.read_text() == ("new, and longer" if step == "fsync-folder" else "old")


def test_the_file_is_flushed_before_it_is_renamed_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), real_fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, other: (calls.append("replace"), real_replace(self, other))[1])
    with atomic_write(tmp_path / "a") as file:
        file.write("x")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.fault("the disk is full on writing", outcome="an error names the file; the old one is intact")
def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with (
        pytest.raises(ConvolveError, match=r"cannot write .*a; No space left on device; free some space") as caught,
        atomic_path(tmp_path / "a"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.exit_code == 1
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_real_full_device_is_noticed() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OSError, match="No space"), Path("/dev/full").open("w") as file:
        file.write("x")
        file.flush()
        os.fsync(file.fileno())


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=pytest.mark.fault(name, outcome="an error names the place"))
        for name, place in {
            "the folder of a target was removed": "missing/a",
            "the folder of a target is a file": "file/a",
            "a target's name is too long": "a" * 300,
        }.items()
    ],
)
def test_an_impossible_place_is_an_error_that_names_it(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConvolveError, match="cannot write"), atomic_write(tmp_path / place) as file:
        file.write("x")


@pytest.mark.fault("the target of a file is a folder", outcome="an error; the folder stays")
def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ConvolveError, match="cannot write"), atomic_write(tmp_path / "a") as file:
        file.write("x")
    assert (tmp_path / "a").is_dir()


@pytest.mark.fault("the target of a file is a link", outcome="the file behind it is replaced, the link stays")
def test_writing_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with atomic_write(tmp_path / "link") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.fault("leftovers of a crashed write", outcome="those of dead processes are removed by the next write")
def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    gone = multiprocessing.get_context("spawn").Process(target=int)
    gone.start()
    gone.join()
    dead, alive = tmp_path / f".a.{gone.pid}.00.partial", tmp_path / f".a.{os.getpid()}.00.partial"
    dead.write_text("")
    alive.write_text("")
    with atomic_write(tmp_path / "a") as file:
        file.write("x")
    assert not dead.exists()
    assert alive.exists()


def _create(parent: str) -> str:
    return new_folder(parent, "run").name


@pytest.mark.fault("eight processes want one run folder", outcome="each gets its own")
def test_eight_processes_get_eight_folders(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn").Pool(4) as pool:
        names = pool.map(_create, [str(tmp_path)] * 8)
    assert sorted(names) == ["run"] + [f"run-{i}" for i in range(2, 9)]


def test_a_parent_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((UsageError, ConvolveError)):
        new_folder(tmp_path / "file", "run")


def test_the_digest_is_sha256_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert digest(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture(autouse=True)
def _no_umask_surprise() -> Iterator[Any]:
    before = os.umask(0o022)
    yield
    os.umask(before)
