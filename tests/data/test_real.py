"""The real data: MNIST as published, CIFAR-10 as a zip of JPEGs. All of CIFAR is the slow test: `pytest -m slow`."""

from __future__ import annotations

import gzip
import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolve.data.load import load
from convolve.data.preprocess import mean_and_std, measure


def test_mnist_has_the_counts_and_the_mean_that_are_published(shared: Path) -> None:
    data = load(shared / "mnist")
    assert data.read_test is not None
    test = data.read_test()
    labels = torch.cat([data.train.labels, data.validation.labels])
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.validation.ids[0] == "train/55000"
    with gzip.open(shared / "mnist" / "train-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read(), np.uint8, offset=16).reshape(60_000, 28, 28)
    assert torch.equal(data.validation.images.batch(torch.arange(5000))[:, 0], torch.from_numpy(raw[55_000:].copy()))
    mean, std = mean_and_std(data.train.images)
    assert mean[0] == pytest.approx(raw[:55_000].mean() / 255, rel=1e-9)
    assert std[0] == pytest.approx(raw[:55_000].std() / 255, rel=1e-9)
    assert (mean[0], std[0]) == pytest.approx((0.1307, 0.3081), abs=2e-4)  # the numbers that everybody uses


def test_a_part_of_cifar_s_jpegs_is_read_in_place_with_a_corrupt_one_named(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "part.zip"
    with zipfile.ZipFile(shared / "cifar10-jpeg.zip") as whole, zipfile.ZipFile(path, "w") as part:
        names = [name for name in whole.namelist() if int(Path(name).stem) % 30 == 0]
        for name in names:
            content = whole.read(name)
            part.writestr(name, content[:300] if name.endswith("truck/0030.jpg") else content)
        expected = {name: np.array(Image.open(io.BytesIO(whole.read(name))).convert("RGB")) for name in names[::50]}
    assert len(names) > 2_000
    data = load(path)
    assert data.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert [one.path for one in data.quarantined] == ["train/truck/0030.jpg"]
    assert data.read_test is not None
    test = data.read_test()
    assert [one.path for one in test.quarantined] == ["test/truck/0030.jpg"]
    found = 0
    for split in (data.train, data.validation, test):
        for place, name in enumerate(split.ids):
            if name in expected:
                pixels = split.images.batch(torch.tensor([place]))[0].permute(1, 2, 0).numpy()
                assert (pixels == expected[name]).all()
                assert data.classes[split.labels[place]] == name.split("/")[1]
                found += 1
    assert found >= len(expected) - 1


@pytest.mark.slow
def test_all_of_cifar_is_ready_within_a_minute(shared: Path) -> None:
    start = time.perf_counter()
    data = load(shared / "cifar10-jpeg.zip")
    seconds = time.perf_counter() - start
    assert (len(data.train) + len(data.validation), data.test_count, data.quarantined) == (50_000, 10_000, ())
    assert measure(data).mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=2e-3)  # as published for CIFAR-10
    assert seconds < 60
