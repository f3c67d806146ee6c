"""Images less a mean and by a deviation of each channel, of the training rows or of ImageNet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Dataset, Splits
from dlsys.errors import DataError
from dlsys.spec.data.images import ChannelStatistics, Normalize

# torchvision's, of ImageNet's training images in 0…1: what its weights were trained with.
IMAGENET = ChannelStatistics(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Of a larger training set, so many rows are measured: enough for three digits, and soon done.
_MEASURED, _AT_ONCE = 10_000, 100


@dataclass(frozen=True)
class Scaling:
    """(image − mean) / std, channel by channel; applied when what varies training images is done."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with `image` (N, C, H, W) scaled; the batch given stays as it is."""
        image = batch["image"]
        mean, std = (image.new_tensor(told)[:, None, None] for told in (self.mean, self.std))
        return {**batch, "image": (image - mean) / std}


def normalized(splits: Splits, options: Normalize | None, name: str) -> Splits:
    """The splits, whose images are scaled as `data.normalize` says; what scales them is learnt.

    Args:
        name: the source, as messages say it.

    Raises:
        DataError: rows have no images, or images of another number of channels.
    """
    if options is None:
        return splits
    shape = splits.shape.row.get("image", ())
    if len(shape) != 3:
        raise DataError(
            f"{name}: data.normalize is for rows with an image (channels, height, width), and these have "
            f"{', '.join(splits.shape.row)}",
            hint="leave it out",
        )
    if options == "measured":
        found = measured(splits.train)
    else:
        found = IMAGENET if options == "imagenet" else options
    if not len(found.mean) == len(found.std) == shape[0]:
        raise DataError(
            f"{name}: data.normalize: images have {shape[0]} channel{'s' * (shape[0] > 1)}, and "
            f"{'imagenet has' if options == 'imagenet' else 'there are'} {len(found.mean)} means and "
            f"{len(found.std)} deviations: say one for each, or measured"
        )
    shown = [", ".join(f"{number:.4g}" for number in told) for told in (found.mean, found.std)]
    return replace(
        splits,
        scaling=Scaling(found.mean, found.std),
        notes=(*splits.notes, f"{name}: images less {shown[0]}, by {shown[1]}"),
        learnt={
            **splits.learnt,
            "image": {**splits.learnt.get("image", {}), "mean": list(found.mean), "std": list(found.std)},
        },
    )


def measured(rows: Dataset) -> ChannelStatistics:
    """Mean and standard deviation of each channel, of up to 10,000 rows that are spread evenly.

    A channel that never varies is of deviation 1, so that it becomes 0.
    """
    count = min(len(rows), _MEASURED)
    chosen = np.arange(count) * len(rows) // count
    totals, squares, pixels = torch.zeros(1), torch.zeros(1), 0
    for start in range(0, count, _AT_ONCE):
        image = rows.batch(chosen[start : start + _AT_ONCE])["image"].double()
        totals = totals + image.sum(dim=(0, 2, 3))
        squares = squares + image.square().sum(dim=(0, 2, 3))
        pixels += image[:, 0].numel()
    mean = totals / pixels
    std = (squares / pixels - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std < 1e-6, 1.0, std)
    return ChannelStatistics(mean=tuple(mean.tolist()), std=tuple(std.tolist()))
