"""Learning a kernel: the rates of convergence are exact, whatever the seed."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

import convolve
from convolve.cli import main
from convolve.errors import UsageError
from convolve.jobs.learn_kernel import curvatures, edge_example


def test_curvatures_are_the_eigenvalues_of_the_hand_computed_hessian() -> None:
    x, y = edge_example()
    by_hand = 2 * torch.tensor([[18.0, 12, 18], [12, 18, 18], [18, 18, 42]], dtype=torch.float64)
    torch.testing.assert_close(
        torch.tensor(curvatures(x, y, True), dtype=torch.float64), torch.linalg.eigvalsh(by_hand)
    )
    torch.testing.assert_close(
        torch.tensor(curvatures(x, y, False), dtype=torch.float64), torch.tensor([12.0, 60.0], dtype=torch.float64)
    )


@pytest.mark.parametrize("seed", range(5))
def test_every_component_of_the_error_shrinks_by_its_factor_in_every_step(seed: int) -> None:
    learned = convolve.learn_kernel(steps=12, lr=0.01, seed=seed)
    hessian = 2 * torch.tensor([[18.0, 12, 18], [12, 18, 18], [18, 18, 42]], dtype=torch.float64)
    _, directions = torch.linalg.eigh(hessian)
    errors = torch.tensor([[*step.kernel, step.bias] for step in learned.steps], dtype=torch.float64)
    errors = (errors - torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)) @ directions
    for before, after in itertools.pairwise(errors):
        expected = before * torch.tensor([0.88, 0.80307, -0.24307], dtype=torch.float64)
        torch.testing.assert_close(after, expected, rtol=1e-3, atol=2e-6)
    # The loss before step t is error' H error / 2, computed from the parameters of the step before.
    for step, error in zip(learned.steps[1:], errors[:-1], strict=True):
        torch.testing.assert_close(
            step.loss, ((error @ directions.T) @ hessian @ (error @ directions.T) / 2).item(), rtol=1e-3, atol=1e-5
        )


def test_without_bias_the_loss_falls_as_two_known_runs_did() -> None:
    steps = convolve.learn_kernel(steps=30, lr=0.03, bias=False, seed=3).steps
    assert [step.bias for step in steps] == [0.0] * 30
    for earlier, later in zip(steps[16:-2], steps[18:], strict=True):
        assert later.loss / earlier.loss == pytest.approx(0.4096, rel=2e-2)


def test_it_arrives_at_one_and_minus_one_and_depends_on_the_seed_only() -> None:
    learned = convolve.learn_kernel(steps=300)
    assert learned.steps[-1].kernel == pytest.approx((1, -1), abs=1e-5)
    assert learned.distance < 1e-5
    assert convolve.learn_kernel(steps=3, seed=1) == convolve.learn_kernel(steps=3, seed=1)
    assert convolve.learn_kernel(steps=3, seed=1) != convolve.learn_kernel(steps=3, seed=2)


def test_the_callers_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    convolve.learn_kernel(steps=1)
    after = torch.get_rng_state()
    assert after.equal(state)


@pytest.mark.parametrize("arguments", [{"lr": 0.0161}, {"lr": 0.0}, {"lr": -1.0}, {"lr": 1 / 30 + 1e-6, "bias": False}])
def test_rates_that_diverge_are_refused_with_the_limit(arguments: dict) -> None:
    with pytest.raises(UsageError, match=r"must lie between 0 and 2 / \(the largest curvature"):
        convolve.learn_kernel(**arguments)


def test_the_verb_shows_loss_and_kernel_per_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learn-kernel", "--steps", "4"]) == 0
    printed = capsys.readouterr().out
    expected = convolve.learn_kernel(steps=4)
    for step in expected.steps:
        assert f"{step.loss:.3f}" in printed
        assert f"[{step.kernel[0]:7.4f}, {step.kernel[1]:7.4f}]" in printed
    assert "0.8800, 0.8031, -0.2431" in printed
    assert "rates below 0.01609 converge" in printed
    assert main(["learn-kernel", "--steps", "2", "--no-bias", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "convolve.learn_kernel"
    assert len(document["steps"]) == 2
    assert document["steps"][1]["bias"] == 0
    assert main(["learn-kernel", "--lr", "0.03"]) == 2
