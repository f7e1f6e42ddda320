"""Which algorithm computes a problem.

`auto` compares what was measured on this machine, else estimates; a name is obeyed, or refused with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from convolve.errors import DeclinedError, UnknownNameError
from convolve.ops import costs, wisdom
from convolve.ops.algorithm import Algorithm
from convolve.ops.algorithms import ALGORITHMS
from convolve.problem import ConvProblem

LEAD = 1.05
"""How many times faster than the library's row another must have been measured before `auto` leaves it."""
DOOR = 5e-6
"""Seconds by which the way to any other row is longer in a forward call (benchmarks/overhead.py); rows are timed behind it."""

WHERE_IT_CAN = "?"
"""After a name: the row serves if it can, else `auto` chooses. So a row named for a forward pass is used for its gradients."""

LIBRARY = "torch"
"""The row that is left only for a lead."""

Choices = dict[str, list[str]]
"""By the problem, how it was asked for and the precision: the names of the rows, the choice first."""

KEPT: list[Choices] = []
"""What `convolve.ops.kept.kept_choices` keeps, the innermost last."""

_TABLE = {row.name: row for row in ALGORITHMS}
_OWN: dict[str, Algorithm] = {}


def algorithm_name(algorithm: str | Algorithm) -> str:
    """The name by which the window string refers to a row; a user's own Algorithm gets a name on first use."""
    if isinstance(algorithm, str):
        if algorithm != "auto" and algorithm not in _TABLE and algorithm not in _OWN:
            raise UnknownNameError.of("algorithm", algorithm, ["auto", *_TABLE])
        return algorithm
    if _TABLE.get(algorithm.name) is algorithm:
        return algorithm.name
    for name, known in _OWN.items():
        if known is algorithm:
            return name
    name = f"{algorithm.name.replace(' ', '_')}#{len(_OWN)}"
    _OWN[name] = algorithm
    return name


def find(name: str) -> Algorithm:
    return _TABLE[name] if name in _TABLE else _OWN[name]


def served(row: Algorithm, problem: ConvProblem) -> ConvProblem:
    """The problem as the row sees it: in its role, or as a plain convolution."""
    return problem if problem.role in row.roles else problem.as_convolution()


def why_not(row: Algorithm, problem: ConvProblem) -> str | None:
    return row.why_not(served(row, problem))


def permitted(row: Algorithm, precision: str) -> str | None:
    """Why `precision` keeps `auto` from this row, or None."""
    if precision == "reproducible" and not row.reproducible:
        return 'not reproducible: its bits may depend on batch and threads (convolve.precision("reproducible"))'
    if precision == "exact" and not row.exact:
        return 'its products are not plain products (convolve.precision("exact"))'
    return None


def choose(problem: ConvProblem, name: str, precision: str) -> Algorithm:
    """The row that computes `problem`. Raises DeclinedError where a row asked for by name cannot."""
    return ranked(problem, name, precision)[0]


def ranked(problem: ConvProblem, name: str, precision: str, frozen: bool = False) -> tuple[Algorithm, ...]:
    """The rows that may compute `problem`, the choice first; more than one where the values may yet decide.

    `frozen`: what can be done in advance for the weight has been done, and costs nothing.
    """
    if KEPT and (name == "auto" or name.endswith(WHERE_IT_CAN)):
        return _as_kept(KEPT[-1], problem, name, precision, frozen)
    return ranked_now(problem, name, precision, frozen)


def _as_kept(kept: Choices, problem: ConvProblem, name: str, precision: str, frozen: bool) -> tuple[Algorithm, ...]:
    """The rows as they were chosen before; chosen now, and kept, where they were not."""
    key = f"{name} {precision} {wisdom.key(problem, frozen)}"
    named = [_TABLE[row] for row in kept.get(key, ()) if row in _TABLE and why_not(_TABLE[row], problem) is None]
    if not named or named[-1].not_these is not None:  # new, or what would serve any values is gone
        named += [row for row in ranked_now(problem, name, precision, frozen) if row not in named]
        sure = next((place for place, row in enumerate(named) if row.not_these is None), len(named))
        named = named[: sure + 1]
        if all(row.name in _TABLE for row in named):
            kept[key] = [row.name for row in named]
    return tuple(named)


def ranked_now(problem: ConvProblem, name: str, precision: str, frozen: bool) -> tuple[Algorithm, ...]:
    """`ranked`, whatever was chosen before."""
    preferred: tuple[Algorithm, ...] = ()
    if name != "auto":
        row = find(name.removesuffix(WHERE_IT_CAN))
        reason = why_not(row, problem)
        if not name.endswith(WHERE_IT_CAN):
            if reason is not None:
                raise declined(row, problem, reason)
            return (row,)
        preferred = (row,) if reason is None else ()
    rows = [row for row in ALGORITHMS if why_not_automatic(row, problem, precision) is None]
    return (*preferred, *_by_time(rows, problem, precision, frozen))


def _by_time(rows: list[Algorithm], problem: ConvProblem, precision: str, frozen: bool) -> list[Algorithm]:
    """The rows, fastest first: those that were measured, by that; the others behind them, by their estimates."""
    if precision == "reproducible":
        # The same row for any batch, and whatever was measured.
        problem = replace(problem, batch=min(1, problem.batch))
        measured: Mapping[str, float] = {}
    else:
        measured = wisdom.lookup(problem, frozen)
    library = _TABLE[LIBRARY]
    library_spread = costs.spread(library, served(library, problem))

    def margin(row: Algorithm) -> float:
        """The library's row is left only for a gain that can be trusted."""
        if row.name == LIBRARY:
            return 1.0
        return costs.margin(library_spread, costs.spread(row, served(row, problem), frozen))

    def place(row: Algorithm) -> tuple[bool, float]:
        door = DOOR if row.name != LIBRARY and problem.role == "output" else 0.0
        if row.name in measured:
            return False, measured[row.name] * (1.0 if row.name == LIBRARY else LEAD) + door
        seconds = costs.estimate(row, served(row, problem), frozen).seconds * margin(row) + door
        # What depends on values could not be measured: its turn comes by its estimate, and it may then decline.
        return bool(measured) and row.not_these is None, seconds

    return sorted(rows, key=place)


def why_not_automatic(row: Algorithm, problem: ConvProblem, precision: str) -> str | None:
    """Why `auto` cannot take this row for this problem under this precision, or None."""
    reason = why_not(row, problem) or permitted(row, precision)
    return reason or row.not_automatic(served(row, problem))


def declined(row: Algorithm, problem: ConvProblem, reason: str) -> DeclinedError:
    return DeclinedError(
        f"algorithm {row.name!r} cannot compute this convolution", f"got {problem}: {reason}", "use algorithm='auto'"
    )
