"""Pictures that are nearly the same: copies that were scaled, packed anew, brightened or cut by a hair.

A picture is compared by its 16x16 RGB miniature. Two are near duplicates when both hold:
  * the correlation of their miniatures (over all 768 values, so brightness and contrast do not matter, but colour does)
    is at least ALIKE;
  * of the 64 signs of their lowest DCT frequencies (grey, without the mean) at most BITS differ: a perceptual hash in the
    manner of pHash, by which pairs are found.

Drawings on a plain ground (digits, signs) resemble each other by their ground; for them every value must agree too, to within
STRICT standard deviations.

The limits were measured (docs/decisions.md). Up to FEW pictures are compared all with all, without the hash. In larger sets
near duplicates agree in all bits of at least one of TABLES random choices of bits, but for a few in a thousand; a choice is of about
log2(n) bits, so that its buckets hold few. The work grows as n log n until the data itself is full of likenesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

SIDE = 16
ALIKE = 0.95
BITS = 8
STRICT = 0.7
GROUND_LEVELS, GROUND_SHARE = 8, 0.4  # so many values within so many levels of their median are a plain ground
TABLES = 16
FEW = 256
MOST_KEY_BITS = 24
PLAIN = 2.0  # a miniature whose values deviate less from their mean is no picture of anything: it is like every other
PAIRS_AT_ONCE = 1 << 13
ONES = np.array([byte.bit_count() for byte in range(256)], np.uint8)
LARGE_BUCKET = 512


def near_groups(miniatures: np.ndarray) -> list[list[int]]:
    """The groups of two and more near duplicates among uint8 [n, 16, 16, 3], each sorted: what chains of pairs connect."""
    group = np.arange(len(miniatures))  # of each picture, the first one of its group
    usable = np.flatnonzero(miniatures.reshape(len(miniatures), SIDE * SIDE * 3).std(1) >= PLAIN)
    if len(usable) < 2:
        return []
    codes = signs(miniatures[usable])
    hashed = len(usable) > FEW
    packed = np.packbits(codes, axis=1)
    bits = min(MOST_KEY_BITS, int(np.log2(len(usable)))) if hashed else 0
    draw = np.random.default_rng(0)
    for _ in range(TABLES if hashed else 1):
        keys = codes[:, draw.choice(64, bits, replace=False)] @ (1 << np.arange(bits))
        for first, second in _same(keys):
            close = ONES[packed[first] ^ packed[second]].sum(1) <= (BITS if hashed else 64)
            a, b = usable[first[close]], usable[second[close]]
            apart = group[a] != group[b]
            a, b = a[apart], b[apart]
            alike = _alike(miniatures[a], miniatures[b])
            _connect(group, a[alike], b[alike])
    return groups_of(group.tolist())


def signs(miniatures: np.ndarray) -> np.ndarray:
    """bool [n, 64]: the signs of the lowest DCT frequencies of the grey miniatures."""
    low = sorted(
        ((i, j) for i in range(SIDE) for j in range(SIDE) if i + j), key=lambda at: (at[0] ** 2 + at[1] ** 2, at)
    )
    rows, columns = np.array(low[:64]).T
    waves = np.cos(np.pi * np.arange(SIDE)[:, None] * (np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
    grey = miniatures.astype(np.float32).mean(3)
    positive: np.ndarray = (waves @ grey @ waves.T)[:, rows, columns] > 0
    return positive


def _alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each pair of miniatures uint8 [m, 16, 16, 3], whether they are near duplicates, by all but the hash: bool [m]."""
    a, b = (values.reshape(len(values), SIDE * SIDE * 3).astype(np.float32) for values in (first, second))
    drawn = (np.abs(a - np.median(a, axis=1, keepdims=True)) <= GROUND_LEVELS).mean(1) >= GROUND_SHARE
    for values in (a, b):
        values -= values.mean(1, keepdims=True)
        values /= values.std(1, keepdims=True)
    close: np.ndarray = (a * b).mean(1) >= ALIKE
    close &= ~drawn | (np.abs(a - b).max(1) <= STRICT)
    return close


def groups_of(keys: Sequence[object]) -> list[list[int]]:
    """The places of equal keys, where there are two or more, in order of their first places.

    >>> groups_of(["a", "b", "a", "c", "b", "a"])
    [[0, 2, 5], [1, 4]]
    """
    found: dict[object, list[int]] = {}
    for place, key in enumerate(keys):
        found.setdefault(key, []).append(place)
    return [places for places in found.values() if len(places) > 1]


def _same(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of places with equal keys, some thousands at a time; in a large bucket each is paired with its next ones only."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    places = np.arange(len(keys))
    for step in range(1, LARGE_BUCKET):
        places = places[: np.searchsorted(places, len(keys) - step)]
        places = places[ordered[places] == ordered[places + step]]
        if len(places) == 0:
            return
        for start in range(0, len(places), PAIRS_AT_ONCE):
            part = places[start : start + PAIRS_AT_ONCE]
            yield order[part], order[part + step]


def _connect(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Join the groups of each pair, in place; every member keeps pointing at the first one of its group."""
    while True:
        a, b = group[first], group[second]
        apart = a != b
        if not apart.any():
            return
        np.minimum.at(group, np.maximum(a, b)[apart], np.minimum(a, b)[apart])
        while (group[group] != group).any():
            group[:] = group[group]
