"""Layers: drop-in subclasses of torch's over our operators, and what torch lacks. A layer has the arguments torch.nn has."""

from convolve.nn.activation import ScaledTanh
from convolve.nn.bitmaps import digit_bitmaps
from convolve.nn.blocks import NiNBlock, VGGBlock, conv_unit
from convolve.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from convolve.nn.inception import Inception, InceptionWidths
from convolve.nn.local import LocallyConnected2d
from convolve.nn.normalization import LocalResponseNorm
from convolve.nn.pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from convolve.nn.rbf import EuclideanRBF, MAPLoss
from convolve.nn.residual import BasicBlock, Bottleneck, InvertedResidual, ShuffleUnit
from convolve.nn.separable import ChannelShuffle, DepthwiseConv2d, DepthwiseSeparableConv2d, PointwiseConv2d
from convolve.nn.sequential import Sequential
from convolve.nn.subsampling import TrainableSubsampling
from convolve.nn.table_conv import LENET5_TABLE, TableConv2d

__all__ = [
    "LENET5_TABLE",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BasicBlock",
    "Bottleneck",
    "ChannelShuffle",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DepthwiseConv2d",
    "DepthwiseSeparableConv2d",
    "EuclideanRBF",
    "Inception",
    "InceptionWidths",
    "InvertedResidual",
    "LocalResponseNorm",
    "LocallyConnected2d",
    "MAPLoss",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "NiNBlock",
    "PointwiseConv2d",
    "ScaledTanh",
    "Sequential",
    "ShuffleUnit",
    "TableConv2d",
    "TrainableSubsampling",
    "VGGBlock",
    "conv_unit",
    "digit_bitmaps",
]
