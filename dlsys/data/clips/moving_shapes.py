"""Clips of a moving shape, whose motion no single frame tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.images.shapes import drawn
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import MovingShapes
from dlsys.spec.rows import Shape

# The classes, each with its step across and down.
_MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_KINDS = ("circle", "square", "triangle", "cross", "ring")
# Between ground and shape, in 0…1: what makes a shape visible.
_CONTRAST = 0.3


def moving_shapes(options: MovingShapes, folder: Path) -> Splits:  # noqa: ARG001
    """A shape that moves steadily over an even ground: `clip` float32 (frames, C, size, size) in 0…1, `label`
    int64, where it goes.

    Planted is that the motion shows in how frames differ, and nowhere else: kind, side, turn, colours and
    speed are drawn for each clip, and the place in the first frame from the whole ground. As the ground has
    no edges, the place is as likely anywhere in each later frame too, whichever way the shape goes.
    """
    generator = np.random.default_rng(options.data_seed)
    label = np.arange(options.rows) % len(_MOTIONS)
    clip = np.stack(
        [
            _clip(options, kind, np.random.default_rng(seed))
            for kind, seed in zip(label.tolist(), generator.integers(2**63, size=options.rows), strict=True)
        ]
    )
    parts = split_rows(
        options.rows,
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="moving-shapes",
        labels=label,
    )
    fields = {"clip": torch.from_numpy(clip), "label": torch.from_numpy(label)}
    shape = Shape(row={name: tuple(field.shape[1:]) for name, field in fields.items()}, classes=len(_MOTIONS))
    splits = tensor_splits(fields, parts, shape)
    counts = np.bincount(label[parts.train], minlength=len(_MOTIONS)).tolist()
    return Splits(
        train=splits.train,
        valid=splits.valid,
        test=splits.test,
        shape=shape,
        notes=(f"moving-shapes: of one frame alone, {1 / len(_MOTIONS):.0%} are right by chance",),
        learnt={"target": {"name": "label", "classes": list(_MOTIONS), "counts": counts}},
    )


def _clip(options: MovingShapes, motion: int, generator: np.random.Generator) -> np.ndarray:
    """The frames of one clip, float32 (frames, C, size, size)."""
    size, channels = options.size, options.channels
    kind = _KINDS[generator.integers(len(_KINDS))]
    side, speed = generator.uniform(*options.sides), generator.uniform(*options.speeds)
    angle, start = generator.uniform(-0.4, 0.4), generator.uniform(0, size, 2)
    ground = generator.uniform(0, 1, channels)
    # Far from the ground in every channel, to either side.
    colour = (ground + generator.uniform(_CONTRAST, 1 - _CONTRAST, channels)) % 1
    places = start + speed * np.arange(options.frames)[:, None] * list(_MOTIONS.values())[motion]
    centre = np.arange(size) + 0.5
    frames = np.empty((options.frames, channels, size, size))
    for frame, place in zip(frames, places, strict=True):
        # Of a pixel's distances to the shape, which repeats itself beyond the sides, the shortest one.
        x, y = np.meshgrid(*((centre - along + size / 2) % size - size / 2 for along in place))
        mask = drawn(kind, x, y, side, angle)
        frame[:] = np.where(mask, colour[:, None, None], ground[:, None, None])
    frames += options.noise * generator.standard_normal(frames.shape)
    return frames.clip(0, 1).astype(np.float32)
