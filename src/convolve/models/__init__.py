"""The networks: MODELS is the table, `create` builds one by name, `list` names them; `build` also takes a line or FILE.py:NAME."""

from convolve.models.create import available, create, find
from convolve.models.source import build
from convolve.models.table import MODELS, Model, Recipe, Variant

list = available  # noqa: A001  (convolve.models.list() is what a user tries first; nothing below needs the builtin)

__all__ = ["MODELS", "Model", "Recipe", "Variant", "available", "build", "create", "find", "list"]
