"""Folders and zips of images, end to end."""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolve.data import image_folder
from convolve.data.image_folder import HANDFUL, each, prefetched
from convolve.data.load import load, read_split
from convolve.data.records import Dataset, ResidentImages, Split
from convolve.errors import InputError, UsageError

Tree = Callable[..., Path]


def everything(split: Split) -> torch.Tensor:
    return split.images.batch(torch.arange(len(split)))


def same(a: Split, b: Split) -> bool:
    return list(a.ids) == list(b.ids) and torch.equal(a.labels, b.labels) and torch.equal(everything(a), everything(b))


def test_every_image_keeps_its_pixels_its_label_and_its_name(tree: Tree, two_classes: list[str]) -> None:
    folder = tree(two_classes)
    data = load(folder)
    assert data.classes == ("cat", "dog")
    assert (data.size, data.channels, data.name, data.read_test, data.test_count) == ((7, 5), 3, "photos", None, 0)
    assert sorted([*data.train.ids, *data.validation.ids]) == sorted(two_classes)
    for split in (data.train, data.validation):
        for name, label, pixels in zip(split.ids, split.labels.tolist(), everything(split), strict=True):
            assert data.classes[label] == name.split("/")[0]
            assert (pixels.permute(1, 2, 0).numpy() == np.array(Image.open(folder / name))).all()
        assert torch.equal(split.sizes, torch.tensor([[7, 5]]).expand(len(split), 2))
    assert all(1 <= count <= 3 for count in data.validation.labels.bincount().tolist())  # of 10, at 20 %
    assert "no test" in data.said[-1]


