"""`data get` against a server on loopback: resume, verification, refusals, and files that are there already."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import struct
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from convolve.data import cifar
from convolve.data.get import KNOWN, Known, Remote, data_folder, get, is_complete, known
from convolve.data.load import load
from convolve.errors import ConvolveError, InputError, UnknownNameError, UsageError
from convolve.jobs.data_get import data_get

CONTENT = {name: np.random.default_rng(i).bytes(300_000 + i) for i, name in enumerate(("a.bin", "b.bin"))}


def row(origin: str, content: dict[str, bytes] = CONTENT) -> dict[str, Known]:
    files = tuple(Remote(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in content.items())
    return {"toy": Known("toy", files, (origin,), ("x", "y"), "nobody")}


@dataclass
class Server:
    address: str
    files: dict[str, bytes]
    ranges: bool = True
    cut_after: int | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, asked = self.path.lstrip("/"), self.headers.get("Range")
            state.asked.append((name, asked))
            if name not in state.files:
                self.send_error(404)
                return
            content, start = state.files[name], 0
            if asked and state.ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = len(content) if state.cut_after is None else start + state.cut_after
            self.wfile.write(content[start:end])

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state = Server(f"http://127.0.0.1:{running.server_port}/", dict(CONTENT))
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()


def test_files_arrive_whole_and_origin_and_size_are_told_before(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    seen: list[tuple[str, int, int]] = []
    got = get(
        "toy",
        folder=tmp_path / "deep" / "toy",
        table=row(server.address),
        tell=lambda text: told.append((text, len(server.asked))),
        progress=lambda *step: seen.append(step),
    )
    assert got.downloaded == ("a.bin", "b.bin")
    assert {path.name: path.read_bytes() for path in got.folder.iterdir()} == CONTENT
    text, requests_before = told[0]
    assert server.address in text
    assert "0.6 MB" in text
    assert requests_before == 0
    assert seen[-1] == ("b.bin", 300_001, 300_001)


def test_what_is_there_and_right_is_not_asked_for_again_and_what_is_wrong_is(server: Server, tmp_path: Path) -> None:
    get("toy", folder=tmp_path, table=row(server.address))
    (tmp_path / "b.bin").write_bytes(CONTENT["b.bin"][:-1] + b"?")
    server.asked.clear()
    got = get("toy", folder=tmp_path, table=row(server.address))
    assert (got.present, got.downloaded) == (("a.bin",), ("b.bin",))
    assert [name for name, _ in server.asked] == ["b.bin"]
    assert (tmp_path / "b.bin").read_bytes() == CONTENT["b.bin"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.fault("download: cut off", outcome="continued, or begun anew")
def test_a_download_that_was_cut_off_is_continued(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.cut_after = 100_000
    with pytest.raises(
        ConvolveError, match=r"could not get a\.bin; .*100,000 of 300,000.*continues where it stopped"
    ) as caught:
        get("toy", folder=tmp_path, table=row(server.address))
    assert caught.value.exit_code == 1
    assert not is_complete("toy", tmp_path, row(server.address))
    server.cut_after, server.ranges = None, ranges
    server.asked.clear()
    get("toy", folder=tmp_path, table=row(server.address))
    assert server.asked[0] == ("a.bin", "bytes=100000-")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == CONTENT


@pytest.mark.fault("download: a partial file of something else", outcome="thrown away")
def test_a_partial_file_of_something_else_is_thrown_away_not_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.partial").write_bytes(b"?" * 50_000)
    with pytest.raises(ConvolveError, match="the sha256 of what came from"):
        get("toy", folder=tmp_path, table=row(server.address))
    assert not (tmp_path / "a.bin").exists()
    get("toy", folder=tmp_path, table=row(server.address))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT["a.bin"]


@pytest.mark.fault("download: other bytes than the pinned ones", outcome="refused")
def test_other_bytes_than_the_pinned_ones_are_refused(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"] = bytes(300_000)
    with pytest.raises(ConvolveError, match=r"could not get a\.bin; the sha256"):
        get("toy", folder=tmp_path, table=row(server.address))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("download: a server that sends without end", outcome="cut at the pinned size")
def test_a_server_that_sends_without_end_is_cut_at_the_pinned_size(server: Server, tmp_path: Path) -> None:
    server.files["a.bin"] = CONTENT["a.bin"] + bytes(5_000_000)
    got = get("toy", folder=tmp_path, table=row(server.address))
    assert (got.folder / "a.bin").read_bytes() == CONTENT["a.bin"]


def test_the_next_origin_serves_what_the_first_cannot(server: Server, tmp_path: Path) -> None:
    table = row(server.address)
    table["toy"] = replace(table["toy"], origins=("http://127.0.0.1:9/", server.address + "nowhere/", server.address))
    assert get("toy", folder=tmp_path, table=table).downloaded == ("a.bin", "b.bin")


def test_offline_says_so_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(
        ConvolveError, match=r"could not get a\.bin; http://127\.0\.0\.1:9/a\.bin.*refused.*--from FOLDER"
    ):
        get("toy", folder=tmp_path, table=row("http://127.0.0.1:9/"))


def test_the_network_can_be_forbidden(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOLVE_OFFLINE", "1")
    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="the network is switched off"):
        data_get("toy", table=row(server.address))
    assert server.asked == []


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="got 'mnits'; use mnist"):
        known("mnits")


def test_the_cache_is_where_the_environment_says() -> None:
    assert data_folder({"CONVOLVE_CACHE": "/c", "XDG_CACHE_HOME": "/x"}) == Path("/c/data")
    assert data_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/convolve/data")
    assert data_folder({}) == Path.home() / ".cache/convolve/data"


def test_files_of_a_folder_are_verified_and_copied(server: Server, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    table = row(server.address)
    with pytest.raises(InputError, match=r"source has no a\.bin"):
        get("toy", from_folder=source, folder=target, table=table)
    for name, content in CONTENT.items():
        (source / name).write_bytes(content)
    (source / "b.bin").write_bytes(b"wrong")
    with pytest.raises(InputError, match=r"b\.bin must be the official file"):
        get("toy", from_folder=source, folder=target, table=table)
    (source / "b.bin").write_bytes(CONTENT["b.bin"])
    assert get("toy", from_folder=source, folder=target, table=table).taken == ("b.bin",)
    assert server.asked == []


@pytest.mark.parametrize("form", ["packed again", "unpacked"])
def test_a_file_with_the_right_content_is_taken_however_it_is_packed(form: str, tmp_path: Path) -> None:
    content = b"the values" * 1000
    official = gzip.compress(content, 9)
    remote = Remote("v.gz", len(official), hashlib.sha256(official).hexdigest(), hashlib.sha256(content).hexdigest())
    table = {"toy": Known("toy", (remote,), ("http://127.0.0.1:9/",), (), "nobody")}
    source = tmp_path / "source"
    source.mkdir()
    if form == "unpacked":
        (source / "v").write_bytes(content)
    else:
        (source / "v.gz").write_bytes(gzip.compress(content, 1))
    got = get("toy", from_folder=source, folder=tmp_path / "target", table=table)
    assert gzip.decompress((got.folder / "v.gz").read_bytes()) == content
    assert get("toy", folder=got.folder, table=table).present == ("v.gz",)


def test_the_table_pins_every_file() -> None:
    assert set(KNOWN) == {"mnist", "fashion-mnist", "cifar10"}
    for row_ in KNOWN.values():
        assert row_.origins
        assert len(row_.classes) == 10
        for file in row_.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 4_000
    assert sum(file.size for file in KNOWN["mnist"].files) == 11_594_722


def test_training_on_a_name_that_was_not_got_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"must be got first; .*run: convolve data get fashion-mnist"):
        load("fashion-mnist")


def test_the_real_mnist_is_taken_from_a_folder_and_loads_by_name(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    got = data_get("mnist", shared / "mnist")
    assert len(got.taken) == 4
    data = load("mnist")
    assert (data.name, len(data.train), len(data.validation), data.test_count) == ("mnist", 55_000, 5_000, 10_000)
    assert str(tmp_path) in data.said[0]


def test_fashion_files_get_the_names_of_their_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "fashion-mnist"
    folder.mkdir(parents=True)
    pixels, labels = np.random.default_rng(0).integers(0, 256, (50, 4, 4), np.uint8), np.arange(50, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">IIII", 0x803, 50, 4, 4) + pixels.tobytes())
        )
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">II", 0x801, 50) + labels.tobytes())
        )
    data = load("fashion-mnist")
    assert data.classes[9] == "ankle boot"
    index = [int(name[-5:]) for name in data.train.ids]
    assert data.train.labels.tolist() == labels[index].tolist()


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """An archive like CIFAR-10's with 20 records a file, and its 120 records."""
    monkeypatch.setattr(cifar, "PER_FILE", 20)
    records = np.random.default_rng(1).integers(0, 256, (120, cifar.RECORD), np.uint8)
    records[:, 0] = np.arange(120) % 10
    path = tmp_path / cifar.ARCHIVE
    with tarfile.open(path, "w:gz") as archive:
        for i, name in enumerate([*cifar.FILES["train"], *cifar.FILES["test"]]):
            content = records[20 * i : 20 * i + 20].tobytes()
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path, records


