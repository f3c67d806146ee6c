"""Real data sets that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import BreastCancer, Digits
from dlsys.zoo.card import Shape


def digits(options: Digits, folder: Path) -> Splits:  # noqa: ARG001
    """1,797 handwritten digits (Alpaydin and Kaynak 1998): `image` float32 (1, size, size) in
    0…1, `label` int64."""
    found = load_digits()
    image = torch.from_numpy(found.images).float().div(16).unsqueeze(1)
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
        labels=found.target,
    )
    shape = Shape(row={"image": tuple(image.shape[1:]), "label": ()}, classes=10)
    return tensor_splits({"image": image, "label": torch.from_numpy(found.target).long()}, parts, shape)


def breast_cancer(options: BreastCancer, folder: Path) -> Splits:  # noqa: ARG001
    """569 tumours (Street, Wolberg and Mangasarian 1993): `features` float32 (30,), standardised
    with the training rows' mean and deviation; `label` int64, 0 malignant and 1 benign."""
    found = load_breast_cancer()
    parts = split_rows(
        len(found.data),
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="breast_cancer",
        labels=found.target,
    )
    features = StandardScaler().fit(found.data[parts.train]).transform(found.data)
    shape = Shape(row={"features": (features.shape[1],), "label": ()}, classes=2)
    fields = {
        "features": torch.from_numpy(features).float(),
        "label": torch.from_numpy(found.target).long(),
    }
    return tensor_splits(fields, parts, shape)
