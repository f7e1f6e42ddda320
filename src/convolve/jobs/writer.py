"""What a run writes on its way, into its folder: all of its processes call this, and the first one writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from convolve.data.records import Split
from convolve.data.statistics import measure as measure_statistics
from convolve.jobs.folder import RunFolder
from convolve.jobs.results import Run
from convolve.jobs.resuming import surroundings
from convolve.jobs.setup import Setup
from convolve.jobs.snapshots import picture_run, snapshot_steps
from convolve.jobs.versions import processor, versions
from convolve.models.file import write as write_file
from convolve.ops.choose import Choices
from convolve.ops.precision import current_precision
from convolve.training.fit import steps_per_epoch
from convolve.training.measure import Measured
from convolve.training.processes import Processes
from convolve.training.records import Epoch, State


def card_of(setup: Setup) -> dict[str, Any]:
    """What a model file says of its network, but for the scores."""
    return {
        "architecture": setup.architecture,
        "classes": list(setup.data.classes),
        "preprocessing": setup.preprocessing.to_dict(),
        "statistics": measure_statistics(setup.data.train).to_dict(),
        "data": setup.data.name,
        "options": setup.options.to_dict(),
        "versions": versions(),
    }


@dataclass(frozen=True, eq=False)
class Writer:
    """Writes one run, in the order of its methods."""

    place: RunFolder
    setup: Setup
    card: Mapping[str, Any]
    processes: Processes
    algorithms: Choices  # that were chosen so far

    def begin(self) -> None:
        """config.yaml and split.csv: from now on the run can be resumed."""
        if not self.processes.first:
            return
        setup, data = self.setup, self.setup.data
        config = {
            "request": asdict(setup.request),
            "options": setup.options.to_dict(),
            "architecture": setup.architecture,
            "data": {
                "origin": data.origin,
                "classes": list(data.classes),
                "said": list(data.said),
                "fingerprint": setup.fingerprint,
            },
            "preprocessing": setup.preprocessing.to_dict(),
            "versions": versions(),
            "machine": {
                "processor": processor(),
                "threads": torch.get_num_threads(),
                "processes": self.processes.size,
            },
        }
        self.place.write_config(config)
        self.place.write_split(data)

    def after_step(self) -> Callable[[int], None] | None:
        """What writes the snapshots, told how many steps are done; None where none were asked for."""
        steps = steps_per_epoch(len(self.setup.data.train), self.setup.options.batch_size)
        last = self.setup.options.epochs * steps
        wanted = snapshot_steps(self.setup.request.snapshots, last)

        def write(done: int) -> None:
            if self.processes.first and done in wanted:
                path = self.place.snapshot(done)
                path.parent.mkdir(exist_ok=True)
                taken = {"step": done, "of": last, "epoch": done / steps}
                write_file(path, self.setup.net.state_dict(), {**self.card, "metrics": {}, "snapshot": taken})

        return write if wanted else None

    def save_best(self, record: Epoch) -> None:
        if not self.processes.first:
            return
        score = {"accuracy": record.val_acc, "loss": record.val_loss, "images": len(self.setup.data.validation)}
        if record.val_balanced is not None:
            score["balanced_accuracy"] = record.val_balanced
        self._write_model({"best_epoch": record.epoch, "validation": score})

    def save_state(self, state: State) -> None:
        """The state, with the algorithms that any of the processes chose."""
        for others in self.processes.gather(self.algorithms):
            self.algorithms.update({key: names for key, names in others.items() if key not in self.algorithms})
        if not self.processes.first:
            return
        setup = self.setup
        values = {
            "request": asdict(setup.request),
            "fingerprint": setup.fingerprint,
            "options": setup.options.to_dict(),
            "preprocessing": setup.preprocessing.to_dict(),
            "architecture": setup.architecture,
            "surroundings": surroundings(self.processes.size),
            "algorithms": self.algorithms,
            "precision": current_precision(),
            "training": dict(state.values),
        }
        self.place.write_state(state.tensors, values)
        self.place.write_metrics([Epoch(**row) for row in state.values["progress"]["history"]])

    def finish(self, run: Run, test: Split | None, outcomes: Sequence[tuple[Split, Measured]]) -> None:
        """What a finished run leaves behind besides its report; `net` holds the best weights."""
        if test is not None:
            self.place.write_split(self.setup.data, test)
        scores = {"validation": run.validation, "test": run.test}
        found = {name: asdict(score) for name, score in scores.items() if score is not None}
        self._write_model({"best_epoch": run.best_epoch, **found})
        self.place.write_metrics(run.history)  # again: a crash may have come between the last state and its row
        self.place.write_predictions(outcomes, run.classes)
        picture_run(self.setup, run.history, *outcomes[-1], self.place.path / "plots")

    def _write_model(self, metrics: Mapping[str, Any]) -> None:
        write_file(self.place.model, self.setup.net.state_dict(), {**self.card, "metrics": metrics})
