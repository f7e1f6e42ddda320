"""Layers: drop-in subclasses of torch's over our operators, and what torch lacks. A layer has the arguments torch.nn has."""

from convolve.nn.activation import ScaledTanh
from convolve.nn.bitmaps import digit_bitmaps
from convolve.nn.blocks import NiNBlock, VGGBlock, conv_unit
from convolve.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from convolve.nn.inception import Inception, InceptionWidths
from convolve.nn.local import LocallyConnected2d
from convolve.nn.normalization import LocalResponseNorm
from convolve.nn.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from convolve.nn.rbf import EuclideanRBF, MAPLoss
from convolve.nn.residual import BasicBlock, Bottleneck, InvertedResidual, ShuffleUnit
from convolve.nn.separable import ChannelShuffle, DepthwiseConv2d, DepthwiseSeparableConv2d, PointwiseConv2d
from convolve.nn.subsampling import TrainableSubsampling, WeightedMaxPool2d
from convolve.nn.table_conv import LENET5_TABLE, TableConv2d

__all__ = [
    "LENET5_TABLE",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
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
    "MaxPool2d",
    "NiNBlock",
    "PointwiseConv2d",
    "ScaledTanh",
    "ShuffleUnit",
    "TableConv2d",
    "TrainableSubsampling",
    "VGGBlock",
    "WeightedMaxPool2d",
    "conv_unit",
    "digit_bitmaps",
]
