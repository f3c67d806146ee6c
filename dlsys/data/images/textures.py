"""Pictures of textures, each under a light of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.images.normalize import normalized
from dlsys.data.images.patterns import textures as drawn
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import Textures
from dlsys.spec.rows import Shape

# A texture's deviation in a picture of 0…1, before its light.
_CONTRAST = 0.15


def textures(options: Textures, folder: Path) -> Splits:  # noqa: ARG001
    """Synthetic pictures, each filled with one texture: `image` float32 (1, size, size) in 0…1, `label`
    int64, the kind among the first `classes` of `patterns.KINDS`.

    Planted is that a kind shows in how neighbours differ, and nowhere else: angle, phase and scale are drawn
    for each picture, and so is the light, a contrast and a slope of brightness that say nothing of the kind.
    The mean picture of each class is the same grey: no linear machine on pixels can tell the classes apart.
    """
    generator = np.random.default_rng(options.data_seed)
    label = np.arange(options.rows) % options.classes
    side = options.size
    pattern = drawn(label, side, generator, wavelength=(options.wavelength * 0.8, options.wavelength * 1.25))
    contrast = np.exp(options.light * generator.uniform(-1, 0, (options.rows, 1, 1)))
    slope = options.light * generator.uniform(-0.25, 0.25, (2, options.rows, 1, 1))
    y, x = np.mgrid[:side, :side] / side - 0.5
    image = 0.5 + _CONTRAST * contrast * pattern + slope[0] * x + slope[1] * y
    image += options.noise * generator.standard_normal(image.shape)
    parts = split_rows(
        options.rows,
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="textures",
        labels=label,
    )
    fields = {
        "image": torch.from_numpy(image.clip(0, 1)).float()[:, None],
        "label": torch.from_numpy(label),
    }
    shape = Shape(row={"image": (1, side, side), "label": ()}, classes=options.classes)
    return normalized(tensor_splits(fields, parts, shape), options.normalize, "textures")
