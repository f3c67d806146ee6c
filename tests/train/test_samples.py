"""What a workload shows of a trained model, by its kind."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import QUICK, job, train
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from dlsys.errors import UsageError
from dlsys.zoo.average_precision import Detections, Objects
from dlsys.zoo.drawing import outlined
from dlsys.zoo.tasks.classify import Classify


class Shown(Classify):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def samples(self, model: nn.Module, seed: int) -> dict[str, str | Tensor | Sequence[Mapping[str, Any]]]:
        assert not model.training
        rows = [{"class": place, "bias": float(value)} for place, value in enumerate(model[1].bias)]
        return {"said.txt": "über", "drawn.png": torch.ones(5, 1, 4, 6), "biases.csv": rows, "none.csv": []}


def test_text_images_and_tables_are_files(tmp_path: Path) -> None:
    found = train(job(QUICK, f"workload={__name__}:Shown"), tmp_path)
    folder = tmp_path / "artifacts"
    assert (folder / "said.txt").read_text() == "über"
    with Image.open(folder / "drawn.png") as picture:
        assert picture.size == (2 * 7, 3 * 5)
    with open(folder / "biases.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["class"] for row in rows] == [str(place) for place in range(10)]
    assert [float(row["bias"]) for row in rows] == found.weights["1.bias"].tolist()
    assert not (folder / "none.csv").exists()


def test_varied_images_are_shown(tmp_path: Path) -> None:
    """Sixteen of eight pixels a side, in rows of four."""
    train(job(QUICK, "regularize=[{name: data-augmentation, rotate: 30, mixup: 0.4}]"), tmp_path)
    with Image.open(tmp_path / "artifacts" / "augmented.png") as picture:
        assert picture.size == (4 * 9, 4 * 9)
        assert picture.getextrema()[1] > 200


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workload=hog-svm", "data={source: digits, size: 16}"], "hog-svm has a loss of its own that knows"),
        (["loss={name: hinge}"], "mixup: gives rows shares of two classes, which cross-entropy without"),
        (["loss={name: cross-entropy, class_weights: balanced}"], "mixup: gives rows shares of two classes"),
    ],
)
def test_shares_of_classes_need_a_loss_that_knows_them(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        train(job(QUICK, "regularize=[{name: data-augmentation, mixup: 0.4}]", *overrides), tmp_path)


def four_channels(rows: int) -> Dataset:
    numbers = np.arange(rows)
    images = np.repeat((numbers % 2).astype(np.float32), 4 * 16 * 16).reshape(rows, 4, 16, 16)
    return TensorDataset(torch.from_numpy(images), torch.from_numpy(numbers % 2))


def test_images_of_any_number_of_channels_are_shown(tmp_path: Path) -> None:
    data = f"data={{source: '{__name__}:four_channels', rows: 80, fields: [image, label]}}"
    train(job(QUICK, data, "regularize=[{name: data-augmentation, flip: true}]"), tmp_path)
    with Image.open(tmp_path / "artifacts" / "augmented.png") as picture:
        assert (picture.mode, picture.size) == ("L", (4 * 17, 4 * 17))
    image = torch.rand(2, 5, 8, 8)
    there = Objects.of({"boxes": torch.zeros(2, 1, 4), "labels": torch.zeros(2, 1), "key": torch.arange(2)})
    nothing = Detections(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0))
    assert outlined(image, nothing, 0.5, truth=there).shape[1] == 3
