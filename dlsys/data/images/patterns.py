"""Textures drawn on request: what the generators of images fill their pictures with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

# From places (N, side, side), in wavelengths, across the pattern and along it.
_Drawn = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _wave(place: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * place)


def _bricks(across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Dark joints around bright bricks, each course moved by half a brick."""
    course = np.floor(across)
    joint = np.minimum(across - course, (along / 2 + course / 2) % 1 * 2)
    return np.where(joint < 0.3, -1.0, 1.0)


def _zigzag(across: np.ndarray, along: np.ndarray) -> np.ndarray:
    return _wave(across + 2 * np.abs(along / 2 % 1 - 0.5))


_DRAWN: dict[str, _Drawn] = {
    "stripes": lambda across, along: _wave(across),
    "checks": lambda across, along: np.sign(_wave(across / 2) * _wave(along / 2)),
    "dots": lambda across, along: np.where(_wave(across) + _wave(along) > 0.7, 1.0, -1.0),
    "holes": lambda across, along: np.where(_wave(across) + _wave(along) > 0.7, -1.0, 1.0),
    "bricks": _bricks,
    "zigzag": _zigzag,
}
# All kinds, in the order in which generators take them.
KINDS = (*_DRAWN, "grain", "clouds")


def textures(
    kinds: np.ndarray, side: int, generator: np.random.Generator, *, wavelength: tuple[float, float]
) -> np.ndarray:
    """Textures that fill a square, of mean 0 and deviation 1: float64 (N, side, side).

    Each lies at an angle, a phase and a scale of its own, so that no pixel tells the kind by itself: the mean
    picture of each kind is grey. `stripes`, `checks`, `dots`, `holes`, `bricks` and `zigzag` repeat
    themselves; `grain` is white noise, and `clouds` are noise that is smooth over a quarter of a wavelength.

    Args:
        kinds: places in `KINDS`, int64 (N,).
        side: pixels.
        generator: what everything is drawn from.
        wavelength: the shortest and the longest, in pixels.
    """
    rows = len(kinds)
    angle = generator.uniform(0, 2 * np.pi, (rows, 1, 1))
    length = generator.uniform(*wavelength, (rows, 1, 1))
    phase = generator.uniform(0, 100, (2, rows, 1, 1))
    y, x = np.mgrid[:side, :side].astype(np.float64)
    across = (np.cos(angle) * x + np.sin(angle) * y) / length + phase[0]
    along = (np.cos(angle) * y - np.sin(angle) * x) / length + phase[1]
    found = np.empty((rows, side, side))
    for place, kind in enumerate(KINDS):
        chosen = kinds == place
        if kind in _DRAWN:
            found[chosen] = _DRAWN[kind](across[chosen], along[chosen])
            continue
        found[chosen] = generator.standard_normal((int(chosen.sum()), side, side))
        if kind == "clouds":
            for row in np.flatnonzero(chosen):
                found[row] = gaussian_filter(found[row], length[row, 0, 0] / 4, mode="wrap")
    found -= found.mean((1, 2), keepdims=True)
    found /= found.std((1, 2), keepdims=True).clip(min=1e-6)
    return found
