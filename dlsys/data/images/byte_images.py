"""Images held in memory as bytes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class ByteImages:
    """Images held as bytes, a quarter of their size as float32; scaled to 0…1 when fetched.

    Args:
        images: uint8 (N, C, H, W).
        labels: whole numbers, (N,).
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._images = images
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        image = torch.from_numpy(self._images[rows]).float().div_(255)
        return {"image": image, "label": torch.from_numpy(self._labels[rows].astype(np.int64))}
