"""Explain what a network makes of one image, for one or several sets of its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from convolve.analysis.inspecting import examine
from convolve.analysis.report import Report
from convolve.analysis.trace import Input
from convolve.errors import ShapeError, UnknownNameError, UsageError
from convolve.explain import activations, attribution, layers, measuring
from convolve.explain.filters import filters_of
from convolve.explain.records import Attribution, Findings, Layer, Moment, Place

SHOWN_CLASSES = 10


@dataclass(frozen=True)
class Wishes:
    """What the user may choose; empty: chosen here, and said."""

    layers: tuple[str, ...] = ()
    target: str | None = None
    methods: tuple[str, ...] = ()
    cam_layer: str | None = None
    units: tuple[tuple[str, Place], ...] = ()  # to measure, by layer


Weights = tuple[str, Callable[[], None]]  # a moment's label, and what puts its weights into the model


def explain(
    model: nn.Module, image: Tensor, weights: Sequence[Weights], classes: Sequence[str] | None, wishes: Wishes
) -> Findings:
    """The findings for `image` [1, c, h, w], as the network takes it; the last of `weights` is the network that is explained.

    The model keeps the last weights; its flags and gradients come back as they were.
    Raises ShapeError for an image that does not fit, UsageError for a model without a convolution, UnknownNameError for names.
    """
    try:
        report = examine(model, [Input(tuple(image.shape), image.dtype)])
    except ShapeError:
        leaves = [type(module).__name__ for module in model.modules() if next(module.children(), None) is None]
        if not any("Conv" in name for name in leaves):  # then no other image helps
            raise layers.without_convolution(type(model).__name__, leaves) from None
        raise
    layers.convolutions(report)
    everything = layers.candidates(report)
    shown, left_out = layers.chosen(everything, wishes.layers, report)
    shown = layers.allotted(shown, len(weights))
    shown = _with_units(shown, everything, wishes.units, report)
    used, unaffordable = attribution.methods(wishes.methods, report.totals.macs)
    notes = _said_of_layers(shown, left_out)
    plan = _Plan(model, image.detach(), report, shown, len(weights), classes, used)
    with activations.evaluating(model):
        label, load = weights[-1]
        load()
        plan.decide(wishes, everything, notes)
        moments = [plan.moment(label, last=True)]
        for label, load in reversed(weights[:-1]):
            load()
            moments.insert(0, plan.moment(label, last=False))
        if len(weights) > 1:
            weights[-1][1]()
    notes += _said_of_measuring(plan.layers, moments[-1])
    if unaffordable and plan.methods:
        notes.append(
            f"{' and '.join(row.name for row in unaffordable)} left out: they cost more than "
            f"{attribution.AFFORDABLE_MACS / 1e9:g} GMACs; ask with --attribution {unaffordable[0].name}"
        )
    return Findings((image.shape[2], image.shape[3]), tuple(plan.layers), tuple(moments), tuple(notes))


@dataclass
class _Plan:
    """The choices that all moments share."""

    model: nn.Module
    image: Tensor
    report: Report
    layers: list[Layer]
    moments: int
    classes: Sequence[str] | None
    methods: list[attribution.Method]
    target: int | None = None
    cam: Layer | None = None

    def decide(self, wishes: Wishes, everything: Sequence[Layer], notes: list[str]) -> None:
        """Choose maps, class and layer with the weights that are in the model now."""
        with torch.no_grad():
            answer, kept = activations.run(self.model, self.image, self.layers)
        self.layers = [replace(layer, channels=self._channels(layer, kept[layer.name][0])) for layer in self.layers]
        if answer.ndim != 2:
            if wishes.target is not None or any(name != "none" for name in wishes.methods):
                raise UsageError(
                    "attribution needs a score per class",
                    f"the network answers {'x'.join(map(str, answer.shape))}",
                    "leave --class and --attribution away",
                )
            self.methods = []
            notes.append(
                f"the network answers {'x'.join(map(str, answer.shape))}, not one score per class: "
                "no probabilities and no attribution"
            )
            return
        names = self._names(answer.shape[1])
        self.target = int(answer[0].argmax()) if wishes.target is None else _class_number(wishes.target, names)
        if any(row.of_layer for row in self.methods):
            self.cam = self._cam_layer(wishes, everything, notes)

    def _channels(self, layer: Layer, values: Tensor) -> tuple[int, ...]:
        """Which maps are shown: those with units that were asked for, then the strongest."""
        asked = dict.fromkeys(channel for channel, _, _ in layer.asked)
        strongest = activations.strongest_channels(values, values.shape[0])
        return tuple(dict.fromkeys([*asked, *strongest]))[: max(len(layer.channels), len(asked))]

    def _cam_layer(self, wishes: Wishes, everything: Sequence[Layer], notes: list[str]) -> Layer:
        last_calls = {layer.path: layer.call for layer in everything}
        usable = [layer for layer in everything if layer.call == last_calls[layer.path]]
        if wishes.cam_layer is not None:
            found = layers.named(usable, wishes.cam_layer, self.report)
            if found.shape[1] * found.shape[2] == 1:
                raise UsageError(
                    "Grad-CAM needs a map with more than one position",
                    f"{found.name} gives 1x1",
                    f"use --cam-layer {attribution.cam_layer(usable).name}",
                )
            why = "as you asked"
        else:
            found, why = attribution.cam_layer(usable), "the last map with more than one position"
        h, w = found.shape[1:]
        notes.append(f"Grad-CAM looks at {found.name}, {h}x{w}: {why}; change it with --cam-layer NAME")
        return found

    def _names(self, count: int) -> list[str]:
        if self.classes is not None and len(self.classes) == count:
            return list(self.classes)
        return [f"class {number}" for number in range(count)]

    def moment(self, label: str, last: bool) -> Moment:
        """What the network holds with the weights that are in it now."""
        image = self.image.clone().requires_grad_()
        with torch.enable_grad():
            answer, kept = activations.run(self.model, image, self.layers)
            maps = tuple(activations.maps_of(r, kept[r.name][0], r.channels) for r in self.layers)
            strongest = {row.layer: row.strongest for row in maps}
            budget = measuring.Budget.of(self.moments, last)
            measured = measuring.measure_all(kept, image, self.layers, strongest, budget)
        if not all(bool(torch.isfinite(row.values).all()) for row in maps):
            raise ShapeError("the maps must be finite", f"NaN or infinity at {label}", "check the weights")
        probabilities: tuple[tuple[str, float], ...] = ()
        found: tuple[Attribution, ...] = ()
        if answer.ndim == 2 and self.target is not None:
            names = self._names(answer.shape[1])
            shares = answer.detach()[0].softmax(0).tolist()
            order = sorted(range(len(shares)), key=lambda number: -shares[number])[:SHOWN_CLASSES]
            probabilities = tuple((names[number], shares[number]) for number in order)
            cam = self.cam or self.layers[-1]
            with torch.enable_grad():
                found = attribution.attribute(
                    self.model, self.image, self.target, names[self.target], cam, self.methods
                )
        return Moment(label, probabilities, maps, measured, filters_of(self.model, self.report), found)


def _said_of_layers(shown: Sequence[Layer], left_out: Sequence[str]) -> list[str]:
    notes = []
    if left_out:
        names = ", ".join(left_out[:4]) + (", …" if len(left_out) > 4 else "")
        notes.append(
            f"{len(shown)} of {len(shown) + len(left_out)} layers are shown; {names} left out: see them with --layer NAME"
        )
    fewer = [layer for layer in shown if len(layer.channels) < layer.shape[0]]
    if fewer:
        notes.append(f"at most {layers.MOST_MAPS} maps of a layer are shown, those with the largest values")
    thin = [layer for layer in shown if layer.step > 1]
    if thin:
        notes.append(
            f"large maps are shown with every {thin[0].step}{'nd' if thin[0].step == 2 else 'rd' if thin[0].step == 3 else 'th'} "
            f"row and column ({', '.join(layer.name for layer in thin[:3])}{', …' if len(thin) > 3 else ''})"
        )
    return notes


def _said_of_measuring(shown: Sequence[Layer], moment: Moment) -> list[str]:
    counts = Counter(row.layer for row in moment.measured)
    every = [
        layer.name for layer in shown if counts[layer.name] == len(layer.channels) * layer.shape[1] * layer.shape[2]
    ]
    notes = []
    if len(every) == len(shown):
        return ["the gradient of every unit was measured"]
    if every:
        notes.append(f"the gradient of every unit of {', '.join(every)} was measured")
    some = {layer.name: counts[layer.name] for layer in shown if counts[layer.name] and layer.name not in every}
    if some:
        least, most = min(some.values()), max(some.values())
        many = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        notes.append(
            f"gradients were measured for {many} units of {'each other layer' if every else 'each layer'}; any other unit "
            "shows its nearest measured neighbour, and --unit LAYER:MAP,ROW,COLUMN measures it itself"
        )
    none = [layer.name for layer in shown if not counts[layer.name]]
    if none:
        notes.append(f"gradients were not measured at {', '.join(none)}: name fewer layers with --layer to have them")
    return notes


def _with_units(
    shown: Sequence[Layer], everything: Sequence[Layer], units: Sequence[tuple[str, Place]], report: Report
) -> list[Layer]:
    """The layers, each with the units of it that were asked for."""
    asked: dict[str, list[Place]] = {layer.name: [] for layer in shown}
    for name, place in units:
        layer = layers.named(everything, name, report)
        if layer.name not in asked:
            raise UsageError(
                "a unit is measured in a layer that is shown", f"{layer.name} is not", f"--layer {layer.name}"
            )
        for what, index, size in zip(("map", "row", "column"), place, layer.shape, strict=True):
            if not 0 <= index < size:
                c, h, w = layer.shape
                rule = f"a unit of {layer.name} is one of {c} maps of {h}x{w}"
                raise UsageError(rule, f"got {what} {index}", f"count {what}s from 0 to {size - 1}")
        asked[layer.name].append(place)
    return [replace(layer, asked=tuple(asked[layer.name])) for layer in shown]


def _class_number(name: str, names: Sequence[str]) -> int:
    if name in names:
        return list(names).index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise UnknownNameError.of("class", name, names)
