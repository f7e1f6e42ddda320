"""training/processes.py: several processes do what one does, up to rounding; a process that is gone is noticed by the others."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import processes_support
from convolve.errors import UsageError
from convolve.training.processes import ALONE, Processes, launched, why_alone
from nursery import Nursery, free_port


def _all(nursery: Nursery, size: int, call: str, folder: Path, *words: str) -> None:
    if size == 1:
        children = [nursery.start(str(folder), *words, cwd=folder, call=f"processes_support:{call}")]
    else:
        children = nursery.launch(size, str(folder), *words, cwd=folder, call=f"processes_support:{call}")
    for child in children:
        assert child.wait() == 0, child.err


@pytest.fixture(scope="module")
def trained(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The results of a training with sgd, by (number of processes, rank); each is run once."""
    folder = tmp_path_factory.mktemp("trained")

    @functools.cache
    def run(size: int, rank: int) -> dict[str, Any]:
        if not (folder / f"{size}-0.pt").exists():
            _all(nursery, size, "train", folder)
        content: dict[str, Any] = torch.load(folder / f"{size}-{rank}.pt")
        return content

    return run


def _error(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    return float((a - b).norm() / a.norm().clamp_min(1e-12))


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_end_with_the_weights_and_history_of_one(trained: Any, size: int) -> None:
    one, first = trained(1, 0), trained(size, 0)
    for name, tensor in one["net"].items():
        if name != "body.0.bias":  # batch normalisation takes it away: its gradient is nothing but rounding
            assert _error(tensor, first["net"][name]) < 1e-5, name
    for ours, theirs in zip(one["history"], first["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
        assert (ours[2], ours[4]) == (theirs[2], theirs[4])  # accuracies are counts
    assert _error(one["few"], first["few"]) < 1e-5


@pytest.mark.parametrize("size", [2, 3])
def test_every_process_holds_the_same_bits(trained: Any, size: int) -> None:
    first = trained(size, 0)
    for rank in range(1, size):
        other = trained(size, rank)
        for kind in ("net", "optimizer"):
            assert all(torch.equal(tensor, other[kind][name]) for name, tensor in first[kind].items())
        assert other["history"] == first["history"]
        assert torch.equal(other["few"], first["few"])


def test_gradients_of_a_divided_batch_are_those_of_the_whole_in_float64(nursery: Nursery, tmp_path: Path) -> None:
    _all(nursery, 3, "gradients", tmp_path)
    found = [torch.load(tmp_path / f"gradients-3-{rank}.pt") for rank in range(3)]
    processes_support.gradients(str(tmp_path))  # here: dropout by image, torch's own batch normalisation
    whole = torch.load(tmp_path / "gradients-1-0.pt")
    for name, expected in whole.items():
        for content in found:
            if expected is None:
                assert content[name] is None, name
            else:
                torch.testing.assert_close(content[name], expected, rtol=1e-10, atol=1e-14, msg=name)
    assert whole["unused.weight"] is None


def test_a_process_that_is_gone_is_noticed_at_once(nursery: Nursery, tmp_path: Path) -> None:
    started = time.monotonic()
    children = nursery.launch(3, str(tmp_path), cwd=tmp_path, call="processes_support:lose")
    assert [child.wait() for child in children] == [0, 0, 3]
    assert time.monotonic() - started < 60
    for rank in range(2):
        said = (tmp_path / f"lost-{rank}").read_text(encoding="utf-8")
        assert said.startswith("another process of this run has ended or does not answer; ")


DIFFER = (
    "every process needs the same data; those of processes 1 of 2 differ from the first one's; "
    "copy the same files to each machine"
)


def test_errors_are_raised_in_every_process_and_said_by_the_first(nursery: Nursery, tmp_path: Path) -> None:
    _all(nursery, 2, "disagree", tmp_path)
    first, second = (torch.load(tmp_path / f"said-{rank}.pt") for rank in range(2))
    assert first == [
        ("a rule; received (said by process 1 of 2); a remedy", False),
        ("cannot; why; fix", False),
        (DIFFER, False),
        ("10", False),
        ("[1, 0]", False),
    ]
    assert [told for _, told in second] == [True, True, True, False, False]
    assert second[3:] == first[3:]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 15])
def test_parts_make_up_the_batch_and_weigh_what_they_have(size: int, count: int) -> None:
    batch = torch.arange(100, 100 + count)
    parts = [Processes(rank, size).share(batch) for rank in range(size)]
    assert torch.equal(torch.cat([part.indices for part in parts if part.counts]), batch)
    assert sum(part.fraction for part in parts) == pytest.approx(1)
    assert all(len(part.indices) >= 1 for part in parts)
    for part in parts:
        assert part.fraction == (len(part.indices) / count if part.counts else 0)


# What `accelerate launch` 1.15 puts into the environment of every process, read off with --multi_gpu, which leaves the ranks to
# torch.distributed.run, and with --cpu --mpirun_hostfile, which leaves them to mpirun.
ACCELERATE = {
    "ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False", "ACCELERATE_DYNAMO_USE_DYNAMIC": "False",
    "MASTER_ADDR": "127.0.0.1",
}  # fmt: skip
BY_MPI = {"ACCELERATE_USE_CPU": "True", "KMP_AFFINITY": "granularity=fine,compact,1,0", "KMP_BLOCKTIME": "1"}
OPEN_MPI = "OMPI_COMM_WORLD_{}", "OMPI_COMM_WORLD_LOCAL_{}"


def _placed(launcher: str, rank: int) -> dict[str, str]:
    place = {"RANK": str(rank), "SIZE": "2"}
    if launcher == "torch.distributed.run":
        elastic = {"GROUP_RANK": "0", "ROLE_RANK": str(rank), "TORCHELASTIC_RUN_ID": "none"}
        local = {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        return {**ACCELERATE, **elastic, **local, "RANK": str(rank), "WORLD_SIZE": "2"}
    ranks = {form.format(name): value for form in OPEN_MPI for name, value in place.items()}
    return {**ACCELERATE, **BY_MPI, **ranks}


@pytest.mark.parametrize("launcher", ["torch.distributed.run", "mpirun"])
def test_processes_that_accelerate_launches_end_with_the_weights_of_one(
    launcher: str, trained: Any, nursery: Nursery, tmp_path: Path
) -> None:
    port = free_port()
    children = [
        nursery.start(
            str(tmp_path),
            cwd=tmp_path,
            call="processes_support:train",
            environment={**_placed(launcher, rank), "MASTER_PORT": port},
        )
        for rank in range(2)
    ]
    for child in children:
        assert child.wait() == 0, child.err
    ours = torch.load(tmp_path / "2-0.pt")
    for name, tensor in trained(2, 0)["net"].items():
        assert torch.equal(tensor, ours["net"][name]), name
    assert (tmp_path / "2-1.pt").exists()


def test_what_accelerate_does_not_start_is_missed() -> None:
    alone = {**ACCELERATE, **BY_MPI, "MASTER_PORT": "29500"}  # accelerate launch --cpu --num_processes 2
    assert launched(alone) == ALONE
    assert "started one process only" in str(why_alone(alone))
    assert why_alone({}) is None
    assert why_alone({**_placed("mpirun", 1), "MASTER_PORT": "1"}) is None
    assert why_alone({**alone, "RANK": "0", "WORLD_SIZE": "1"}) is None
    assert launched({**_placed("mpirun", 1), "MASTER_PORT": "1"}) == Processes(1, 2, 1, 2)


PLACE = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


def test_the_launchers_words_are_understood_and_nonsense_is_refused() -> None:
    assert launched({}) == ALONE
    assert launched({**PLACE, "WORLD_SIZE": "1", "RANK": "0"}) == ALONE
    assert launched({**PLACE, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}) == Processes(1, 4, 1, 2)
    assert launched(PLACE) == Processes(1, 4, 1, 4)
    with pytest.raises(UsageError, match="RANK=4, WORLD_SIZE=4"):
        launched({**PLACE, "RANK": "4"})
    with pytest.raises(UsageError, match="are numbers"):
        launched({**PLACE, "RANK": "one"})


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    here = Processes(rank=5, size=8, local_rank=1, local_size=4)
    assert (here.device("auto"), here.device("cuda"), here.device("cpu"), here.device("cuda:0")) == (
        "cuda:1",
        "cuda:1",
        "cpu",
        "cuda:0",
    )
    assert ALONE.device("auto") == "auto"
    with pytest.raises(UsageError, match="each process needs a GPU of its own; 4 processes on a machine with 2"):
        Processes(rank=6, size=8, local_rank=2, local_size=4).device("auto")
