"""Synthetic points around Gaussians on a circle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import GaussianRing
from dlsys.spec.rows import Shape


def gaussian_ring(options: GaussianRing, folder: Path) -> Splits:  # noqa: ARG001
    """Synthetic points in the plane: equal Gaussians at equal angles on a circle, the first at
    angle 0. Rows are `point` float32 (2,)."""
    generator = np.random.default_rng(options.data_seed)
    angle = 2 * np.pi * generator.integers(options.modes, size=options.rows) / options.modes
    centre = options.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    point = centre + options.sigma * generator.standard_normal((options.rows, 2))
    parts = split_rows(
        options.rows, valid=options.valid, test=options.test, seed=options.split_seed, name="gaussian-ring"
    )
    planted = {"modes": options.modes, "radius": options.radius, "sigma": options.sigma}
    shape = Shape(row={"point": (2,)}, planted=planted)
    return tensor_splits({"point": torch.from_numpy(point).float()}, parts, shape)
