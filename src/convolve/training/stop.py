"""Stopping politely: the first Ctrl-C or SIGTERM finishes the step and saves; the second Ctrl-C stops at once.

One of several processes is `patient`: a launcher and the terminal may both pass one Ctrl-C on, and the save must not be cut short.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While open, `requested` holds the first stop signal that came in, or None. The old handlers return at the end."""

    def __init__(self, patient: bool = False) -> None:
        self._patient = patient
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # Python delivers signals there only
            self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is not None and number == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt
        self.requested = self.requested or signal.Signals(number)
