"""PICTURES: for each lesson the function that draws its picture from the namespace that its code left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from matplotlib.figure import Figure
from tools.lessons import pictures_networks as networks
from tools.lessons import pictures_operators as operators
from tools.lessons import pictures_structure as structure

PICTURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = MappingProxyType(
    {
        "01-cross-correlation": operators.cross_correlation,
        "02-edges": operators.edges,
        "03-learned-kernel": operators.learned_kernel,
        "04-padding-and-stride": operators.padding_and_stride,
        "05-channels": operators.channels,
        "06-pooling": operators.pooling,
        "07-receptive-field": structure.receptive_field,
        "08-one-by-one": structure.one_by_one,
        "09-weight-sharing": structure.weight_sharing,
        "10-groups-and-depthwise": structure.groups,
        "11-dilation": structure.dilation,
        "12-two-3x3-and-a-5x5": structure.two_small_kernels,
        "13-equivariance-and-invariance": structure.equivariance,
        "14-three-views": operators.three_views,
        "15-transposed-convolution": operators.transposed,
        "16-lenet5": networks.lenet5,
        "17-alexnet-to-googlenet": networks.four_networks,
        "18-why-convolution-is-fast": networks.why_fast,
    }
)
