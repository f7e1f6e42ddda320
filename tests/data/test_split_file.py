"""A split that is given as a file is the split that is used; what is wrong with the file is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from convolve.data.load import load
from convolve.data.split_file import write_split
from convolve.errors import InputError, UsageError

Tree = Callable[..., Path]


def rows(folder: Path) -> list[tuple[str, str, str]]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    parts = ("train", "validation", "train", "test")
    return [(name, name.split("/")[0], parts[i % 4]) for i, name in enumerate(names)]


def test_every_image_goes_where_the_file_says(tree: Tree, two_classes: list[str], tmp_path: Path) -> None:
    folder = tree(two_classes)
    given = rows(folder)
    write_split(tmp_path / "split.csv", given)
    data = load(folder, split=tmp_path / "split.csv")
    assert data.read_test is not None
    for part in (data.train, data.validation, data.read_test()):
        assert list(part.ids) == [name for name, _, word in given if word == part.name]
    assert data.test_count == 5


def test_a_split_without_test_images_brings_none(tree: Tree, two_classes: list[str], tmp_path: Path) -> None:
    folder = tree(two_classes)
    write_split(tmp_path / "s.csv", [(a, b, "train" if c == "test" else c) for a, b, c in rows(folder)])
    data = load(folder, split=tmp_path / "s.csv")
    assert (data.read_test, data.test_count, len(data.validation)) == (None, 0, 5)


def test_rows_of_images_that_are_gone_or_were_left_out_are_passed_over(
    tree: Tree, two_classes: list[str], tmp_path: Path
) -> None:
    folder = tree(two_classes)
    given = rows(folder)
    (folder / "cat/bad.png").write_bytes(b"")
    given += [("cat/gone.png", "cat", "train"), ("cat/bad.png", "", "left out: it is empty")]
    write_split(tmp_path / "s.csv", given)
    data = load(folder, split=tmp_path / "s.csv")
    assert len(data.train) + len(data.validation) + data.test_count == 20
    assert [bad.path for bad in data.quarantined] == ["cat/bad.png"]


def test_an_image_that_the_file_does_not_name_is_an_error(tree: Tree, two_classes: list[str], tmp_path: Path) -> None:
    folder = tree(two_classes)
    write_split(tmp_path / "s.csv", rows(folder)[:-1])
    with pytest.raises(InputError, match=r"does not name 1 of 20: dog/9\.png"):
        load(folder, split=tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has nothing"),
        ("a,b\n1,2\n", "has a, b"),
        ("image,part\ncat/0.png,trian\n", "line 2: 'trian'"),
        ("image,part\ncat/0.png,train\ncat/0.png,test\n", "line 3"),
        ("image,part\ncat/0.png\n", "line 2: ''"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(
    content: str, said: str, tree: Tree, two_classes: list[str], tmp_path: Path
) -> None:
    folder = tree(two_classes)
    (tmp_path / "s.csv").write_text(content)
    with pytest.raises(InputError, match=said):
        load(folder, split=tmp_path / "s.csv")


def test_a_part_without_images_is_an_error(tree: Tree, two_classes: list[str], tmp_path: Path) -> None:
    folder = tree(two_classes)
    write_split(tmp_path / "s.csv", [(name, label, "train") for name, label, _ in rows(folder)])
    with pytest.raises(InputError, match="no validation image"):
        load(folder, split=tmp_path / "s.csv")


def test_data_that_brings_its_own_validation_takes_no_other(tree: Tree, tmp_path: Path) -> None:
    folder = tree([f"{part}/{name}/{i}.png" for part in ("train", "val") for name in ("a", "b") for i in range(3)])
    write_split(tmp_path / "s.csv", rows(folder))
    with pytest.raises(UsageError, match="given once"):
        load(folder, split=tmp_path / "s.csv")
    with pytest.raises(UsageError, match="given once"):
        load("digits", split=tmp_path / "s.csv")


def test_renaming_moving_and_adding_files_keeps_the_others_on_their_side(tree: Tree, tmp_path: Path) -> None:
    names = [f"{name}/{i}.png" for name in ("a", "b") for i in range(60)]
    folder = tree(names)
    before = load(folder)
    held = {(folder / name).read_bytes() for name in before.validation.ids}
    for path in sorted(folder.rglob("*.png"))[::3]:
        path.rename(path.with_name(f"renamed-{path.name}"))
    after = load(folder)
    assert {(folder / name).read_bytes() for name in after.validation.ids} == held


def test_copies_share_a_side_also_across_classes(tree: Tree) -> None:
    folder = tree([f"{name}/{i}.png" for name in ("a", "b") for i in range(30)])
    for i in range(30):
        (folder / f"b/copy-{i}.png").write_bytes((folder / f"a/{i}.png").read_bytes())
    data = load(folder)
    held = set(data.validation.ids)
    assert held
    assert all((f"a/{i}.png" in held) == (f"b/copy-{i}.png" in held) for i in range(30))
