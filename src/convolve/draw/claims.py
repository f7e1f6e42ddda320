"""Claims that were recomputed, as lines for a terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convolve.jobs.claims import Checked
    from convolve.jobs.claims.record import Fact

LONGEST = 96  # characters of one value


def as_text(row: Checked) -> str:
    """The claim, its verdict, and one line per fact."""
    claim = row.claim
    lines = [f"{claim.id:<8} {row.verdict}", f"  says     {claim.statement}"]
    if claim.correct:
        lines.append(f"  correct  {claim.correct}")
    if row.skipped:
        lines.append(f"  -        {row.skipped}")
    lines += [f"  {'✓' if fact.agrees else '✗'}        {_fact(fact)}" for fact in row.facts]
    return "\n".join(lines) + "\n"


def as_markdown(rows: Sequence[Checked]) -> str:
    """The page docs/claims.md."""
    head = [
        "# What introductions say about convolution, recomputed",
        "",
        "Written by `convolve claims --slow --markdown docs/claims.md` (`make docs`); do not edit. Each claim of five introductory",
        "texts, what is true, and the numbers that our operators give. `convolve claims S000-3` recomputes one; in Python,",
        "`convolve.check_claims`.",
        "",
        "| id | the texts say | verdict |",
        "|---|---|---|",
        *(f"| [{row.claim.id}](#{row.claim.id.lower()}) | {row.claim.statement} | {row.verdict} |" for row in rows),
    ]
    parts = ["\n".join(head)]
    for row in rows:
        lines = [f"## {row.claim.id}", f"{row.claim.statement} **{row.verdict.capitalize()}.**"]
        lines[1] += f" {row.claim.correct}" if row.claim.correct else ""
        if row.skipped:
            lines.append(f"\n{row.skipped.capitalize()}.")
        if row.facts:
            lines.append("")
        lines += [f"- {_fact(fact)}" for fact in row.facts]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _fact(fact: Fact) -> str:
    if fact.got is True and fact.agrees:
        return fact.what
    value = f"{fact.what}: {_value(fact.got)}"
    return value if fact.agrees else f"{value} (expected {_value(fact.want)})"


def _value(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
