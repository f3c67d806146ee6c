"""Tables that scikit-learn brings along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.files import packaged
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import BreastCancer, Iris
from dlsys.spec.data.features import BundledTable
from dlsys.spec.rows import Shape


def breast_cancer(options: BreastCancer, folder: Path) -> Splits:  # noqa: ARG001
    """569 tumours (Street, Wolberg and Mangasarian 1993): `features` float32 (30,); `label` int64,
    0 malignant and 1 benign."""
    return _with_classes("breast_cancer", options)


def iris(options: Iris, folder: Path) -> Splits:  # noqa: ARG001
    """150 flowers of three species (Fisher 1936): `features` float32 (4,), in cm; `label` int64, 0 setosa,
    1 versicolor and 2 virginica."""
    return _with_classes("iris", options)


def _with_classes(name: str, options: BundledTable) -> Splits:
    # The first line counts rows and columns, and names the classes; the last column is the class.
    rows = np.loadtxt(packaged(f"{name}.csv"), delimiter=",", skiprows=1)
    values, label = rows[:, :-1], rows[:, -1].astype(np.int64)
    parts = split_rows(
        len(values),
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name=name,
        labels=label,
    )
    train = values[parts.train]
    features = (values - train.mean(0)) / train.std(0) if options.standardize else values
    shape = Shape(row={"features": (features.shape[1],), "label": ()}, classes=int(label.max()) + 1)
    fields = {
        "features": torch.from_numpy(features).float(),
        "label": torch.from_numpy(label),
    }
    return tensor_splits(fields, parts, shape)
