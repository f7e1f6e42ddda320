"""The errors that convolve raises on purpose. Each says the rule, what was received, and the remedy.

    ConvolveError                  exit code 1: it failed while running
    ├── UsageError (ValueError)    2: the caller's arguments are wrong
    │   ├── UnknownNameError       2: a name that is not in a table; lists the nearest ones
    │   ├── ShapeError             2: sizes that do not fit together
    │   └── DeclinedError          2: the named algorithm cannot serve this problem; gives its reason
    ├── InputError                 3: the data, image or file cannot be used
    │   └── ModelFileError         3: the model file is corrupt, truncated or not ours
    ├── NotFiniteError             1: training met NaN or infinity, and stopped before the step
    ├── CheckFailedError           4: a check that the user asked for did not pass
    └── InterruptedRunError        130: stopped by the user after saving (143: by SIGTERM)

`str(error)` is one line, `rule; received; remedy`; the command line prints the three parts under each other.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConvolveError(Exception):
    """An error with three parts: the rule that was broken, what was received, and how to fix it."""

    exit_code = 1
    told = False  # whether another process of the same run says it

    def __init__(self, rule: str, received: str = "", remedy: str = "") -> None:
        super().__init__("; ".join(part for part in (rule, received, remedy) if part))
        self.rule, self.received, self.remedy = rule, received, remedy

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.rule, self.received, self.remedy)


class UsageError(ConvolveError, ValueError):
    """The arguments of a call or command are wrong."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that no table holds."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """The error for an unknown `name` of a `kind` ("model", "layer"), with the three nearest of the `known` names."""
        names = list(known)
        nearest = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4) or sorted(names)[:12]
        return cls(f"unknown {kind}", f"got {name!r}", f"use {_either(nearest)}" if nearest else "")


class ShapeError(UsageError):
    """Sizes that do not fit together."""


class DeclinedError(UsageError):
    """The algorithm that was asked for by name cannot serve this problem."""


class InputError(ConvolveError):
    """Data, an image or a file that cannot be used."""

    exit_code = 3


class ModelFileError(InputError):
    """A model file that is corrupt, truncated, or was not written by convolve."""


class CheckFailedError(ConvolveError):
    """A check that the user asked for did not pass."""

    exit_code = 4


class NotFiniteError(ConvolveError):
    """Training met a number that is not finite (or a loss beyond reason) and stopped before that step was applied."""


class InterruptedRunError(ConvolveError):
    """The user stopped the run; everything needed to resume was saved first."""

    exit_code = 130


def _either(names: list[str]) -> str:
    """'a', 'a or b', 'a, b or c'."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]
