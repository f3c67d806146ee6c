"""Real data sets that come with scikit-learn.

Their files are read as they lie in the package: importing scikit-learn takes a second, and every
worker would wait for it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.card import Shape
from dlsys.spec.data import BreastCancer, Digits


def digits(options: Digits, folder: Path) -> Splits:  # noqa: ARG001
    """1,797 handwritten digits (Alpaydin and Kaynak 1998): `image` float32 (1, size, size) in
    0…1, `label` int64."""
    rows = np.loadtxt(_packaged("digits.csv.gz"), delimiter=",", dtype=np.float32)
    label = rows[:, -1].astype(np.int64)
    image = torch.from_numpy(rows[:, :-1].reshape(-1, 1, 8, 8)) / 16
    if options.size != image.shape[-1]:
        image = functional.interpolate(
            image, size=(options.size, options.size), mode="bilinear", align_corners=False
        )
    parts = split_rows(
        len(image),
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="digits",
        labels=label,
    )
    shape = Shape(row={"image": tuple(image.shape[1:]), "label": ()}, classes=10)
    return tensor_splits({"image": image, "label": torch.from_numpy(label)}, parts, shape)


def breast_cancer(options: BreastCancer, folder: Path) -> Splits:  # noqa: ARG001
    """569 tumours (Street, Wolberg and Mangasarian 1993): `features` float32 (30,), standardised
    with the training rows' mean and deviation; `label` int64, 0 malignant and 1 benign."""
    # The first line counts rows and columns, and names the classes.
    rows = np.loadtxt(_packaged("breast_cancer.csv"), delimiter=",", skiprows=1)
    values, label = rows[:, :-1], rows[:, -1].astype(np.int64)
    parts = split_rows(
        len(values),
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="breast_cancer",
        labels=label,
    )
    train = values[parts.train]
    features = (values - train.mean(0)) / train.std(0)
    shape = Shape(row={"features": (features.shape[1],), "label": ()}, classes=2)
    fields = {
        "features": torch.from_numpy(features).float(),
        "label": torch.from_numpy(label),
    }
    return tensor_splits(fields, parts, shape)


def _packaged(name: str) -> Path:
    """A data file of scikit-learn's, found without importing it."""
    found = importlib.util.find_spec("sklearn")
    assert found is not None, "scikit-learn is a dependency"
    assert found.origin is not None, "scikit-learn is a package"
    return Path(found.origin).parent / "datasets" / "data" / name
