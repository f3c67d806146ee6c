"""Synthetic regression with another affine function in each region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import Piecewise
from dlsys.spec.rows import Shape


def piecewise(options: Piecewise, folder: Path) -> Splits:  # noqa: ARG001
    """Synthetic regression that no single smooth function fits: one affine function a region.

    Rows are `features` float32 (F,), standard normal around one of the regions' centres, and `target`
    float32, the function of the nearest centre, scaled to a standard deviation of 1, plus noise.
    """
    generator = np.random.default_rng(options.data_seed)
    size = (options.regions, options.features)
    centres = 2 * generator.standard_normal(size)
    slopes, offsets = generator.standard_normal(size), 2 * generator.standard_normal(options.regions)
    rows = (options.rows, options.features)
    features = centres[generator.integers(options.regions, size=options.rows)]
    features = features + generator.standard_normal(rows)
    region = np.square(features[:, None] - centres).sum(2).argmin(1)
    target = ((features - centres[region]) * slopes[region]).sum(1) + offsets[region]
    target = target / max(float(target.std()), 1e-12)
    target += options.noise * generator.standard_normal(options.rows)
    parts = split_rows(
        options.rows, valid=options.valid, test=options.test, seed=options.split_seed, name="piecewise"
    )
    fields = {"features": torch.from_numpy(features).float(), "target": torch.from_numpy(target).float()}
    shape = Shape(row={"features": (options.features,), "target": ()})
    return tensor_splits(fields, parts, shape)
