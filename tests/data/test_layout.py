"""What trees of names mean."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convolve.data.layout import arrange, natural
from convolve.errors import InputError

CAT_DOG = {"cat": 1, "dog": 1}


def counts(names: list[str], folders: list[str] | None = None) -> dict[str, dict[str, int]]:
    layout = arrange(names, folders or [], "DATA")
    return {part: {name: len(files) for name, files in classes.items()} for part, classes in layout.parts.items()}


MEANINGS = {
    "classes": (["cat/1.png", "dog/1.png"], {"train": CAT_DOG}),
    "deep folders below a class": (["cat/a/b/1.png", "dog/1.png"], {"train": CAT_DOG}),
    "three parts": (
        [f"{part}/{name}/1.png" for part in ("train", "val", "test") for name in CAT_DOG],
        {"train": CAT_DOG, "validation": CAT_DOG, "test": CAT_DOG},
    ),
    "synonyms in any case": (
        [f"{part}/{name}/1.png" for part in ("Training", "VALID", "testing") for name in CAT_DOG],
        {"train": CAT_DOG, "validation": CAT_DOG, "test": CAT_DOG},
    ),
    "eval is validation": (
        [f"{part}/{name}/1.png" for part in ("train", "eval") for name in CAT_DOG],
        {"train": CAT_DOG, "validation": CAT_DOG},
    ),
    "one part": (["train/cat/1.png", "train/dog/1.png"], {"train": CAT_DOG}),
    "test only": (["test/cat/1.png", "test/dog/1.png"], {"test": CAT_DOG}),
    "a folder around it": (["photos/cat/1.png", "photos/dog/1.png"], {"train": CAT_DOG}),
    "two folders around parts": (
        [f"a/b/{part}/{name}/1.png" for part in ("train", "test") for name in CAT_DOG],
        {"train": CAT_DOG, "test": CAT_DOG},
    ),
    "parts inside classes": (
        [f"{name}/{part}/1.png" for part in ("train", "val") for name in CAT_DOG],
        {"train": CAT_DOG, "validation": CAT_DOG},
    ),
    "a class that is called train": (
        ["train/1.png", "bus/1.png", "car/1.png"],
        {"train": {"bus": 1, "car": 1, "train": 1}},
    ),
    "a class missing in validation": (
        ["train/cat/1.png", "train/dog/1.png", "val/cat/2.png"],
        {"train": CAT_DOG, "validation": {"cat": 1, "dog": 0}},
    ),
    "classes with commas, quotes and emoji": (
        ['a, "b"/1.png', "🐈/1.png", "<b>&/1.png"],
        {"train": {"<b>&": 1, 'a, "b"': 1, "🐈": 1}},
    ),
}


@pytest.mark.parametrize("meaning", MEANINGS)
def test_a_tree_means(meaning: str) -> None:
    names, expected = MEANINGS[meaning]
    assert counts(names) == expected


def test_classes_and_files_are_in_natural_order() -> None:
    layout = arrange([f"{name}/{i}.png" for name in ("c10", "c9", "C1") for i in (10, 2)], [], "DATA")
    assert layout.classes == ("C1", "c9", "c10")
    assert layout.parts["train"]["c9"] == ["c9/2.png", "c9/10.png"]


@given(st.lists(st.text(max_size=6), max_size=8))
def test_any_names_can_be_sorted_and_numbers_by_their_value(names: list[str]) -> None:
    keys = [natural(name) for name in sorted(names, key=natural)]
    assert all(first <= second for first, second in itertools.pairwise(keys))
    for name in names:
        if not name[-1:].isdigit():
            assert natural(f"{name}9") < natural(f"{name}10")


def test_files_that_are_no_images_and_images_outside_of_classes_are_set_aside_by_name() -> None:
    layout = arrange(["cat/1.png", "dog/1.JPG", "dog/noend", "dog/notes.txt", "cover.png", "model.pdf"], [], "DATA")
    assert layout.parts["train"]["dog"] == ["dog/1.JPG", "dog/noend"]
    assert dict(layout.aside) == {
        "dog/notes.txt": "not an image, by its name",
        "model.pdf": "not an image, by its name",
        "cover.png": "in no class folder",
    }


ERRORS = {
    "nothing": ([], [], "DATA holds no files"),
    "no image": (["cat/readme.txt"], [], "DATA holds 1 files, none an image by its name"),
    "no classes": (["1.png", "2.png"], [], "images need labels; the images of DATA lie in no class folder"),
    "parts without classes": (
        ["train/1.png", "val/2.png"],
        [],
        "images need labels; the images of DATA lie in train/ itself",
    ),
    "a class without images": (
        ["cat/1.png", "dog/1.png"],
        ["bird"],
        "every class needs images; 'bird' of DATA has none",
    ),
    "a class without images in training": (
        ["train/cat/1.png", "train/dog/1.png", "val/cat/1.png"],
        ["train/bird"],
        "every class needs images; 'bird'",
    ),
    "a class that only the test has": (
        ["train/cat/1.png", "train/dog/1.png", "test/bird/1.png"],
        [],
        "every class must be in the train part; 'bird'",
    ),
    "the same part twice": (
        ["val/cat/1.png", "valid/cat/2.png", "train/cat/3.png"],
        [],
        "a part has one folder; DATA has val and valid",
    ),
    "parts beside others": (
        ["train/cat/1.png", "val/cat/1.png", "extra/cat/1.png"],
        [],
        "parts or classes, not both; DATA holds extra, train, val",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_tree_that_cannot_be_understood_says_what_to_put_where(case: str) -> None:
    names, folders, message = ERRORS[case]
    with pytest.raises(InputError) as caught:
        arrange(names, folders, "DATA")
    assert message in str(caught.value)
    assert caught.value.remedy
