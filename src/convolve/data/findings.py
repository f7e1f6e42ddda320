"""What may be wrong with a data set: one rule per function, in the order of how much it hurts.

A rule takes the `Facts` and their `Likenesses` and gives a Finding, or None. Severities:

    stop   training refuses the data, or would learn nothing
    harm   training runs, and its numbers or its network are worse than they look
    note   handled, or for you to know
"""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from convolve.data.fitting import choose_fit
from convolve.data.image_folder import check_usable
from convolve.data.layout import PARTS as NAMED_PARTS
from convolve.data.likeness import SIDE, groups_of, near_groups
from convolve.data.look import Facts, Seen, heic
from convolve.data.records import IMBALANCED, Quarantined
from convolve.errors import InputError

STOP, HARM, NOTE = "stop", "harm", "note"
FEW = 20  # training images of a class
VERY_IMBALANCED = 3.0
TINY_SIDE, TINY_SHARE = 16, 0.25  # pixels; of the median picture's area
TELLING, TELLING_FROM = 0.95, 10  # a trait that so much of each class has tells the class; images of each class
USUAL_ENDS = {
    "JPEG": {"jpg", "jpeg", "jpe", "jfif", "jif"},
    "MPO": {"jpg", "jpeg", "mpo"},
    "PNG": {"png", "apng"},
    "GIF": {"gif"},
    "BMP": {"bmp", "dib"},
    "TIFF": {"tif", "tiff"},
    "WEBP": {"webp"},
}


@dataclass(frozen=True)
class Finding:
    """`what` is wrong with `count` pictures (or folders), `why` it matters, `remedy` what to do. `groups` names them: pictures that
    belong together share a group."""

    kind: str
    severity: str
    count: int
    what: str
    why: str
    remedy: str
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Likenesses:
    """Groups of pictures: `exact` copies, and `near` duplicates together with their exact copies."""

    exact: Sequence[Sequence[Seen]]
    near: Sequence[Sequence[Seen]]


Rule = Callable[[Facts, Likenesses], Finding | None]


def likenesses(facts: Facts) -> Likenesses:
    """Who looks like whom; nothing, where the pictures were not decoded."""
    if not facts.compared:
        return Likenesses((), ())
    copies: dict[bytes, list[Seen]] = defaultdict(list)
    for picture in facts.seen:
        copies[picture.digest].append(picture)
    first = [same[0] for same in copies.values() if min(same[0].h, same[0].w) >= SIDE]  # smaller ones are all alike
    near = near_groups(np.stack([picture.miniature for picture in first])) if first else []
    return Likenesses(
        [same for same in copies.values() if len(same) > 1],
        [[picture for i in group for picture in copies[first[i].digest]] for group in near],
    )


def find(facts: Facts, alike: Likenesses) -> tuple[Finding, ...]:
    """All that the RULES find, the worst first."""
    found = [finding for rule in RULES if (finding := rule(facts, alike)) is not None]
    return tuple(sorted(found, key=lambda finding: (STOP, HARM, NOTE).index(finding.severity)))


