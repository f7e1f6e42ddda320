"""Rules of our own pooling layers: each is one step, as torch's are. (Our convolutions are read by analysis/ours.py.)

Our pooling *functions* are compositions of torch's; called by themselves they are traced as what they are made of.
"""

from __future__ import annotations

from torch import nn

from convolve import nn as ours
from convolve.analysis.rules import windows  # noqa: F401  (registers the rules that these lean on)
from convolve.analysis.rules.registry import layer_rule, rule_of

_POOLS = {
    "MaxPool": ("max_pool", "kernel_size stride padding dilation ceil_mode return_indices"),
    "AvgPool": ("avg_pool", "kernel_size stride padding ceil_mode count_include_pad"),
    "AdaptiveAvgPool": ("adaptive_avg_pool", "output_size"),
    "AdaptiveMaxPool": ("adaptive_max_pool", "output_size return_indices"),
}


def _register() -> None:
    """Our layers have torch's attributes, so torch's rules serve them."""
    for name, (operator, attributes) in _POOLS.items():
        for axes in (1, 2, 3):
            layer: type[nn.Module] = getattr(ours, f"{name}{axes}d")
            entry = rule_of(f"{operator}{axes}d")
            assert entry is not None
            layer_rule(layer, attributes, f"{operator}{axes}d")(entry.rule)


_register()
