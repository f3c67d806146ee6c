"""Varies training images: shifts, mirrors and noise that only a row's key decides."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dlsys.data import rowwise
from dlsys.errors import DataError, UsageError
from dlsys.own.imports import import_own
from dlsys.own.options import arguments
from dlsys.spec.train.regularizer import DataAugmentation

# Streams of a row's random numbers that are augmentation's own.
_SHIFT, _FLIP, _NOISE = 16, 17, 18


Transform = Callable[[Tensor], Tensor]


def own_transforms(options: DataAugmentation) -> list[Transform]:
    """The functions that a job names, with their options.

    Raises:
        UsageError: one is no function, or has other options.
        WorkloadError: its module cannot be imported.
    """
    found: list[Transform] = []
    for told in options.transforms:
        named = import_own(told.name, "regularize.transforms")
        if not callable(named):
            raise UsageError(f"regularize.transforms: {told.name} is {named!r}: name a function or a class")
        first = () if inspect.isclass(named) else list(inspect.signature(named).parameters)[:1]
        given = arguments(named, told.options, owner=told.name, field="regularize.transforms", besides=first)
        made: Any = named(**given) if inspect.isclass(named) else partial(named, **given)
        found.append(made)
    return found


def augment(
    batch: dict[str, Tensor], options: DataAugmentation, transforms: Sequence[Transform] = ()
) -> dict[str, Tensor]:
    """The batch with its images varied; the batch given stays as it is.

    What happens to an image depends on its `key` alone, so it is the same in any batch and on
    any worker. Own transforms come first, then mirroring, the shift and the noise; values may leave 0…1.

    Args:
        batch: `image` float (N, C, H, W) and `key` int64 (N,), and whatever else.
        transforms: what `own_transforms` found.

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
    if transforms:
        with own_numbers() as seed:
            rows = []
            for row, number in zip(image, key.tolist(), strict=True):
                seed(number % 2**63)
                rows.append(_transformed(row, transforms))
        image = torch.stack(rows)
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


@contextmanager
def own_numbers() -> Iterator[Callable[[int], None]]:
    """Gives what seeds the generators that others draw from; afterwards they are as they were before.

    Of torch only the CPU's: seeding them all would begin a GPU's dropout anew.
    """
    ours, theirs, pythons = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def seed(key: int) -> None:
        torch.default_generator.manual_seed(key)
        np.random.seed(key % 2**32)
        random.seed(key)

    try:
        yield seed
    finally:
        torch.set_rng_state(ours)
        np.random.set_state(theirs)
        random.setstate(pythons)


def _transformed(image: Tensor, transforms: Sequence[Transform]) -> Tensor:
    found = image
    for transform in transforms:
        found = transform(found.clone())
    if not isinstance(found, Tensor) or found.shape != image.shape or not found.is_floating_point():
        what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise DataError(
            f"regularize.transforms: of an image float32 {list(image.shape)} they make {what}",
            hint="return a tensor of floats of the same shape",
        )
    return found.to(image.dtype)
