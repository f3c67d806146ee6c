from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits, load_iris

from dlsys.data.features.bundled import breast_cancer, iris
from dlsys.data.images.digits import digits
from dlsys.errors import DataError
from dlsys.spec.data import BreastCancer, Digits, Iris


def test_digits_are_scikit_learns() -> None:
    splits = digits(Digits(source="digits"), Path())
    batches = [part.batch(np.arange(len(part))) for part in (splits.train, splits.valid, splits.test)]
    ours = torch.cat([batch["image"].flatten(1) for batch in batches])
    theirs = torch.from_numpy(load_digits().data).float() / 16
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))


def test_digits_are_resized() -> None:
    small, large = (digits(Digits(source="digits", size=size), Path()).valid for size in (8, 32))
    rows = np.arange(20)
    image = large.batch(rows)["image"]
    assert image.shape == (20, 1, 32, 32)
    back = torch.nn.functional.avg_pool2d(image, 4)
    assert (back - small.batch(rows)["image"]).abs().mean() < 0.1


def test_digits_lie_on_a_canvas_each_at_its_place() -> None:
    plain, placed = (
        digits(Digits(source="digits", size=9, canvas=canvas), Path()).train for canvas in (None, 20)
    )
    rows = np.arange(len(plain))
    small, large = plain.batch(rows)["image"], placed.batch(rows)["image"]
    assert large.shape == (len(plain), 1, 20, 20)
    # Of every place that a corner may have, each digit is at one, and black all around.
    windows = large.unfold(2, 9, 1).unfold(3, 9, 1).flatten(4)
    here = (windows == small.flatten(2)[:, :, None, None]).all(-1).flatten(1)
    assert here.any(1).all()
    torch.testing.assert_close(large.sum((1, 2, 3)), small.sum((1, 2, 3)))
    found = here.long().argmax(1)
    # Digits with an empty edge are seen at several places, of which the first is taken.
    assert len(found.unique()) == 12 * 12
    again = digits(Digits(source="digits", size=9, canvas=20), Path()).train
    assert torch.equal(again.batch(rows)["image"], large)


def test_a_canvas_holds_a_digit() -> None:
    assert digits(Digits(source="digits", size=9, canvas=9), Path()).shape.row["image"] == (1, 9, 9)
    with pytest.raises(
        ValidationError, match="a square of 12 pixels a side holds no digit of 16: make it lar"
    ):
        Digits(source="digits", size=16, canvas=12)


def test_digits_are_stratified() -> None:
    splits = digits(Digits(source="digits"), Path())
    labels = splits.valid.batch(np.arange(len(splits.valid)))["label"]
    assert labels.bincount().min() >= 16
    assert labels.bincount().max() <= 20


def test_breast_cancer_is_standardised_with_training_rows_only() -> None:
    splits = breast_cancer(BreastCancer(source="breast_cancer", valid=0.3), Path())
    train = splits.train.batch(np.arange(len(splits.train)))["features"].double()
    assert torch.allclose(train.mean(0), torch.zeros(30, dtype=torch.double), atol=1e-5)
    assert torch.allclose(train.std(0, correction=0), torch.ones(30, dtype=torch.double), atol=1e-5)
    valid = splits.valid.batch(np.arange(len(splits.valid)))["features"]
    assert valid.mean(0).abs().max() > 0.01


def test_iris_has_each_of_scikit_learns_rows_once() -> None:
    """Two flowers of the same measures among them."""
    splits = iris(Iris(source="iris", standardize=False, valid=0.2, test=0.2), Path())
    parts = [part for part in (splits.train, splits.valid, splits.test) if part]
    batches = [part.batch(np.arange(len(part))) for part in parts]
    ours = torch.cat([torch.cat([b["features"], b["label"][:, None]], 1) for b in batches]).tolist()
    data, label = load_iris(return_X_y=True)
    theirs = torch.from_numpy(np.column_stack([data, label])).float().tolist()
    assert sorted(ours) == sorted(theirs)


def test_digits_of_some_classes_and_few_rows() -> None:
    whole = digits(Digits(source="digits", classes=(7, 2)), Path())
    few = digits(Digits(source="digits", classes=(7, 2), per_class=20), Path())
    assert whole.shape.classes == 2
    rows = few.train.batch(np.arange(len(few.train)))
    assert rows["label"].bincount().tolist() == [20, 20]
    assert len(few.valid) == len(whole.valid)
    ten = digits(Digits(source="digits"), Path())
    every = [part.batch(np.arange(len(part))) for part in (ten.train, ten.valid, ten.test) if part]
    of = {
        tuple(i): label
        for b in every
        for i, label in zip(b["image"].flatten(1).tolist(), b["label"].tolist(), strict=True)
    }
    told = [of[tuple(image)] for image in rows["image"].flatten(1).tolist()]
    assert [(7, 2)[label] for label in rows["label"].tolist()] == told


def test_more_digits_than_there_are_and_a_class_twice_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"data\.per_class: 500 rows of each class are wanted, and class 0 has 1"
    ):
        digits(Digits(source="digits", per_class=500), Path())
    with pytest.raises(ValidationError, match="must name each digit once, got 3, 3"):
        Digits(source="digits", classes=(3, 3))
