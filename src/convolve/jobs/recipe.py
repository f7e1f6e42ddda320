"""How a run trains, in words, and the choices that need the built network: dropout, frozen layers, bfloat16."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from convolve.data.records import Split
from convolve.errors import UsageError
from convolve.training.augment_spec import describe
from convolve.training.fit import Trial, trial
from convolve.training.freeze import Frozen
from convolve.training.options import Options

FASTER = 0.9  # bfloat16 is taken where a step needs less than this part of the time
AMP_CHOICES = ("auto", "bf16", "off")


def set_dropout(net: nn.Module, probability: float | None) -> int:
    """Give every dropout layer this probability, in place, and return how many there are; None leaves them as they are."""
    layers = [layer for layer in net.modules() if isinstance(layer, _DropoutNd)]
    if probability is None:
        return len(layers)
    if not layers:
        remedy = 'leave it out, or write one into the network: "…, dropout 0.5, fc classes"'
        raise UsageError("dropout needs a network with dropout layers", "this one has none", remedy)
    for layer in layers:
        layer.p = probability
    return len(layers)


def is_timed(asked: str | None, device: str) -> bool:
    """Whether float32 and bfloat16 are timed: where it was asked for and, unasked, not on a CPU, whose runs repeat bit for bit."""
    return asked == "auto" or (asked is None and torch.device(device).type != "cpu")


def decide_precision(
    net: nn.Module,
    train: Split,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    options: Options,
    tried: Callable[..., Trial] = trial,
) -> tuple[Options, str]:
    """Try a few steps of a copy in float32 and in bfloat16, and take the faster; the options, and what to say."""
    narrow = replace(options, amp="bf16")
    wide_trial = tried(net, train, normalise, options)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*Disabling autocast")  # said of a device that would go on in float32
            narrow_trial = tried(net, train, normalise, narrow)
    except (RuntimeError, UserWarning) as error:  # a device or an operator that has no bfloat16
        return options, f"float32: bfloat16 failed ({str(error).splitlines()[0]})"
    if not math.isfinite(narrow_trial.loss):
        return options, f"float32: in bfloat16 the loss is {narrow_trial.loss}"
    ratio = narrow_trial.seconds_per_epoch / wide_trial.seconds_per_epoch
    if ratio < FASTER:
        return narrow, f"bfloat16: {1 / ratio:.2f} times as fast as float32, measured"
    return options, f"float32: bfloat16 takes {ratio:.2f} times as long, measured"


def recipe_lines(options: Options, why_moved: str, frozen: Frozen | None, precision: str) -> list[str]:
    """Every choice beyond optimizer and epochs that is not "none", one line each."""
    lines = []
    if frozen is not None:
        layers = f"{len(frozen.layers)} layers ({', '.join(frozen.layers[:4])}{', …' * (len(frozen.layers) > 4)})"
        lines.append(f"frozen: {layers}; {frozen.trained:,} of {frozen.parameters:,} parameters train")
    extras = [
        (options.dropout is not None, f"dropout {options.dropout or 0:g} in every dropout layer"),
        (options.l1 > 0, f"L1 {options.l1:g} on weights, not on biases and normalisation"),
        (options.warmup is not None, f"warm-up {options.warmup or 0:g} epochs"),
        (options.patience is not None, f"patience {options.patience} epochs"),
        (options.clip is not None, f"gradients clipped to the norm {options.clip or 0:g}"),
    ]
    said = ", ".join(text for holds, text in extras if holds)
    if said:
        lines.append(said)
    if precision:
        lines.append(precision)
    because = f" ({why_moved})" if why_moved else ""
    if options.movement:
        lines.append(f"each image changes a little in every epoch: {describe(options.movement)}{because}")
    return lines
