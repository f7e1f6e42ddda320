"""What may happen to a run while it trains: it is killed, stopped, starved of disk, or its files and data are changed by others."""

from __future__ import annotations

import contextlib
import csv
import errno
import itertools
import os
import random
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import convolve
from convolve.errors import ConvolveError, InputError, InterruptedRunError, ModelFileError, UsageError
from convolve.files import only_writer
from convolve.jobs import folder as run_folder
from convolve.jobs import train as job
from convolve.jobs import writer
from convolve.jobs.folder import STATE_FORMAT
from convolve.jobs.resuming import same_network
from convolve.models.file import read, write
from convolve.ops import stages
from convolve.ops.precision import current_precision
from convolve.training.records import Silent
from jobs_support import MODEL, folder_of, train_words
from nursery import Child, Nursery, wait_for

CHOICES: dict[str, Any] = {"model": MODEL, "img_size": 8, "epochs": 2, "batch_size": 8}


class Words(Silent):
    """Hears what is said; may do something after so many steps."""

    def __init__(self, after: int = -1, act: Callable[[], None] = lambda: None) -> None:
        self.said: list[str] = []
        self._left, self._act = after, act

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("data") / "pictures", per_class=10)


@pytest.fixture
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are a second of matplotlib, after everything that is tested here."""
    _without_plots(monkeypatch)


def _without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "picture_run", lambda *_: None)
    monkeypatch.setattr(job, "seconds_per_epoch", lambda *_: 1.0)


def _ends(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that a finished run has learned."""
    model, _ = read(folder / "model.safetensors")
    state, _ = read(folder / "last/state.safetensors", STATE_FORMAT)
    return model | {f"state {name}": tensor for name, tensor in state.items()}


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ----------------------------------------------------------------------------------------------------------- every moment of every save

FILES = (
    "config.yaml",
    "split.csv",
    "model.safetensors",
    "last/previous.safetensors",
    "last/state.safetensors",
    "metrics.csv",
    "predictions.csv",
)
MOMENTS = ("before its content is flushed", "before it is renamed", "before the folder is flushed", "after")


class Camera:
    """Copies a run folder at each of MOMENTS of each file's saving, as `kill -9` would leave it there."""

    def __init__(self, run: Path, place: Path) -> None:
        self.run, self.place = run, place
        self.taken: dict[tuple[str, str], list[Path]] = defaultdict(list)

    def take(self, file: Path, moment: str) -> None:
        copy = self.place / str(sum(map(len, self.taken.values())))
        shutil.copytree(self.run, copy)
        self.taken[str(file.relative_to(self.run)), moment].append(copy)


@contextlib.contextmanager
def _watched(camera: Camera) -> Iterator[None]:
    real_fsync, real_replace = os.fsync, Path.replace
    last: list[Path] = []

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_dir():
            camera.take(last[-1], MOMENTS[2])
            real_fsync(handle)
            camera.take(last[-1], MOMENTS[3])
            return
        target = path.with_name(path.name.rsplit(".", 3)[0].removeprefix("."))
        camera.take(target, MOMENTS[0])
        real_fsync(handle)

    def replace(self: Path, target: Path) -> Path:
        camera.take(target, MOMENTS[1])
        last.append(target)
        result = real_replace(self, target)
        if not self.name.endswith(".partial"):  # a file that moves aside is flushed with the next one
            camera.take(target, MOMENTS[3])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(Path, "replace", replace)
        yield