def test_a_zip_is_read_like_the_folder_it_was_made_of(
    tree: Tree, two_classes: list[str], zipped: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tree(two_classes)
    before = sorted(tmp_path.rglob("*"))
    expected = load(folder)
    for top in ("", "photos-main/", "a/b/"):
        path = zipped(folder, tmp_path / "photos.zip", top)
        data = load(path)
        assert data.name == "photos"
        assert torch.equal(everything(data.train), everything(expected.train))
        assert [name.removeprefix(top) for name in data.train.ids] == list(expected.train.ids)
        path.unlink()
    assert sorted(tmp_path.rglob("*")) == before  # nothing was extracted


def test_own_parts_are_used_as_they_are_and_test_is_not_touched_before_it_is_asked_for(tree: Tree) -> None:
    folder = tree(
        [f"{part}/{name}/{i}.png" for part in ("train", "val", "test") for name in ("a", "b") for i in range(3)]
    )
    for path in (folder / "test").rglob("*.png"):
        path.write_bytes(b"not read yet")
    data = load(folder)
    assert sorted(data.train.ids)[0] == "train/a/0.png"
    assert all(name.startswith("val/") for name in data.validation.ids)
    assert data.test_count == 6
    assert data.read_test is not None
    with pytest.raises(InputError, match="at least half of the images must be readable; 6 of 6 test images cannot"):
        data.read_test()


def test_adding_files_keeps_the_others_where_they_were(tree: Tree) -> None:
    names = [f"{name}/{i}.png" for name in ("a", "b") for i in range(60)]
    before = load(tree(names))
    folder = tree([*names, "a/x.png", "b/y.png"])
    for name in ("a/0.png", "b/7.png"):
        (folder / name).rename(folder / name.replace(".png", "-renamed.png"))
    after = load(folder)
    moved = set(before.validation.ids) ^ {name.replace("-renamed", "") for name in after.validation.ids}
    assert moved <= {"a/x.png", "b/y.png"}


def test_copies_of_a_file_lie_on_one_side(tree: Tree, two_classes: list[str]) -> None:
    folder = tree(two_classes)
    for name in two_classes:
        shutil.copy(folder / name, folder / name.replace(".png", "-copy.png"))
    for seed in range(5):
        data = load(folder, seed=seed)
        assert len(data.validation) % 2 == 0
        assert {name.replace("-copy", "") for name in data.train.ids}.isdisjoint(
            {name.replace("-copy", "") for name in data.validation.ids}
        )


@pytest.mark.fault(
    "folder: truncated, empty and mislabelled files, a bomb, links to nowhere",
    outcome="each is named and set aside; training goes on",
)
def test_unusable_files_are_named_set_aside_and_do_not_stop(tree: Tree, two_classes: list[str]) -> None:
    folder = tree(two_classes)
    whole = (folder / "cat/1.png").read_bytes()
    (folder / "cat/1.png").write_bytes(whole[:60])
    (folder / "dog/3.png").write_bytes(b"")
    (folder / "dog/4.png").write_bytes(b"nothing like an image")
    (folder / "cat/loop.png").symlink_to("loop.png")
    (folder / "cat/gone.png").symlink_to("nowhere")
    Image.new("1", (30_000, 10_000)).save(folder / "cat/bomb.png")
    data = load(folder)
    reasons = {one.path: one.reason for one in data.quarantined}
    assert set(reasons) == {"cat/1.png", "dog/3.png", "dog/4.png", "cat/loop.png", "cat/gone.png", "cat/bomb.png"}
    assert "it is empty" in reasons["dog/3.png"]
    assert "no image" in reasons["dog/4.png"]
    assert "decompression bomb" in reasons["cat/bomb.png"]
    assert len(data.train) + len(data.validation) == 17
    assert set(reasons).isdisjoint({*data.train.ids, *data.validation.ids})
    assert not any(str(folder) in reason for reason in reasons.values())


@pytest.mark.fault("folder: more than half of the files unusable", outcome="it stops and names some")
def test_when_most_files_are_unusable_it_stops_and_names_some(tree: Tree, two_classes: list[str]) -> None:
    folder = tree(two_classes)
    for name in two_classes[:11]:
        (folder / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"11 of 20 train images cannot: cat/0\.png"):
        load(folder)


@pytest.mark.fault("folder: a class without one usable image", outcome="it stops and names the class")
def test_a_class_whose_images_are_all_unusable_stops(tree: Tree, two_classes: list[str]) -> None:
    folder = tree([*two_classes, "emu/1.png"])
    (folder / "emu/1.png").write_bytes(b"x")
    with pytest.raises(InputError, match="every class needs images; 'emu'"):
        load(folder)


def test_size_and_channels_are_chosen_from_the_data_and_said(tree: Tree, two_classes: list[str]) -> None:
    grey = load(tree(two_classes, "grey", mode="L"))
    assert (grey.channels, grey.size) == (1, (7, 5))
    mixed = tree(two_classes[:11], "mixed", h=10, w=20)
    tree(two_classes[11:], "more", h=30, w=6, mode="L")
    shutil.copytree(mixed.parent / "more", mixed, dirs_exist_ok=True)
    data = load(mixed)
    assert (data.channels, data.size) == (3, (10, 20))
    assert "9 grey and 11 colour, read as RGB" in " ".join(data.said)
    large = load(tree(two_classes, "large", h=448, w=336))
    assert large.size == (224, 168)
    assert "448x336" in " ".join(large.said)
    asked = load(mixed, img_size=8, channels=1)
    assert asked.train.images.shape == (1, 8, 8)
    assert load(mixed, img_size=lambda size: (size[0] + 2, size[1] + 1)).size == (12, 21)


def test_pictures_decoded_on_demand_equal_resident_ones(
    tree: Tree, two_classes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree(two_classes, h=150, w=140)
    (folder / "cat/3.png").write_bytes((folder / "cat/3.png").read_bytes()[:400])
    resident = load(folder, img_size=20)
    assert isinstance(resident.train.images, ResidentImages)
    monkeypatch.setattr(image_folder, "BUDGET", 100)
    for workers in (1, 2, 5):
        streamed = load(folder, img_size=20, workers=workers)
        assert not isinstance(streamed.train.images, ResidentImages)
        assert same(streamed.train, resident.train)
        assert same(streamed.validation, resident.validation)
        assert streamed.quarantined == resident.quarantined
        order = [torch.tensor([3, 1, 3]), torch.tensor([0]), torch.tensor([], dtype=torch.int64), torch.tensor([5, 2])]
        for indices, batch in zip(order, prefetched(streamed.train.images, order), strict=True):
            assert torch.equal(batch, resident.train.images.batch(indices))


@pytest.mark.fault("a file deleted between scan and epoch", outcome="an error names it")
def test_a_file_that_vanishes_after_the_check_is_an_error_with_its_name(
    tree: Tree, two_classes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "BUDGET", 100)
    folder = tree(two_classes)
    data = load(folder)
    (folder / data.train.ids[2]).unlink()
    with pytest.raises(InputError, match="it is gone"):
        list(prefetched(data.train.images, [torch.arange(len(data.train))]))


def test_nothing_depends_on_the_number_of_workers(tree: Tree, two_classes: list[str]) -> None:
    folder = tree(two_classes, h=200, w=180)
    loads: list[Dataset] = [load(folder, workers=workers) for workers in (0, 1, 3)]
    assert all(same(loads[0].train, other.train) for other in loads[1:])


def test_progress_is_told_to_the_end(tree: Tree, two_classes: list[str]) -> None:
    told: list[tuple[str, int, int]] = []
    load(tree(two_classes), progress=lambda what, done, total: told.append((what, done, total)))
    assert {what for what, done, total in told if done == total} == {
        "looking at train pictures",
        "decoding train pictures",
    }
    assert all(0 < done <= total for _, done, total in told)


@pytest.mark.fault("folder: links in a circle", outcome="each picture is read once")
def test_links_are_followed_but_never_in_a_circle(tree: Tree, two_classes: list[str], tmp_path: Path) -> None:
    folder = tree(two_classes)
    tree(["1.png", "2.png", "3.png"], "elsewhere", h=9)
    (folder / "emu").symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "again").symlink_to(folder)
    data = load(folder)
    assert data.classes == ("cat", "dog", "emu")
    assert {"emu/1.png", "emu/2.png", "emu/3.png"} <= {*data.train.ids, *data.validation.ids}


@pytest.mark.fault("folder: names that are not UTF-8", outcome="read, with a printable name")
def test_names_that_are_not_utf8_get_a_printable_name(tree: Tree, two_classes: list[str]) -> None:
    folder = tree(two_classes)
    (folder / "cat/1.png").rename(os.fsdecode(os.fsencode(folder) + b"/cat/caf\xe9.png"))
    (folder / "dog").rename(os.fsdecode(os.fsencode(folder) + b"/d\xf6g"))
    data = load(folder)
    assert data.classes == ("cat", "d\\xf6g")
    names = {*data.train.ids, *data.validation.ids}
    assert "cat/caf\\xe9.png" in names
    assert len("\n".join(names).encode()) > 0  # every name can be written


def test_hidden_files_and_macos_folders_are_skipped(tree: Tree, two_classes: list[str]) -> None:
    folder = tree([*two_classes, "__MACOSX/cat/1.png", ".thumbs/1.png", "cat/.hidden.png"])
    (folder / "cat/._1.png").write_bytes(b"x")
    (folder / "dog/Thumbs.db").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    data = load(folder)
    assert sorted([*data.train.ids, *data.validation.ids]) == sorted(two_classes)
    assert data.classes == ("cat", "dog")
    assert data.quarantined == ()


@pytest.mark.fault("folder: a class folder without rights", outcome="an error names it")
def test_a_folder_without_rights_is_an_error_with_its_name(
    tree: Tree, two_classes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree(two_classes)
    scandir = os.scandir

    def refuse(path: Path) -> object:  # as the tests may run as root, who has every right
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="dog: Permission denied"):
        load(folder)


@pytest.mark.fault("folder: a file without rights", outcome="named and set aside")
def test_a_file_without_rights_is_set_aside(
    tree: Tree, two_classes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree(two_classes)
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "7.png" and path.parent.name == "cat":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert [(one.path, one.reason) for one in load(folder).quarantined] == [("cat/7.png", "Permission denied")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "the data must hold images; .* holds no files"),
        (["cat/1.png", "cat/2.png"], "at least two classes; .* has one: 'cat'"),
        (["cat/1.png", "dog/"], "every class needs images; 'dog'"),
        (["1.png", "2.png"], "images need labels"),
        (["test/cat/1.png", "test/dog/1.png"], "training needs training images; .* has only: test"),
        (["cat/1.png", "dog/1.png"], "training and validation need an image each"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused(tree: Tree, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(tree(names))
    assert caught.value.exit_code == 3


def test_data_that_is_not_there_or_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"data is a folder or a \.zip file"):
        load(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_size": 0}, "img_size is a side"),
        ({"img_size": (3, 4, 5)}, "img_size is a side"),
        ({"channels": 2}, "1 channel .grey. or 3"),
        ({"val_split": 1.0}, "between 0 and 1"),
        ({"workers": -1}, "number of threads"),
        ({"val_split": 0.3}, "brought by the data or split off"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load("digits", **arguments)


def test_a_split_is_read_for_a_model_by_the_model_s_classes(tree: Tree, two_classes: list[str]) -> None:
    folder = tree(two_classes)
    split = read_split(folder, size=(4, 4), channels=1, classes=("emu", "dog", "cat"))
    assert (split.name, len(split), split.images.shape) == ("all", 20, (1, 4, 4))
    assert {name.split("/")[0]: label for name, label in zip(split.ids, split.labels.tolist(), strict=True)} == {
        "cat": 2,
        "dog": 1,
    }
    with pytest.raises(InputError, match="has 'dog'; the classes are cat, emu"):
        read_split(folder, size=(4, 4), channels=1, classes=("cat", "emu"))
    with pytest.raises(UsageError, match="has the parts: train; got 'test'"):
        read_split(folder, size=(4, 4), channels=1, classes=("cat", "dog"), part="test")


def zip_of(tmp_path: Path, entries: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            if change and name.startswith("evil"):
                change(info)
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.fixture
def good(make_noise: Callable[..., Image.Image], tmp_path: Path) -> dict[str, bytes]:
    entries = {}
    for i in range(12):
        make_noise(i).save(tmp_path / "x.png")
        entries[f"{'cat' if i % 2 else 'dog'}/{i}.png"] = (tmp_path / "x.png").read_bytes()
    return entries


def _mode(bits: int) -> Callable[[zipfile.ZipInfo], None]:
    def change(info: zipfile.ZipInfo) -> None:
        info.create_system, info.external_attr = 3, bits << 16

    return change


HOSTILE: dict[str, tuple[str, Callable[[zipfile.ZipInfo], None] | None, str]] = {
    "a name that climbs out": ("../evil.png", None, "points outside"),
    "a name that climbs out inside": ("cat/../../evil.png", None, "points outside"),
    "an absolute name": ("/etc/evil.png", None, "points outside"),
    "a drive letter": ("C:/evil.png", None, "points outside"),
    "backslashes that climb out": ("..\\evil.png", None, "points outside"),
    "a symbolic link": ("evil.png", _mode(0o120777), "is a link or a device"),
    "a device": ("evil.png", _mode(0o020666), "is a link or a device"),
    "a pipe": ("evil.png", _mode(0o010666), "is a link or a device"),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, marks=pytest.mark.fault(f"zip: {case}", outcome="the archive is refused; nothing is written")
        )
        for case in HOSTILE
    ],
)
def test_a_hostile_zip_is_refused_whole_and_writes_nothing(case: str, good: dict[str, bytes], tmp_path: Path) -> None:
    name, change, message = HOSTILE[case]
    path = zip_of(tmp_path, {**good, name: b"x"}, change)
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(InputError, match=f"hostile .zip file is refused; .*{message}"):
        load(path)
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.fault("zip: a name with NUL", outcome="the archive is refused; nothing is written")
def test_a_zip_with_a_name_that_ends_early_is_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    path = zip_of(tmp_path, {**good, "cat/evil.png?.txt": b"x"})
    path.write_bytes(path.read_bytes().replace(b"evil.png?", b"evil.png\0"))
    with pytest.raises(InputError, match=r"hostile .zip file is refused; .*points outside"):
        load(path)


@pytest.mark.fault("zip: an entry that would become a program of root's", outcome="a picture like any other")
def test_rights_that_a_zip_gives_an_entry_mean_nothing(good: dict[str, bytes], tmp_path: Path) -> None:
    data = load(zip_of(tmp_path, {**good, "evil/1.png": good["cat/1.png"]}, _mode(0o106777)))
    assert "evil/1.png" in (*data.train.ids, *data.validation.ids)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.fault("zip: a name twice", outcome="the archive is refused")
def test_a_zip_that_holds_a_name_twice_is_refused(good: dict[str, bytes], tmp_path: Path) -> None:
    path = zip_of(tmp_path, good)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/1.png", b"other")
    with pytest.raises(InputError, match=r"it has 'cat/1\.png' twice"):
        load(path)


@pytest.mark.fault("zip: cut off", outcome="refused")
@pytest.mark.parametrize("cut", [10, 200, -30])
def test_a_zip_that_is_cut_off_is_refused(cut: int, good: dict[str, bytes], tmp_path: Path) -> None:
    path = zip_of(tmp_path, good)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"a .zip file must be whole; .*data\.zip"):
        load(path)


@pytest.mark.fault("zip: an entry with damaged bytes", outcome="the entry is named and set aside")
def test_a_damaged_entry_of_a_zip_is_set_aside_by_name(good: dict[str, bytes], tmp_path: Path) -> None:
    path = zip_of(tmp_path, good)
    content = bytearray(path.read_bytes())
    start = content.index(b"cat/3.png") + 40
    content[start] ^= 0x55
    path.write_bytes(bytes(content))
    data = load(path)
    assert [one.path for one in data.quarantined] == ["cat/3.png"]
    assert len(data.train) + len(data.validation) == 11


@pytest.mark.fault("zip: a wrong checksum", outcome="the entry is named and set aside")
def test_a_flipped_bit_that_the_picture_format_cannot_notice_is_noticed(
    make_noise: Callable[..., Image.Image], tmp_path: Path
) -> None:
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(12):
            make_noise(i, 20, 20).save(tmp_path / "x.bmp")
            archive.write(tmp_path / "x.bmp", f"{'cat' if i % 2 else 'dog'}/{i}.bmp")
    content = bytearray(path.read_bytes())
    content[content.index(b"cat/3.bmp") + 500] ^= 1
    path.write_bytes(bytes(content))
    assert [(one.path, one.reason) for one in load(path).quarantined] == [("cat/3.bmp", "its checksum is wrong")]


@pytest.mark.fault("zip: an entry of 30 MB that declares 1,000 bytes", outcome="set aside without being unpacked")
def test_an_entry_that_is_longer_than_it_declares_is_set_aside_without_being_unpacked(
    good: dict[str, bytes], tmp_path: Path
) -> None:
    path = zip_of(tmp_path, {**good, "cat/bomb.png": bytes(30_000_000)})
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"cat/bomb.png"))
    content[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")  # the size that the directory declares
    path.write_bytes(bytes(content))
    data = load(path)
    assert [(one.path, one.reason) for one in data.quarantined] == [
        ("cat/bomb.png", "it declares 1,000 bytes and holds more")
    ]


@pytest.mark.fault("zip: an encrypted entry", outcome="named and set aside")
def test_an_encrypted_entry_is_set_aside(good: dict[str, bytes], tmp_path: Path) -> None:
    path = zip_of(tmp_path, good)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"cat/5.png"))
    content[entry + 8] |= 1
    path.write_bytes(bytes(content))
    assert [(one.path, one.reason) for one in load(path).quarantined] == [("cat/5.png", "it is encrypted")]


