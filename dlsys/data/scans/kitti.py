"""SemanticKITTI's drives (Behley et al. 2019, arXiv:1904.01416): KITTI's points, with a label each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.files import listed
from dlsys.data.scans.projection import View, scan_of
from dlsys.errors import DataError
from dlsys.spec.data import SemanticKITTI
from dlsys.spec.rows import Shape

# The classes of the benchmark of single scans, as semantic-kitti-api's configuration has them: what moves is
# of the class of what stands.
_CLASSES: Mapping[str, Sequence[int]] = {
    "car": (10, 252),
    "bicycle": (11,),
    "motorcycle": (15,),
    "truck": (18, 258),
    "other-vehicle": (13, 16, 20, 256, 257, 259),
    "person": (30, 254),
    "bicyclist": (31, 253),
    "motorcyclist": (32, 255),
    "road": (40, 60),
    "parking": (44,),
    "sidewalk": (48,),
    "other-ground": (49,),
    "building": (50,),
    "fence": (51,),
    "vegetation": (70,),
    "trunk": (71,),
    "terrain": (72,),
    "pole": (80,),
    "traffic-sign": (81,),
}


# In metres; no scanner sees as far, and the square of what is much farther is no number of 32 bits.
_FARTHEST = 1e6


@dataclass(frozen=True)
class _Drives:
    """Scans read when they are fetched.

    Attributes:
        files: of points, with their file of labels.
        root: messages name files from there.
        numbers: the class of each label that a file may hold, −1 for none: int64 (65536,).
    """

    files: list[tuple[Path, Path]]
    root: Path
    view: View
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Raises DataError for a file that is cut off or holds what is no number, naming it."""
        scans, masks = zip(*(self._read(*self.files[row]) for row in rows), strict=True)
        return {"scan": torch.from_numpy(np.stack(scans)), "mask": torch.from_numpy(np.stack(masks))}

    def _read(self, points: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
        found = _numbers(points, self.root, "<f4", 4)
        if not np.isfinite(found).all():
            raise DataError(f"{points.relative_to(self.root)}: holds a point that is no number")
        if len(found) and (far := float(np.abs(found[:, :3]).max())) > _FARTHEST:
            raise DataError(
                f"{points.relative_to(self.root)}: holds a point {far:.3g} m away, farther than "
                f"{_FARTHEST:g} m: the file is damaged, or not in metres"
            )
        said = _numbers(labels, self.root, "<u4", 1)
        if len(found) != len(said):
            raise DataError(
                f"{labels.relative_to(self.root)}: has {len(said)} labels, and "
                f"{points.relative_to(self.root)} {len(found)} points"
            )
        scan, number = scan_of(found[:, :3], found[:, 3], self.view)
        # The lower half of a label is its class, the upper half tells instances apart.
        kinds = self.numbers[said[:, 0] & 0xFFFF]
        return scan, np.where(number < 0, -1, kinds[number] if len(kinds) else -1)


def semantic_kitti(options: SemanticKITTI, folder: Path) -> Splits:
    """Scans: `scan` float32 (5, lines, columns) as `projection.scan_of` has it, `mask` int64 (lines,
    columns), −1 where there is no point or one of no class.

    Raises:
        DataError: a drive, or a scan's labels, are not there; or a label stands for two classes.
    """
    root = (folder / options.path).resolve()
    classes = options.classes or _CLASSES
    numbers = np.full(2**16, -1, dtype=np.int64)
    for number, (name, labels) in enumerate(classes.items()):
        for label in labels:
            if label >= len(numbers) or numbers[label] >= 0:
                why = "is above 65535" if label >= len(numbers) else "stands for another class too"
                raise DataError(f"{options.path}: data.classes.{name}: {label} {why}")
            numbers[label] = number
    view = View(options.lines, options.columns, options.up, options.down, options.view)
    parts = {"train": options.train_drives, "valid": options.valid_drives, "test": options.test_drives}
    found = {
        part: _Drives(
            [file for drive in drives for file in _files(root, drive, options.path)], root, view, numbers
        )
        for part, drives in parts.items()
        if drives
    }
    size = (view.lines, view.columns)
    return Splits(
        train=found["train"],
        valid=found["valid"],
        test=found.get("test"),
        shape=Shape(row={"scan": (5, *size), "mask": size}, classes=len(classes)),
        learnt={"pixels": {"classes": list(classes)}},
    )


def _files(root: Path, drive: str, name: str) -> list[tuple[Path, Path]]:
    """A drive's files of points, by name, each with its labels."""
    base = root / "sequences" / drive
    found = sorted((base / "velodyne").glob("*.bin"))
    if not found:
        raise DataError(
            f"{name}: no sequences/{drive}/velodyne/*.bin (looked in {root})",
            hint="data.train_drives, data.valid_drives and data.test_drives name those that are there",
        )
    pairs = [(points, base / "labels" / f"{points.stem}.label") for points in found]
    if missing := [str(labels.relative_to(root)) for _, labels in pairs if not labels.is_file()]:
        raise DataError(f"{name}: {len(missing)} scans have no labels: {listed(missing, ', ')}")
    return pairs


def _numbers(path: Path, root: Path, kind: str, columns: int) -> np.ndarray:
    """A file of numbers alone: (rows, columns)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.relative_to(root)}: cannot be read: {error.strerror}") from error
    if len(data) % (4 * columns):
        raise DataError(
            f"{path.relative_to(root)}: is cut off: {len(data)} bytes are no multiple of {4 * columns}"
        )
    return np.frombuffer(data, kind).reshape(-1, columns)
