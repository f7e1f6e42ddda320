"""IDX files: what is read equals what was written, and every fault of the format is named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from convolve.data import idx
from convolve.data.load import load
from convolve.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 5, 3), dtype=np.uint8)
LABELS = np.array([i % 3 for i in range(40)], dtype=np.uint8)


def encoded(values: np.ndarray, code: int = 8, dims: tuple[int, ...] | None = None, zero: int = 0) -> bytes:
    sizes = values.shape if dims is None else dims
    return struct.pack(">HBB", zero, code, len(sizes)) + struct.pack(f">{len(sizes)}I", *sizes) + values.tobytes()


def folder(tmp_path: Path, images: bytes, labels: bytes, part: str = "train") -> Path:
    (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(images)
    (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return tmp_path


@pytest.mark.parametrize("zip_them", [False, True])
@pytest.mark.parametrize("name", ["{}-images-idx3-ubyte", "{}-images.idx3-ubyte"])
def test_a_folder_of_idx_files_gives_the_pixels_and_labels_that_were_written(
    tmp_path: Path, name: str, zip_them: bool
) -> None:
    for part in ("train", "t10k"):
        for kind, values in (("images", IMAGES), ("labels", LABELS)):
            path = name.format(part).replace("images", kind).replace("idx3", "idx3" if kind == "images" else "idx1")
            content = encoded(values)
            (tmp_path / (path + ".gz" * zip_them)).write_bytes(gzip.compress(content) if zip_them else content)
    data = load(tmp_path, val_split=0.25)
    assert data.classes == ("0", "1", "2")
    assert (data.size, data.channels, data.test_count) == ((5, 3), 1, 40)
    seen = {}
    for split in (data.train, data.validation):
        for place, name_ in enumerate(split.ids):
            index = int(name_.removeprefix("train/"))
            assert torch.equal(split.images.batch(torch.tensor([place]))[0, 0], torch.from_numpy(IMAGES[index]))
            assert split.labels[place] == LABELS[index]
            seen[index] = split.name
    assert sorted(seen) == list(range(40))
    assert data.read_test is not None
    test = data.read_test()
    assert torch.equal(test.images.batch(torch.arange(40))[:, 0], torch.from_numpy(IMAGES))


def test_the_test_files_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    folder(tmp_path, encoded(IMAGES), encoded(LABELS))
    broken = encoded(IMAGES)[:-1]
    folder(tmp_path, broken + b"", encoded(LABELS), "t10k")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(broken)
    data = load(tmp_path)
    assert data.read_test is not None
    with pytest.raises(
        InputError, match="t10k-images-idx3-ubyte declares 40 x 5 x 3 = 600 bytes of values and has 599"
    ):
        data.read_test()


def test_labels_with_gaps_become_classes_named_by_their_number(tmp_path: Path) -> None:
    data = load(folder(tmp_path, encoded(IMAGES), encoded(LABELS * 3 + 1)))
    assert data.classes == ("1", "4", "7")
    assert data.train.labels.unique().tolist() == [0, 1, 2]


GOOD_I, GOOD_L = encoded(IMAGES), encoded(LABELS)
FAULTS = {
    "an empty images file": (b"", GOOD_L, "has 0 bytes"),
    "an empty labels file": (GOOD_I, b"", "has 0 bytes"),
    "a magic number of another format": (b"\x89PNG" + GOOD_I[4:], GOOD_L, "starts with 0x89504e47"),
    "magic bytes that are not zero": (encoded(IMAGES, zero=1), GOOD_L, "starts with 0x00010803"),
    "an unknown type code": (encoded(IMAGES, code=7), GOOD_L, "starts with 0x00000703"),
    "floats": (encoded(IMAGES, code=0x0D), GOOD_L, "must be bytes .uint8..*float32"),
    "int32 labels": (GOOD_I, encoded(LABELS, code=0x0C), "must be bytes .uint8..*int32"),
    "no dimension": (b"\0\0\x08\0", GOOD_L, "0 dimensions"),
    "200 dimensions": (b"\0\0\x08\xc8" + bytes(900), GOOD_L, "200 dimensions"),
    "two dimensions": (encoded(IMAGES.reshape(200, 3)), GOOD_L, "2 dimensions"),
    "images and labels swapped": (GOOD_L, GOOD_I, "swapped"),
    "a product of 2**63": (encoded(IMAGES[:1], dims=(2**31, 2**16, 2**16)), GOOD_L, "9,223,372,036,854,775,808 bytes"),
    "one byte too few": (GOOD_I[:-1], GOOD_L, "600 bytes of values and has 599"),
    "one byte too many": (GOOD_I + b"\0", GOOD_L, "goes on after"),
    "labels one too few": (GOOD_I, GOOD_L[:-1], "40 = 40 bytes of values and has 39"),
    "a header that ends early": (GOOD_I[:10], GOOD_L, "ends inside its header"),
    "a gzip that is cut off": (gzip.compress(GOOD_I)[:-20], GOOD_L, ".gz file must be whole"),
    "a gzip that is damaged": (gzip.compress(GOOD_I)[:-30] + b"x" * 30, GOOD_L, ".gz file must be whole"),
    "fewer labels than images": (GOOD_I, encoded(LABELS[:39]), "40 images in .* but 39 labels"),
    "no images": (encoded(IMAGES[:0]), encoded(LABELS[:0]), "declares 0 x 5 x 3"),
    "one label only": (GOOD_I, encoded(LABELS * 0), "at least two classes"),
    "a huge gzip that declares itself": (
        gzip.compress(encoded(np.zeros((90_000, 28, 28), np.uint8))),
        encoded(np.zeros(90_000, np.uint8)),
        "decompression bomb is refused",
    ),
    "a gzip bomb behind a small header": (
        gzip.compress(GOOD_I + bytes(50_000_000)),
        GOOD_L,
        "goes on after its 40 x 5 x 3",
    ),
}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=pytest.mark.fault(f"IDX: {fault}", outcome="refused, naming file and fault"))
        for fault in FAULTS
    ],
)
def test_a_fault_of_the_format_is_named_with_its_file(fault: str, tmp_path: Path) -> None:
    images, labels, message = FAULTS[fault]
    with pytest.raises(InputError, match=message) as caught:
        load(folder(tmp_path, images, labels))
    assert caught.value.exit_code == 3
    assert str(tmp_path) in str(caught.value)


@pytest.mark.fault("IDX: a test label that training does not know", outcome="refused, naming the label")
def test_a_test_label_that_training_does_not_know_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, GOOD_I, GOOD_L)
    folder(tmp_path, GOOD_I, encoded(LABELS + 5), "t10k")
    data = load(tmp_path)
    assert data.read_test is not None
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte has '5', '6', '7'; the classes are 0, 1, 2"):
        data.read_test()


@pytest.mark.parametrize(
    ("missing", "message"), [("images", "labels need their images"), ("labels", "images need their labels")]
)
def test_images_without_labels_and_labels_without_images_are_refused(
    tmp_path: Path, missing: str, message: str
) -> None:
    folder(tmp_path, GOOD_I, GOOD_L)
    next(tmp_path.glob(f"train-{missing}*")).unlink()
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_only_test_files_are_refused_for_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an IDX folder needs training files"):
        load(folder(tmp_path, GOOD_I, GOOD_L, "t10k"))


@pytest.mark.fault("IDX: training and test pictures of other sizes", outcome="refused, naming both")
def test_parts_of_different_sizes_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, GOOD_I, GOOD_L)
    folder(tmp_path, encoded(IMAGES[:, :4]), GOOD_L, "t10k")
    with pytest.raises(InputError, match="train 5x3, test 4x3"):
        load(tmp_path)


@pytest.mark.fault("IDX: a gzip bomb of 200 MB", outcome="refused with less than 4 MB of memory")
def test_a_bomb_takes_no_memory_that_its_header_claims(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(GOOD_I + bytes(200_000_000), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="goes on after"):
            idx.read(path, 3)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