@pytest.mark.fault("zip: another zip inside", outcome="left out and named")
def test_a_zip_inside_a_zip_is_left_out(good: dict[str, bytes], tmp_path: Path) -> None:
    inner = zip_of(tmp_path, good).read_bytes()
    data = load(zip_of(tmp_path, {**good, "cat/inner.zip": inner}))
    assert "cat/inner.zip (not an image, by its name)" in " ".join(data.said)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 5, 64, 131])
def test_results_come_in_order_and_progress_ends_at_the_last(count: int, threads: int) -> None:
    names, told = [str(i) for i in range(count)], []
    results = list(each(int, names, threads, lambda *words: told.append(words), "decoding"))
    assert results == list(range(count))
    assert [words[1:] for words in told[-1:]] == [(count, count)] * (count > 0)
    assert len(told) == -(-count // 64)


def test_pictures_are_handed_to_as_many_threads_as_asked_and_few_wait() -> None:
    together, begun = threading.Barrier(2, timeout=60), []

    def meet(name: str) -> str:
        begun.append(name)
        if int(name) < 2 * HANDFUL and int(name) % HANDFUL == 0:
            together.wait()  # passed by two threads at once, or never
        return name

    results = each(meet, [str(i) for i in range(1000)], 2)
    assert next(results) == "0"
    assert len(begun) <= 2 * 2 * HANDFUL + HANDFUL
    results.close()
    assert len(begun) <= 2 * 2 * HANDFUL + HANDFUL


def test_the_first_failure_in_order_is_raised_after_the_handfuls_before_it() -> None:
    def attempt(name: str) -> int:
        if int(name) in (40, 41, 90):
            raise InputError("a rule", name)
        return int(name)

    found: list[int] = []
    with pytest.raises(InputError, match="a rule; 40"):
        found.extend(each(attempt, [str(i) for i in range(200)], 2))
    assert found == list(range(40))
