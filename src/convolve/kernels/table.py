"""Every kernel there is on this machine: nothing else is ever compiled.

python -m convolve.kernels        compile each one anew and print its seconds
"""

from __future__ import annotations

from functools import cache

from convolve.kernels import (
    butterflies,
    dense_phases,
    depthwise,
    depthwise_rows,
    filters,
    fourier,
    fourier_lines,
    images,
    images_winograd,
    magnitudes,
    planes,
    pointwise_sums,
    pool_lanes,
    pool_rows,
    pool_small,
    pool_threes,
    pool_whole,
    resample,
    rows,
    stages,
    stages_winograd,
    weight_sums,
    winograd,
    winograd_gradient,
)
from convolve.kernels.cache import Kernel

DTYPES = ("float32", "float64")
FAMILIES = (planes, rows, filters, weight_sums)
OTHERS = (
    butterflies,
    dense_phases,
    depthwise,
    depthwise_rows,
    fourier,
    fourier_lines,
    images,
    images_winograd,
    magnitudes,
    pointwise_sums,
    pool_rows,
    pool_lanes,
    pool_small,
    pool_threes,
    pool_whole,
    resample,
    stages,
    stages_winograd,
    winograd,
    winograd_gradient,
)


@cache
def every() -> dict[str, Kernel]:
    """The kernels by name."""
    found = [
        family.kernel(tile, width, dtype) for family in FAMILIES for dtype in DTYPES for tile, width in family.tiles()
    ]
    found += [kernel for family in OTHERS for dtype in DTYPES for kernel in family.every(dtype)]
    return {kernel.name: kernel for kernel in found}
