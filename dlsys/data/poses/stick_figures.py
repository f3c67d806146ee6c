"""People of sticks, in images and in clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import StickFigures
from dlsys.spec.rows import Shape

JOINTS = (
    *("head", "neck", "pelvis", "left elbow", "left hand", "right elbow", "right hand"),
    *("left knee", "left foot", "right knee", "right foot"),
)
# Pairs of joints, each after the one that its first joint ends.
LIMBS = ((1, 0), (1, 2), (1, 3), (3, 4), (1, 5), (5, 6), (2, 7), (7, 8), (2, 9), (9, 10))
# Which joint each is in a mirror.
MIRROR = (0, 1, 2, 5, 6, 3, 4, 9, 10, 7, 8)
# Of each limb: its length as a share of a person's height; the angle at which it hangs, in radians from
# downwards to the image's right; and how far it may turn from that.
_LENGTHS = np.array([0.15, 0.3, 0.16, 0.16, 0.16, 0.16, 0.22, 0.22, 0.22, 0.22])
_MIDDLES = np.array([np.pi, 0, 1.0, 0.8, -1.0, -0.8, 0.35, 0.2, -0.35, -0.2])
_REACH = np.array([0.3, 0.2, 0.8, 1.0, 0.8, 1.0, 0.4, 0.4, 0.4, 0.4])
# What shows the sides of a body apart: the left is red, the right blue, the rest grey.
_COLOURS = np.array(
    [(0.8, 0.8, 0.8)] * 2 + [(0.95, 0.25, 0.2)] * 2 + [(0.2, 0.35, 0.95)] * 2 + [(0.95, 0.25, 0.2)] * 2
    + [(0.2, 0.35, 0.95)] * 2
)  # fmt: skip


def stick_figures(options: StickFigures, folder: Path) -> Splits:  # noqa: ARG001
    """People, or one who moves.

    Under `wanted: poses`: `image` float32 (3, size, size) in 0…1; `keypoints` float32 (people, 11, 3), of
    each joint x and y in pixels and 2, or three zeros where there are fewer people; `mirror` int64 (11,),
    which joint each is in a mirror. Under `wanted: angles`: `clip` float32 (frames, 3, size, size) and
    `angles` float32 (frames, 10), of each of `LIMBS` in radians from downwards to the image's right.

    Planted is a body of `LIMBS` whose left side is red and whose right side is blue, of any height, turned at
    every joint; people stand where they may hide each other. In clips, each angle swings with a period and a
    phase of its own.
    """
    generator = np.random.default_rng(options.data_seed)
    made = _images if options.wanted == "poses" else _clips
    fields, shape = made(options, generator)
    parts = split_rows(
        options.rows, valid=options.valid, test=options.test, seed=options.split_seed, name="stick-figures"
    )
    return replace(tensor_splits(fields, parts, shape), learnt={"joints": list(JOINTS)})


def _images(options: StickFigures, generator: np.random.Generator) -> tuple[dict[str, torch.Tensor], Shape]:
    least, most = options.people
    images = np.empty((options.rows, 3, options.size, options.size), dtype=np.float32)
    keypoints = np.zeros((options.rows, most, len(JOINTS), 3), dtype=np.float32)
    for row in range(options.rows):
        people = [_standing(options.size, generator) for _ in range(generator.integers(least, most + 1))]
        images[row] = _drawn(np.stack(people), options, generator)
        for place, joints in enumerate(people):
            keypoints[row, place, :, :2] = joints
            keypoints[row, place, :, 2] = 2
    shape = Shape(
        row={
            "image": (3, options.size, options.size),
            "keypoints": (most, len(JOINTS), 3),
            "mirror": (len(JOINTS),),
        },
        limbs=LIMBS,
    )
    fields = {
        "image": torch.from_numpy(images),
        "keypoints": torch.from_numpy(keypoints),
        "mirror": torch.tensor(MIRROR).expand(options.rows, -1).contiguous(),
    }
    return fields, shape


def _clips(options: StickFigures, generator: np.random.Generator) -> tuple[dict[str, torch.Tensor], Shape]:
    count, frames, limbs = options.rows, options.frames, len(LIMBS)
    time = np.arange(frames)[None, :, None]
    period = generator.uniform(6, 16, (count, 1, limbs))
    phase = generator.uniform(0, 2 * np.pi, (count, 1, limbs))
    swing = generator.uniform(0.3, 1, (count, 1, limbs))
    angles = _MIDDLES + _REACH * swing * np.sin(2 * np.pi * time / period + phase)
    clips = np.empty((count, frames, 3, options.size, options.size), dtype=np.float32)
    for row in range(count):
        height = options.size * generator.uniform(0.6, 0.85)
        pelvis = options.size * (0.5 + generator.uniform(-0.08, 0.08, 2))
        ground = _ground(options.size, generator)
        for frame in range(frames):
            people = _body(angles[row, frame], height, pelvis)[None]
            clips[row, frame] = _drawn(people, options, generator, ground)
    shape = Shape(
        row={"clip": (frames, 3, options.size, options.size), "angles": (frames, limbs)}, limbs=LIMBS
    )
    return {"clip": torch.from_numpy(clips), "angles": torch.from_numpy(angles).float()}, shape


def _standing(size: int, generator: np.random.Generator) -> np.ndarray:
    """The joints (11, 2) of somebody who is wholly in the image."""
    angles = _MIDDLES + _REACH * generator.uniform(-1, 1, len(LIMBS))
    height = size * generator.uniform(0.5, 0.8)
    joints = _body(angles, height, np.zeros(2))
    low, high = joints.min(0), joints.max(0)
    margin = 2.0
    found: np.ndarray = joints + generator.uniform(
        margin - low, np.maximum(size - margin - high, margin - low + 1e-6)
    )
    return found


def _body(angles: np.ndarray, height: float, pelvis: np.ndarray) -> np.ndarray:
    """The joints (11, 2), as x and y, of a body whose limbs have these angles (10,)."""
    joints = np.zeros((len(JOINTS), 2))
    steps = height * _LENGTHS[:, None] * np.stack([np.sin(angles), np.cos(angles)], 1)
    for (start, end), step in zip(LIMBS, steps, strict=True):
        joints[end] = joints[start] + step
    found: np.ndarray = joints - joints[2] + pelvis
    return found


def _ground(size: int, generator: np.random.Generator) -> np.ndarray:
    """A slope of grey: (3, size, size)."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    slope = generator.uniform(-0.15, 0.15, (2, 3, 1, 1))
    found: np.ndarray = generator.uniform(0.05, 0.35, (3, 1, 1)) + slope[0] * y + slope[1] * x
    return found


