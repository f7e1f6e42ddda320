"""Which parts of the image speak for a class: captum's methods, as a table.

Grad-CAM (Selvaraju et al. 2017) needs a layer: the last one whose map still has more than one position. The others look at
the image itself. All explain the class's score before the softmax. Guided backpropagation is left out on purpose: its
pictures hardly change when the weights are made random (Adebayo et al. 2018), so they explain little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from convolve.errors import ConvolveError, UnknownNameError, UsageError
from convolve.explain.activations import first_tensor
from convolve.explain.records import Attribution, Layer

PATCHES = 8  # occlusion: patches per side, each moved by half its size
STEPS = 32  # integrated gradients
AFFORDABLE_MACS = 40_000_000_000  # a method is left out by default when it costs more than this


@dataclass(frozen=True)
class Question:
    """What a method is asked: scores of `image` [1, c, h, w] for class number `target`."""

    model: nn.Module
    image: Tensor
    target: int
    layer: nn.Module

    def scores(self, image: Tensor) -> Tensor:
        return first_tensor(self.model(image))


@dataclass(frozen=True)
class Method:
    """A row: `passes` through the network, forward and backward counted alike, say what it costs."""

    name: str
    says: str
    passes: int
    compute: Callable[[Question], Tensor]  # [h, w]
    of_layer: bool = False


def _grad_cam(asked: Question) -> Tensor:
    from captum.attr import LayerGradCam

    found = LayerGradCam(asked.scores, asked.layer).attribute(asked.image, target=asked.target, relu_attributions=True)
    return _only(found)[0, 0]


def _saliency(asked: Question) -> Tensor:
    from captum.attr import Saliency

    return _only(Saliency(asked.scores).attribute(asked.image, target=asked.target))[0].amax(0)


def _input_x_gradient(asked: Question) -> Tensor:
    from captum.attr import InputXGradient

    return _only(InputXGradient(asked.scores).attribute(asked.image, target=asked.target))[0].sum(0)


def _integrated_gradients(asked: Question) -> Tensor:
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(asked.scores)
    return _only(method.attribute(asked.image, target=asked.target, n_steps=STEPS, internal_batch_size=8))[0].sum(0)


def _occlusion(asked: Question) -> Tensor:
    from captum.attr import Occlusion

    _, c, h, w = asked.image.shape
    window = (c, max(1, -(-h // PATCHES)), max(1, -(-w // PATCHES)))
    stride = (c, max(1, window[1] // 2), max(1, window[2] // 2))
    method = Occlusion(asked.scores)
    found = method.attribute(
        asked.image.detach(),
        sliding_window_shapes=window,
        strides=stride,
        target=asked.target,
        perturbations_per_eval=16,
    )
    return _only(found)[0].mean(0)


def _only(found: Any) -> Tensor:
    tensor = found[0] if isinstance(found, tuple) else found
    return tensor.detach().float().cpu()  # type: ignore[no-any-return]


METHODS = (
    Method("grad-cam", "where the maps of one layer speak for the class", 2, _grad_cam, of_layer=True),
    Method("saliency", "which pixels would change the score most: the size of its gradient", 2, _saliency),
    Method("input-x-gradient", "pixel times gradient: blue speaks for the class, orange against it", 2, _input_x_gradient),
    Method("integrated-gradients", "the gradient summed on the way from a mean-coloured image to this one", 2 * STEPS,
           _integrated_gradients),
    Method("occlusion", "how far the score falls when a patch is covered", (2 * PATCHES) ** 2, _occlusion),
)  # fmt: skip


def methods(names: Sequence[str], macs: int) -> tuple[list[Method], list[Method]]:
    """The methods to use and those left out: the ones called `names`, or those that a network of `macs` can afford."""
    known = {method.name: method for method in METHODS}
    for name in names:
        if name not in known and name != "none":
            raise UnknownNameError.of("attribution", name, [*known, "none"])
    if names:
        return [known[name] for name in dict.fromkeys(names) if name != "none"], []
    used = [method for method in METHODS if method.passes * macs <= AFFORDABLE_MACS or method.passes == 2]
    return used, [method for method in METHODS if method not in used]


def cam_layer(layers: Sequence[Layer]) -> Layer:
    """The layer for Grad-CAM: the last with more than one position."""
    with_places = [layer for layer in layers if layer.shape[1] * layer.shape[2] > 1]
    if not with_places:
        raise UsageError(
            "Grad-CAM needs a map with more than one position", "every layer gives 1x1", "use --attribution saliency"
        )
    return with_places[-1]


def attribute(
    model: nn.Module, image: Tensor, target: int, label: str, layer: Layer, rows: Sequence[Method]
) -> tuple[Attribution, ...]:
    """What each method says of class number `target`, called `label`."""
    if not rows:
        return ()
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise ConvolveError(
            "attribution needs captum", f"it cannot be imported: {error}", "pip install captum, or --attribution none"
        ) from error
    module = dict(model.named_modules())[layer.path]
    asked = Question(model, image.detach().clone().requires_grad_(), target, module)
    return tuple(
        Attribution(row.name, row.says, label, layer.name if row.of_layer else None, row.compute(asked)) for row in rows
    )
