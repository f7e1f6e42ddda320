"""Real processes that start in a moment: a helper imports the package once, and forks whenever a test asks for one.

helper.start("train", "digits", …) -> Child: the command line in a process of its own, which may be killed
helper.together(3, "module:function", …) -> the results of three processes that a launcher would have started so
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 250.0
"""After which a test gives up."""


@dataclass
class Child:
    """A process of the helper's; its words are in files beside `folder`."""

    helper: Nursery
    number: int
    words: Path

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.number, number)

    def wait(self) -> int:
        """The exit code, or minus the signal."""
        return int(self.helper.ask({"wait": self.number})["code"])

    @property
    def out(self) -> str:
        return self.words.with_suffix(".out").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self.words.with_suffix(".err").read_text(encoding="utf-8")


class Nursery:
    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        path = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(self, *words: str, cwd: Path, environment: dict[str, str] | None = None, call: str = "") -> Child:
        self._count += 1
        place = self._folder / f"child-{self._count}"
        question = {
            "words": words,
            "call": call,
            "cwd": str(cwd),
            "environment": environment or {},
            "place": str(place),
        }
        return Child(self, int(self.ask(question)["pid"]), place)

    def launch(self, size: int, *words: str, cwd: Path, call: str = "", shift: int = 0) -> list[Child]:
        """`size` processes with what torchrun and `accelerate launch` put into the environment."""
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(size)}
        common |= {"LOCAL_WORLD_SIZE": str(size)}
        return [
            self.start(*words, cwd=cwd, call=call, environment={**common, "RANK": str(r), "LOCAL_RANK": str(r)})
            for r in range(size)
        ]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def wait_for(what: Any, seconds: float = SECONDS) -> None:
    """Until `what()` is true."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.005)


def _main() -> None:
    for module in ("convolve.cli.train", "convolve.draw.progress", "convolve.jobs.train", "sklearn.datasets"):
        importlib.import_module(module)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            sys.stdout.flush()
            answer = {"pid": os.fork()}
            if not answer["pid"]:
                os._exit(_child(question))
        print(json.dumps(answer), flush=True)


def _child(question: dict[str, Any]) -> int:
    from convolve.cli import main

    os.chdir(question["cwd"])
    os.environ.update(question["environment"])
    sys.stdin.close()
    for name, number in (("out", 1), ("err", 2)):
        file = os.open(f"{question['place']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    if question["call"]:
        module, _, function = question["call"].partition(":")
        getattr(importlib.import_module(module), function)(*question["words"])
        code = 0
    else:
        code = main(question["words"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    _main()
