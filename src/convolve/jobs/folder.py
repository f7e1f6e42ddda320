"""A run folder: its place, and each file in it. Everything that a run writes goes through here, and stays inside.

model.safetensors   the best weights, with everything needed to use them      split.csv        which image was in which part
last/               the state to resume from                                  metrics.csv      one row per epoch
config.yaml         every choice, given or made                               predictions.csv  one row per measured image
log.txt             what was said                                             plots/           curves, confusion matrix, filters,
snapshots/          with --snapshots: the weights on the way, model files                          the images as they were moved
report.html         the result and the images behind it, as one page

At any moment either state in last/ is whole, or there is none yet: the newer one moves aside before another is written. While a run
writes, its folder is locked.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from convolve.errors import ConvolveError, InputError, ModelFileError, UsageError
from convolve.files import atomic_write, is_leftover, new_folder
from convolve.models.file import read as read_file
from convolve.models.file import write as write_file
from convolve.training.records import Epoch

if TYPE_CHECKING:
    import torch

    from convolve.data.records import Dataset, Split
    from convolve.training.measure import Measured

STATE_FORMAT = "convolve.state/1"


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run's files."""

    path: Path

    @classmethod
    def create(cls, out: str | Path | None, name: str) -> RunFolder:
        """A new folder: `out`, which must not hold anything yet, or runs/`name`, runs/`name`-2, …"""
        if out is None:
            return cls(new_folder("runs", name))
        path = Path(out)
        if path.exists() and (not path.is_dir() or not all(map(is_leftover, path.iterdir()))):
            resumable = path.is_dir() and (path / "config.yaml").exists()
            remedy = "name another folder" + (f", or go on with: convolve train --resume {path}" if resumable else "")
            raise UsageError("a run needs a folder of its own", f"{path} exists already", remedy)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConvolveError(
                f"cannot create {path}", error.strerror or str(error), "name a place you may write to"
            ) from error
        return cls(path)

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def state(self) -> Path:
        return self.path / "last" / "state.safetensors"

    @property
    def previous_state(self) -> Path:
        """The state before the last one; a finished run has none."""
        return self.state.with_name("previous.safetensors")

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    def write_state(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        try:
            self.state.parent.mkdir(exist_ok=True)
            if self.state.exists():
                self.state.replace(self.previous_state)
        except OSError as error:
            raise ConvolveError(
                f"cannot write {self.state}", error.strerror or str(error), "choose another place"
            ) from error
        write_file(self.state, tensors, values, STATE_FORMAT)

    def forget_previous_state(self) -> None:
        self.previous_state.unlink(missing_ok=True)

    def read_state(self, warn: Callable[[str], None]) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The newest state that is whole; None where none was saved yet. `warn` is told of a damaged one that was passed by.

        Raises ModelFileError when there are states but none is whole, InputError when this is no run folder.
        """
        found = [path for path in (self.state, self.previous_state) if path.exists()]
        if not found and not self.config.exists():
            received = f"{self.path} holds no {self.state.relative_to(self.path)}"
            raise InputError(
                "only a run that saved a state can be resumed", received, "name a folder of convolve train"
            )
        for path in found:
            try:
                return read_file(path, STATE_FORMAT)
            except ModelFileError as error:
                if path == found[-1]:
                    raise
                warn(f"damaged   {error.rule} ({error.received}); going on from {found[-1]}, the one before")
        return None

    def read_request(self) -> dict[str, Any]:
        """What was asked for, of a run that saved no state yet."""
        try:
            request = yaml.safe_load(self.config.read_text(encoding="utf-8"))["request"]
            return dict(request)
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise InputError(f"cannot read {self.config}", str(error).split("\n")[0], "train anew") from error

    def snapshot(self, step: int) -> Path:
        """The weights after `step` steps: a model file like `model`; the names sort by time."""
        return self.path / "snapshots" / f"step-{step:07d}.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def files(self) -> dict[str, str]:
        """What a finished run holds, by the name under which JSON output lists it."""
        names = ("model.safetensors", "config.yaml", "split.csv", "metrics.csv", "predictions.csv", "log.txt")
        found = {Path(name).stem: str(self.path / name) for name in names}
        found |= {"report": str(self.report)} if self.report.exists() else {}
        return found | {path.stem: str(path) for path in sorted((self.path / "plots").glob("*.png"))}

    def write_config(self, config: Mapping[str, Any]) -> None:
        with atomic_write(self.config) as file:
            file.write("# Every choice of this run, given or made. To go on with it: convolve train --resume FOLDER\n")
            yaml.safe_dump(dict(config), file, sort_keys=False, allow_unicode=True)

    def write_split(self, data: Dataset, test: Split | None = None) -> None:
        """split.csv: path (or number), class and part of every image, and of those left out; of test images once they are read."""
        parts = (data.train, data.validation, *((test,) if test is not None else ()))
        rows = [
            (identifier, data.classes[label], split.name)
            for split in parts
            for identifier, label in zip(split.ids, split.labels.tolist(), strict=True)
        ]
        rows += [(bad.path, "", f"left out: {bad.reason}") for split in parts for bad in split.quarantined]
        self._write_csv("split.csv", ("image", "class", "part"), rows)

    def write_metrics(self, history: Sequence[Epoch]) -> None:
        """metrics.csv: one row per finished epoch."""
        columns = [field.name for field in fields(Epoch)]
        self._write_csv("metrics.csv", columns, [[getattr(record, name) for name in columns] for record in history])

    def write_predictions(self, measured: Iterable[tuple[Split, Measured]], classes: Sequence[str]) -> None:
        """predictions.csv: one row per image of every measured split."""
        rows = [
            (split.name, identifier, classes[label], classes[guess], f"{share:.4f}", int(label == guess))
            for split, outcome in measured
            for identifier, label, guess, share in zip(
                split.ids,
                outcome.labels.tolist(),
                outcome.predictions.tolist(),
                outcome.probabilities.amax(1).tolist(),
                strict=True,
            )
        ]
        self._write_csv("predictions.csv", ("part", "image", "class", "predicted", "probability", "correct"), rows)

    def _write_csv(self, name: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        with atomic_write(self.path / name) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head)
            writer.writerows(rows)
