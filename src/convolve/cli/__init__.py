"""The command line: parse, run one job, draw its result. `main` is the entry point; verbs.py lists the verbs."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convolve import __version__
from convolve.cli import output
from convolve.cli.verbs import EXAMPLES, GROUPS, VERBS
from convolve.errors import ConvolveError, UsageError

if TYPE_CHECKING:
    from cyclopts import App


NO_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "out of memory")
"""What torch's errors say where memory is short, on a CPU and on devices; their types are not always MemoryError."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 ok, 1 failed, 2 usage, 3 input, 4 check, 130 or 143 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, words = "--debug" in words, [word for word in words if word != "--debug"]
    try:
        if not words:
            output.result(EXAMPLES.rstrip())
        else:
            _run(words)
        sys.stdout.flush()
    except ConvolveError as error:
        return _fail(error, "--json" in words, debug)
    except KeyboardInterrupt:
        output.message("interrupted")
        return 130
    except (
        BrokenPipeError
    ):  # the reader of stdout went away (`| head`): not our error, and nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        return _fail(_too_large(error), "--json" in words, debug)
    except OSError as error:  # the system refused something that no job expected
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        problem = ConvolveError(
            "the system refused", f"{where}{error.strerror or error}", "check rights and free space"
        )
        return _fail(problem, "--json" in words, debug)
    except Exception as error:
        if any(mark in str(error) for mark in NO_MEMORY):
            return _fail(_too_large(error), "--json" in words, debug)
        # a bug of ours, said plainly
        received = f"{type(error).__name__}: {error}"
        problem = ConvolveError(
            "convolve itself failed", received, "run again with --debug for the traceback, and report it"
        )
        return _fail(problem, "--json" in words, debug)
    return 0


def _too_large(error: Exception) -> ConvolveError:
    said = (str(error).splitlines() or [""])[0]
    return ConvolveError("not enough memory", said, "use a smaller --batch-size or --img-size, or another --device")


def _fail(problem: ConvolveError, as_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    if not problem.told:
        output.error(problem, as_json)
    return problem.exit_code


def _run(words: list[str]) -> None:
    from cyclopts import CycloptsError

    from convolve.jobs.memory import tune_memory

    tune_memory()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with a picture is said with its name
            application()(words, exit_on_error=False, print_error=False)
    except CycloptsError as problem:
        raise UsageError(*_in_our_words(problem, words)) from None


def _in_our_words(problem: Exception, words: list[str]) -> tuple[str, str, str]:
    text = " ".join(str(problem).split())
    verb = words[0] if words[0] in {verb.name.split()[0] for verb in VERBS} else ""
    return "the command is not understood", text, f"convolve {verb + ' ' if verb else ''}--help lists what it takes"


def application() -> App:
    """The cyclopts application of all VERBS; nothing behind a verb is imported yet."""
    from cyclopts import App

    options = {"help_format": "plaintext", "result_action": "return_value", "suppress_keyboard_interrupt": False}
    app = App(
        name="convolve",
        help="Convolutional networks you can see through.",
        version=__version__,
        version_flags=["--version", "-V"],
        **options,  # type: ignore[arg-type]
    )
    groups = {}
    for name, summary in GROUPS.items():
        if any(verb.name.startswith(name + " ") for verb in VERBS):
            groups[name] = App(name=name, help=summary, **options)  # type: ignore[arg-type]
            app.command(groups[name])
    for verb in VERBS:
        group, _, name = verb.name.rpartition(" ")
        (groups[group] if group else app).command(verb.target, name=name, help=verb.summary)
    return app
