"""Progress on stderr: a live bar on a terminal, one plain line per epoch anywhere else. The words are the same."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from convolve.training.records import Epoch

LONG_EPOCH = 30.0  # seconds; within longer ones a plain log gets a line this often


class Lines:
    """One plain line per epoch and per choice; for logs, pipes and dumb terminals."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._last = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        self._stream.flush()
        self._last = time.monotonic()

    def reading(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last > LONG_EPOCH:
            self.say(f"reading   {done:,} of {total:,} {what}")

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        if time.monotonic() - self._last > LONG_EPOCH:
            self.say(f"epoch {epoch}  step {step}/{steps}  loss {loss:.3f}")

    def epoch(self, record: Epoch, epochs: int, eta: float) -> None:
        self.say(record.line(epochs, eta))


class Bar(Lines):
    """The same lines, and below them a bar of the epoch that is running."""

    def __enter__(self) -> Bar:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self._progress: Progress = Progress(*columns, console=Console(file=self._stream), transient=True)
        self._task: TaskID | None = None
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def reading(self, what: str, done: int, total: int) -> None:
        self._show(f"reading {what}", done, total, f"{done:,}/{total:,}")

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self._show(f"epoch {epoch}", step, steps, f"{step}/{steps}  loss {loss:.3f}")

    def epoch(self, record: Epoch, epochs: int, eta: float) -> None:
        self._clear()
        self.say(record.line(epochs, eta))

    def _show(self, description: str, done: int, total: int, note: str) -> None:
        if self._task is None:
            self._task = self._progress.add_task(description, total=total, note=note)
        self._progress.update(self._task, description=description, completed=done, total=total, note=note)
        if done >= total:
            self._clear()

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def progress(quiet: bool) -> Lines:
    """What fits stderr: nothing, a bar, or plain lines."""
    import os

    if quiet:
        return Quiet()
    return Bar() if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Lines()


class Quiet(Lines):
    """Says nothing."""

    def say(self, text: str) -> None:
        pass
