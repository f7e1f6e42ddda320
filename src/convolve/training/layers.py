"""Layers that must not know how a batch is divided, in the place of torch's while a network is trained.

Dropout. torch draws for the batch as it comes: divided in another way, the same images lose other units. Here each image has draws
of its own,

    unit u of image i is kept  <=>  hash(seed, epoch, i, layer, call, u) / 2**32 >= p

(u counts the image's elements, or its channels for Dropout1d, 2d and 3d), so that one process and many, and any division, agree.

Batch normalisation. With several processes, mean and variance are those of the whole batch, exchanged once forward and once
backward: of each process r its count n_r, mean m_r and variance v_r,

    mean = sum_r n_r m_r / N      variance = sum_r n_r (v_r + (m_r - mean)²) / N      N = sum_r n_r

(Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979). torch's SyncBatchNorm
does so on GPUs only.

A layer becomes one of these by its class alone and gets its own back: object, parameters, hooks and state dict stay what they were.
Subclasses of torch's layers may compute something else and are left alone, as are calls of torch.nn.functional; `left_alone`
names the layers.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from convolve.errors import UsageError
from convolve.training.augment import uniform
from convolve.training.processes import Processes, Share, together

_STEP = "_training_step"
_GOLDEN = 0x9E3779B9 - 2**32  # 2**32 over the golden ratio, as int32
_BLOCK = 2**16  # elements whose draws stay in a core's cache


@dataclass
class Step:
    """Which images the network sees now; every exchanged layer looks here."""

    processes: Processes
    seed: int = 0
    epoch: int = 0
    share: Share = field(default_factory=lambda: Share(torch.empty(0, dtype=torch.int64), 1.0))
    calls: Counter[int] = field(default_factory=Counter)
    _words: Tensor | None = None

    def begin(self, seed: int, epoch: int, share: Share) -> None:
        self.seed, self.epoch, self.share = seed, epoch, share
        self.calls.clear()
        self._words = None

    def words(self, device: torch.device) -> Tensor:
        """The images' words, made when a layer first asks."""
        if self._words is None:
            self._words = image_words(self.seed, self.epoch, self.share.indices)
        return self._words.to(device)

    def call_of(self, layer: int) -> int:
        """How often this layer was called before, in this step. While gradients are computed (checkpointing calls layers again)
        that is known only of a layer that is called once."""
        if torch._C._current_graph_task_id() == -1:
            self.calls[layer] += 1
            return self.calls[layer] - 1
        if self.calls[layer] != 1:
            raise UsageError(
                "a dropout layer that is called several times cannot be computed again in the backward pass",
                "the network recomputes it (torch.utils.checkpoint)",
                "give each call a layer of its own",
            )
        return 0


class _Dropout(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        return _dropped(self, input, input.shape[1:]) if self.training else input


class _ChannelDropout(_DropoutNd):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return _dropped(self, input, input.shape[1:2]) if self.training else input


class _Dropout1d(_ChannelDropout, nn.Dropout1d):
    pass


class _Dropout2d(_ChannelDropout, nn.Dropout2d):
    pass


class _Dropout3d(_ChannelDropout, nn.Dropout3d):
    pass


def _dropped(layer: _DropoutNd, x: Tensor, units: torch.Size) -> Tensor:
    """x [n, …], each image without some of its `units` [c, …]; rows that are no images are shared out among them evenly."""
    step, number = layer.__dict__[_STEP]
    images = step.share.indices
    if layer.p == 0 or x.numel() == 0:
        return x
    if layer.p == 1:
        return x.mul_(0.0) if layer.inplace else x * 0.0
    if x.ndim == 0 or len(x) % len(images):
        return F.dropout(x, layer.p, True, layer.inplace)
    each = len(x) // len(images) * units.numel()
    call = step.call_of(number)
    kept = keep_mask(step.words(x.device), number, call, each, layer.p)
    factor = kept.to(x.dtype).mul_(1 / (1 - layer.p)).view(len(x), *units, *(1,) * (x.ndim - 1 - len(units)))
    return x.mul_(factor) if layer.inplace else x * factor


def keep_mask(words: Tensor, layer: int, call: int, units: int, p: float) -> Tensor:
    """Which of `units` units are kept with probability 1 - p, for each of the images that `image_words` gave words [n]: bool [n, units].

    >>> words = image_words(0, 0, torch.tensor([3, 8]))
    >>> keep_mask(words, 0, 0, 10**5, 0.25).float().mean(1).round(decimals=2)
    tensor([0.7500, 0.7500])
    """
    keys, device = _mixed32(words + _place_word(layer, call)), words.device
    least = int(p * 2**32) - 2**31
    kept = torch.empty(len(words), units, dtype=torch.bool, device=device)
    across = min(units, _BLOCK)
    rows = max(1, _BLOCK // max(1, across))
    for first in range(0, units, max(1, across)):
        lanes = torch.arange(first, min(first + across, units), dtype=torch.int32, device=device) * _GOLDEN
        for row in range(0, len(words), rows):
            draws = _mixed32(lanes + keys[row : row + rows, None])
            torch.ge(draws, least, out=kept[row : row + rows, first : first + across])
    return kept


def image_words(seed: int, epoch: int, images: Tensor) -> Tensor:
    """32 bits for each image, int32 [n]: a function of the arguments only."""
    return _mixed32(_word(seed, epoch, images))


@functools.cache
def _place_word(layer: int, call: int) -> int:
    return int(_word(layer, call, torch.zeros(1)))


def _word(seed: int, epoch: int, indices: Tensor) -> Tensor:
    high, low = (uniform(seed, epoch, indices, 2) * 2**24).to(torch.int32).unbind(1)
    return high ^ (low << 8)


def _mixed32(x: Tensor) -> Tensor:
    """Two rounds of multiply and shift on 32-bit lanes (C. Wellons' lowbias32); masks make the shifts logical."""
    x = x ^ (x >> 16 & 0xFFFF)
    x *= 0x7FEB352D
    x ^= x >> 15 & 0x1FFFF
    x *= 0x846CA68B - 2**32
    x ^= x >> 16 & 0xFFFF
    return x


class _WholeBatchNorm(_BatchNorm):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if not self.training:
            return super().forward(input)
        step, _ = self.__dict__[_STEP]
        x = input if step.share.counts else input[:0]
        mean, variance, count = _moments(x.detach(), step.processes)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            weight = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), weight)
        invert = (variance + self.eps).rsqrt()
        result: Tensor = _Normalised.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, mean, invert, count, step.share.counts, step.processes
        )
        return result


