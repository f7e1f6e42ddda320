"""What the networks are known to reach: one figure each, with the data it was reached on and who says so.

    paper          the network's own paper, one network (VGG: table 3, the best single scale; AlexNet: the 2010 test set)
    torchvision    the documentation of the weights of that name
    authors        the README of the authors' released code
    d2l, shusentang  the tutorial's printed result on Fashion-MNIST
    measured       by this project; the file under benchmarks/results names seeds, spread, recipe and machine

Figures on different data do not compare. ImageNet is top-1 of one crop on the 2012 validation images, where nothing else is said. A network
that is not listed has no figure whose source is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Accuracy:
    """`percent` of images right on `data`, as `source` says; `file` where this project measured it."""

    percent: float
    data: str
    source: str
    file: str | None = None

    def __str__(self) -> str:
        return (
            f"{self.percent:.2f} % {self.data}, {self.source}"
            if self.file
            else f"{self.percent:.1f} % {self.data}, {self.source}"
        )


ACCURACIES: Mapping[str, Accuracy] = MappingProxyType(
    {
        "smallnet": Accuracy(99.67, "MNIST", "measured", "main_job_smallnet.json"),
        "swiftnet": Accuracy(99.17, "MNIST", "measured", "mnist_in_seconds.json"),
        "lenet": Accuracy(77.9, "Fashion-MNIST", "d2l"),
        "lenet-shusentang": Accuracy(75.9, "Fashion-MNIST", "shusentang"),
        "lenet_relu": Accuracy(99.33, "MNIST", "measured", "main_job_lenet_relu.json"),
        "lenet5": Accuracy(99.17, "MNIST", "measured", "lenet5.json"),
        "alexnet": Accuracy(62.5, "ImageNet 2010", "paper"),
        "alexnet-torchvision": Accuracy(56.5, "ImageNet", "torchvision"),
        "alexnet-d2l": Accuracy(88.3, "Fashion-MNIST", "d2l"),
        "alexnet-shusentang": Accuracy(90.2, "Fashion-MNIST", "shusentang"),
        "vgg11": Accuracy(70.4, "ImageNet", "paper"),
        "vgg11-bn": Accuracy(70.4, "ImageNet", "torchvision"),
        "vgg13": Accuracy(71.3, "ImageNet", "paper"),
        "vgg13-bn": Accuracy(71.6, "ImageNet", "torchvision"),
        "vgg16": Accuracy(74.4, "ImageNet", "paper"),
        "vgg16-bn": Accuracy(73.4, "ImageNet", "torchvision"),
        "vgg16-c": Accuracy(72.7, "ImageNet", "paper"),
        "vgg19": Accuracy(74.5, "ImageNet", "paper"),
        "vgg19-bn": Accuracy(74.2, "ImageNet", "torchvision"),
        "nin": Accuracy(89.6, "CIFAR-10", "paper"),
        "nin-d2l": Accuracy(79.0, "Fashion-MNIST", "d2l"),
        "googlenet": Accuracy(89.9, "ImageNet top-5", "paper"),
        "googlenet-torchvision": Accuracy(69.8, "ImageNet", "torchvision"),
        "googlenet-d2l": Accuracy(88.6, "Fashion-MNIST", "d2l"),
        "mobilenet_v1": Accuracy(70.6, "ImageNet", "paper"),
        "mobilenet_v1-0.75": Accuracy(68.4, "ImageNet", "paper"),
        "mobilenet_v1-0.5": Accuracy(63.7, "ImageNet", "paper"),
        "mobilenet_v1-0.25": Accuracy(50.6, "ImageNet", "paper"),
        "mobilenet_v2": Accuracy(72.0, "ImageNet", "paper"),
        "shufflenet_v1": Accuracy(67.8, "ImageNet", "authors"),
        "shufflenet_v1-g8": Accuracy(68.0, "ImageNet", "authors"),
        "resnet18": Accuracy(69.8, "ImageNet", "torchvision"),
        "resnet34": Accuracy(73.3, "ImageNet", "torchvision"),
        "resnet50": Accuracy(76.1, "ImageNet", "torchvision"),
    }
)