@pytest.fixture(scope="module")
def camera(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Camera:
    """A whole run, photographed at every moment of every save."""
    place = tmp_path_factory.mktemp("moments")
    (place / "copies").mkdir()
    camera = Camera(place / "run", place / "copies")
    with pytest.MonkeyPatch.context() as patch, _watched(camera):
        _without_plots(patch)
        convolve.train(pictures, out=place / "run", **CHOICES)
    return camera


CRASHES = [
    pytest.param(
        file,
        moment,
        marks=pytest.mark.fault(f"kill -9 while {file} is saved, {moment}", outcome="resumes to the same bits"),
        id=f"{file}, {moment}",
    )
    for file, moment in itertools.product(FILES, MOMENTS)
    if not (file == "last/previous.safetensors" and moment in (MOMENTS[0], MOMENTS[2]))
]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to see which file is flushed")
@pytest.mark.usefixtures("_no_plots")
@pytest.mark.parametrize(("file", "moment"), CRASHES)
def test_a_run_killed_at_any_moment_of_a_save_goes_on_to_the_same_bits(
    file: str, moment: str, camera: Camera, pictures: Path
) -> None:
    expected = _ends(camera.run)
    copies = camera.taken[file, moment]
    assert copies, "the moment never came"
    for copy in copies:
        for path in copy.rglob("*.safetensors"):
            read(path, read_kind(path))  # whole, every digest right
        for path in copy.rglob(".*.partial"):  # a crash may also leave half of it
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if (copy / "config.yaml").exists():
            convolve.resume(copy)
        else:
            convolve.train(pictures, out=copy, **CHOICES)
        assert _same(_ends(copy), expected)
        assert (copy / "predictions.csv").read_bytes() == (camera.run / "predictions.csv").read_bytes()
        assert (copy / "split.csv").read_bytes() == (camera.run / "split.csv").read_bytes()
        with (copy / "metrics.csv").open(encoding="utf-8", newline="") as table:
            assert [row["epoch"] for row in csv.DictReader(table)] == ["1", "2"]


def read_kind(path: Path) -> str:
    return STATE_FORMAT if path.parent.name == "last" else "convolve.model/1"


# --------------------------------------------------------------------------------------------------------------------- real processes

WORDS = train_words(32, "--epochs", "16", "--opt", "sgd", "--quiet")


def _epochs(run: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return max(0, (run / "metrics.csv").read_text(encoding="utf-8").count("\n") - 1)
    return 0


@pytest.fixture(scope="module")
def whole(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    place = tmp_path_factory.mktemp("whole")
    child = nursery.start(*WORDS, "--out", "run", cwd=place)
    assert child.wait() == 0, child.err
    return place / "run"


def _begin(nursery: Nursery, place: Path, begun: bool) -> Child:
    return nursery.start(*(("train", "--resume", "run", "--quiet") if begun else (*WORDS, "--out", "run")), cwd=place)


@pytest.mark.fault("six kill -9 at random moments of one run", outcome="resumes to the same bits")
def test_six_kills_at_random_moments_change_nothing(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    chance, run = random.Random(7), tmp_path / "run"
    for kill in range(6):
        child = _begin(nursery, tmp_path, kill > 0)
        wait_for(lambda kill=kill: _epochs(run) > kill)  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.1))
        child.kill()
        assert child.wait() == -signal.SIGKILL
    last = _begin(nursery, tmp_path, True)
    assert last.wait() == 0, last.err
    assert _same(_ends(run), _ends(whole))
    assert (run / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()


@pytest.mark.fault("kill -9 before anything is saved", outcome="the run begins again in its folder")
def test_a_run_killed_before_its_first_state_begins_again(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = nursery.start(*WORDS, "--out", "run", cwd=tmp_path)
    wait_for((run / "split.csv").exists)
    child.kill()
    child.wait()
    shutil.rmtree(run / "last", ignore_errors=True)  # should it have come so far
    again = nursery.start("train", "--resume", "run", cwd=tmp_path)
    assert again.wait() == 0, again.err
    assert "from the beginning: nothing was saved yet" in again.err
    assert _same(_ends(run), _ends(whole))


@pytest.mark.fault("SIGTERM, three times in one run", outcome="exit 143 after saving; resumes to the same bits")
def test_sigterm_saves_and_exits_143(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for stop in range(3):
        before = _epochs(run)
        child = _begin(nursery, tmp_path, stop > 0)
        wait_for(lambda before=before: _epochs(run) > before)  # type: ignore[misc]
        child.kill(signal.SIGTERM)
        assert child.wait() == 143, child.err
        assert "go on with: convolve train --resume run" in child.err
        read(run / "last/state.safetensors", STATE_FORMAT)
    last = _begin(nursery, tmp_path, True)
    assert last.wait() == 0, last.err
    assert _same(_ends(run), _ends(whole))


@pytest.mark.fault("Ctrl-C twice, the second in the middle of a step", outcome="stops at once; the last state resumes")
@pytest.mark.usefixtures("_no_plots")
def test_a_second_ctrl_c_stops_at_once_and_the_last_state_resumes(
    camera: Camera, pictures: Path, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def twice() -> None:
        _stop()
        _stop()

    with pytest.raises(KeyboardInterrupt):
        convolve.train(pictures, out=tmp_path / "run", observer=Words(5, twice), **CHOICES)
    assert signal.getsignal(signal.SIGINT) is before
    convolve.resume(tmp_path / "run")
    assert _same(_ends(tmp_path / "run"), _ends(camera.run))


def _launch(nursery: Nursery, size: int, place: Path, *words: str) -> list[Child]:
    return nursery.launch(size, *words, cwd=place)


def _close(a: Path, b: Path) -> None:
    ours, theirs = _ends(a), _ends(b)
    for name, tensor in ours.items():
        # A bias before batch normalisation has no gradient but rounding.
        if not (name.endswith("0.bias") or name.startswith("state optimizer")):
            assert (tensor.double() - theirs[name].double()).norm() <= 1e-2 * theirs[name].double().norm(), name


@pytest.mark.fault("kill -9 of one of two processes", outcome="the other ends with a message; resumes with any number")
def test_a_dead_process_ends_the_job_and_it_resumes_with_another_number(
    nursery: Nursery, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first, second = _launch(nursery, 2, tmp_path, *WORDS, "--out", "run")
    wait_for(lambda: _epochs(run) > 1)
    second.kill()
    second.wait()
    killed = time.monotonic()
    assert first.wait() == 1
    assert time.monotonic() - killed < 30
    assert "error: another process of this run has ended or does not answer" in first.err
    assert "with any number of processes: convolve train --resume run" in first.err
    assert first.out == ""
    read(run / "last/state.safetensors", STATE_FORMAT)

    before = _epochs(run)
    alone = nursery.start("train", "--resume", "run", cwd=tmp_path)
    wait_for(lambda: _epochs(run) > before)
    alone.kill(signal.SIGTERM)
    assert alone.wait() == 143
    assert "processes 1 instead of 2" in alone.err

    three = _launch(nursery, 3, tmp_path, "train", "--resume", "run")
    assert [child.wait() for child in three] == [0, 0, 0], three[0].err
    assert [child.out.count("\n") for child in three] == [2, 0, 0]  # only the first one speaks
    assert [child.err for child in three[1:]] == ["", ""]
    _close(run, whole)


@pytest.mark.fault("SIGTERM to one of two processes", outcome="both stop at one step; saved once; exit 143")
def test_a_signal_to_one_process_stops_all_after_one_save(nursery: Nursery, tmp_path: Path) -> None:
    run = tmp_path / "run"
    children = _launch(nursery, 2, tmp_path, *WORDS, "--out", "run")
    wait_for(lambda: _epochs(run) > 0)
    children[1].kill(signal.SIGTERM)
    assert [child.wait() for child in children] == [143, 143]
    assert children[0].err.count("error: stopped after epoch") == 1
    assert children[1].err == ""
    assert (run / "log.txt").read_text(encoding="utf-8").count("stopped   resume with") == 1


@pytest.mark.fault("a wrong word, given to two processes", outcome="said once, by the first")
def test_a_mistake_is_said_once(nursery: Nursery, tmp_path: Path) -> None:
    children = _launch(nursery, 2, tmp_path, "train", "digits", "--model", "lenet_rleu")
    assert [child.wait() for child in children] == [2, 2]
    assert "use lenet_relu" in children[0].err
    assert children[1].err == ""
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------------- in one process


@pytest.fixture
def stopped(pictures: Path, tmp_path: Path, _no_plots: None) -> Path:
    """A run that was stopped in its second epoch: its last state and the one before are there."""
    with pytest.raises(InterruptedRunError):
        convolve.train(pictures, out=tmp_path / "run", observer=Words(5, _stop), **CHOICES)
    assert sorted(os.listdir(tmp_path / "run/last")) == ["previous.safetensors", "state.safetensors"]
    return tmp_path / "run"


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "one bit of the last state flipped": _flip,
    "the last state cut in half": _halve,
    "the last state emptied": lambda path: path.write_bytes(b""),
    "the last state a pickle": lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n"),
}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(act, id=name, marks=pytest.mark.fault(name, outcome="goes on from the state before, naming both"))
        for name, act in DAMAGES.items()
    ],
)
def test_a_damaged_state_is_named_and_the_one_before_goes_on(
    damage: Callable[[Path], Any], stopped: Path, camera: Camera
) -> None:
    damage(stopped / "last/state.safetensors")
    words = Words()
    convolve.resume(stopped, observer=words)
    (said,) = [text for text in words.said if text.startswith("damaged")]
    assert str(stopped / "last/state.safetensors") in said
    assert str(stopped / "last/previous.safetensors") in said
    assert _same(_ends(stopped), _ends(camera.run))


@pytest.mark.fault("the last state deleted", outcome="goes on from the state before")
def test_a_lost_state_leaves_the_one_before(stopped: Path, camera: Camera) -> None:
    (stopped / "last/state.safetensors").unlink()
    convolve.resume(stopped)
    assert _same(_ends(stopped), _ends(camera.run))


@pytest.mark.fault("both states damaged", outcome="refused by name")
def test_two_damaged_states_are_refused(stopped: Path) -> None:
    for name in ("state", "previous"):
        _flip(stopped / f"last/{name}.safetensors")
    with pytest.raises(ModelFileError, match=r"previous\.safetensors is damaged"):
        convolve.resume(stopped)


@pytest.mark.fault("a state of another network", outcome="refused with the differences")
def test_a_state_that_does_not_fit_the_network_is_refused_with_the_differences(stopped: Path) -> None:
    path = stopped / "last/state.safetensors"
    tensors, card = read(path, STATE_FORMAT)
    name = next(name for name in tensors if name.startswith("net.") and tensors[name].ndim == 4)
    tensors[name] = tensors[name][:3].contiguous()
    write(path, tensors, {key: value for key, value in card.items() if key != "format"}, STATE_FORMAT)
    with pytest.raises(ModelFileError, match=r"do not fit .*is \[3, 3, 3, 3\], expected \[4, 3, 3, 3\]"):
        convolve.resume(stopped)


@pytest.mark.fault("other pictures under the same names", outcome="refused, naming the part")
@pytest.mark.usefixtures("_no_plots")
@pytest.mark.parametrize("part", ["train", "validation"])
def test_changed_pictures_are_noticed_on_resume(part: str, pictures: Path, tmp_path: Path) -> None:
    # The data bring their own validation: then content does not decide the split.
    for name in ("train", "val"):
        shutil.copytree(pictures, tmp_path / "data" / name)
    with pytest.raises(InterruptedRunError):
        convolve.train(tmp_path / "data", out=tmp_path / "run", observer=Words(2, _stop), **CHOICES)
    folder = tmp_path / "data" / {"train": "train", "validation": "val"}[part]
    one, other = sorted(folder.rglob("0.png"))[:2]
    shutil.copy(one, other)
    received = f"{part} images have the same names, but not the same pictures"
    with pytest.raises(InputError, match=received):
        convolve.resume(tmp_path / "run")


@pytest.mark.fault("a class is added before a resume", outcome="refused, naming the parts")
@pytest.mark.usefixtures("_no_plots")
def test_a_class_that_was_added_is_noticed_on_resume(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    with pytest.raises(InterruptedRunError):
        convolve.train(tmp_path / "data", out=tmp_path / "run", observer=Words(2, _stop), **CHOICES)
    shutil.copytree(next((tmp_path / "data").iterdir()), tmp_path / "data" / "new")
    with pytest.raises(InputError, match="the train and validation images or classes are not those"):
        convolve.resume(tmp_path / "run")


@pytest.mark.fault(
    "another version would choose otherwise",
    outcome="options are kept; another network is refused, naming what differs",
)
def test_a_network_that_would_be_another_now_is_named() -> None:
    before = {"name": "lenet", "variant": "lenet", "img_size": [28, 28]}
    same_network(before, {**before, "img_size": (28, 28)})
    with pytest.raises(InputError, match=r"a resumed run keeps its network; variant is relu, was lenet"):
        same_network(before, {**before, "variant": "relu"})


@pytest.mark.fault("flags on a resume", outcome="refused, naming them")
def test_flags_on_a_resume_are_refused_by_name(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from convolve.cli import main

    assert main(["train", "--resume", str(stopped), "--lr", "0.1", "--batch-size", "4"]) == 2
    assert "got --batch-size, --lr too" in capsys.readouterr().err


@pytest.mark.fault("wisdom changes between stop and resume", outcome="the run keeps its algorithms")
def test_a_changed_wisdom_file_does_not_change_a_run(stopped: Path, camera: Camera) -> None:
    from convolve.ops import wisdom
    from convolve.ops.choose import ranked
    from convolve.problem import ConvProblem

    _, card = read(stopped / "last/state.safetensors", STATE_FORMAT)
    kept = card["algorithms"]
    assert kept, "the network has a convolution"
    changed = 0
    try:
        convolve.use_wisdom()
        for key, (first, *_) in kept.items():
            problem = ConvProblem.parse(key.removeprefix("auto default "))
            others = [
                row.name for row in ranked(problem, "auto", "default") if row.not_these is None and row.name != first
            ]
            wisdom.learn(problem, {others[0]: 1e-9})
            changed += ranked(problem, "auto", "default")[0].name != first
        assert changed >= 3  # the output and both gradients
        convolve.resume(stopped)
    finally:
        convolve.use_wisdom(enabled=False)
    assert _same(_ends(stopped), _ends(camera.run))
    _, card = read(stopped / "last/state.safetensors", STATE_FORMAT)
    assert {key: card["algorithms"][key] for key in kept} == kept


STAGES: dict[str, Any] = {"model": "conv 4 3 p1, relu, max 2, conv 5 3, relu, gap, fc classes", "img_size": 12}


@pytest.mark.fault("another version would compute the layers by other ways", outcome="the run keeps its ways")
@pytest.mark.usefixtures("_no_plots")
def test_a_resumed_run_computes_its_stages_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite", reason="the kernels are compiled by LLVM through llvmlite, which is not installed")
    choices = {**STAGES, "epochs": 2, "batch_size": 200}
    whole = convolve.train("digits", out=tmp_path / "whole", **choices).folder
    with pytest.raises(InterruptedRunError):
        convolve.train("digits", out=tmp_path / "run", observer=Words(9, _stop), **choices)  # of 7 steps an epoch
    kept = read(tmp_path / "run/last/state.safetensors", STATE_FORMAT)[1]["algorithms"]
    assert kept["stage 200x1x12x12 k4 3x3 p1,1,1,1"] == ["stage"]
    monkeypatch.setattr(stages, "MOST_FILTERS", 0)
    called = []
    real = stages.stage
    monkeypatch.setattr(stages, "stage", lambda *words: called.append(1) or real(*words))
    convolve.resume(tmp_path / "run")
    assert len(called) >= 6  # five steps and a validation
    assert _same(_ends(tmp_path / "run"), _ends(whole))


@pytest.mark.fault("another precision around the resume than around the run", outcome="the run keeps its own")
@pytest.mark.usefixtures("_no_plots")
def test_a_resumed_run_keeps_its_precision(pictures: Path, tmp_path: Path) -> None:
    with convolve.precision("reproducible"):
        whole = convolve.train(pictures, out=tmp_path / "whole", **CHOICES).folder
        with pytest.raises(InterruptedRunError):
            convolve.train(pictures, out=tmp_path / "run", observer=Words(3, _stop), **CHOICES)
    convolve.resume(tmp_path / "run")
    assert _same(_ends(tmp_path / "run"), _ends(whole))
    _, card = read(tmp_path / "run/last/state.safetensors", STATE_FORMAT)
    assert card["precision"] == "reproducible"
    assert {key.split()[1] for key in card["algorithms"]} == {"reproducible"}
    assert current_precision() == "default"


@pytest.mark.fault("two runs into one new folder", outcome="the second is refused")
def test_a_folder_that_another_process_writes_into_is_refused(nursery: Nursery, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with only_writer(tmp_path / "run"):
        child = nursery.start(*WORDS, "--out", "run", cwd=tmp_path)
        assert child.wait() == 2
    assert "one run at a time writes into a folder" in child.err
    assert os.listdir(tmp_path / "run") == []


@pytest.mark.fault("two resumes of one run", outcome="the second is refused, the first goes on")
def test_a_run_that_is_going_on_is_not_resumed_twice(stopped: Path, camera: Camera) -> None:
    refused = []

    def second() -> None:
        with pytest.raises(UsageError, match=r"another process is writing into .*run; wait for it, or name another"):
            convolve.resume(stopped)
        refused.append(True)

    convolve.resume(stopped, observer=Words(1, second))
    assert refused
    assert _same(_ends(stopped), _ends(camera.run))


@pytest.mark.fault("the clock goes backwards", outcome="nothing changes")
@pytest.mark.usefixtures("_no_plots")
def test_a_clock_that_goes_backwards_changes_nothing(
    pictures: Path, tmp_path: Path, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(2_000_000_000, -1000)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock) * 10**9)
    convolve.train(pictures, out=tmp_path / "run", **CHOICES)
    assert _same(_ends(tmp_path / "run"), _ends(camera.run))


def _full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.fault("disk full while the log is written", outcome="said once, training goes on")
@pytest.mark.usefixtures("_no_plots")
def test_a_full_disk_ends_the_log_and_not_the_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def limited(self: Path, mode: str = "r", *words: Any, **choices: Any) -> Any:
        return _full() if self.name == "log.txt" and "a" in mode else real(self, mode, *words, **choices)

    monkeypatch.setattr(Path, "open", limited)
    words = Words()
    run = convolve.train(pictures, out=tmp_path / "run", observer=words, **CHOICES)
    assert len(run.history) == 2
    assert sum("log.txt: No space left on device; training goes on" in text for text in words.said) == 1


@pytest.mark.fault("disk full while a state is saved", outcome="exit 1 with the path; the state before goes on")
@pytest.mark.usefixtures("_no_plots")
def test_a_full_disk_keeps_the_state_before(
    pictures: Path, tmp_path: Path, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves, real = itertools.count(1), run_folder.write_file

    def second_is_full(path: Any, *words: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if next(saves) == 2:
                patch.setattr(os, "fsync", _full)
            real(path, *words)

    monkeypatch.setattr(run_folder, "write_file", second_is_full)
    with pytest.raises(ConvolveError, match=r"cannot write .*state\.safetensors; No space left on device") as caught:
        convolve.train(pictures, out=tmp_path / "run", **CHOICES)
    assert caught.value.exit_code == 1
    assert os.listdir(tmp_path / "run/last") == ["previous.safetensors"]
    convolve.resume(tmp_path / "run")
    assert _same(_ends(tmp_path / "run"), _ends(camera.run))


@pytest.mark.fault("the run's folder is removed while it trains", outcome="an error that names the path")
@pytest.mark.usefixtures("_no_plots")
def test_a_folder_that_vanishes_is_an_error_that_names_it(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ConvolveError, match=r"cannot write .*run"):
        convolve.train(pictures, out=run, observer=Words(1, lambda: shutil.rmtree(run)), **CHOICES)


@pytest.mark.fault("config.yaml unreadable before the first state", outcome="refused by name")
def test_a_run_without_state_and_with_a_damaged_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_bytes(b"request: [\xff\n")
    with pytest.raises(InputError, match=r"cannot read .*config\.yaml"):
        convolve.resume(tmp_path / "run")
