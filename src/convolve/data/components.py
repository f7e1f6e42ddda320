"""The principal components of the colours of training pictures: what AlexNet's colour augmentation moves along.

The covariance of the pixels' three values is exact for pictures in memory and of SAMPLE drawn pictures for those in files, in
float64 over integer sums. Krizhevsky et al. 2012, section 4.1.
"""

from __future__ import annotations

import torch

from convolve.data.preprocess import SAMPLE
from convolve.data.records import Images, ResidentImages, sample

CHUNK = 512


def principal_axes(images: Images) -> tuple[tuple[float, ...], ...]:
    """One row per component, the longest first: its direction times its standard deviation, in units of 0..1 [c, c].

    The sum of the rows' outer products is the covariance. A row's largest element is positive.
    """
    values, vectors = torch.linalg.eigh(covariance(images))
    axes = (vectors * values.clamp(min=0).sqrt()).T.flip(0)
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return tuple(map(tuple, (axes * torch.where(largest < 0, -1.0, 1.0)).tolist()))


def covariance(images: Images) -> torch.Tensor:
    """Between the channels, over all pixels: float64 [c, c], in units of 0..1."""
    n, (c, h, w) = len(images), images.shape
    chosen = sample(n, n if isinstance(images, ResidentImages) else SAMPLE)
    sums, products = torch.zeros(c, dtype=torch.float64), torch.zeros(c, c, dtype=torch.float64)
    for indices in torch.split(chosen, CHUNK):
        pixels = images.batch(indices).transpose(0, 1).reshape(c, -1).double()
        sums += pixels.sum(1)
        products += pixels @ pixels.T
    count = len(chosen) * h * w
    mean = sums / count
    return (products / count - mean[:, None] * mean) / 255**2
