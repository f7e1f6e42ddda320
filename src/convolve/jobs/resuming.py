"""A run that goes on: what was saved of it, what it must have in common with that, and what is said where it may differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import torch

from convolve.data.preprocess import Preprocessing
from convolve.data.records import Dataset
from convolve.errors import InputError
from convolve.jobs.folder import RunFolder
from convolve.jobs.versions import processor, versions
from convolve.training.records import State


@dataclass(frozen=True, eq=False)
class Saved:
    """What is known of a run that goes on; without a state it begins again in its folder."""

    folder: RunFolder
    state: State | None
    values: Mapping[str, Any]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The state's weights, by the network's names."""
        tensors = {} if self.state is None else self.state.tensors
        return {name.removeprefix("net."): tensor for name, tensor in tensors.items() if name.startswith("net.")}

    @property
    def preprocessing(self) -> Preprocessing | None:
        """None where an older version saved it, which measured it again."""
        stored = self.values.get("preprocessing")
        return None if stored is None else Preprocessing.from_dict(stored)

    def check(self, fingerprint: Mapping[str, str], architecture: Mapping[str, Any]) -> None:
        """Raise InputError when the data or the network are others than the run began with."""
        same_data(self.values["fingerprint"], fingerprint)
        same_network(self.values.get("architecture", architecture), architecture)


def fingerprint(data: Dataset) -> dict[str, str]:
    """Of training and validation: their names and labels, and their pictures; of the test images, which are not read yet, the number."""
    found = {"test": f"{data.test_count} images"}
    for split in (data.train, data.validation):
        names = "\n".join((*data.classes, *split.ids, *map(str, split.labels.tolist())))
        found[split.name] = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        found[f"{split.name} pictures"] = split.images.content()
    return found


def same_data(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise InputError, naming the parts, when the data are not those that the run began with."""
    other = [name for name in before if before[name] != now.get(name)]
    names = [name for name in other if not name.endswith(" pictures")]
    contents = [name.removesuffix(" pictures") for name in other if name.endswith(" pictures")]
    if names:
        received = f"the {' and '.join(names)} images or classes are not those that the run began with"
    elif contents:
        received = (
            f"{' and '.join(contents)} images have the same names, but not the same pictures as when the run began"
        )
    else:
        return
    raise InputError("a run can only be resumed on the same data", received, "put the data back, or train anew")


def same_network(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError, naming what differs, when another version would build another network than the run's."""
    now = json.loads(json.dumps(now))
    other = [f"{name} is {now.get(name)}, was {value}" for name, value in before.items() if now.get(name) != value]
    if other:
        remedy = "resume with the version that began it (config.yaml names it), or train anew"
        raise InputError("a resumed run keeps its network", "; ".join(other), remedy)


def surroundings(processes: int) -> dict[str, str]:
    """What may change the last bits of a result: versions, processor, threads and processes."""
    machine = {"processor": processor(), "threads": str(torch.get_num_threads()), "processes": str(processes)}
    compiler = {"llvmlite": metadata.version("llvmlite") if find_spec("llvmlite") else "absent"}
    return {**versions(), **compiler, **machine}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What is different from when the run was saved, in words; empty where nothing is."""
    return ", ".join(
        f"{name} {now.get(name)} instead of {value}" for name, value in before.items() if now.get(name) != value
    )
