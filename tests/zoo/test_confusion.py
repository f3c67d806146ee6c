"""Counts of classes, the figures of uneven ones, and the picture of both."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import QUICK, job, train, with_workers
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, roc_auc_score

from dlsys.zoo.confusion import Confusion, of_classes, table_of


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.parametrize("classes", [2, 5])
def test_figures_are_scikit_learns(classes: int) -> None:
    """A class that the rows have not, and one that is never said, among them."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, max(2, classes - 1), (400,), generator=generator)
    outputs = torch.randn(400, classes, generator=generator) + 2 * torch.eye(classes)[labels]
    if classes > 2:
        outputs[:, 1] -= 100
    confusion = Confusion([1000, *[10] * (classes - 1)])
    halves = (slice(0, 150), slice(150, 400))
    parts = [confusion.sums(outputs[rows], {"label": labels[rows]}) for rows in halves]
    sums = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    found = confusion.results(sums)
    said, true = outputs.argmax(1).numpy(), labels.numpy()
    expected = {
        "balanced_accuracy": balanced_accuracy_score(true, said),
        "macro_f1": f1_score(true, said, average="macro"),
    }
    if classes == 2:
        expected["auc"] = roc_auc_score(true, (outputs[:, 1] - outputs[:, 0]).numpy())
    assert found == pytest.approx(expected, abs=1e-4)
    assert set(found) == set(confusion.modes)
    table = table_of(sums)
    assert table is not None
    assert np.array_equal(table.numpy(), confusion_matrix(true, said, labels=range(classes)))


def test_even_classes_have_the_table_alone() -> None:
    assert not Confusion([50, 60, 55]).modes
    named = of_classes({"target": {"counts": [9, 1]}}, {"auc"})
    assert named is not None
    assert named.modes.keys() == {"balanced_accuracy", "macro_f1"}
    assert of_classes({"target": {"counts": [1] * 51}}) is None
    assert of_classes({}) is None


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """A table of three classes of very different sizes, the smallest hard to tell."""
    generator = np.random.default_rng(0)
    rows = []
    for name, count, place in (("common", 300, 0.0), ("rare", 40, 1.0), ("rarest", 20, 1.5)):
        rows += [[*generator.normal(place, 1, 2).round(3), name] for _ in range(count)]
    with open(tmp_path / "rows.csv", "w", newline="") as file:
        csv.writer(file).writerows([["a", "b", "kind"], *rows])
    return tmp_path


TABLE = ("data={source: csv, path: rows.csv, target: kind}", "workload=softmax-regression")


def test_a_job_measures_and_shows_them(uneven: Path) -> None:
    one = train(job(QUICK, *TABLE), uneven)
    assert {"valid/balanced_accuracy", "valid/macro_f1", "test/macro_f1"} <= one.result.metrics.keys()
    assert one.result.metrics["test/balanced_accuracy"] < one.result.metrics["test/accuracy"]
    with open(uneven / "artifacts" / "confusion.csv", newline="") as file:
        rows = [*csv.reader(file)]
    assert [row[0] for row in rows[1:]] == rows[0][1:] == ["common", "rare", "rarest"]
    right = sum(int(rows[place][place]) for place in (1, 2, 3))
    total = sum(int(cell) for row in rows[1:] for cell in row[1:])
    assert right / total == pytest.approx(one.result.metrics["test/accuracy"])
    with Image.open(uneven / "artifacts" / "confusion.png") as picture:
        assert min(picture.size) > 300
    shutil.rmtree(uneven / "checkpoints")
    two = with_workers(job(QUICK, *TABLE, "resources.workers=2", "strategy.name=ddp"), uneven)
    for name in ("valid/macro_f1", "valid/balanced_accuracy", "test/macro_f1"):
        assert two.result.metrics[name] == pytest.approx(one.result.metrics[name], abs=1e-6)


def test_what_the_job_names_itself_is_its_own(uneven: Path) -> None:
    found = train(job(QUICK, *TABLE, "metrics={macro_f1: {name: F1Score, average: macro}}"), uneven)
    assert {"valid/macro_f1", "valid/balanced_accuracy"} <= found.result.metrics.keys()
