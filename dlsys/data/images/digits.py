"""scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dlsys.data import rowwise
from dlsys.data.dataset import Splits
from dlsys.data.files import packaged
from dlsys.data.images.normalize import normalized
from dlsys.data.split import few_of_each, split_rows, tensor_splits
from dlsys.spec.data import Digits
from dlsys.spec.rows import Shape


def digits(options: Digits, folder: Path) -> Splits:  # noqa: ARG001
    """1,797 handwritten digits (Alpaydin and Kaynak 1998): `image` float32 (1, size, size) in
    0…1, or `canvas` a side, `label` int64."""
    rows = np.loadtxt(packaged("digits.csv.gz"), delimiter=",", dtype=np.float32)
    rows = rows[np.isin(rows[:, -1], options.classes)]
    number_of = {digit: number for number, digit in enumerate(options.classes)}
    label = np.array([number_of[digit] for digit in rows[:, -1].astype(int).tolist()], dtype=np.int64)
    image = torch.from_numpy(rows[:, :-1].reshape(-1, 1, 8, 8)) / 16
    if options.size != image.shape[-1]:
        image = functional.interpolate(
            image, size=(options.size, options.size), mode="bilinear", align_corners=False
        )
    if options.canvas is not None:
        image = _scattered(image, options.canvas)
    parts = split_rows(
        len(image),
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="digits",
        labels=label,
    )
    if options.per_class:
        parts = few_of_each(parts, label, options.per_class, seed=options.split_seed, name="digits")
    shape = Shape(row={"image": tuple(image.shape[1:]), "label": ()}, classes=len(options.classes))
    splits = tensor_splits({"image": image, "label": torch.from_numpy(label)}, parts, shape)
    return normalized(splits, options.normalize, "digits")


def _scattered(image: Tensor, side: int) -> Tensor:
    """Each image (N, C, size, size) on a black one (N, C, side, side), at a place that its number decides."""
    rows, channels, size, _ = image.shape
    corner = rowwise.uniform(rowwise.keys(0, 0, np.arange(rows)), 2) * (side - size + 1)
    found = image.new_zeros(rows, channels, side, side)
    for row, (top, left) in enumerate(corner.long().tolist()):
        found[row, :, top : top + size, left : left + size] = image[row]
    return found
