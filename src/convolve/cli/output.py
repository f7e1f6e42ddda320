"""Where words go: results to stdout, everything else to stderr; with --json, exactly one document on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convolve.errors import ConvolveError

if TYPE_CHECKING:
    from rich.console import RenderableType


def result(renderable: RenderableType) -> None:
    """Write a result to stdout: text as it is (never re-wrapped when piped), or a rich table."""
    if isinstance(renderable, str):
        sys.stdout.write(renderable + "\n")
        return
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(renderable)


def message(text: str) -> None:
    """Write a line of progress or advice to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def document(schema: str, content: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout: `schema` names its shape (docs/json.md), `version` counts changes to it."""
    json.dump(
        {"schema": f"convolve.{schema}", "version": 1, **content},
        sys.stdout,
        indent=2,
        ensure_ascii=False,
        allow_nan=False,
    )
    sys.stdout.write("\n")


def error(problem: ConvolveError, as_json: bool) -> None:
    """Print an error: three lines on stderr, or as the one JSON document on stdout."""
    if as_json:
        parts = {"error": problem.rule, "why": problem.received, "fix": problem.remedy, "exit_code": problem.exit_code}
        document("error", parts)
        return
    red, plain = ("\033[31m", "\033[0m") if coloured(sys.stderr) else ("", "")
    message(f"{red}error:{plain} {problem.rule}")
    for label, part in (("why", problem.received), ("fix", problem.remedy)):
        if part:
            message(f"  {label}: {part}")


def coloured(stream: Any) -> bool:
    """Whether to colour: a terminal that is not dumb, unless NO_COLOR says no or FORCE_COLOR says yes."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
