"""Made-up faces of made-up people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data.dataset import Splits
from dlsys.data.images.normalize import normalized
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import SyntheticFaces
from dlsys.spec.rows import Shape

# So many are drawn at once: 100 of 128 × 128 pixels take 20 MB for each layer.
_AT_ONCE = 100

# What a person keeps, from … to, in units of half an image's side.
_PERSON = {
    "face_width": (0.42, 0.60),
    "face_height": (0.55, 0.75),
    "jaw": (0.0, 0.6),
    "hair_top": (0.05, 0.30),
    "hair_side": (0.0, 0.22),
    "fringe": (-0.55, -0.25),
    "eye_apart": (0.17, 0.29),
    "eye_height": (-0.18, 0.02),
    "eye_width": (0.06, 0.12),
    "eye_open": (0.03, 0.07),
    "brow_above": (0.09, 0.17),
    "brow_thick": (0.012, 0.04),
    "nose_long": (0.10, 0.26),
    "nose_wide": (0.03, 0.10),
    "mouth_height": (0.26, 0.40),
    "mouth_wide": (0.12, 0.26),
    "lips_thick": (0.02, 0.07),
    # Colours: how dark skin and hair are, how red hair is, how blue eyes are; 0 to 1.
    "skin_dark": (0.0, 1.0),
    "hair_dark": (0.0, 1.0),
    "hair_red": (0.0, 1.0),
    "eye_blue": (0.0, 1.0),
}
# What each image varies, at most, to both sides; times `varied`.
_IMAGE = {
    "right": 0.10,
    "down": 0.10,
    "turn": 0.20,  # radians, in the image's plane
    "scale": 0.10,
    "yaw": 0.10,  # the features move within the face
    "smile": 1.2,
    "light": 0.30,
    "light_right": 0.35,
    "light_down": 0.25,
    "warmth": 0.10,
}
_NOISE = 0.04
_LIGHT_SKIN, _DARK_SKIN = np.array([0.96, 0.82, 0.72]), np.array([0.45, 0.30, 0.22])
_LIGHT_HAIR, _DARK_HAIR = np.array([0.85, 0.75, 0.50]), np.array([0.10, 0.08, 0.08])
_RED_HAIR, _LIPS = np.array([0.60, 0.25, 0.12]), np.array([0.70, 0.25, 0.25])
_BROWN_EYES, _BLUE_EYES = np.array([0.30, 0.18, 0.10]), np.array([0.30, 0.50, 0.80])

_Values = dict[str, np.ndarray]


def synthetic_faces(options: SyntheticFaces, folder: Path) -> Splits:  # noqa: ARG001
    """Faces of ellipses: `image` float32 (3, size, size) in 0…1, `label` int64, a person's number.

    The numbers of `_PERSON` make a person: the shapes of face, hair, eyes, brows, nose and mouth, and their
    colours. Each image is moved, turned, scaled, lit from another side in another colour, with another smile
    on another background: like pixels are hardly a sign of like people, and no feature alone tells all apart.
    """
    generator = np.random.default_rng(options.data_seed)
    count = options.people * options.images
    label = np.repeat(np.arange(options.people), options.images)
    person = {name: generator.uniform(*between, options.people)[label] for name, between in _PERSON.items()}
    varied = {name: options.varied * most * generator.uniform(-1, 1, count) for name, most in _IMAGE.items()}
    background = 0.5 + min(options.varied, 1.0) * generator.uniform(-0.4, 0.4, (count, 3))
    images = np.empty((count, 3, options.size, options.size), np.float32)
    for start in range(0, count, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        drawn = _drawn(
            {name: values[some] for name, values in person.items()},
            {name: values[some] for name, values in varied.items()},
            background[some],
            options.size,
        )
        noise = options.varied * _NOISE * generator.standard_normal(drawn.shape)
        images[some] = np.clip(drawn + noise, 0, 1).transpose(0, 3, 1, 2)
    parts = split_rows(
        count,
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="synthetic-faces",
        labels=label,
    )
    shape = Shape(row={"image": (3, options.size, options.size), "label": ()}, classes=options.people)
    fields = {"image": torch.from_numpy(images), "label": torch.from_numpy(label)}
    return normalized(tensor_splits(fields, parts, shape), options.normalize, "synthetic-faces")


def _drawn(person: _Values, varied: _Values, background: np.ndarray, size: int) -> np.ndarray:
    """Images, float64 (n, size, size, 3), of values (n,) each and a background (n, 3)."""
    p = {name: values[:, None, None] for name, values in person.items()}
    v = {name: values[:, None, None] for name, values in varied.items()}
    across = (np.arange(size) + 0.5) / size * 2 - 1
    right, down = across[None, None, :] - v["right"], across[None, :, None] - v["down"]
    # From the image's coordinates to the face's: x to the right, y down, 0 its middle.
    cosine, sine, scale = np.cos(v["turn"]), np.sin(v["turn"]), 1 + v["scale"]
    x, y = (cosine * right + sine * down) / scale, (cosine * down - sine * right) / scale

    def disc(x: np.ndarray, y: np.ndarray, wide: np.ndarray, high: np.ndarray) -> np.ndarray:
        """How much of each pixel an ellipse around 0 covers, with an edge of about a pixel."""
        away = (np.sqrt((x / wide) ** 2 + (y / high) ** 2) - 1) * np.minimum(wide, high)
        covered: np.ndarray = np.clip(0.5 - away * size / 2, 0, 1)
        return covered

    skin = _between(_LIGHT_SKIN, _DARK_SKIN, person["skin_dark"])
    dark_hair = _between(_LIGHT_HAIR, _DARK_HAIR, person["hair_dark"])
    hair = dark_hair + 0.7 * person["hair_red"][:, None] * (_RED_HAIR - dark_hair)
    eyes = _between(_BROWN_EYES, _BLUE_EYES, person["eye_blue"])
    lips = 0.5 * _LIPS + 0.5 * skin

    image = np.broadcast_to(background[:, None, None, :], (len(background), size, size, 3)).copy()

    def paint(covered: np.ndarray, colour: np.ndarray) -> None:
        image[...] += covered[..., None] * (colour[:, None, None, :] - image)

    wide, high = p["face_width"], p["face_height"]
    paint(disc(x, y + p["hair_top"], wide + p["hair_side"], high), hair)
    face = disc(x * (1 + p["jaw"] * np.maximum(y, 0)), y, wide, high)
    paint(face, skin)
    paint(face * np.clip(0.5 - (y - p["fringe"]) * size / 2, 0, 1), hair)
    inner = x - v["yaw"]
    # Both eyes at once: they mirror each other.
    side, eye_y = np.abs(inner) - p["eye_apart"], y - p["eye_height"]
    paint(disc(side, eye_y, p["eye_width"], p["eye_open"]), np.full_like(skin, 0.95))
    iris = 0.8 * p["eye_open"]
    paint(disc(side, eye_y, iris, iris), eyes)
    paint(disc(side, eye_y + p["brow_above"], 1.4 * p["eye_width"], p["brow_thick"]), 0.8 * hair)
    nose_y = y - p["eye_height"] - p["nose_long"]
    paint(disc(inner - 0.3 * v["yaw"], nose_y, p["nose_wide"], 0.4 * p["nose_long"]), 0.8 * skin)
    mouth_y = y - p["mouth_height"] + v["smile"] * inner**2
    paint(disc(inner, mouth_y, p["mouth_wide"], p["lips_thick"]), lips)

    light = 1 + v["light"] + v["light_right"] * across + v["light_down"] * across[:, None]
    warmth = 1 + varied["warmth"][:, None] * np.array([1.0, 0.0, -1.0])
    lit: np.ndarray = image * light[..., None] * warmth[:, None, None, :]
    return lit


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Colours (n, 3) between two, by shares (n,)."""
    mixed: np.ndarray = first + share[:, None] * (second - first)
    return mixed
