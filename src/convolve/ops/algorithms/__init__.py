"""The table of algorithms. Adding one is one file beside this one, and one line here."""

from __future__ import annotations

from convolve.ops.algorithm import Algorithm
from convolve.ops.algorithms import (
    channels_last,
    depthwise,
    depthwise_rows,
    direct,
    fft,
    filters,
    im2col,
    images,
    images_winograd,
    matrix,
    planes,
    pointwise_sums,
    reference,
    separable,
    torch_row,
    weight_sums,
    winograd,
)

# Ordered: where two rows promise the same time, the upper one is taken. The last one never declines.
ALGORITHMS: tuple[Algorithm, ...] = (
    torch_row.ALGORITHM,
    channels_last.ALGORITHM,
    planes.ALGORITHM,
    filters.ALGORITHM,
    weight_sums.ALGORITHM,
    pointwise_sums.ALGORITHM,
    images.ALGORITHM,
    images_winograd.ALGORITHM,
    depthwise.ALGORITHM,
    depthwise_rows.ALGORITHM,
    winograd.ALGORITHM,
    winograd.SMALL,
    winograd.LARGE,
    fft.ALGORITHM,
    separable.ALGORITHM,
    im2col.ALGORITHM,
    direct.ALGORITHM,
    matrix.ALGORITHM,
    reference.ALGORITHM,
)
