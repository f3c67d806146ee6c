"""What selective search proposes of many images: searched once on a machine, and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlsys.data.images.selective_search import selective_search
from dlsys.data.once import made_once
from dlsys.errors import DataError
from dlsys.paths import cache

# It rises when the same image comes to propose others.
_VERSION = 1


def proposals(images: Sequence[np.ndarray], most: int) -> list[np.ndarray]:
    """What `selective_search` proposes of each image; others on this machine that need the same wait.

    Raises:
        DataError: there is no room to keep it.
    """
    digest = hashlib.sha256(repr((_VERSION, most, [image.shape for image in images])).encode())
    for image in images:
        digest.update(image.tobytes())
    place = cache() / "proposals" / f"{digest.hexdigest()[:32]}.npz"
    try:
        made_once(place, lambda: _make(place, images, most))
        with np.load(place) as found:
            return np.split(found["boxes"], found["ends"][:-1])
    except OSError as error:
        raise DataError(
            f"proposals cannot be kept in {place.parent}: {error.strerror or error}",
            hint="make room there, or set XDG_CACHE_HOME to another folder",
        ) from error


def _make(place: Path, images: Sequence[np.ndarray], most: int) -> None:
    found = [selective_search(image, most) for image in images]
    # Renamed when it is whole.
    beside = place.with_suffix(".making")
    with open(beside, "wb") as file:
        np.savez(file, boxes=np.concatenate(found), ends=np.cumsum([len(boxes) for boxes in found]))
    beside.replace(place)