def _drawn(
    people: np.ndarray,
    options: StickFigures,
    generator: np.random.Generator,
    ground: np.ndarray | None = None,
) -> np.ndarray:
    """An image (3, size, size) of people (n, 11, 2), each before those who were drawn earlier."""
    size = options.size
    image = (_ground(size, generator) if ground is None else ground).copy()
    y, x = np.mgrid[:size, :size] + 0.5
    pixels = np.stack([x, y], -1)
    for joints in people:
        breadth = max(1.0, 0.03 * (joints[:, 1].max() - joints[:, 1].min()))
        for (start, end), colour in zip(LIMBS, _COLOURS, strict=True):
            along = joints[end] - joints[start]
            share = ((pixels - joints[start]) @ along / (along @ along + 1e-9)).clip(0, 1)
            distance = np.linalg.norm(pixels - joints[start] - share[..., None] * along, axis=-1)
            cover = (breadth - distance + 0.5).clip(0, 1)
            image = image * (1 - cover) + colour[:, None, None] * cover
        head = (2 * breadth - np.linalg.norm(pixels - joints[0], axis=-1) + 0.5).clip(0, 1)
        image = image * (1 - head) + 0.9 * head
    found: np.ndarray = (image + options.noise * generator.standard_normal(image.shape)).clip(0, 1)
    return found
