"""Varies training images, with their boxes and masks, by what only a row's key decides."""

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

from dlsys.data import rowwise
from dlsys.data.colour import coloured
from dlsys.data.geometry import moved
from dlsys.data.retexture import retextured
from dlsys.errors import DataError, UsageError
from dlsys.own.imports import import_own
from dlsys.own.options import arguments
from dlsys.spec.train.regularizer import DataAugmentation

# A row's random numbers that are this file's own.
_NOISE = 18


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
    any worker; what happens to a clip happens to each of its frames alike, but for noise. Own transforms come
    first, then another texture, what moves (`dlsys.data.geometry`), colours and noise, with which values may
    leave 0…1.

    Args:
        batch: `image` float (N, C, H, W) or `clip` (N, T, C, H, W), `key` int64 (N,), and whatever else.
        transforms: what `own_transforms` found.

    Raises:
        DataError: the batch has no images, or what own transforms or what moves would leave behind.
    """
    key = batch["key"]
    if "angles" in batch and (options.flip or options.flip_vertical or options.warps or transforms):
        raise DataError(
            "regularize.data-augmentation: these rows have angles, which would stay as they are where clips "
            "are mirrored or turned",
            hint="vary shift, colours and noise alone",
        )
    if "clip" not in batch:
        batch = _varied(batch, options, transforms)
        return {**batch, "image": _noisy(batch["image"], key, options)}
    clip = batch["clip"]
    frames = {"image": clip.flatten(0, 1), "key": key.repeat_interleave(clip.shape[1])}
    clip = _varied(frames, options, transforms)["image"].view_as(clip)
    return {**batch, "clip": _noisy(clip, key, options)}


def _noisy(pixels: Tensor, key: Tensor, options: DataAugmentation) -> Tensor:
    if not options.noise:
        return pixels
    noise = rowwise.normal(key, pixels[0].numel(), stream=_NOISE)
    return pixels + options.noise * noise.view_as(pixels).to(pixels.dtype)


def _varied(
    batch: dict[str, Tensor], options: DataAugmentation, transforms: Sequence[Transform]
) -> dict[str, Tensor]:
    """All but noise, of rows with an `image` each."""
    image, key = batch.get("image"), batch["key"]
    if image is None:
        fields = ", ".join(name for name in batch if name != "key")
        raise DataError(
            f"data-augmentation varies the field 'image' or 'clip', and this source's rows have: {fields}",
            hint="take data-augmentation out of regularize, or train on images",
        )
    if transforms and batch.keys() & {"boxes", "mask", "keypoints"}:
        raise DataError(
            "regularize.transforms: these rows have places in their images, which a function of an image "
            "alone would leave behind",
            hint="say what moves images by data-augmentation's own options",
        )
    if transforms:
        with own_numbers() as seed:
            rows = []
            for row, number in zip(image, key.tolist(), strict=True):
                seed(number % 2**63)
                rows.append(_transformed(row, transforms))
        image = torch.stack(rows)
    if options.retexture:
        image = retextured(image, key, options.retexture)
    batch = moved({**batch, "image": image}, options)
    return {**batch, "image": coloured(batch["image"], key, options)}


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
