"""Pictures that are nearly the same: copies that were scaled, packed anew, brightened or cut by a hair.

A picture is compared by its 16x16 RGB miniature. Two are near duplicates when both hold:
  * the correlation of their miniatures (over all 768 values, so brightness and contrast do not matter, but colour does)
    is at least ALIKE;
  * of the 64 signs of their lowest DCT frequencies (grey, without the mean) at most BITS differ: a perceptual hash in the
    manner of pHash, by which pairs are found.

Drawings on a plain ground (digits, signs) resemble each other by their ground; for them every value must agree too, to within
STRICT standard deviations.

What they find in real pictures and digits is held by tests/data/test_check.py. Up to FEW pictures are compared all with all, without
the hash. More are sorted by their hash, in ORDERS random orders of its bits (those that divide the set well come early), and each is
compared with its next NEIGHBOURS in every order: near duplicates, which differ in few bits, stand beside each other in one of them.
The work grows as n log n, whatever the pictures are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

SIDE = 16
ALIKE, GREY_ALIKE, DRAWN_ALIKE = 0.95, 0.9, 0.97
BITS = 12
STRICT = 0.5
GROUND_LEVELS, GROUND_SHARE = 8, 0.4  # so many values within so many levels of their median are a plain ground
FEW = 256
ORDERS, NEIGHBOURS = 24, 16
PLAIN = 2.0  # a miniature whose values deviate less from their mean is no picture of anything: it is like every other
PAIRS_AT_ONCE = 1 << 12


def near_groups(miniatures: np.ndarray) -> list[list[int]]:
    """The groups of two and more near duplicates among uint8 [n, 16, 16, 3], each sorted: what chains of pairs connect."""
    group = np.arange(len(miniatures))  # of each picture, the first one of its group
    usable = np.flatnonzero(miniatures.reshape(len(miniatures), SIDE * SIDE * 3).std(1) >= PLAIN)
    if len(usable) < 2:
        return []
    small = miniatures[usable]
    grey = small.mean(3, dtype=np.float32).reshape(len(small), SIDE * SIDE)
    drawn = (np.abs(grey - np.median(grey, axis=1, keepdims=True)) <= GROUND_LEVELS).mean(1) >= GROUND_SHARE
    codes = signs(grey)
    grey -= grey.mean(1, keepdims=True)
    grey /= np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-6)
    for first, second in _candidates(codes):
        close = group[usable[first]] != group[usable[second]]
        first, second = first[close], second[close]
        # A quick look at the grey miniatures: most pairs need no other.
        close = np.einsum("ij,ij->i", grey[first], grey[second]) >= np.where(drawn[first], DRAWN_ALIKE, GREY_ALIKE)
        first, second = first[close], second[close]
        close = _alike(small[first], small[second], drawn[first])
        _connect(group, usable[first[close]], usable[second[close]])
    return groups_of(group.tolist())


def signs(grey: np.ndarray) -> np.ndarray:
    """bool [n, 64]: the signs of the lowest DCT frequencies of grey miniatures, float32 [n, 256]."""
    low = sorted(
        ((i, j) for i in range(SIDE) for j in range(SIDE) if i + j), key=lambda at: (at[0] ** 2 + at[1] ** 2, at)
    )
    rows, columns = np.array(low[:64]).T
    waves = np.cos(np.pi * np.arange(SIDE)[:, None] * (np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
    positive: np.ndarray = (waves @ grey.reshape(-1, SIDE, SIDE) @ waves.T)[:, rows, columns] > 0
    return positive


def _alike(first: np.ndarray, second: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Of each pair of miniatures uint8 [m, 16, 16, 3], whether they are near duplicates, by all but the hash: bool [m]. `drawn`
    are those on a plain ground."""
    a, b = (values.reshape(len(values), SIDE * SIDE * 3).astype(np.float32) for values in (first, second))
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


def _candidates(codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places that may be alike, some thousands at a time: all pairs of FEW, of more those whose hashes nearly agree."""
    n = len(codes)
    hashed = n > FEW
    draw = np.random.default_rng(0)
    share = codes.mean(0)
    for _ in range(ORDERS if hashed else 1):
        early = np.argsort(draw.exponential(size=64) / (share * (1 - share) + 1e-3))
        keys = np.ascontiguousarray(np.packbits(codes[:, early], axis=1)).view(">u8")[:, 0].astype(np.uint64)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for step in range(1, NEIGHBOURS + 1 if hashed else n):
            near = np.flatnonzero(_ones(keys[:-step] ^ keys[step:]) <= (BITS if hashed else 64))
            for start in range(0, len(near), PAIRS_AT_ONCE):
                part = near[start : start + PAIRS_AT_ONCE]
                yield order[part], order[part + step]


def _ones(values: np.ndarray) -> np.ndarray:
    """How many bits of each uint64 are set, by adding them up in parallel (H. S. Warren, "Hacker's Delight", 5-1)."""
    values = values - ((values >> 1) & 0x5555555555555555)
    values = (values & 0x3333333333333333) + ((values >> 2) & 0x3333333333333333)
    values = (values + (values >> 4)) & 0x0F0F0F0F0F0F0F0F
    counts: np.ndarray = (values * np.uint64(0x0101010101010101)) >> 56
    return counts


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
