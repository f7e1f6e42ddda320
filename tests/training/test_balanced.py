"""Balanced accuracy: its value, when it decides, and that it is named where it is quoted."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

import convolve
from convolve.data.records import ResidentImages, Split
from convolve.models.file import read
from convolve.training.fit import fit
from convolve.training.measure import Measured, metric_of
from convolve.training.options import Options
from convolve.training.records import Epoch, Silent


def measured(labels: torch.Tensor, predictions: torch.Tensor, classes: int) -> Measured:
    shares = torch.nn.functional.one_hot(predictions, classes).float()
    return Measured(0.0, (labels == predictions).double().mean().item(), shares, labels)


def test_it_is_scikit_learns_also_where_a_class_has_no_image() -> None:
    generator = torch.Generator().manual_seed(0)
    for classes in (2, 3, 7):
        labels = torch.randint(0, classes, (50,), generator=generator) % max(2, classes - 1)
        predictions = torch.randint(0, classes, (50,), generator=generator)
        found = measured(labels, predictions, classes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of predictions that no label has
            expected = balanced_accuracy_score(labels.numpy(), predictions.numpy())
        assert found.balanced_accuracy == pytest.approx(expected)
        assert found.by("balanced accuracy") == found.balanced_accuracy
        assert found.by("accuracy") == found.accuracy


def test_it_decides_from_one_and_a_half_on() -> None:
    def of(*counts: int) -> str:
        return metric_of(torch.cat([torch.full((count,), label) for label, count in enumerate(counts)]))

    assert of(10, 15) == "accuracy"
    assert of(10, 16) == "balanced accuracy"
    assert of(10, 0, 10) == "accuracy"  # a class without an image says nothing


class Constant(torch.nn.Module):
    """Says class 0 of all images while its parameter is below a half, else the truth that the image's pixel tells."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images[:, 0, 0, 0]
        return torch.stack([1 - bright + self.scale * 0, bright - 0.6 + self.scale * 0], 1)


@pytest.mark.parametrize("metric", ["accuracy", "balanced accuracy"])
def test_the_best_epoch_is_that_of_the_metric(metric: str) -> None:
    labels = torch.tensor([0] * 8 + [1] * 2)
    pixels = (labels * 255).to(torch.uint8).view(10, 1, 1, 1)
    split = Split("validation", ResidentImages(pixels), labels, [str(i) for i in range(10)], torch.ones(10, 2))
    saved: list[Epoch] = []
    options = Options(2, 5, "sgd", 0.1, 0.0, 0.0, "constant", 0, "cpu", metric=metric)
    history = fit(
        Constant(), split, split, lambda batch: batch.float() / 255, options, Silent(),
        save_best=saved.append, save_state=lambda state: None,
    )  # fmt: skip
    for record in history:
        if metric == "accuracy":
            assert record.val_balanced is None
            assert record.val_score == record.val_acc
            assert "balanced" not in record.line(2, 0)
        else:
            assert record.val_balanced == record.val_score
            assert f"val_balanced {record.val_balanced:.3f}" in record.line(2, 0)


def test_a_run_on_imbalanced_classes_says_and_stores_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, count, level in (("dark", 40, 40), ("light", 12, 160)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(level, level + 60, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    run = convolve.train(tmp_path / "photos", epochs=2, augment="none", out=tmp_path / "run")
    assert run.metric == "balanced accuracy"
    assert run.headline.startswith(f"validation balanced accuracy {run.validation.balanced_accuracy:.2%}")
    assert f"plain accuracy {run.validation.accuracy:.2%}" in run.headline
    assert run.to_json()["metric"] == "balanced accuracy"
    assert all(record.val_balanced is not None for record in run.history)
    assert "balanced accuracy" in (run.folder / "log.txt").read_text()
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["options"]["metric"] == "balanced accuracy"
    _, card = read(run.files["model"])
    assert card["metrics"]["validation"]["balanced_accuracy"] == run.validation.balanced_accuracy
    found = convolve.evaluate(run.files["model"], tmp_path / "photos")
    recalls = [row.recall for row in found.classes if row.recall is not None]
    assert found.score.balanced_accuracy == pytest.approx(sum(recalls) / len(recalls))
    assert found.headline.startswith("all balanced accuracy")
