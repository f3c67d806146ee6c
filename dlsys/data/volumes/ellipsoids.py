"""Ellipsoids in noise, known to the voxel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import Ellipsoids
from dlsys.spec.rows import Shape


def ellipsoids(options: Ellipsoids, folder: Path) -> Splits:  # noqa: ARG001
    """Volumes of unit noise on a ground that slopes, with brighter ellipsoids of any direction in them:
    `volume` float32 (1, size, size, size), `mask` int64 (size, size, size), 1 in ellipsoids."""
    generator = np.random.default_rng(options.data_seed)
    size = options.size
    volume = np.empty((options.rows, size, size, size), dtype=np.float32)
    mask = np.empty(volume.shape, dtype=np.int64)
    for row, seed in enumerate(generator.integers(2**63, size=options.rows)):
        volume[row], mask[row] = _scene(options, np.random.default_rng(seed))
    parts = split_rows(
        options.rows, valid=options.valid, test=options.test, seed=options.split_seed, name="ellipsoids"
    )
    fields = {"volume": torch.from_numpy(volume)[:, None], "mask": torch.from_numpy(mask)}
    shape = Shape(row={name: tuple(field.shape[1:]) for name, field in fields.items()}, classes=2)
    share = float(mask[parts.train].mean())
    splits = tensor_splits(fields, parts, shape)
    return Splits(
        train=splits.train,
        valid=splits.valid,
        test=splits.test,
        shape=shape,
        notes=(f"ellipsoids: {share:.1%} of the voxels to train on lie in one",),
        learnt={"pixels": {"classes": ["ground", "ellipsoid"]}},
    )


def _scene(options: Ellipsoids, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A volume and its mask."""
    size = options.size
    axes = np.moveaxis(np.mgrid[:size, :size, :size], 0, -1) + 0.5
    slope = generator.uniform(-0.5, 0.5, 3)
    mask = np.zeros((size, size, size), dtype=bool)
    for _ in range(generator.integers(options.objects[0], options.objects[1] + 1)):
        half = generator.uniform(*options.radii, 3)
        # Whole, however it is turned.
        centre = generator.uniform(half.max(), size - half.max(), 3)
        turn, _ = np.linalg.qr(generator.standard_normal((3, 3)))
        mask |= (((axes - centre) @ turn / half) ** 2).sum(-1) <= 1
    ground = (axes / size - 0.5) @ slope
    volume = ground + options.contrast * mask + generator.standard_normal(mask.shape)
    return volume.astype(np.float32), mask.astype(np.int64)
