"""Pictures of shapes in textures: two cues of a class, which a test set sets against each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.images.normalize import normalized
from dlsys.data.images.patterns import KINDS, textures
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import ShapesAndTextures
from dlsys.spec.rows import Shape

# Mean and deviation of the cloudy ground, and of what is in a shape, in a picture of 0…1.
_GROUND, _CLOUDS, _MEAN, _CONTRAST = 0.3, 0.05, 0.6, 0.2
_CLOUD_SIZES = 8.0, 16.0
# By how much a side of a shape is longer or shorter than drawn, at the most, as a logarithm.
_STRETCH = 0.25


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    around = np.arctan2(x, y) / (2 * np.pi) * 5 % 1
    return np.asarray(np.hypot(x, y) < 1 - 1.2 * np.minimum(around, 1 - around))


# Whether a place belongs to the shape, of coordinates in its radius, beyond which none does; by class.
_SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda x, y: np.hypot(x, y) < 0.85,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.7,
    "triangle": lambda x, y: (y < 0.55) & (1.9 * abs(x) < y + 1),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 0.95),
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.7) < 0.25,
    "star": _star,
}


def shapes_and_textures(options: ShapesAndTextures, folder: Path) -> Splits:  # noqa: ARG001
    """Synthetic pictures: `image` float32 (1, size, size) in 0…1; `label` int64, the shape's class; `texture`
    int64, the texture's, the same but in the test, where it is any other.

    Planted are two cues, each of which tells the class without fail as long as they agree: a shape, brighter
    than its cloudy ground, and a texture in it, of the first of `patterns.KINDS`. The shape's place, size,
    turn and stretch and the texture's angle, phase and scale are each picture's own. Which cue a model has
    learnt, training and validation cannot say; the test can (Geirhos et al. 2019, arXiv:1811.12231).
    """
    generator = np.random.default_rng(options.data_seed)
    label = np.arange(options.rows) % options.classes
    parts = split_rows(
        options.rows,
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="shapes-and-textures",
        labels=label,
    )
    other = (label + generator.integers(1, options.classes, options.rows)) % options.classes
    texture = label.copy()
    texture[parts.test] = other[parts.test]
    inside = _inside(label, options.size, generator)
    wavelength = (options.wavelength * 0.8, options.wavelength * 1.25)
    pattern = textures(texture, options.size, generator, wavelength=wavelength)
    ground = np.full(options.rows, KINDS.index("clouds"))
    clouds = textures(ground, options.size, generator, wavelength=_CLOUD_SIZES)
    image = np.where(inside, _MEAN + _CONTRAST * pattern, _GROUND + _CLOUDS * clouds)
    image += options.noise * generator.standard_normal(image.shape)
    fields = {
        "image": torch.from_numpy(image.clip(0, 1)).float()[:, None],
        "label": torch.from_numpy(label),
        "texture": torch.from_numpy(texture),
    }
    shape = Shape(
        row={"image": (1, options.size, options.size), "label": (), "texture": ()}, classes=options.classes
    )
    return normalized(tensor_splits(fields, parts, shape), options.normalize, "shapes-and-textures")


def _inside(label: np.ndarray, side: int, generator: np.random.Generator) -> np.ndarray:
    """Which pixels belong to each picture's shape: bool (N, side, side)."""
    rows = len(label)
    radius = side * generator.uniform(0.28, 0.38, (rows, 1, 1))
    # Any place at which the shape, however long it is, lies within the picture.
    reach = radius * np.exp(_STRETCH)
    down, right = reach + (side - 1 - 2 * reach) * generator.random((2, rows, 1, 1))
    turn = np.pi * generator.uniform(-1, 1, (rows, 1, 1))
    stretch = np.exp(_STRETCH * generator.uniform(-1, 1, (rows, 1, 1)))
    y, x = np.mgrid[:side, :side]
    y, x = (y - down) / radius, (x - right) / radius
    y, x = np.cos(turn) * y - np.sin(turn) * x, np.cos(turn) * x + np.sin(turn) * y
    y, x = y * stretch, x / stretch
    found = np.empty((rows, side, side), dtype=bool)
    for place, contains in enumerate(_SHAPES.values()):
        chosen = label == place
        found[chosen] = contains(x[chosen], y[chosen])
    return found
