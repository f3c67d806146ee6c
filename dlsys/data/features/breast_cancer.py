"""scikit-learn's breast cancer table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.files import packaged
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import BreastCancer
from dlsys.spec.rows import Shape


def breast_cancer(options: BreastCancer, folder: Path) -> Splits:  # noqa: ARG001
    """569 tumours (Street, Wolberg and Mangasarian 1993): `features` float32 (30,), standardised
    with the training rows' mean and deviation; `label` int64, 0 malignant and 1 benign."""
    # The first line counts rows and columns, and names the classes.
    rows = np.loadtxt(packaged("breast_cancer.csv"), delimiter=",", skiprows=1)
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
