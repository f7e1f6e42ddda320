"""`convolve.data.check`: every fault that is planted is found, by name and alone; a sound folder has none."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolve.data.check import Check, findings_of, kept_together, look, summed
from convolve.data.findings import likenesses
from convolve.data.likeness import near_groups
from convolve.data.load import load, read_split
from convolve.data.look import look_at_splits
from convolve.errors import InputError
from convolve.jobs.data_check import data_check as check

GOLDEN = Path(__file__).parents[1] / "golden" / "data-check.txt"
CLASSES = ("cat", "dog")


def picture(seed: int, h: int = 48, w: int = 48) -> Image.Image:
    """Soft blots of random colour, different for each seed."""
    blots = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blots).resize((w, h), Image.Resampling.BICUBIC)


def sound(root: Path, parts: tuple[str, ...] = ("",), count: int = 20) -> Path:
    """A folder with nothing to say against it."""
    seed = 0
    for part in parts:
        for name in CLASSES:
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                picture(seed).save(place / f"{i:02}.png")
                seed += 1
    return root


def copy(source: str, target: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / source, root / target)

    return plant


def smaller(source: str, target: str) -> Callable[[Path], None]:
    return lambda root: Image.open(root / source).resize((40, 40)).save(root / target, quality=60)


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(content)


def save(name: str, image: Image.Image, **how: object) -> Callable[[Path], None]:
    return lambda root: image.save(root / name, **how)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def cut(root: Path) -> None:
    content = (root / "cat/00.png").read_bytes()
    (root / "cat/cut.png").write_bytes(content[: len(content) // 2])


def folder_of(name: str, count: int, start: int) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(start + i).save(root / name / f"{i:02}.png")

    return plant


def all_grey(root: Path) -> None:
    for path in (root / "cat").glob("*.png"):
        Image.open(path).convert("L").save(path)


# What is planted into the sound folder; the parts of that folder; the finding, its severity, count and one name in its groups.
ONE_PART, TWO_PARTS = ("",), ("train", "test")
FAULTS = {
    "label-conflict": (copy("cat/00.png", "dog/copy.png"), ONE_PART, "harm", 2, "dog/copy.png"),
    "near-label-conflict": (smaller("cat/01.png", "dog/small.jpg"), ONE_PART, "harm", 2, "dog/small.jpg"),
    "leak": (copy("train/cat/00.png", "test/cat/copy.png"), TWO_PARTS, "harm", 2, "test/cat/copy.png"),
    "near-leak": (smaller("train/cat/00.png", "test/cat/small.jpg"), TWO_PARTS, "harm", 2, "train/cat/00.png"),
    "duplicates": (copy("cat/02.png", "cat/copy.png"), ONE_PART, "note", 1, "cat/copy.png"),
    "near-duplicates": (smaller("cat/03.png", "cat/smaller.jpg"), ONE_PART, "note", 2, "cat/smaller.jpg"),
    "unreadable": (cut, ONE_PART, "harm", 1, "cat/cut.png"),
    "heic": (write("cat/p.heic", b"\0\0\0\x18ftypheic" + bytes(40)), ONE_PART, "harm", 1, "cat/p.heic"),
    "loose": (save("lost.png", picture(1100)), ONE_PART, "harm", 1, "lost.png"),
    "class-names": (folder_of("Dog ", 20, 1200), ONE_PART, "harm", 2, "Dog /"),
    "nested-parts": (folder_of("dog/val", 1, 1300), ONE_PART, "harm", 1, "dog/val/"),
    "folders": (folder_of("dog/small ones", 1, 1400), ONE_PART, "note", 1, "dog/small ones/"),
    "few": (folder_of("fox", 19, 1500), ONE_PART, "harm", 1, "fox/"),
    "imbalance": (folder_of("fox", 61, 1600), ONE_PART, "harm", 3, None),
    "telltale": (all_grey, ONE_PART, "harm", 2, None),
    "one-colour": (save("cat/c.png", Image.new("RGB", (48, 48), "red")), ONE_PART, "harm", 1, "cat/c.png"),
    "tiny": (save("cat/t.png", picture(1700, 6, 6)), ONE_PART, "harm", 1, "cat/t.png"),
    "proportions": (save("cat/w.png", picture(1800, 48, 96)), ONE_PART, "note", 41, None),
    "colours": (save("cat/g.png", picture(1900).convert("L")), ONE_PART, "note", 1, None),
    "exif-rotated": (save("cat/e.jpg", picture(2000), exif=turned()), ONE_PART, "note", 1, "cat/e.jpg"),
    "wrong-ending": (save("cat/j.png", picture(2100), format="JPEG"), ONE_PART, "note", 1, "cat/j.png"),
    "other-files": (write("notes.txt", b"x"), ONE_PART, "note", 1, "notes.txt"),
    "hidden": (write(".DS_Store", b"x"), ONE_PART, "note", 1, ".DS_Store"),
    "refused": (lambda root: (root / "owl").mkdir(), ONE_PART, "stop", 1, "owl/"),
    "missing-class": (lambda root: shutil.rmtree(root / "test/dog"), TWO_PARTS, "harm", 1, "test: dog"),
}
# What comes with a fault by its nature.
ALSO = {
    "near-label-conflict": {"split-leak"},
    "near-duplicates": {"split-leak"},
    "telltale": {"colours"},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(kind: str, tmp_path: Path) -> None:
    plant, parts, severity, count, name = FAULTS[kind]
    folder = sound(tmp_path / "photos", parts)
    plant(folder)
    found = {finding.kind: finding for finding in check(folder).findings}
    assert kind in found
    assert set(found) - {kind} <= ALSO.get(kind, set())
    finding = found[kind]
    assert (finding.severity, finding.count) == (severity, count)
    if name is not None:
        assert name in [one for group in finding.groups for one in group]
    assert finding.what
    assert finding.remedy


@pytest.mark.parametrize("parts", [ONE_PART, TWO_PARTS, ("train", "val", "test")])
def test_a_sound_folder_has_no_findings_and_is_counted(parts: tuple[str, ...], tmp_path: Path) -> None:
    found = check(sound(tmp_path / "photos", parts))
    assert found.findings == ()
    assert found.images == 40 * len(parts)
    assert sum(found.parts.values()) == found.images
    assert [row.name for row in found.classes] == ["cat", "dog"]
    assert all(count == 20 for row in found.classes for count in row.images.values())
    assert found.heights is not None
    assert (found.heights.smallest, found.heights.middle, found.heights.largest) == (48, 48, 48)
    assert (found.formats, found.modes) == ({"PNG": found.images}, {"RGB": found.images})


def all_together(root: Path) -> Path:
    folder = sound(root / "photos")
    for kind, (plant, parts, *_) in FAULTS.items():
        if parts == ONE_PART and kind not in ("telltale", "refused", "imbalance"):
            plant(folder)
    return folder


def test_all_faults_together_are_found_the_worst_first(tmp_path: Path) -> None:
    found = check(all_together(tmp_path))
    kinds = [finding.kind for finding in found.findings]
    wanted = {kind for kind, fault in FAULTS.items() if fault[1] == ONE_PART} - {"telltale", "refused", "imbalance"}
    assert wanted <= set(kinds)
    severities = [finding.severity for finding in found.findings]
    assert severities == sorted(severities, key=("stop", "harm", "note").index)
    assert kinds.index("label-conflict") < kinds.index("unreadable") < kinds.index("duplicates")
    assert [bad.name for bad in found.unreadable] == ["cat/cut.png", "cat/p.heic"]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["findings"][0]["kind"] == kinds[0]


def test_the_text_is_the_golden_one(tmp_path: Path) -> None:
    from convolve.draw.data_check import text

    folder = all_together(tmp_path)
    shown = text(check(folder)).replace(str(folder), "photos") + "\n"
    assert shown == GOLDEN.read_text(encoding="utf-8"), "if it is meant: write this text to tests/golden/data-check.txt"


def test_a_zip_is_examined_like_its_folder(tmp_path: Path, zipped: Callable[..., Path]) -> None:
    folder = all_together(tmp_path)
    packed = check(zipped(folder, tmp_path / "photos.zip"))
    plain = check(folder)
    assert [(f.kind, f.count, f.groups) for f in packed.findings] == [
        (f.kind, f.count, f.groups) for f in plain.findings
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_threads_changes_nothing(workers: int, tmp_path: Path) -> None:
    folder = all_together(tmp_path)
    assert check(folder, workers=workers).findings == check(folder).findings


def test_training_stops_where_the_check_says_so(tmp_path: Path) -> None:
    one_class = sound(tmp_path / "one")
    shutil.rmtree(one_class / "dog")
    mixed = sound(tmp_path / "mixed", ("train", "val"))
    folder_of("cat", 3, 900)(mixed)
    broken = sound(tmp_path / "broken")
    for path in (broken / "cat").glob("*.png"):
        path.write_bytes(b"")
    for folder in (one_class, mixed, broken):
        with pytest.raises(InputError):
            load(folder)
        found = check(folder).findings
        assert found[0].severity == "stop"


@pytest.mark.parametrize("content", [None, "empty", "text"])
def test_what_holds_no_image_at_all_is_an_error(content: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    if content is not None:
        folder.mkdir()
    if content == "text":
        (folder / "a.txt").write_text("x")
    with pytest.raises(InputError):
        check(folder)


def test_a_hostile_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../outside.png", b"x")
    with pytest.raises(InputError, match="hostile"):
        check(tmp_path / "bad.zip")


def test_near_duplicates_are_kept_on_one_side_by_the_written_split(tmp_path: Path) -> None:
    folder = sound(tmp_path / "photos", count=30)
    for i in range(30):
        smaller(f"cat/{i:02}.png", f"cat/small-{i:02}.png")(folder)
    facts = look(folder)
    leaks = [finding for finding in check(folder).findings if finding.kind == "split-leak"]
    assert leaks
    assert leaks[0].count >= 10  # the split by content parts a pair with probability 2 x 0.2 x 0.8
    side = {name: part for name, _, part in kept_together(facts, likenesses(facts))}
    assert len(side) == 90
    assert all(side[f"cat/{i:02}.png"] == side[f"cat/small-{i:02}.png"] for i in range(30))
    held = sum(part == "validation" for part in side.values())
    assert 9 <= held <= 27


def test_what_training_has_read_is_examined_without_reading_it_again(tmp_path: Path) -> None:
    folder = sound(tmp_path / "photos")
    copy("cat/00.png", "dog/copy.png")(folder)
    cut(folder)
    data = load(folder)
    shutil.rmtree(folder)
    found = {finding.kind: finding for finding in findings_of(data).findings}
    assert found["label-conflict"].groups == (("cat/00.png", "dog/copy.png"),)
    assert found["unreadable"].count == 1


def test_ten_thousand_real_digits_have_no_copies_and_hardly_a_near_duplicate(shared: Path) -> None:
    names = tuple("0123456789")
    test = read_split(shared / "mnist", size=(28, 28), channels=1, classes=names, part="test")
    facts = look_at_splits([test], names, "mnist", "idx")
    found = summed(facts, likenesses(facts), time.perf_counter())
    assert [row.images["test"] for row in found.classes[:2]] == [980, 1135]
    kinds = {finding.kind: finding.count for finding in found.findings}
    assert set(kinds) <= {"refused", "near-duplicates"}  # there is nothing to train on in this part alone
    assert kinds.get("near-duplicates", 0) <= 10


class TestNearGroups:
    """The search, against comparing all with all."""

    @staticmethod
    def miniatures(images: list[Image.Image]) -> np.ndarray:
        return np.stack([np.asarray(image.resize((16, 16), Image.Resampling.BOX)) for image in images])

    def test_copies_that_were_changed_a_little_are_found_among_many(self) -> None:
        images = [picture(i) for i in range(600)]
        changed = [
            images[0].resize((24, 24), Image.Resampling.BILINEAR),
            images[1].point(lambda level: int(level * 0.85)),
            images[2].crop((1, 1, 47, 47)),
        ]
        assert near_groups(self.miniatures(images + changed)) == [[0, 600], [1, 601], [2, 602]]

    def test_other_colours_are_another_picture(self) -> None:
        image = picture(3)
        red, green, blue = image.split()
        assert near_groups(self.miniatures([image, Image.merge("RGB", (blue, red, green))])) == []

    def test_pictures_of_one_colour_are_like_none(self) -> None:
        assert near_groups(np.full((5, 16, 16, 3), 200, np.uint8)) == []

    def test_a_thousand_frames_of_one_scene_are_one_group(self) -> None:
        scene = np.asarray(picture(0).resize((16, 16))).astype(int)
        noise = np.random.default_rng(0).integers(-4, 5, (1000, 16, 16, 3))
        frames = (scene + noise).clip(0, 255).astype(np.uint8)
        groups = near_groups(frames)
        assert len(groups) == 1
        assert len(groups[0]) >= 990

    def test_the_search_finds_what_comparing_all_with_all_finds(self, shared: Path) -> None:
        """1,000 real pictures, each once more as a JPEG of quality 50: the pairs that correlation alone confirms."""
        import io

        with zipfile.ZipFile(shared / "cifar10-jpeg.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.startswith("train/"))[::50]
            images = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
        again = []
        for image in images:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=50)
            again.append(Image.open(out).convert("RGB"))
        small = self.miniatures(images + again)
        values = small.reshape(2000, -1).astype(np.float64)
        values -= values.mean(1, keepdims=True)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        pairs = {(i, i + 1000) for i in range(1000) if values[i] @ values[i + 1000] >= 0.95}
        found = {(group[0], other) for group in near_groups(small) for other in group[1:]}
        assert len(pairs) >= 990
        assert len(pairs & found) >= 0.94 * len(pairs)
        assert len(found - pairs) <= 5


def test_a_check_shows_itself_in_a_notebook_with_names_escaped(tmp_path: Path) -> None:
    folder = sound(tmp_path / "photos")
    (folder / "cat").rename(folder / "<b>cat")
    copy("<b>cat/00.png", "dog/copy.png")(folder)
    found = check(folder)
    shown = found._repr_html_()
    assert isinstance(found, Check)
    assert "<b>cat" not in shown
    folder_of("<B>cat", 20, 900)(folder)
    shown = check(folder)._repr_html_()
    assert "<b>cat" not in shown.replace(f"<b>{tmp_path}", "")


def test_pictures_that_stay_in_their_files_are_counted_but_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convolve.data import image_folder
    from convolve.draw.data_check import text

    folder = sound(tmp_path / "photos", count=30)
    copy("cat/00.png", "dog/copy.png")(folder)
    monkeypatch.setattr(image_folder, "BUDGET", 0)
    found = findings_of(load(folder))
    assert (found.images, found.findings, found.compared) == (61, (), False)
    assert "duplicates were not looked for" in text(found)


def test_digits_are_examined_with_the_parts_that_they_bring() -> None:
    found = check("digits")
    assert found.parts == {"train": 1258, "validation": 180, "test": 359}
    assert found.findings == ()
