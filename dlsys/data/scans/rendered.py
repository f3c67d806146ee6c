"""Synthetic laser scans: beams cast at boxes and cylinders on a plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.scans.projection import View, scan_of
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import Scans
from dlsys.spec.rows import Shape

_CLASSES = ("ground", "box", "cylinder")
# Of the sensor above the plane, in metres: KITTI's.
_HEIGHT = 1.73
_NEAREST = 4.0
# Where an object finds no place in so many attempts, the scan has one less.
_ATTEMPTS = 20


def scans(options: Scans, folder: Path) -> Splits:  # noqa: ARG001
    """Scans: `scan` float32 (5, lines, columns) as `projection.scan_of` has it, `mask` int64 (lines,
    columns): 0 for the plane, 1 for boxes as large as cars, 2 for cylinders as large as people and poles, −1
    where no beam returned. How strong a return is tells nothing of what it comes from."""
    generator = np.random.default_rng(options.data_seed)
    view = View(options.lines, options.columns, options.up, options.down, options.view)
    scan = np.empty((options.rows, 5, view.lines, view.columns), dtype=np.float32)
    mask = np.empty((options.rows, view.lines, view.columns), dtype=np.int64)
    for row, seed in enumerate(generator.integers(2**63, size=options.rows)):
        scan[row], mask[row] = _scene(options, view, np.random.default_rng(seed))
    parts = split_rows(
        options.rows, valid=options.valid, test=options.test, seed=options.split_seed, name="scans"
    )
    fields = {"scan": torch.from_numpy(scan), "mask": torch.from_numpy(mask)}
    shape = Shape(row={name: tuple(field.shape[1:]) for name, field in fields.items()}, classes=len(_CLASSES))
    splits = tensor_splits(fields, parts, shape)
    learnt = {"pixels": {"classes": list(_CLASSES)}}
    return Splits(train=splits.train, valid=splits.valid, test=splits.test, shape=shape, learnt=learnt)


def _scene(options: Scans, view: View, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A scan and its mask."""
    beams = view.directions().reshape(-1, 3)
    with np.errstate(divide="ignore"):
        distance = np.where(beams[:, 2] < 0, -_HEIGHT / beams[:, 2], np.inf)
    kind, shade = np.zeros(len(beams), dtype=np.int64), np.full(len(beams), generator.uniform(0.1, 0.9))
    placed: list[tuple[np.ndarray, float]] = []
    for _ in range(generator.integers(options.objects[0], options.objects[1] + 1)):
        box = bool(generator.integers(2))
        size = generator.uniform(
            *((3.0, 1.5, 1.4), (5.0, 2.0, 2.0)) if box else ((0.3, 0.3, 1.2), (1.0, 1.0, 2.5))
        )
        place = _place(
            options, generator, placed, float(np.hypot(size[0], size[1]) / 2 if box else size[0] / 2)
        )
        if place is None:
            continue
        hit = _box(beams, place, size, generator.uniform(0, np.pi)) if box else _cylinder(beams, place, size)
        nearer = hit < distance
        distance[nearer], kind[nearer], shade[nearer] = (
            hit[nearer],
            1 if box else 2,
            generator.uniform(0.1, 0.9),
        )
    distance += options.noise * generator.standard_normal(len(beams))
    back = (distance < 4 * options.farthest) & (generator.uniform(size=len(beams)) >= options.lost)
    strength = (shade + 0.1 * generator.standard_normal(len(beams))).clip(0, 1)
    scan, number = scan_of(beams[back] * distance[back, None], strength[back], view)
    return scan, np.where(number < 0, -1, kind[back][number])


def _place(
    options: Scans, generator: np.random.Generator, placed: list[tuple[np.ndarray, float]], reach: float
) -> np.ndarray | None:
    """A place on the plane, from the sensor, apart from other objects; None if none was found."""
    for _ in range(_ATTEMPTS):
        away = generator.uniform(_NEAREST + reach, options.farthest)
        turn = np.radians(generator.uniform(-options.view / 2, options.view / 2))
        place = away * np.array([np.cos(turn), np.sin(turn)])
        if all(np.linalg.norm(place - other) > reach + theirs for other, theirs in placed):
            placed.append((place, reach))
            return place
    return None


def _box(beams: np.ndarray, place: np.ndarray, size: np.ndarray, turn: float) -> np.ndarray:
    """How far each beam goes to a box of `size` that stands on the plane: (beams,), ∞ where it goes past."""
    cos, sin = np.cos(turn), np.sin(turn)
    turned = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    middle = np.array([*place, size[2] / 2 - _HEIGHT])
    begin, along = turned @ -middle, beams @ turned.T
    with np.errstate(divide="ignore"):
        sides = np.stack([(-size / 2 - begin) / along, (size / 2 - begin) / along])
    enter, leave = sides.min(0).max(1), sides.max(0).min(1)
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)


def _cylinder(beams: np.ndarray, place: np.ndarray, size: np.ndarray) -> np.ndarray:
    """How far each beam goes to an upright cylinder, of width `size[0]` and height `size[2]`; its top is
    open."""
    flat = beams[:, :2]
    a, b = (flat**2).sum(1), flat @ place
    inside = b**2 - a * (place @ place - (size[0] / 2) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        enter = (b - np.sqrt(inside)) / a
        height = enter * beams[:, 2] + _HEIGHT
        return np.where((inside >= 0) & (enter > 0) & (height >= 0) & (height <= size[2]), enter, np.inf)
