"""Hostile .zip files beyond those of tests/data: never extracted, refused or read entry by entry in bounded memory and time."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from convolve.data.load import load
from convolve.errors import InputError


@pytest.fixture
def good(make_noise: Callable[..., Image.Image], tmp_path: Path) -> dict[str, bytes]:
    """Twelve pictures of two classes."""
    entries = {}
    for i in range(12):
        make_noise(i).save(tmp_path / "x.png")
        entries[f"{'cat' if i % 2 else 'dog'}/{i}.png"] = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").unlink()
    return entries


def zipped(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.mark.fault(
    "zip: an entry of 200 MB packed 1000:1, honestly declared",
    outcome="set aside as a decompression bomb, not unpacked",
)
def test_a_bomb_that_declares_itself_is_not_unpacked(good: dict[str, bytes], tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", good)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("cat/bomb.png", "w") as entry:
        for _ in range(50):
            entry.write(bytes(4_000_000))
    assert path.stat().st_size < 400_000
    tracemalloc.start()
    try:
        data = load(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    (bomb,) = data.quarantined
    assert bomb.path == "cat/bomb.png"
    assert "decompression bomb" in bomb.reason


def _directory(content: bytearray, name: bytes) -> int:
    """Where the entry of `name` lies in the directory of a .zip."""
    return content.rindex(b"PK\x01\x02", 0, content.rindex(name))


ENTRIES: dict[str, tuple[int, bytes]] = {  # offset in the directory's entry, bytes put there
    "declares more bytes than it has": (24, (5000).to_bytes(4, "little")),
    "declares no bytes": (24, bytes(4)),
    "declares 4 GB": (24, b"\xfe\xff\xff\xff"),
    "begins behind the end": (42, b"\xf0\xff\xff\x7f"),
    "begins inside another": (42, (3).to_bytes(4, "little")),
    "is packed in an unknown way": (10, (98).to_bytes(2, "little")),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case,
            marks=pytest.mark.fault(
                f"zip: an entry that {case}", outcome="named and set aside, or the archive is refused"
            ),
        )
        for case in ENTRIES
    ],
)
def test_an_entry_whose_directory_lies_is_set_aside(case: str, good: dict[str, bytes], tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", good)
    content = bytearray(path.read_bytes())
    offset, changed = ENTRIES[case]
    start = _directory(content, b"cat/5.png") + offset
    content[start : start + len(changed)] = changed
    path.write_bytes(content)
    try:
        data = load(path)
    except InputError as error:
        named = str(path) in str(error)
    else:
        named = [one.path for one in data.quarantined] == ["cat/5.png"]
        assert len(data.train) + len(data.validation) == 11
    assert named


@pytest.mark.fault("zip: a directory that counts more entries than it has", outcome="refused")
def test_a_directory_that_counts_wrongly_is_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", good)
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 16] = struct.pack("<I", 10**6)  # bytes of the directory
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a \.zip file must be whole"):
        load(path)


@pytest.mark.fault("zip: 100,000 entries", outcome="listed in seconds; nothing is extracted")
def test_a_hundred_thousand_entries_are_listed_in_seconds(good: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in good.items():
            archive.writestr(name, content)
        archive.writestr("cat/n/00000.txt", b"")
    content = path.read_bytes()  # the directory's last entry, again and again: quicker than the library writes them
    last, end = content.rindex(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    entry = content[last:end]
    more = b"".join(entry.replace(b"00000", b"%05d" % i) for i in range(1, 100_000 - len(good)))
    start, count = (
        content.index(b"PK\x01\x02"),
        b"\xff\xff" * 2,
    )  # more than 65,535: the directory of zip64 says how many
    directory = content[start:end] + more
    zip64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 100_000, 100_000, len(directory), start)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, start + len(directory), 1)
    tail = b"PK\x05\x06" + bytes(4) + count + b"\xff" * 8 + bytes(2)
    path.write_bytes(content[:start] + directory + zip64 + locator + tail)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 100_000
    started = time.process_time()
    data = load(path)
    assert time.process_time() - started < 20
    assert len(data.train) + len(data.validation) == 12
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.fault("zip: 1,000 folders inside each other", outcome="read like any folder")
def test_deep_folders_are_read(good: dict[str, bytes], tmp_path: Path) -> None:
    deep = "/".join("d" * 1000)
    data = load(zipped(tmp_path / "a.zip", {**good, f"cat/{deep}/x.png": good["cat/1.png"]}))
    assert len(data.train) + len(data.validation) == 13


@pytest.mark.fault("zip: names that differ by case only", outcome="both are read; neither replaces the other")
def test_names_that_differ_by_case_are_two_pictures(good: dict[str, bytes], tmp_path: Path) -> None:
    data = load(zipped(tmp_path / "a.zip", {**good, "cat/A.png": good["cat/1.png"], "cat/a.png": good["cat/3.png"]}))
    assert {"cat/A.png", "cat/a.png"} <= {*data.train.ids, *data.validation.ids}


@pytest.mark.fault("zip: an empty archive", outcome="refused: it holds no images")
def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the data must hold images"):
        load(zipped(tmp_path / "a.zip", {}))


@pytest.mark.fault("zip: another kind of file under that name", outcome="refused")
@pytest.mark.parametrize("content", [b"", b"Rar!\x1a\x07\x00", b"\x1f\x8b\x08", b"PK\x05\x06"])
def test_another_file_named_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a \.zip file must be whole"):
        load(tmp_path / "a.zip")


@pytest.mark.fault("zip: replaced while it is being read", outcome="the one that was opened is read on")
def test_an_archive_that_is_replaced_is_read_on(
    good: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from convolve.data import image_folder

    monkeypatch.setattr(image_folder, "BUDGET", 100)
    path = zipped(tmp_path / "a.zip", good)
    data = load(path)
    before = data.train.images.batch(torch.arange(len(data.train)))
    zipped(tmp_path / "b.zip", dict.fromkeys(good, b"other")).replace(path)
    assert torch.equal(data.train.images.batch(torch.arange(len(data.train))), before)
