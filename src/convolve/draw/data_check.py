"""What `convolve data check` found: as text, and as a page with thumbnails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convolve.draw import page

if TYPE_CHECKING:
    from convolve.data.check import Check
    from convolve.data.findings import Finding

Thumbnails = dict[str, bytes]  # JPEG files by the name of the picture

BAR = 30  # characters of the largest class
NAMED = 3  # groups that the text names
MARKS = {"stop": "x", "harm": "!", "note": "-"}
SHOWN_CLASSES = 30
SHOWN_GROUPS = 200  # of one finding, on the page


def text(found: Check) -> str:
    """The whole check as plain lines: counts first, then the findings, the worst first."""
    lines = [summary(found)]
    parts = " / ".join(f"{count:,} {part}" for part, count in found.parts.items())
    lines += [f"  parts     {parts}"] if len(found.parts) > 1 else []
    lines += [f"  {label:<9} {words}" for label, words in facts(found)]
    lines += ["", *_class_lines(found), ""]
    if not found.findings:
        lines.append("nothing to say against it")
    for finding in found.findings:
        lines.append(f"{MARKS[finding.severity]} {finding.what}")
        lines += [f"    {finding.why}"] if finding.why else []
        lines += [f"    {named}" for named in _examples(finding)]
        lines.append(f"    fix: {finding.remedy}")
    return "\n".join(lines)


def summary(found: Check) -> str:
    """One line: what it is, how many pictures and classes."""
    unreadable = f", {len(found.unreadable):,} unreadable" if found.unreadable else ""
    worse = len(found.worse)
    verdict = (
        "nothing that harms training"
        if worse == 0
        else f"{worse} finding{' that harms' if worse == 1 else 's that harm'} training"
    )
    return f"{found.data}: {found.images:,} pictures{unreadable}, {len(found.classes):,} classes; {verdict}"


def facts(found: Check) -> list[tuple[str, str]]:
    """(label, words) of sizes, colours and formats."""
    rows = []
    if found.heights is not None and found.widths is not None:
        h, w = found.heights, found.widths
        same = h.smallest == h.largest and w.smallest == w.largest
        spread = f"heights {h.smallest} to {h.largest} (median {h.middle:g}), widths {w.smallest} to {w.largest} (median {w.middle:g})"
        rows.append(("sizes", f"all {h.smallest}x{w.smallest}" if same else spread))
    rows += [
        (label, ", ".join(f"{count:,} {name}" for name, count in counts.items()))
        for label, counts in (("colours", found.modes), ("formats", found.formats))
        if counts
    ]
    if not found.compared:
        rows.append(("", "duplicates were not looked for: the pictures stayed in their files"))
    return rows


def page_of(found: Check, thumbnails: Mapping[str, bytes]) -> str:
    """The check as one page."""
    largest = max((sum(row.images.values()) for row in found.classes), default=1) or 1
    classes = [
        {
            "name": row.name,
            "images": dict(row.images),
            "total": sum(row.images.values()),
            "share": 100 * sum(row.images.values()) / largest,
        }
        for row in found.classes
    ]
    return page.render(
        "data_check.html",
        title=f"{found.data}: what is in it, and what is wrong",
        data=found.to_json() | {"findings": [_for_page(finding) for finding in found.findings]},
        summary=summary(found),
        facts=facts(found),
        parts=list(found.parts),
        classes=classes,
        findings=[_shown(finding, thumbnails) for finding in found.findings],
    )


def _for_page(finding: Finding) -> dict[str, Any]:
    return {"kind": finding.kind, "severity": finding.severity, "count": finding.count, "groups": len(finding.groups)}


def _shown(finding: Finding, thumbnails: Mapping[str, bytes]) -> dict[str, Any]:
    groups = [
        [(name, page.data_uri(thumbnails[name], "image/jpeg") if name in thumbnails else None) for name in group[:12]]
        for group in finding.groups[:SHOWN_GROUPS]
    ]
    # Groups with pictures first: the page has room for some only.
    groups.sort(key=lambda group: all(uri is None for _, uri in group))
    return {
        "kind": finding.kind,
        "severity": finding.severity,
        "what": finding.what,
        "why": finding.why,
        "remedy": finding.remedy,
        "groups": groups,
        "more": max(0, len(finding.groups) - SHOWN_GROUPS),
    }


def _class_lines(found: Check) -> list[str]:
    totals = [(row.name, sum(row.images.values())) for row in found.classes]
    width = max((len(name) for name, _ in totals), default=0)
    largest = max((count for _, count in totals), default=0) or 1
    lines = [
        f"  {name:<{width}} {count:>8,} {'#' * max(1, round(BAR * count / largest)) if count else ''}".rstrip()
        for name, count in totals[:SHOWN_CLASSES]
    ]
    return lines + ([f"  … and {len(totals) - SHOWN_CLASSES:,} more classes"] if len(totals) > SHOWN_CLASSES else [])


def _examples(finding: Finding) -> list[str]:
    shown = [" = ".join(group[:4]) + (" = …" if len(group) > 4 else "") for group in finding.groups[:NAMED]]
    rest = len(finding.groups) - len(shown)
    return [*shown, *([f"… and {rest:,} more"] if rest else [])]
