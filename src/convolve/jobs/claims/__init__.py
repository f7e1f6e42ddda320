"""Every claim of five introductory texts on convolution that can be decided, recomputed: a table with one row per id.

The rows stand in s000.py to s004.py, one file per text; each names what the text says, what is true, and the function that
recomputes its numbers with our operators. docs/claims.md is written from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convolve.data.load import load
from convolve.errors import UnknownNameError
from convolve.jobs.claims import s000, s001, s002, s003, s004
from convolve.jobs.claims.record import Claim, Fact

CLAIMS: tuple[Claim, ...] = (*s000.CLAIMS, *s001.CLAIMS, *s002.CLAIMS, *s003.CLAIMS, *s004.CLAIMS)


@dataclass(frozen=True)
class Checked:
    """A claim with its facts as recomputed now; `skipped` says why there are none."""

    claim: Claim
    facts: tuple[Fact, ...]
    skipped: str = ""

    @property
    def agrees(self) -> bool:
        """Whether every fact came out as the table says; true of a skipped claim, of which nothing is known."""
        return all(fact.agrees for fact in self.facts)

    @property
    def verdict(self) -> str:
        """holds, holds as corrected or false; "mismatch" where a fact disagrees; "not recomputed" where it was skipped."""
        if self.skipped:
            return "not recomputed"
        return self.claim.verdict if self.agrees else "mismatch"

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        claim = self.claim
        return {
            "id": claim.id,
            "statement": claim.statement,
            "verdict": self.verdict,
            "correct": claim.correct,
            "skipped": self.skipped,
            "facts": [asdict(fact) for fact in self.facts],
        }


def check_claims(
    ids: Sequence[str] = (), *, slow: bool = False, data: Sequence[str | Path] = ("digits",)
) -> list[Checked]:
    """Recompute the claims of these ids, or of texts such as "S003"; of all of them without any.

    A measurement that takes seconds, or minutes of training, runs where its id is named, or with `slow`. `data`: what networks are
    trained on, each as `convolve.train` takes it. Raises UnknownNameError for an id that no row has.

    >>> import convolve
    >>> [row.verdict for row in convolve.check_claims(["S000-3"])]
    ['holds']
    """
    known = [claim.id for claim in CLAIMS]
    texts = {claim_id.partition("-")[0] for claim_id in known}
    wanted = [name.upper() for name in ids]
    for name in wanted:
        if name not in known and name not in texts:
            raise UnknownNameError.of("claim", name, [*known, *texts])
    rows = [claim for claim in CLAIMS if not wanted or claim.id in wanted or claim.id.partition("-")[0] in wanted]
    return [_check(claim, slow or claim.id in wanted, data) for claim in rows]


def _check(claim: Claim, slow: bool, data: Sequence[str | Path]) -> Checked:
    if (claim.slow or claim.trained) and not slow:
        kind = "decided by training" if claim.trained else "a measurement"
        return Checked(claim, (), f"{kind}: name its id, or use --slow")
    if claim.trained is not None:
        return Checked(claim, tuple(fact for source in data for fact in claim.trained(load(source))))
    assert claim.facts is not None
    return Checked(claim, tuple(claim.facts()))
