"""The rules of the operators, one family per file; importing this room registers them all. registry.py is the table."""

from convolve.analysis.rules import dense, norms, ours, pointwise, resizing, shaping, windows
from convolve.analysis.rules.registry import Call, Facts, Rule, layer_rule, rule_of

__all__ = [
    "Call",
    "Facts",
    "Rule",
    "dense",
    "layer_rule",
    "norms",
    "ours",
    "pointwise",
    "resizing",
    "rule_of",
    "shaping",
    "windows",
]
