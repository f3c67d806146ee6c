"""Images held in memory as bytes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows
from dlsys.spec.data import CIFARFiles, IDXFiles
from dlsys.spec.rows import Shape


class ByteImages:
    """Images held as bytes, a quarter of their size as float32; scaled to 0…1 when fetched.

    Args:
        images: uint8 (N, C, H, W).
        labels: whole numbers, (N,).
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> ByteImages:
        return ByteImages(self._images[rows], self.labels[rows])

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        image = torch.from_numpy(self._images[rows]).float().div_(255)
        return {"image": image, "label": torch.from_numpy(self.labels[rows].astype(np.int64))}


def byte_splits(train: ByteImages, test: ByteImages, options: IDXFiles | CIFARFiles, shape: Shape) -> Splits:
    """The splits of images whose test set is given; validation rows are cut from the others."""
    parts = split_rows(
        len(train),
        valid=options.valid,
        test=0,
        seed=options.split_seed,
        name=options.path,
        labels=train.labels,
    )
    return Splits(train=train.take(parts.train), valid=train.take(parts.valid), test=test, shape=shape)
