"""Which images become validation: decided by each image's content, not by its name or its place in a list.

A number in 0..1 is made of sha256(seed, content); an image whose number is below `fraction` is validation. Adding,
removing or renaming files therefore leaves the others on their side, and identical files always share a side.

Chance alone would give a small class too few or too many. So a class whose validation share is more than a quarter (and
more than one image) away from `fraction` is brought back to that border by moving the contents nearest to the threshold.
Contents that occur in several classes are never moved. A class of one content stays in training.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence


def content_digest(data: bytes | memoryview) -> bytes:
    """The 32 bytes that stand for an image's content."""
    return hashlib.sha256(data).digest()


def choose_validation(labels: Sequence[int], digests: Sequence[bytes], fraction: float, seed: int) -> list[bool]:
    """For every image, whether it is validation. `digests` are those of `content_digest`.

    >>> digests = [content_digest(bytes([i])) for i in range(100)]
    >>> chosen = choose_validation([i % 2 for i in range(100)], digests, 0.2, seed=0)
    >>> 15 <= sum(chosen) <= 25, chosen[:50] == choose_validation([i % 2 for i in range(50)], digests[:50], 0.2, seed=0)
    (True, True)
    """
    key = f"convolve split {seed}\n".encode()
    number = {d: int.from_bytes(hashlib.sha256(key + d).digest()[:8], "big") / 2**64 for d in set(digests)}
    validation = {d for d in number if number[d] < fraction}

    members: dict[int, Counter[bytes]] = defaultdict(Counter)
    for label, d in zip(labels, digests, strict=True):
        members[label][d] += 1
    classes_of = Counter(d for counts in members.values() for d in counts)

    for label in sorted(members):
        counts = members[label]
        total = counts.total()
        low = max(1, math.floor(0.75 * fraction * total)) if len(counts) > 1 else 0
        high = max(low, math.ceil(1.25 * fraction * total))
        if len(counts) == 1:
            validation -= counts.keys() if classes_of[next(iter(counts))] == 1 else set()
            continue
        high = min(high, total - 1)
        chosen = sum(count for d, count in counts.items() if d in validation)
        movable = sorted((d for d in counts if classes_of[d] == 1), key=number.__getitem__)
        for d in movable:
            if chosen < low and d not in validation and chosen + counts[d] <= high:
                validation.add(d)
                chosen += counts[d]
        for d in reversed(movable):
            if chosen > high and d in validation and chosen - counts[d] >= low:
                validation.remove(d)
                chosen -= counts[d]
    return [d in validation for d in digests]
