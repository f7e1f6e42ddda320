"""`convolve learn-kernel`"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from convolve.cli import output
from convolve.cli.arguments import Json


def learn_kernel(
    *,
    steps: int = 20,
    lr: float = 0.01,
    seed: int = 0,
    bias: Annotated[bool, Parameter(negative="--no-bias")] = True,
    json: Json = False,
) -> None:
    """Watch a kernel being learned from an edge: it becomes [1, -1].

    Parameters
    ----------
    steps
        Steps of gradient descent.
    lr
        Learning rate; too large a one is refused, with the limit.
    seed
        Decides the random kernel that it starts from.
    bias
        Learn a bias too, as the texts do.
    """
    from convolve.draw.tables import table
    from convolve.jobs.learn_kernel import learn_kernel as job

    learned = job(steps, lr, seed=seed, bias=bias)
    if json:
        output.document("learn_kernel", learned.to_json())
        return
    output.message("6 x 8 picture, black in columns 2 to 5; wanted: 1 from white to black, -1 from black to white")
    rows = [
        (str(row.step), f"{row.loss:.3f}", f"[{row.kernel[0]:7.4f}, {row.kernel[1]:7.4f}]", f"{row.bias:7.4f}")
        for row in learned.steps
    ]
    output.result(table(("step", "loss", "kernel", "bias"), rows, right=(0, 1, 3)))
    factors = ", ".join(f"{factor:.4f}" for factor in learned.factors)
    output.result(
        f"error per step, exactly: times {factors} along its components; rates below {learned.largest_lr:.5f} converge"
    )
    output.result(f"distance from ([1, -1], 0): {learned.distance:.4f}")
