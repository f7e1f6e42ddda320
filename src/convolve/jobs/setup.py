"""Everything that a run trains with, made from what its user asked for, or from what an earlier state says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from convolve.data.components import principal_axes
from convolve.data.preprocess import Preprocessing, normalise
from convolve.data.preprocess import measure as measure_preprocessing
from convolve.data.records import Dataset
from convolve.errors import UsageError
from convolve.jobs.augmentation import movement_of
from convolve.jobs.begin import Beginning, begin
from convolve.jobs.choices import (
    Request,
    architecture_of,
    data_of,
    device_of,
    model_of,
    options_of,
    row_of,
    short_name,
)
from convolve.jobs.recipe import decide_precision, is_timed, set_dropout
from convolve.jobs.resuming import Saved, fingerprint
from convolve.models import source
from convolve.models.file import load_weights
from convolve.training.augment_spec import with_pixels
from convolve.training.freeze import Frozen, freeze
from convolve.training.measure import metric_of
from convolve.training.options import Options
from convolve.training.processes import Processes
from convolve.training.records import Observer


@dataclass(frozen=True, eq=False)
class Setup:
    """What a run trains, and how; the same in every process. `net` holds the weights that it begins with, and then learns."""

    request: Request  # with what the weights of an earlier run bring along
    data: Dataset
    fingerprint: Mapping[str, str]
    model: str
    architecture: Mapping[str, Any]
    net: nn.Module
    preprocessing: Preprocessing
    options: Options
    # In words, or for them:
    start: str  # where the weights come from
    begun: Sequence[str]  # more of it
    why_moved: str
    frozen: Frozen | None
    precision: str

    @property
    def name(self) -> str:
        """What the network is called."""
        return short_name(self.model)

    @property
    def device(self) -> torch.device:
        return torch.device(self.options.device)

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        """The network's input, of uint8 [n, c, h, w]."""
        return normalise(batch, self.preprocessing)


def set_up(
    request: Request, saved: Saved | None, device: str, workers: int | None, observer: Observer, processes: Processes
) -> Setup:
    """All of it; an error of one process is raised in all, and so is a difference between their data."""
    anew = saved is None or saved.state is None
    beginning = None
    if request.weights is not None and anew:
        request, beginning = processes.from_first(partial(begin, request, observer.say))
    with processes.all_or_none():
        data = data_of(request, workers, observer.reading)
        setup = _chosen(request, data, beginning, saved, device_of(processes.device(device)))
    processes.same("data", setup.fingerprint)
    if anew and is_timed(request.amp, setup.options.device):
        decide = partial(decide_precision, setup.net, data.train, setup.prepare, setup.options)
        options, said = processes.from_first(decide)
        return replace(setup, options=replace(options, device=setup.options.device), precision=said)
    return setup


def _chosen(request: Request, data: Dataset, beginning: Beginning | None, saved: Saved | None, device: str) -> Setup:
    model = model_of(request, data.found)
    movement, why_moved = movement_of(request.augment, data)
    options = options_of(request, model, len(data.train), device, movement, metric_of(data.train.labels))
    if saved is not None and "options" in saved.values:  # a run keeps its choices, whatever is chosen today
        options = replace(Options.from_dict(saved.values["options"]), device=device)
    architecture = architecture_of(request, model, data)
    net = _built(architecture, model, data, request.seed)
    set_dropout(net, options.dropout)

    preprocessing = measure_preprocessing(data)
    start, begun = "from scratch" if request.weights is None else f"begun from {request.weights}", []
    found = fingerprint(data)
    if beginning is not None:
        start, preprocessing = beginning.start(net, data.classes), beginning.normalised(preprocessing)
        begun = beginning.lines(preprocessing)
    if saved is not None and saved.state is not None:
        saved.check(found, architecture)
        load_weights(net, saved.weights, saved.folder.state)
        preprocessing = saved.preprocessing or preprocessing

    frozen = freeze(net, options.freeze) if options.freeze else None
    net = net.to(options.device)
    if not options.movement.std:  # a resumed run keeps what it measured
        axes = principal_axes(data.train.images) if options.movement.pca else ()
        movement = with_pixels(options.movement, preprocessing.mean, preprocessing.std, axes)
        options = replace(options, movement=movement)
    precision = "bfloat16, as asked" if options.amp == "bf16" else ""
    return Setup(
        request=request,
        data=data,
        fingerprint=found,
        model=model,
        architecture=architecture,
        net=net,
        preprocessing=preprocessing,
        options=options,
        start=start,
        begun=begun,
        why_moved=why_moved,
        frozen=frozen,
        precision=precision,
    )


def _built(architecture: Mapping[str, Any], model: str, data: Dataset, seed: int) -> nn.Module:
    """The network with its random weights; one that is in no table is tried once: pictures in, one score per class out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = source.rebuild(architecture, model if source.is_file(model) else None)
    if row_of(model) is not None:
        return net
    was_training = net.training
    with torch.inference_mode():
        scores = net.eval()(torch.zeros(1, data.channels, *data.size))
    net.train(was_training)
    shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
    if shape != (1, len(data.classes)):
        rule = f"{model} must give one score per class: ({len(data.classes)} for each image)"
        raise UsageError(rule, f"got {shape} for one image", "end with fc classes, or take num_classes as an argument")
    return net
