"""Learn a kernel from one picture and its edges: the first thing that a convolution learns.

A 6 x 8 picture is white, black in columns 2 to 5, white again. Cross-correlated with the kernel [1, -1] it gives its edges. A layer with
a random kernel is trained to give the same, by plain gradient descent on the sum of squared errors. That loss is quadratic, so
each step multiplies every component of the error by a fixed factor 1 - lr λ, λ the eigenvalues of its Hessian: 12, 60 for the
kernel alone, and 12, 19.69, 124.31 with a bias; lr must stay below 2 / λmax.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from convolve.errors import UsageError
from convolve.geometry import checked
from convolve.nn.plain import Conv2D
from convolve.ops.plain import corr2d

TARGET = (1.0, -1.0)


@dataclass(frozen=True)
class Step:
    """One step of gradient descent: the loss before it (sum of squares), and kernel and bias after it."""

    step: int
    loss: float
    kernel: tuple[float, ...]
    bias: float


@dataclass(frozen=True)
class Learned:
    """The steps, and what theory says of them: by which factors the error's components shrink per step."""

    steps: tuple[Step, ...]
    lr: float
    largest_lr: float
    factors: tuple[float, ...]
    distance: float

    def to_json(self) -> dict[str, Any]:
        """JSON-safe values; docs/json.md describes them."""
        return {**asdict(self), "steps": [asdict(step) for step in self.steps], "target": list(TARGET)}


def learn_kernel(steps: int = 20, lr: float = 0.01, *, seed: int = 0, bias: bool = True) -> Learned:
    """Train a 1 x 2 kernel (and a bias) to find the edges of a picture, from random numbers of `seed`.

    `distance` is the length of (kernel, bias) minus the optimum ([1, -1], 0). Raises UsageError for a rate at which the loss grows.

    >>> import convolve
    >>> learned = convolve.learn_kernel(steps=200)
    >>> [round(weight, 4) for weight in learned.steps[-1].kernel]
    [1.0, -1.0]
    """
    checked(steps, "steps", at_least=1)
    x, y = edge_example()
    values = curvatures(x, y, bias)
    largest = 2 / max(values)
    if not 0 < lr < largest:
        raise UsageError(
            f"the learning rate must lie between 0 and 2 / (the largest curvature, {max(values):.2f}) = {largest:.5f}",
            f"got {lr}",
            "use 0.01" + ("" if bias else " or 0.03"),
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = Conv2D(kernel_size=(1, 2))
    if not bias:
        layer.bias.requires_grad_(False).zero_()
    parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    done = []
    for step in range(1, steps + 1):
        loss = ((layer(x) - y) ** 2).sum()
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(lr * gradient)
        done.append(Step(step, loss.item(), tuple(layer.weight.flatten().tolist()), layer.bias.item()))
    error = torch.tensor([*done[-1].kernel, done[-1].bias]) - torch.tensor([*TARGET, 0.0])
    return Learned(tuple(done), lr, largest, tuple(1 - lr * value for value in values), error.norm().item())


def edge_example() -> tuple[Tensor, Tensor]:
    """The 6 x 8 picture and its edges."""
    x = torch.ones(6, 8)
    x[:, 2:6] = 0
    return x, corr2d(x, torch.tensor([TARGET]))


def curvatures(x: Tensor, y: Tensor, bias: bool) -> tuple[float, ...]:
    """The eigenvalues of the loss's Hessian by (kernel, bias), or by the kernel alone, ascending; the same everywhere."""

    def loss(parameters: Tensor) -> Tensor:
        kernel = parameters[:2].reshape(1, 2)
        offset = parameters[2] if bias else 0.0
        return ((corr2d(x.double(), kernel) + offset - y.double()) ** 2).sum()

    hessian = torch.func.jacrev(torch.func.jacrev(loss))(torch.zeros(3 if bias else 2, dtype=torch.float64))
    values: list[float] = torch.linalg.eigvalsh(hessian).tolist()
    return tuple(values)
