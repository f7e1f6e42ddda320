"""The networks of the table, as one list: what each takes, and what it costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from convolve.errors import UnknownNameError
from convolve.models import MODELS, Model, Variant, available
from convolve.models.accuracy import ACCURACIES, Accuracy


@dataclass(frozen=True)
class ListedModel:
    """One network. `name` is what `--model` and `create` take; totals are those of the native input and classes.

    `parameters` are the trainable ones, auxiliary heads included, `fixed` those that are not trained; `macs` are multiply-adds of one
    image; `receptive_field` is the side in pixels of what one unit of the last maps sees; `accuracy` is a figure with its data
    and source, None where none is known.
    """

    name: str
    summary: str
    paper: str
    channels: int
    size: tuple[int, int]
    smallest: tuple[int, int]
    num_classes: int
    parameters: int
    fixed: int
    macs: int
    receptive_field: int
    accuracy: Accuracy | None


@dataclass(frozen=True)
class ModelList:
    """What `convolve models` found."""

    models: tuple[ListedModel, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        return {"models": [asdict(model) for model in self.models]}


def models(pattern: str = "*", variants: bool = False) -> ModelList:
    """The networks whose name matches a shell `pattern`; with `variants` all definitions of each, not only its default.

    Raises UnknownNameError when none matches.

    >>> [model.name for model in models("lenet*", variants=True).models]
    ['lenet', 'lenet-shusentang', 'lenet_relu', 'lenet5']
    """
    names = available(pattern)
    if not names:
        raise UnknownNameError.of("model", pattern, MODELS)
    rows = (MODELS[name] for name in names)
    return ModelList(
        tuple(_listed(model, each) for model in rows for each in (model.variants if variants else (model.default,)))
    )


def _listed(model: Model, variant: Variant) -> ListedModel:
    first = variant is model.default
    name = model.name if first else f"{model.name}-{variant.name}"
    return ListedModel(
        name=name,
        summary=model.summary if first else variant.summary,
        paper=model.paper,
        channels=variant.channels,
        size=variant.size,
        smallest=variant.smallest,
        num_classes=variant.num_classes,
        parameters=variant.parameters,
        fixed=variant.fixed,
        macs=variant.macs,
        receptive_field=variant.receptive_field,
        accuracy=ACCURACIES.get(name),
    )