# --- what stops training ----------------------------------------------------------------------------------------------
def refused(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    if facts.refused is None:
        return None
    rule, received, remedy = facts.refused
    groups = tuple((f"{label}/",) for _, label in facts.empty)
    return Finding("refused", STOP, max(1, len(groups)), f"training refuses the data: {rule}", received, remedy, groups)


def too_little(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    """What training would refuse once it has read the files."""
    if facts.refused is not None:
        return None
    trained = {picture.label for picture in facts.seen if picture.part == "train"}
    gone = [label for label in facts.classes if label not in trained]
    parts = {picture.part for picture in facts.seen} | {bad.part for bad in facts.unreadable}
    groups: tuple[tuple[str, ...], ...] = ()
    if "train" not in parts:
        what = "there are no training images"
    elif gone:
        what = f"{_classes(gone)} no training image that can be read"
        groups = tuple((f"{label}/",) for label in gone)
    elif len(facts.classes) < 2:
        what = f"there is one class only: {facts.classes[0]!r}"
    else:
        for part in sorted(parts):
            bad = [Quarantined(one.name, one.reason) for one in facts.unreadable if one.part == part]
            total = len(bad) + sum(picture.part == part for picture in facts.seen)
            try:
                check_usable(bad, total, part)
            except InputError as error:
                return Finding("refused", STOP, len(bad), error.rule, error.received, error.remedy)
        return None
    why = "a network learns to tell classes apart, from images of each"
    return Finding("refused", STOP, max(1, len(groups)), what, why, "add images, or remove the empty class", groups)


# --- what makes numbers or networks worse than they look ----------------------------------------------------------------
def copies_across_parts(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    return _across_parts("leak", "files have an exact copy in another part", alike.exact)


def near_across_parts(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    return _across_parts("near-leak", "pictures have a near duplicate in another part", alike.near)


def copies_across_classes(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    return _across_classes("label-conflict", "files have an exact copy in another class", alike.exact)


def near_across_classes(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    return _across_classes("near-label-conflict", "pictures have a near duplicate in another class", alike.near)


def unreadable(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    bad = [one for one in facts.unreadable if not heic(one.name)]
    if not bad:
        return None
    return Finding(
        "unreadable",
        HARM,
        len(bad),
        f"{_files(len(bad))} cannot be read",
        "; ".join(f"{count:,} × {why}" for why, count in Counter(one.reason for one in bad).most_common(4)),
        "training leaves them out and says so; replace or remove them",
        tuple((one.name,) for one in bad),
    )


def heic_files(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    bad = [one for one in facts.unreadable if heic(one.name)]
    if not bad:
        return None
    return Finding(
        "heic",
        HARM,
        len(bad),
        f"{_files(len(bad))} of the HEIC format cannot be read",
        "they are photos of a telephone; Pillow reads them with a plug-in only",
        "pip install pillow-heif, or convert them to JPEG",
        tuple((one.name,) for one in bad),
    )


def loose(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    names = [name for name, why in facts.aside if why == "in no class folder"]
    if not names:
        return None
    return Finding(
        "loose",
        HARM,
        len(names),
        f"{_pictures(len(names))} in no class folder",
        "without a class they cannot be learned from: they are left out",
        "move them into the folder of their class",
        tuple((name,) for name in names),
    )


def nested_parts(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    found = [(label, below) for label, below in facts.folders if below.lower() in NAMED_PARTS]
    named = [(label, label) for label in facts.classes if label.lower() in NAMED_PARTS]
    if not (found or named):
        return None
    return Finding(
        "nested-parts",
        HARM,
        len(found) + len(named),
        "a part's name (train, val, test) stands where a class is expected",
        "; ".join(
            [f"{label}/{below}/ is read as more images of the class {label!r}" for label, below in found[:3]]
            + [f"{label!r} is read as a class" for label, _ in named[:3]]
        ),
        "put parts at the top: DATA/train/cat/1.jpg, DATA/val/cat/2.jpg",
        tuple((f"{label}/{below}/",) for label, below in found) + tuple((f"{label}/",) for label, _ in named),
    )


def alike_names(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    groups = [[facts.classes[i] for i in places] for places in groups_of([_bare(name) for name in facts.classes])]
    if not groups:
        return None
    return Finding(
        "class-names",
        HARM,
        sum(map(len, groups)),
        "class names differ in case, spaces or marks only",
        "; ".join(" and ".join(map(repr, group)) for group in groups[:3]) + " are learned as different classes",
        "merge the folders, if they mean the same",
        tuple(tuple(f"{name}/" for name in group) for group in groups),
    )


def telltale(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    """A trait of the files, not of what they show, that gives the class away."""
    train = [picture for picture in facts.seen if picture.part == "train"]
    counts = Counter(picture.label for picture in train)
    if len(counts) < 2 or min(counts.values()) < TELLING_FROM:
        return None
    traits: dict[str, Callable[[Seen], str]] = {
        "colour": lambda picture: "grey" if picture.mode in ("1", "L", "LA") else "colour",
        "size": lambda picture: f"{picture.h}x{picture.w}",
        "format": lambda picture: picture.format,
    }
    for trait, of in traits.items():
        by_class: dict[str, Counter[str]] = defaultdict(Counter)
        for picture in train:
            by_class[picture.label][of(picture)] += 1
        usual = {label: values.most_common(1)[0] for label, values in by_class.items()}
        if len({value for value, _ in usual.values()}) > 1 and all(
            count >= TELLING * counts[label] for label, (_, count) in usual.items()
        ):
            said = ", ".join(f"{label!r} {value}" for label, (value, _) in list(usual.items())[:4])
            return Finding(
                "telltale",
                HARM,
                len(counts),
                f"the {trait} of a file tells its class ({said})",
                f"a network may learn the {trait} instead of what the pictures show, and fail on yours",
                "bring all classes to one form: the same source, " + {"colour": "--channels 1"}.get(trait, trait),
            )
    return None


def near_across_the_split(facts: Facts, alike: Likenesses) -> Finding | None:
    """Copies share a side of the split that training would make; near duplicates need not."""
    inside = [[picture for picture in group if picture.part == "train"] for group in alike.near]
    groups = [group for group in inside if len({picture.name in facts.planned for picture in group}) > 1]
    if not groups:
        return None
    return Finding(
        "split-leak",
        HARM,
        sum(map(len, groups)),
        f"{_pictures(sum(map(len, groups)))} have a near duplicate on the other side of the validation split",
        "validation then measures what was learned by heart, and its accuracy is too good",
        "write a split that keeps them together: --split split.csv, here and in training; or remove the duplicates",
        _names(groups),
    )


def imbalance(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    counts = _train_counts(facts)
    if len(counts) < 2 or max(counts.values()) <= IMBALANCED * min(counts.values()):
        return None
    (most, largest), (least, smallest) = counts.most_common(1)[0], counts.most_common()[-1]
    ratio = largest / smallest
    return Finding(
        "imbalance",
        HARM if ratio > VERY_IMBALANCED else NOTE,
        len(counts),
        f"classes are imbalanced, 1 : {ratio:.1f} ({least!r} {smallest:,}, {most!r} {largest:,})",
        "plain accuracy flatters a network that prefers the large classes; balanced accuracy is quoted instead",
        f"add images of {least!r}",
    )


def few(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    small = {label: count for label, count in _train_counts(facts).items() if count < FEW}
    if not small:
        return None
    return Finding(
        "few",
        HARM,
        len(small),
        f"{_classes(list(small))} fewer than {FEW} training images",
        ", ".join(f"{label!r} {count}" for label, count in list(small.items())[:5]),
        "add images; some hundred of each class make a network from scratch, fewer do with --weights",
        tuple((f"{label}/",) for label in small),
    )


def missing_in_part(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    parts = {part: {p.label for p in facts.seen if p.part == part} for part in ("validation", "test")}
    lacking = [(part, label) for part, has in parts.items() if has for label in facts.classes if label not in has]
    if not lacking:
        return None
    return Finding(
        "missing-class",
        HARM,
        len(lacking),
        f"{_classes([label for _, label in lacking])} no image in a part",
        ", ".join(f"{part} has no {label!r}" for part, label in lacking[:4]),
        "add some, or its accuracy says nothing of them",
        tuple((f"{part}: {label}",) for part, label in lacking),
    )


def copies(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    groups = [group for group in alike.exact if not _crosses(group)]
    extra = sum(len(group) - 1 for group in groups)
    if not groups:
        return None
    return Finding(
        "duplicates",
        NOTE,
        extra,
        f"{_files(extra)} {'is an exact copy of another' if extra == 1 else 'are exact copies of others'} of the same class",
        "a copy counts twice; the split keeps copies on one side",
        "remove all but one of each group",
        _names(groups),
    )


def near(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    groups = [group for group in alike.near if not _crosses(group)]
    if not groups:
        return None
    return Finding(
        "near-duplicates",
        NOTE,
        sum(map(len, groups)),
        f"{_pictures(sum(map(len, groups)))} in {_groups(len(groups))} are near duplicates within their class",
        "frames of one film or versions of one photo teach less than their number promises",
        "keep one of each group, or keep groups on one side of the split: --split split.csv",
        _names(groups),
    )


def one_colour(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    bad = [picture for picture in facts.seen if picture.one_colour]
    return _of_pictures(
        "one-colour", HARM, bad, "of one colour only", "there is nothing in them to learn from", "remove them"
    )


def tiny(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    if not facts.seen:
        return None
    middle = statistics.median(picture.h * picture.w for picture in facts.seen)
    bad = [
        p for p in facts.seen if min(p.h, p.w) < 3 or (min(p.h, p.w) < TINY_SIDE and p.h * p.w < TINY_SHARE * middle)
    ]
    why = f"enlarged they are a blur; the median picture has {middle:,.0f} pixels"
    return _of_pictures("tiny", HARM, bad, "much smaller than the others", why, "find larger ones, or remove them")


# --- what is handled, or good to know -----------------------------------------------------------------------------------
def proportions(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    sizes = [(picture.h, picture.w) for picture in facts.seen if picture.part == "train"]
    if not sizes or len(set(sizes)) == 1:
        return None
    fit, said = choose_fit(sizes, (1, 1))
    ratios = [w / h for h, w in sizes]
    if not said or max(ratios) <= 1.02 * min(ratios):
        return None
    return Finding(
        "proportions",
        NOTE,
        len(sizes),
        f"pictures differ in proportions: width / height is {min(ratios):.2f} to {max(ratios):.2f}",
        f"for a square network they would be {'cropped to the middle' if fit == 'crop' else 'kept whole between borders'}",
        "choose with --fit crop, pad or stretch",
    )


def colours(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    modes = Counter(picture.mode for picture in facts.seen)
    grey = sum(count for mode, count in modes.items() if mode in ("1", "L", "LA") or mode.startswith(("I", "F")))
    clear = sum(count for mode, count in modes.items() if mode in ("RGBA", "LA", "PA"))
    deep = sum(count for mode, count in modes.items() if mode.startswith(("I", "F")))
    said = [f"{grey:,} grey among colour, read as RGB"] if 0 < grey < len(facts.seen) else []
    said += [f"{clear:,} with transparency, laid on white"] if clear else []
    said += [f"{deep:,} of more than 8 bits, scaled to 8"] if deep else []
    if not said:
        return None
    return Finding(
        "colours",
        NOTE,
        grey + clear,
        f"pictures differ in colours: {'; '.join(said)}",
        "",
        "--channels 1 makes all grey",
    )


def turned(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    bad = [picture for picture in facts.seen if picture.turned]
    why = "other programs may show or learn them lying on their side"
    return _of_pictures("exif-rotated", NOTE, bad, "turned by EXIF", why, "nothing to do: it is handled")


def mislabelled(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    bad = []
    for picture in facts.seen:
        end = re.search(r"\.([^./]+)$", picture.name)
        usual = USUAL_ENDS.get(picture.format)
        if end and usual and end[1].lower() not in usual:
            bad.append(picture)
    formats = Counter(picture.format for picture in bad)
    why = ", ".join(f"{count:,} {'is' if count == 1 else 'are'} {name}" for name, count in formats.most_common(3))
    return _of_pictures(
        "wrong-ending", NOTE, bad, "of another format than the name says", why, "nothing to do: content is what counts"
    )


def folders(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    found = [(label, below) for label, below in facts.folders if below.lower() not in NAMED_PARTS]
    if not found:
        return None
    return Finding(
        "folders",
        NOTE,
        len(found),
        f"{len(found):,} folder{' is' if len(found) == 1 else 's are'} below class folders, read as more images of the class",
        "",
        "move them up, if they are classes of their own",
        tuple((f"{label}/{below}/",) for label, below in found),
    )


def other_files(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    names = [name for name, why in facts.aside if why != "in no class folder"]
    if not names:
        return None
    return Finding(
        "other-files",
        NOTE,
        len(names),
        f"{_files(len(names))} {'is no image' if len(names) == 1 else 'are no images'}, by name",
        "",
        "nothing to do: they are left out",
        tuple((name,) for name in names),
    )


def hidden(facts: Facts, alike: Likenesses) -> Finding | None:  # noqa: ARG001
    if not facts.hidden:
        return None
    return Finding(
        "hidden",
        NOTE,
        len(facts.hidden),
        f"{len(facts.hidden):,} hidden or system {'entry was' if len(facts.hidden) == 1 else 'entries were'} passed over",
        "",
        "nothing to do",
        tuple((name,) for name in facts.hidden),
    )


RULES: tuple[Rule, ...] = (
    refused,
    too_little,
    copies_across_parts,
    near_across_parts,
    copies_across_classes,
    near_across_classes,
    nested_parts,
    alike_names,
    telltale,
    near_across_the_split,
    imbalance,
    few,
    missing_in_part,
    loose,
    unreadable,
    heic_files,
    one_colour,
    tiny,
    near,
    copies,
    proportions,
    colours,
    turned,
    mislabelled,
    folders,
    other_files,
    hidden,
)


def _across_parts(kind: str, what: str, groups: Sequence[Sequence[Seen]]) -> Finding | None:
    crossing = [group for group in groups if len({picture.part for picture in group}) > 1]
    if not crossing:
        return None
    between = Counter(" / ".join(_parts(group)) for group in crossing)
    count = sum(map(len, crossing))
    return Finding(
        kind,
        HARM,
        count,
        f"{count:,} {what}: " + ", ".join(f"{_groups(number)} in {parts}" for parts, number in between.most_common()),
        "what was learned by heart is then counted as understood: accuracy is too good",
        "remove them from the training part",
        _names(crossing),
    )


def _across_classes(kind: str, what: str, groups: Sequence[Sequence[Seen]]) -> Finding | None:
    crossing = [group for group in groups if len({picture.label for picture in group}) > 1]
    if not crossing:
        return None
    between = Counter(" / ".join(sorted({picture.label for picture in group})) for group in crossing)
    return Finding(
        kind,
        HARM,
        sum(map(len, crossing)),
        f"{sum(map(len, crossing)):,} {what}",
        "one of the labels is wrong: " + ", ".join(f"{pair} ({n:,})" for pair, n in between.most_common(4)),
        "keep each in the class where it belongs",
        _names(crossing),
    )


def _of_pictures(kind: str, severity: str, bad: Sequence[Seen], what: str, why: str, remedy: str) -> Finding | None:
    if not bad:
        return None
    names = tuple((picture.name,) for picture in bad)
    return Finding(kind, severity, len(bad), f"{_pictures(len(bad))} {what}", why, remedy, names)


def _crosses(group: Sequence[Seen]) -> bool:
    return len({(picture.part, picture.label) for picture in group}) > 1


def _parts(group: Iterable[Seen]) -> list[str]:
    has = {picture.part for picture in group}
    return [part for part in ("train", "validation", "test") if part in has]


def _train_counts(facts: Facts) -> Counter[str]:
    return Counter(picture.label for picture in facts.seen if picture.part == "train")


def _names(groups: Iterable[Sequence[Seen]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(picture.name for picture in group) for group in groups)


def _bare(name: str) -> str:
    """A class name without what people vary: case, spaces, marks, accents' encodings."""
    return re.sub(r"[\s_\-.]+", "", unicodedata.normalize("NFKC", name).casefold())


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _pictures(count: int) -> str:
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _groups(count: int) -> str:
    return f"{count:,} group{'' if count == 1 else 's'}"


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
    return f"{shown} {'has' if len(names) == 1 else 'have'}"
