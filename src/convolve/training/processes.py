"""Several processes that train one network: who we are, our part of a batch, and what is summed with the others.

torchrun, `accelerate launch` and most schedulers tell a process its place by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT,
mpirun by names of its own; without them it is alone, and everything here is a plain value. Every process holds the whole network and
computes its part of each batch; a part weighs as many images as it has. Sums come back with the same bits everywhere, so the copies
stay equal. A process that is gone is noticed by the next sum: at once where its connections break, after PATIENCE where it only hangs.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from convolve.errors import ConvolveError, InputError, UsageError

PATIENCE = timedelta(minutes=10)  # longer than whatever the first process does while the others wait
MASTER = ("MASTER_ADDR", "MASTER_PORT")
# What torchrun calls them, then Intel's MPI and MPICH, then Open MPI.
NUMBERS = (
    ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"),
    ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"),
    ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)

_T = TypeVar("_T")


class LostProcessError(ConvolveError):
    """Another process of the run has ended, or does not answer."""


@dataclass(frozen=True)
class Share:
    """One process's part of a batch: its images, and the fraction of the batch that they are.

    With more processes than images some have none: such a one computes the first image along, for a fraction of nothing, so
    that it meets the others in every sum.
    """

    indices: Tensor
    fraction: float

    @property
    def counts(self) -> bool:
        return self.fraction > 0


@dataclass(frozen=True)
class Processes:
    """`rank` of `size` processes, the `local_rank`-th of the `local_size` on this machine. Rank 0 writes and speaks."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, indices: Tensor) -> Share:
        """Our part of a batch: parts are consecutive, and their lengths differ by at most one.

        >>> [Processes(rank, 3).share(torch.arange(7)).indices.tolist() for rank in range(3)]
        [[0, 1, 2], [3, 4], [5, 6]]
        """
        if self.size == 1:
            return Share(indices, 1.0)
        part = torch.tensor_split(indices, self.size)[self.rank]
        return Share(part, len(part) / len(indices)) if len(part) else Share(indices[:1], 0.0)

    def sums(self, values: Iterable[float]) -> list[float]:
        """Each value summed over the processes, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(list(values), dtype=torch.float64)
        together(lambda: distributed.all_reduce(total))
        return total.tolist()

    def largest(self, *values: int) -> list[int]:
        """The largest of each value over the processes."""
        if self.size == 1:
            return list(values)
        most = torch.tensor(values, dtype=torch.int64)
        together(lambda: distributed.all_reduce(most, distributed.ReduceOp.MAX))
        return most.tolist()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every parameter the sum of its gradients; one that got none in any process keeps none."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for dtype in dict.fromkeys(parameter.dtype for parameter in trained):
            group = [parameter for parameter in trained if parameter.dtype == dtype]
            found = [float(parameter.grad is not None) for parameter in group]
            pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in group]
            flat = torch.cat([torch.tensor(found, dtype=dtype, device=pieces[0].device), *pieces])
            together(lambda flat=flat: distributed.all_reduce(flat))  # type: ignore[misc]
            anywhere, *summed = torch.split(flat, [len(group), *(len(piece) for piece in pieces)])
            for parameter, has, gradient in zip(group, anywhere.tolist(), summed, strict=True):
                if has:
                    gradient = gradient.view_as(parameter)
                    if parameter.grad is None:
                        parameter.grad = gradient
                    else:
                        parameter.grad.copy_(gradient)

    def gather_rows(self, rows: Tensor, first: int, total: int) -> Tensor:
        """The `total` rows of which we have those from `first` on, float; everything is exact, since the rest is zero."""
        if self.size == 1:
            return rows
        (width,) = self.largest(rows.shape[1] if rows.ndim == 2 else 0)
        whole = torch.zeros(total, width, dtype=rows.dtype)
        whole[first : first + len(rows)] = rows
        together(lambda: distributed.all_reduce(whole))
        return whole

    def spread(self, net: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            with torch.no_grad():
                for tensor in net.state_dict(keep_vars=True).values():
                    held = tensor.detach()
                    sent = held.contiguous()
                    together(lambda sent=sent: distributed.broadcast(sent, 0))  # type: ignore[misc]
                    if sent is not held:
                        held.copy_(sent)

    def gather(self, value: _T) -> list[_T]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        together(lambda: distributed.all_gather_object(found, value))
        return found

    def from_first(self, make: Callable[[], _T]) -> _T:
        """What `make` returns in the first process, the only one that calls it; an error of ours is raised in all."""
        if self.size == 1:
            return make()
        sent: list[Any] = [None]
        if self.first:
            try:
                sent = [make()]
            except ConvolveError as error:
                distributed.broadcast_object_list([error], 0)
                raise
        together(lambda: distributed.broadcast_object_list(sent, 0))
        if isinstance(sent[0], ConvolveError):
            raise _told(sent[0])
        return sent[0]  # type: ignore[no-any-return]

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """An error of ours in the block is raised in every process once all are through; the first process says it, once."""
        if self.size == 1:
            yield
            return
        failed: ConvolveError | None = None
        try:
            yield
        except ConvolveError as error:
            failed = error
        for rank, met in enumerate(self.gather(failed)):
            if met is None:
                continue
            if rank and self.first:
                received = f"{met.received} (said by process {rank} of {self.size})"
                raise type(met)(met.rule, received, met.remedy)
            raise failed if self.first and failed is not None else _told(met)

    def same(self, what: str, value: Mapping[str, Any]) -> None:
        """Raise InputError in every process if not all have the same value."""
        with self.all_or_none():
            others = self.gather(value)
            different = [rank for rank, other in enumerate(others) if other != others[0]]
            if different:
                received = (
                    f"those of processes {', '.join(map(str, different))} of {self.size} differ from the first one's"
                )
                raise InputError(
                    f"every process needs the same {what}", received, "copy the same files to each machine"
                )

    def device(self, name: str) -> str:
        """`name`, with a GPU of our own where "auto" or "cuda" leave it open."""
        if self.size == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        found = torch.cuda.device_count()
        if self.local_rank >= found:
            received = f"{self.local_size} processes on a machine with {found}"
            raise UsageError("each process needs a GPU of its own", received, "start fewer, or add --device cpu")
        return f"cuda:{self.local_rank}"


ALONE = Processes()


def launched(environment: Mapping[str, str] | None = None) -> Processes:
    """Where the launcher put this process; ALONE without one.

    >>> launched({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}).rank
    1
    """
    found = os.environ if environment is None else environment
    said = [next((found[name] for name in names if found.get(name)), None) for names in NUMBERS]
    if any(name not in found for name in MASTER) or said[0] is None or said[1] is None:
        return ALONE
    try:
        rank, size, local_rank, local_size = (int(word or said[i % 2] or 0) for i, word in enumerate(said))
    except ValueError as error:
        raise UsageError(
            "RANK, WORLD_SIZE and their local twins are numbers", str(error), "start with torchrun"
        ) from None
    if not 0 <= rank < size:
        received = f"got RANK={rank}, WORLD_SIZE={size}"
        raise UsageError("a rank is below the number of processes", received, "start with torchrun")
    return Processes(rank, size, local_rank, local_size) if size > 1 else ALONE


def why_alone(environment: Mapping[str, str] | None = None) -> str | None:
    """Why there is one process although a launcher was told of several, or None. (accelerate 1.15 starts several on a CPU by mpirun only,
    and says nothing.)"""
    found = os.environ if environment is None else environment
    told = "ACCELERATE_USE_CPU" in found and all(name in found for name in MASTER) and "WORLD_SIZE" not in found
    if not told or launched(found) != ALONE:
        return None
    return "accelerate launch started one process only; for several on CPUs see torchrun"


@contextmanager
def joined() -> Iterator[Processes]:
    """Within the block this process is one of its launcher's; its threads are then its part of the machine's cores.

    Unless OMP_NUM_THREADS says how many (torchrun sets it to 1 where nobody has).
    """
    here = launched()
    if here.size == 1:
        yield here
        return
    threads = torch.get_num_threads()
    _connect(here)
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // here.local_size))
    try:
        yield here
    finally:
        torch.set_num_threads(threads)


def _connect(here: Processes) -> None:
    """Meet the others, once in the life of a process."""
    if distributed.is_initialized():
        return
    cuda = torch.cuda.is_available() and here.local_rank < torch.cuda.device_count()
    if cuda:
        torch.cuda.set_device(here.local_rank)
    try:
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        distributed.init_process_group(backend, timeout=PATIENCE, rank=here.rank, world_size=here.size)
    except (RuntimeError, ValueError) as error:
        raise LostProcessError(
            "the processes of a run must reach each other",
            f"MASTER_ADDR={os.environ['MASTER_ADDR']}, MASTER_PORT={os.environ['MASTER_PORT']}: {_line(error)}",
            "see docs/training-on-many-machines.md",
        ) from error
    atexit.register(_part)


def _part() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def together(collective: Callable[[], Any]) -> None:
    """Run a collective operation. Raises LostProcessError when another process is gone; no other can follow then."""
    try:
        collective()
    except RuntimeError as error:
        atexit.unregister(_part)
        raise LostProcessError(
            "another process of this run has ended or does not answer", _line(error), "look at what it said"
        ) from error


def _told(error: ConvolveError) -> ConvolveError:
    error.told = True
    return error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
