"""KITTI's layout of object detection (Geiger et al. 2012): `image_2/*.png` with `label_2/*.txt`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dlsys.data.dataset import Splits
from dlsys.data.files import read_bytes
from dlsys.data.images.object_files import Scene, object_splits
from dlsys.errors import DataError
from dlsys.spec.data import KITTI

# A line: type, truncated, occluded, alpha, left, top, right, bottom, and seven numbers of the box in space.
_FIELDS, _BOX = 15, slice(4, 8)


def kitti(options: KITTI, folder: Path) -> Splits:
    """`image` float32 (C, height, width) in 0…1, with `boxes` and `labels`.

    Regions of `DontCare` are crowds of every class: a detection in them is neither right nor wrong. (KITTI's
    own evaluation also leaves out objects by height, occlusion and truncation, in three levels; here all
    count.)

    Raises:
        DataError: a file is missing, or is not of the format; names the line.
    """
    labels = sorted((folder / options.path / "label_2").glob("*.txt"))
    if not labels:
        raise DataError(f"{options.path}: no label_2/*.txt (looked in {folder / options.path / 'label_2'})")
    scenes = [_scene(options, folder, path.stem, number) for number, path in enumerate(labels)]
    return object_splits(options, {"train": scenes}, options.classes, options.path, "boxes")


def _scene(options: KITTI, folder: Path, image: str, number: int) -> Scene:
    where = f"{options.path}/label_2/{image}.txt"
    boxes: list[list[float]] = []
    kinds: list[int] = []
    crowd: list[bool] = []
    for place, line in enumerate(read_bytes(where, folder).decode("utf-8", "replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            box = [float(word) for word in words[1:_FIELDS]][_BOX.start - 1 : _BOX.stop - 1]
        except ValueError as error:
            raise DataError(f"{where}:{place}: behind the type stand numbers: {error}") from error
        if len(words) < _FIELDS or box[2] <= box[0] or box[3] <= box[1]:
            raise DataError(
                f"{where}:{place}: {len(words)} words: a line is a type and {_FIELDS - 1} numbers, the "
                "fourth to seventh left < right and top < bottom"
            )
        free = words[0] == "DontCare"
        for kind, name in enumerate(options.classes):
            if free or words[0] == name:
                boxes.append(box)
                kinds.append(kind)
                crowd.append(free)
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Scene(
        path=folder / options.path / "image_2" / f"{image}.png",
        number=number,
        size=None,
        boxes=array,
        labels=np.array(kinds, dtype=np.int64),
        area=(array[:, 2:] - array[:, :2]).prod(1),
        crowd=np.array(crowd, dtype=bool),
        where=where,
    )
