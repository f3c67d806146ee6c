"""Varies training images: shifts, mirrors and noise that only a row's key decides."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dlsys.data import rowwise
from dlsys.errors import DataError
from dlsys.spec.train.regularizer import DataAugmentation

# Streams of a row's random numbers that are augmentation's own.
_SHIFT, _FLIP, _NOISE = 16, 17, 18


def augment(batch: dict[str, Tensor], options: DataAugmentation) -> dict[str, Tensor]:
    """The batch with its images varied; the batch given stays as it is.

    What happens to an image depends on its `key` alone, so it is the same in any batch and on
    any worker. Mirroring comes first, then the shift, then the noise; values may leave 0…1.

    Args:
        batch: `image` float (N, C, H, W) and `key` int64 (N,), and whatever else.

    Raises:
        DataError: the batch has no `image`.
    """
    image, key = batch.get("image"), batch["key"]
    if image is None:
        fields = ", ".join(name for name in batch if name != "key")
        raise DataError(
            f"data-augmentation varies the field 'image', and this source's rows have: {fields}",
            hint="take data-augmentation out of regularize, or train on images",
        )
    if options.flip:
        mirrored = rowwise.uniform(key, 1, stream=_FLIP)[:, 0] < 0.5
        image = torch.where(mirrored[:, None, None, None], image.flip(-1), image)
    if options.shift:
        image = _shifted(image, key, options.shift)
    if options.noise:
        noise = rowwise.normal(key, image[0].numel(), stream=_NOISE)
        image = image + options.noise * noise.view_as(image).to(image.dtype)
    return {**batch, "image": image}


def _shifted(image: Tensor, key: Tensor, most: int) -> Tensor:
    """Each image moved by its own −most…most pixels down and right."""
    rows, _, height, width = image.shape
    corner = (rowwise.uniform(key, 2, stream=_SHIFT) * (2 * most + 1)).long()
    padded = functional.pad(image, (most, most, most, most))
    down = corner[:, 0, None] + torch.arange(height, device=image.device)
    right = corner[:, 1, None] + torch.arange(width, device=image.device)
    row = torch.arange(rows, device=image.device)
    # Indices on both sides of the slice put the channels last.
    taken = padded[row[:, None, None], :, down[:, :, None], right[:, None, :]]
    return taken.permute(0, 3, 1, 2).contiguous()
