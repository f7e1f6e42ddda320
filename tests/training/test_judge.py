"""What a measurement is worth: intervals, per-class rates, calibration and doubted labels, against scikit-learn and hand counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

from convolve.training.judge import (
    balanced_accuracy,
    calibration,
    class_counts,
    interval,
    suspects,
)
from convolve.training.measure import Measured


def measured(n: int = 400, classes: int = 5, seed: int = 0) -> Measured:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 1.5
    return Measured(0.0, 0.0, logits.softmax(1), labels)


def test_the_interval_holds_the_accuracies_that_do_not_surprise() -> None:
    """Wilson's interval by its definition: the p whose distance to what was seen is at most 1.96 of p's own deviations."""
    for right, images in ((0, 7), (7, 7), (338, 359), (9, 10), (1, 2)):
        grid = np.linspace(0, 1, 200_001)
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = grid[np.abs(right / images - grid) <= 1.959964 * np.sqrt(grid * (1 - grid) / images)]
        found = interval(right, images)
        assert found.low == pytest.approx(inside.min(), abs=1e-5)
        assert found.high == pytest.approx(inside.max(), abs=1e-5)
    assert (interval(0, 0).low, interval(0, 0).high) == (0.0, 1.0)


def test_rates_per_class_are_scikit_learns() -> None:
    outcome = measured()
    labels, guesses = outcome.labels.numpy(), outcome.predictions.numpy()
    counts = class_counts(outcome.confusion())
    assert np.array_equal(outcome.confusion().numpy(), confusion_matrix(labels, guesses, labels=range(5)))
    precision, recall, f1, images = precision_recall_fscore_support(labels, guesses, labels=range(5))
    assert [row.precision for row in counts] == pytest.approx(precision.tolist())
    assert [row.recall for row in counts] == pytest.approx(recall.tolist())
    assert [row.f1 for row in counts] == pytest.approx(f1.tolist())
    assert [row.images for row in counts] == images.tolist()
    assert balanced_accuracy(counts) == pytest.approx(balanced_accuracy_score(labels, guesses))


def test_a_class_without_images_or_answers_has_no_rates() -> None:
    empty, unanswered, _ = class_counts(torch.tensor([[0, 0, 0], [0, 0, 2], [0, 0, 3]]))
    assert (empty.recall, empty.precision, empty.f1) == (None, None, None)
    assert (unanswered.recall, unanswered.precision, unanswered.f1) == (0.0, None, 0.0)


def test_the_reliability_diagram_is_scikit_learns() -> None:
    outcome = measured(3000)
    share, guess = outcome.probabilities.double().max(1)
    right = (guess == outcome.labels).numpy()
    found = calibration(outcome.probabilities, outcome.labels)
    accuracy, confidence = calibration_curve(right, share.numpy(), n_bins=15)
    full = [row for row in found.bins if row.images]
    assert [row.accuracy for row in full] == pytest.approx(accuracy.tolist())
    assert [row.probability for row in full] == pytest.approx(confidence.tolist())
    weights = np.array([row.images for row in full]) / 3000
    assert found.error == pytest.approx(float((weights * np.abs(accuracy - confidence)).sum()))
    assert found.claimed == pytest.approx(share.mean().item())
    assert sum(row.images for row in found.bins) == 3000


def test_an_error_of_a_few_images_by_hand() -> None:
    shares = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    found = calibration(shares, torch.tensor([0, 1, 1]), bins=2)
    # One bin, (0.5, 1]: claimed (0.9 + 0.9 + 0.6) / 3 = 0.8, right 2 of 3.
    assert found.error == pytest.approx(0.8 - 2 / 3, abs=1e-7)
    assert [row.images for row in found.bins] == [0, 3]


def test_doubted_labels_by_hand() -> None:
    shares = torch.tensor(
        [
            [0.90, 0.10, 0.00],  # 0, fine
            [0.70, 0.30, 0.00],  # 0, fine
            [0.05, 0.95, 0.00],  # labelled 0, as sure of 1 as 1's own images are: doubted
            [0.10, 0.90, 0.00],  # 1, fine
            [0.30, 0.70, 0.00],  # 1, fine
            [0.50, 0.45, 0.05],  # labelled 1, the answer is 0, but 0.5 is less than 0's usual 0.55: not doubted
            [0.55, 0.10, 0.35],  # labelled 2: 0's threshold is reached: doubted, by less
            [0.00, 0.10, 0.90],  # 2, fine
        ]
    )
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    thresholds = [(0.90 + 0.70 + 0.05) / 3, (0.90 + 0.70 + 0.45) / 3, (0.35 + 0.90) / 2]
    assert thresholds == pytest.approx([0.55, 0.68333, 0.625], abs=1e-4)
    shares[6, 0] += 1e-4
    assert suspects(shares, labels).tolist() == [2, 6]


def test_an_answer_that_is_the_label_is_no_doubt_of_it() -> None:
    """The third image counts as of class 1, whose own images get little, but the network's answer is its label."""
    own = torch.tensor([0.9, 0.8, 0.7, 0.15, 0.3, 0.15])  # of the label; thresholds 0.8 and 0.2
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    first = torch.where(labels == 0, own, 1 - own)
    assert suspects(torch.stack([first, 1 - first], 1), labels).tolist() == [3, 5]


def test_doubted_labels_follow_the_papers_loop() -> None:
    """The definition written out, image by image, in double precision."""
    outcome = measured(500, 4, seed=3)
    shares, labels = outcome.probabilities.double().numpy(), outcome.labels.numpy()
    threshold = [shares[labels == j, j].mean() for j in range(4)]
    expected = {}
    for number, (row, label) in enumerate(zip(shares, labels, strict=True)):
        sure = [j for j in range(4) if row[j] >= threshold[j]]
        if sure and max(sure, key=lambda j: row[j]) != label and row.argmax() != label:
            expected[number] = row.max() - row[label]
    found = suspects(outcome.probabilities, outcome.labels).tolist()
    assert found == sorted(expected, key=lambda number: -expected[number])
    assert 5 < len(found) < 200


def test_nothing_measured_has_no_doubts_and_no_error() -> None:
    empty, none = torch.empty(0, 3), torch.empty(0, dtype=torch.int64)
    assert suspects(empty, none).tolist() == []
    assert calibration(empty, none).error == 0
    assert math.isnan(calibration(empty, none).claimed)