class _BatchNorm1d(_WholeBatchNorm, nn.BatchNorm1d):
    pass


class _BatchNorm2d(_WholeBatchNorm, nn.BatchNorm2d):
    pass


class _BatchNorm3d(_WholeBatchNorm, nn.BatchNorm3d):
    pass


def _moments(x: Tensor, processes: Processes) -> tuple[Tensor, Tensor, float]:
    """Mean and variance [c], float32 or wider, and the count of values per channel, of x [n, c, …] in all processes."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).transpose(0, 1).reshape(x.shape[1], -1)
    count = wide.shape[1]
    if count:
        variance, mean = torch.var_mean(wide, 1, correction=0)
    else:
        variance = mean = wide.new_zeros(x.shape[1])
    ours = torch.cat([mean, variance, mean.new_tensor([count])]).double()
    every = [torch.empty_like(ours) for _ in range(processes.size)]
    together(lambda: distributed.all_gather(every, ours))
    c = x.shape[1]
    table = torch.stack(every)
    means, variances, counts = table[:, :c], table[:, c : 2 * c], table[:, 2 * c :]
    total = counts.sum()
    if total < 2:
        received = f"got {tuple(x.shape)}"
        raise UsageError(
            "batch normalisation needs more than one value per channel", received, "use larger pictures or batches"
        )
    mean_of_all = (counts * means).sum(0) / total
    variance_of_all = (counts * (variances + (means - mean_of_all) ** 2)).sum(0) / total
    return mean_of_all.to(wide.dtype), variance_of_all.to(wide.dtype), total.item()


class _Normalised(torch.autograd.Function):
    """(x - mean) · invert · weight + bias, where mean and invert = 1/sqrt(variance + eps) come from all processes' x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        invert: Tensor,
        count: float,
        counts: bool,
        processes: Processes,
    ) -> Tensor:
        shape = (1, -1, *(1,) * (x.ndim - 2))
        ctx.save_for_backward(x, weight, mean, invert)
        ctx.count, ctx.counts, ctx.processes, ctx.has_bias = count, counts, processes, bias is not None
        scale = invert if weight is None else invert * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        return (x * scale.view(shape) + shift.view(shape)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, weight, mean, invert = ctx.saved_tensors
        shape = (1, -1, *(1,) * (x.ndim - 2))
        others = [axis for axis in range(x.ndim) if axis != 1]
        wide = dy.to(mean.dtype)
        normal = (x.to(mean.dtype) - mean.view(shape)) * invert.view(shape)
        db, dw = wide.sum(others), (wide * normal).sum(others)
        sums = torch.cat([db, dw])
        together(lambda: distributed.all_reduce(sums))
        all_db, all_dw = (part.view(shape) / ctx.count for part in sums.chunk(2))
        scale = (invert if weight is None else invert * weight).view(shape)
        # Statistics are made of images that count; the others' gradient is nothing anyway.
        dx = ((wide - all_db - normal * all_dw) * scale).to(x.dtype) if ctx.counts else torch.zeros_like(x)
        has_weight = weight is not None
        return (
            dx,
            dw.to(weight.dtype) if has_weight else None,
            db.to(mean.dtype) if ctx.has_bias else None,
            *(None,) * 5,
        )


DROPOUTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: _Dropout,
    nn.Dropout1d: _Dropout1d,
    nn.Dropout2d: _Dropout2d,
    nn.Dropout3d: _Dropout3d,
}
NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _BatchNorm1d,
    nn.BatchNorm2d: _BatchNorm2d,
    nn.BatchNorm3d: _BatchNorm3d,
}


@contextmanager
def exchanged(net: nn.Module, processes: Processes) -> Iterator[Step]:
    """Within the block dropout draws image by image, and batches are normalised whole; `begin` each step on what this yields."""
    table = DROPOUTS | (NORMS if processes.size > 1 else {})
    step = Step(processes)
    changed = [(number, layer) for number, layer in enumerate(net.modules()) if type(layer) in table]
    before = [type(layer) for _, layer in changed]
    try:
        for number, layer in changed:
            layer.__dict__[_STEP] = (step, number)
            layer.__class__ = table[type(layer)]
        yield step
    finally:
        for (_, layer), kind in zip(changed, before, strict=True):
            layer.__class__ = kind
            layer.__dict__.pop(_STEP, None)


def left_alone(net: nn.Module) -> list[str]:
    """Layers whose draws or statistics stay those of one process: names and classes, where several processes train."""
    kinds = (_DropoutNd, _BatchNorm)
    table = {*DROPOUTS, *NORMS, *DROPOUTS.values(), *NORMS.values()}
    return [
        f"{name} ({type(layer).__name__})"
        for name, layer in net.named_modules()
        if isinstance(layer, kinds) and type(layer) not in table and not isinstance(layer, nn.SyncBatchNorm)
    ]
