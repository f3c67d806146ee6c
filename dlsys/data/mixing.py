"""Mixes training images of classes two by two; who is mixed with whom, and how much, is a row's own."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dlsys.data import rowwise
from dlsys.data.dataset import Batch
from dlsys.errors import DataError
from dlsys.spec.train.regularizer import DataAugmentation

# A row's random numbers that are this file's own.
_PARTNER, _MIX = 24, 25


def partners(key: Tensor, rows: int) -> np.ndarray:
    """The row that each row is mixed with, of so many: int64 (N,)."""
    drawn = rowwise.uniform(key, 2, stream=_PARTNER).double().cpu().numpy()
    # Of one draw's 24 bits alone, some rows of a large set would never be taken.
    return np.minimum(((drawn[:, 0] + drawn[:, 1] * 2.0**-24) * rows).astype(np.int64), rows - 1)


def mixed(batch: Batch, other: Batch, options: DataAugmentation, classes: int) -> Batch:
    """The batch with each image mixed with its partner's, and `mixed`, its classes' shares: float32 (N,
    classes).

    By mixup (Zhang et al. 2018, arXiv:1710.09412) it is the weighed mean; by CutMix (Yun et al. 2019,
    arXiv:1905.04899) a rectangle is the other's, and shares are those of its pixels. Where a job asks for
    both, each row has one of them. `label` stays the row's own.

    Args:
        batch, other: `image` (N, C, H, W), `label` int64 (N,), and `key` of the batch.
        classes: how many there are.

    Raises:
        DataError: rows have no classes.
    """
    if not classes or "label" not in batch or "image" not in batch:
        fields = ", ".join(name for name in batch if name != "key")
        raise DataError(
            f"data-augmentation: mixup and cutmix are of images with classes, and these rows have: {fields}",
            hint="leave them out",
        )
    from scipy import special  # a tenth of a second to import, and few runs mix

    image, key = batch["image"], batch["key"]
    drawn = rowwise.uniform(key, 4, stream=_MIX).double().cpu()
    cut = (
        drawn[:, 0] < 0.5
        if options.mixup and options.cutmix
        else torch.full((len(key),), bool(options.cutmix))
    )
    alpha = np.where(cut.numpy(), options.cutmix, options.mixup)
    own = torch.from_numpy(special.betaincinv(alpha, alpha, drawn[:, 1].numpy()))
    inside = _rectangle(1 - own, drawn[:, 2:], image.shape[-2:])
    own = torch.where(cut, 1 - inside.double().mean((1, 2)), own)
    cut, inside, share = (t.to(image.device) for t in (cut, inside, own.to(image.dtype)))
    blended = image.lerp(other["image"], 1 - share[:, None, None, None])
    pasted = torch.where(inside[:, None], other["image"], image)
    labels = [functional.one_hot(rows["label"], classes).float() for rows in (batch, other)]
    return {
        **batch,
        "image": torch.where(cut[:, None, None, None], pasted, blended),
        "mixed": labels[0].lerp(labels[1], 1 - share[:, None].float()),
    }


def _rectangle(share: Tensor, middle: Tensor, size: torch.Size) -> Tensor:
    """Pixels of rectangles with this share of the image and its proportions, cut off at its edges: bool (N,
    H, W).

    Args:
        share: (N,).
        middle: (N, 2), shares of height and width.
    """
    inside = []
    for axis, length in enumerate(size):
        half = share.sqrt() * length / 2
        centre = (middle[:, axis] * length).floor()
        begin, end = (centre - half).round()[:, None], (centre + half).round()[:, None]
        place = torch.arange(length)
        inside.append((place >= begin) & (place < end))
    return inside[0][:, :, None] & inside[1][:, None]
