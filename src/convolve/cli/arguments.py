"""Argument types that several verbs share, with their help texts: one place for each."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

Json = Annotated[bool, Parameter("--json", negative=(), help="Print exactly one JSON document on stdout.")]
Quiet = Annotated[bool, Parameter(("--quiet", "-q"), negative=(), help="Print no progress.")]
Workers = Annotated[
    int | None,
    Parameter(
        ("--workers", "-j"), help="Threads that decode images; results do not depend on it. [default: all cores]"
    ),
]
Network = Annotated[
    str | None,
    Parameter("--network", help="FILE.py:NAME, for a model that was trained with --model FILE.py:NAME; its code runs."),
]
Device = Annotated[str, Parameter("--device", help="cpu, cuda, mps, …, or auto.")]
