"""Clips of shapes that move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import MovingShapes
from dlsys.spec.rows import Shape

MOTIONS = ("right", "left", "down", "up")
_STEPS = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])


def moving_shapes(options: MovingShapes, folder: Path) -> Splits:  # noqa: ARG001
    """`clip` float32 (frames, 1, size, size) in 0…1 of a disc, square, diamond or ring, and `label` int64,
    which of `MOTIONS`.

    Planted is that one frame tells nothing of the motion: what leaves the image at one side comes back at the
    other, so that places, like kinds, sizes and brightness, are as likely in any frame of any class.
    """
    generator = np.random.default_rng(options.data_seed)
    count, frames, size = options.rows, options.frames, options.size
    label = np.arange(count) % len(MOTIONS)
    start = generator.uniform(0, size, (count, 1, 2))
    speed = generator.uniform(*options.speed, (count, 1, 1))
    centre = start + np.arange(frames)[:, None] * speed * _STEPS[label][:, None]
    # Distances on a torus, from a pixel's middle to the shape's.
    place = np.arange(size) + 0.5
    down, right = (
        (place - centre[..., axis, None] + size / 2) % size - size / 2 for axis in range(2)
    )  # (count, frames, size)
    y, x = np.abs(down[..., :, None]), np.abs(right[..., None, :])
    disc = np.hypot(y, x)
    distances = np.stack([disc, np.maximum(y, x), (y + x) / np.sqrt(2), np.abs(disc - 2)])
    kind = generator.integers(len(distances), size=count)
    radius = generator.uniform(2, 3.5, (count, 1, 1, 1))
    radius[kind == len(distances) - 1] *= 0.5  # of a ring, half of its breadth
    inside = np.clip(radius - distances[kind, np.arange(count)] + 0.5, 0, 1)
    ground, bright = (
        generator.uniform(0, 0.4, (count, 1, 1, 1)),
        generator.uniform(0.3, 0.6, (count, 1, 1, 1)),
    )
    clip = ground + bright * inside + options.noise * generator.standard_normal(inside.shape)
    parts = split_rows(
        count,
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="moving-shapes",
        labels=label,
    )
    fields = {
        "clip": torch.from_numpy(clip.clip(0, 1)).float()[:, :, None],
        "label": torch.from_numpy(label),
    }
    shape = Shape(row={"clip": (frames, 1, size, size), "label": ()}, classes=len(MOTIONS))
    counts = np.bincount(label[parts.train], minlength=len(MOTIONS)).tolist()
    learnt = {"target": {"name": "label", "classes": list(MOTIONS), "counts": counts}}
    return replace(tensor_splits(fields, parts, shape), learnt=learnt)
