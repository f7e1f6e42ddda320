"""Starting weights: the rules of the papers, each a function of one tensor.

    xavier                        uniform, variance 2 / (fan_in + fan_out): Glorot & Bengio 2010
    xavier_sigmoid                four times that: a sigmoid's slope at zero is 1/4, and without the factor the signal
                                  shrinks fourfold per layer, so that such a net rests at chance (loss ln 10) for epochs
    kaiming                       normal, variance 2 / fan_out, for ReLU: He et al. 2015
    normal                        N(0, 0.01²): Krizhevsky et al. 2012
    torch                         as the layer was made: torch's own defaults (biases too)
    lecun                         uniform, ± 2.4 / fan_in: LeCun et al. 1998, appendix A
Biases start at zero under every rule. Normalisation layers keep their ones and zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from convolve.errors import UnknownNameError


def _lecun(weight: Tensor) -> Tensor:
    fan_in = weight[0].numel()
    return nn.init.uniform_(weight, -2.4 / fan_in, 2.4 / fan_in)


RULES: Mapping[str, Callable[[Tensor], Any]] = MappingProxyType(
    {
        "xavier": nn.init.xavier_uniform_,
        "xavier_sigmoid": lambda weight: nn.init.xavier_uniform_(weight, gain=4.0),
        "kaiming": lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu"),
        "normal": lambda weight: nn.init.normal_(weight, 0.0, 0.01),
        "lecun": _lecun,
    }
)


def initialise(network: nn.Module, rule: str) -> nn.Module:
    """Set the weights of every convolution and fully connected layer of `network` by a rule of RULES; biases to zero."""
    if rule == "torch":
        return network
    if rule not in RULES:
        raise UnknownNameError.of("initialisation", rule, [*RULES, "torch"])
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            RULES[rule](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network
