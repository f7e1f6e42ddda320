"""Findings with reasons, each a pure function of the report. LINTS is the table; a new finding is a function and a row."""

from __future__ import annotations

from convolve.analysis.report import Lint, Report


def lints(report: Report) -> tuple[Lint, ...]:
    """Every finding, in the order of the table."""
    return ()