@pytest.mark.parametrize("unpacked", [False, True])
def test_cifar_s_binary_records_become_labels_and_planes(
    small_cifar: tuple[Path, np.ndarray], unpacked: bool, tmp_path: Path
) -> None:
    path, records = small_cifar
    if unpacked:
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path, filter="data")
        path = tmp_path / "cifar-10-batches-bin"
    data = load(path)
    assert data.classes[:2] == ("airplane", "automobile")
    assert (data.size, data.channels, len(data.train) + len(data.validation), data.test_count) == ((32, 32), 3, 100, 20)
    assert data.read_test is not None
    test = data.read_test()
    for split, start in ((data.train, 0), (data.validation, 0), (test, 100)):
        place = start + np.array([int(name[-5:]) for name in split.ids])
        pixels = split.images.batch(torch.arange(len(split))).numpy()
        assert (pixels.reshape(len(split), -1) == records[place, 1:]).all()
        assert (split.labels.numpy() == records[place, 0]).all()


@pytest.mark.fault("CIFAR-10: an archive cut off, or without its members", outcome="refused, naming what is absent")
def test_a_cifar_archive_that_is_short_cut_or_strange_is_refused(
    small_cifar: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path, _ = small_cifar
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot read CIFAR-10"):
        load(path)
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"12345"))
    with pytest.raises(InputError, match=r"has no data_batch_2\.bin"):
        load(path)


def test_the_command_prints_one_document_and_its_errors_exit_with_their_code(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from convolve.cli import main

    monkeypatch.setenv("CONVOLVE_CACHE", str(tmp_path))
    assert main(["data", "get", "mnist", "--from", str(shared / "mnist"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "convolve.data-get"
    assert (document["name"], len(document["taken"])) == ("mnist", 4)
    assert main(["data", "get", "mnits"]) == 2
    assert "use mnist" in capsys.readouterr().err
    assert main(["data", "get", "cifar10", "--from", str(tmp_path)]) == 3
    assert "has no cifar-10-binary.tar.gz" in capsys.readouterr().err
