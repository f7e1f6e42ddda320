"""`convolve.why`: every algorithm's answer to a problem, and which one `auto` takes."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import Any

from convolve.errors import UnknownNameError
from convolve.ops import costs, wisdom
from convolve.ops.algorithms import ALGORITHMS
from convolve.ops.choose import choose, served, why_not, why_not_automatic
from convolve.ops.precision import PRECISIONS, current_precision
from convolve.problem import ConvProblem


@dataclass(frozen=True)
class Answer:
    """One algorithm's answer. Estimates and bound are None where it declines."""

    algorithm: str
    summary: str
    reason: str
    """Why it is chosen, why `auto` passes it by, or why it cannot serve."""
    serves: bool
    chosen: bool
    seconds: float | None
    """Measured here (convolve.measure), else estimated."""
    workspace_bytes: int | None
    bound: float | None
    measured: bool = False


@dataclass(frozen=True)
class Why:
    """The answers to one problem, in the order of the table. `str` prints them."""

    problem: ConvProblem
    precision: str
    answers: tuple[Answer, ...]

    @property
    def chosen(self) -> str:
        return next(answer.algorithm for answer in self.answers if answer.chosen)

    def to_json(self) -> dict[str, Any]:
        problem = self.problem
        return {
            "problem": str(problem),
            "result": list(problem.result_shape),
            "macs": problem.macs,
            "macs_valid": problem.macs_valid,
            "precision": self.precision,
            "chosen": self.chosen,
            "answers": [asdict(answer) for answer in self.answers],
        }

    def __str__(self) -> str:
        head = f"{self.problem} -> {'x'.join(map(str, self.problem.result_shape))}, {self.problem.macs:,} macs"
        lines = [f"{'':2}{'algorithm':<21}{'estimate':>10}{'workspace':>12}{'bound':>10}  why"]
        for answer in self.answers:
            numbers = f"{'-':>10}{'-':>12}{'-':>10}"
            if answer.seconds is not None and answer.workspace_bytes is not None and answer.bound is not None:
                time = _time(answer.seconds) + "*" * answer.measured
                numbers = f"{time:>10}{_size(answer.workspace_bytes):>12}{answer.bound:>10.1e}"
            lines.append(f"{'>' if answer.chosen else ' ':2}{answer.algorithm:<21}{numbers}  {answer.reason}")
        lines += ["* measured on this machine"] * any(answer.measured for answer in self.answers)
        return "\n".join((head, *lines))

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def why(problem: str | ConvProblem, precision: str | None = None) -> Why:
    """Every algorithm's answer to a problem: its reason, estimated seconds, bytes of workspace and error bound.

    `problem` is a ConvProblem or its text; `precision` that of the current `convolve.precision` block unless given. Nothing
    is run for the estimates. Raises UsageError for a text that cannot be read, ShapeError for sizes that do not fit.

    >>> import convolve
    >>> answers = convolve.why("1x8x9x9 k8 3x3 s1 p2 d2 cuda")
    >>> answers.chosen, [a.reason for a in answers.answers if a.algorithm == "winograd"]
    ('torch', ['it needs dilation 1'])
    """
    record = ConvProblem.parse(problem) if isinstance(problem, str) else problem.validate()
    name = current_precision() if precision is None else precision
    if name not in PRECISIONS:
        raise UnknownNameError.of("precision", name, PRECISIONS)
    chosen = choose(record, "auto", name).name
    measured = wisdom.lookup(record) if name != "reproducible" else {}
    answers = []
    for row in ALGORITHMS:
        as_served = served(row, record)
        declines = why_not(row, record)
        passed = "measured slower" if row.name in measured else "not estimated to pay"
        reason = why_not_automatic(row, record, name) or ("chosen" if row.name == chosen else passed)
        if row.name != chosen and declines is None and row.not_these is not None and reason == "not estimated to pay":
            reason += "; its values are checked when it runs"
        if declines is not None:
            answers.append(Answer(row.name, row.summary, reason, False, False, None, None, None))
        else:
            cost = costs.estimate(row, as_served)
            numbers = measured.get(row.name, cost.seconds), cost.workspace_bytes, row.bound(as_served)
            known = row.name in measured
            answers.append(Answer(row.name, row.summary, reason, True, row.name == chosen, *numbers, known))
    return Why(record, name, tuple(answers))


def _time(seconds: float) -> str:
    scale, unit = (1e6, "us") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1, "s")
    return f"{seconds * scale:.3g} {unit}"


def _size(count: float) -> str:
    unit = "B"
    for unit in ("B", "KiB", "MiB", "GiB"):  # noqa: B007 - used behind the loop
        if count < 1024:
            break
        count /= 1024
    return f"{count:.4g} {unit}"
