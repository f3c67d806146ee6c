"""NIfTI volumes with a label volume each (https://nifti.nimh.nih.gov/nifti-1), read by nibabel."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.files import entries, folder_of, listed
from dlsys.data.split import split_rows
from dlsys.errors import DataError
from dlsys.spec.data import Nifti
from dlsys.spec.rows import Shape

# Folders of images, and of their labels: the Decathlon's, and plain ones.
_LAYOUTS = (("imagesTr", "labelsTr"), ("images", "labels"))
_SUFFIXES = (".nii", ".nii.gz")
# Volumes kept after they were read: the patches of one are often asked for together.
_KEPT = 4
# Millimetres by which the spacings of two volumes may differ and be the same.
_SAME = 0.01


@dataclass(frozen=True)
class _Volume:
    """A volume's files, and what their headers say of it as a model sees it: axes to the right, front and
    top, voxels of the spacing that the job asks for.

    Attributes:
        sides: in voxels.
        written: when its files last were, in nanoseconds: what is kept of them is not older.
    """

    image: Path
    label: Path
    root: Path
    channels: int
    sides: tuple[int, int, int]
    spacing: tuple[float, float, float]
    written: tuple[int, int]

    @property
    def name(self) -> str:
        return str(self.image.relative_to(self.root))


@dataclass(frozen=True)
class _Patches:
    """Patches cut when they are fetched.

    Attributes:
        rows: the volume of each row, and where in it the patch begins.
    """

    rows: list[tuple[_Volume, tuple[int, int, int]]]
    options: Nifti = field(repr=False)
    classes: int

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Raises DataError for a damaged file or an unknown label, naming the file."""
        read = [self._patch(*self.rows[row]) for row in rows]
        volumes, masks = zip(*read, strict=True)
        return {"volume": torch.from_numpy(np.stack(volumes)), "mask": torch.from_numpy(np.stack(masks))}

    def _patch(self, volume: _Volume, start: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        numbers, labels = _read(volume, self.options.spacing, self.options.window, self.classes)
        size = self.options.size
        patch = np.zeros((volume.channels, *size), dtype=np.float32)
        mask = np.full(size, -1, dtype=np.int64)
        there, here = [], []
        for begin, wanted, side in zip(start, size, labels.shape, strict=True):
            end = min(begin + wanted, side)
            there.append(slice(max(begin, 0), end))
            here.append(slice(max(begin, 0) - begin, end - begin))
        patch[(slice(None), *here)] = numbers[(slice(None), *there)]
        mask[tuple(here)] = labels[tuple(there)]
        return patch, mask


def nifti(options: Nifti, folder: Path) -> Splits:
    """Patches of volumes: `volume` float32 (channels, *size), of mean 0 and deviation 1 over its whole
    volume; `mask` int64 of `size`, −1 outside of the volume.

    Headers are read now, and voxels when they are fetched.

    Raises:
        DataError: nibabel is missing; no volumes; a file without its labels, damaged, or of another size than
            they are; volumes of several spacings or numbers of channels; classes that nothing names.
    """
    root = folder_of(options.path, folder)
    pairs = _pairs(root, options.path)
    classes = _classes(root, options)
    volumes = [_headers(image, label, root, options) for image, label in pairs]
    first = volumes[0]
    for volume in volumes:
        if volume.channels != first.channels:
            raise DataError(
                f"{volume.name}: has {volume.channels} channels, and {first.name} {first.channels}: "
                "volumes of one set have as many"
            )
        if not np.allclose(volume.spacing, first.spacing, atol=_SAME):
            raise DataError(
                f"{volume.name}: its voxels are {_by(volume.spacing)} mm, and those of {first.name} "
                f"{_by(first.spacing)} mm",
                hint=f"say data.spacing, such as [{', '.join(f'{side:g}' for side in first.spacing)}]",
            )
    parts = split_rows(
        len(volumes), valid=options.valid, test=options.test, seed=options.split_seed, name=options.path
    )
    found = {
        part: _Patches(
            [(volumes[row], start) for row in rows for start in _starts(volumes[row].sides, options)],
            options,
            len(classes),
        )
        for part, rows in parts._asdict().items()
        if len(rows)
    }
    return Splits(
        train=found["train"],
        valid=found["valid"],
        test=found.get("test"),
        shape=Shape(
            row={"volume": (first.channels, *options.size), "mask": options.size}, classes=len(classes)
        ),
        notes=(f"{options.path}: {len(volumes)} volumes of {_by(first.spacing)} mm",),
        learnt={"pixels": {"classes": classes}, "volume": {"spacing": list(first.spacing)}},
    )


def _pairs(root: Path, name: str) -> list[tuple[Path, Path]]:
    """The images, by name, each with its labels."""
    for images, labels in _LAYOUTS:
        if not (root / images).is_dir():
            continue
        # Hidden files are none: the Decathlon's archives hold some of macOS's.
        found = [path for path in entries(root / images, root) if path.name.endswith(_SUFFIXES)]
        theirs = {path.name: path for path in entries(root / labels, root)} if found else {}
        if missing := [path.name for path in found if path.name not in theirs]:
            raise DataError(f"{name}: not in {labels}: {listed(missing, ', ')}")
        if found:
            return [(path, theirs[path.name]) for path in found]
    wanted = " or ".join(f"{images}/*.nii.gz with {labels}/" for images, labels in _LAYOUTS)
    raise DataError(f"{name}: no volumes: {wanted} is wanted (looked in {root})")


def _classes(root: Path, options: Nifti) -> list[str]:
    """The names of the classes, in the order of their numbers."""
    if options.classes:
        return list(options.classes)
    try:
        told = json.loads((root / "dataset.json").read_bytes())["labels"]
        numbered = {int(number): str(name) for number, name in told.items()}
    except FileNotFoundError as error:
        raise DataError(
            f"{options.path}: no dataset.json names the classes", hint="say data.classes"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{options.path}/dataset.json: has no labels by their numbers: {error}", hint="say data.classes"
        ) from error
    if sorted(numbered) != list(range(len(numbered))):
        raise DataError(f"{options.path}/dataset.json: labels are {sorted(numbered)}: they count from 0")
    return [numbered[number] for number in range(len(numbered))]


def _headers(image: Path, label: Path, root: Path, options: Nifti) -> _Volume:
    """What the headers of a volume and of its labels say."""
    seen, said = _opened(image, root), _opened(label, root)
    name = str(image.relative_to(root))
    if len(seen.shape) not in (3, 4) or not all(seen.shape):
        raise DataError(f"{name}: is of {_by(seen.shape)}: a volume has 3 dims, and channels as a fourth")
    sides = seen.shape[:3]
    if said.shape[:3] != sides or math.prod(said.shape[3:]) != 1:
        raise DataError(
            f"{label.relative_to(root)}: is of {_by(said.shape)}, and {name} of {_by(sides)}: labels are as "
            "large as their volume"
        )
    if not np.allclose(seen.affine, said.affine, atol=0.1):
        raise DataError(
            f"{label.relative_to(root)}: lies elsewhere in space than {name}: their affines differ"
        )
    a, b, c = (float(side) for side in seen.header.get_zooms()[:3])
    spacing = a, b, c
    if not all(0 < side < math.inf for side in spacing):
        raise DataError(f"{name}: its voxels are {_by(spacing)} mm")
    if options.spacing:
        sides = tuple(
            max(1, round(side * was / now))
            for side, was, now in zip(sides, spacing, options.spacing, strict=True)
        )
        spacing = options.spacing
    channels = seen.shape[3] if len(seen.shape) == 4 else 1
    written = image.stat().st_mtime_ns, label.stat().st_mtime_ns
    return _Volume(image, label, root, channels, sides, spacing, written)


def _opened(path: Path, root: Path) -> Any:
    """A NIfTI image, turned so that its axes run to the right, the front and the top; voxels are not read
    yet."""
    try:
        nibabel = importlib.import_module("nibabel")
    except ImportError as error:
        raise DataError("data.source: nifti needs nibabel", hint="pip install 'dlsys[volumes]'") from error
    # Of headers that it mends it tells on the terminal.
    nibabel.imageglobals.logger.setLevel("CRITICAL")
    try:
        return nibabel.as_closest_canonical(nibabel.load(path))
    except Exception as error:  # nibabel raises almost anything on a damaged file
        raise DataError(f"{path.relative_to(root)}: cannot be read: {error}") from error


@lru_cache(maxsize=_KEPT)
def _read(
    volume: _Volume, spacing: tuple[float, ...] | None, window: tuple[float, float] | None, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """A whole volume: float32 (channels, *sides), and the class of each voxel, int64 (*sides)."""
    numbers = _voxels(volume.image, volume.root).astype(np.float32)
    numbers = numbers.reshape(*numbers.shape[:3], volume.channels).transpose(3, 0, 1, 2)
    labels = _voxels(volume.label, volume.root)
    labels = labels.reshape(labels.shape[:3])
    where = str(volume.label.relative_to(volume.root))
    if not np.isfinite(numbers).all():
        raise DataError(f"{volume.name}: holds voxels that are no number")
    whole = labels.round()
    if not (np.isfinite(labels).all() and np.array_equal(whole, labels)):
        raise DataError(f"{where}: holds labels that are no whole number")
    labels = whole.astype(np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise DataError(
            f"{where}: holds the label {wrong}, and there are {classes} classes: 0 … {classes - 1}"
        )
    if spacing:
        numbers = _resampled(numbers, volume.sides, order=1)
        labels = _resampled(labels[None], volume.sides, order=0)[0]
    if window:
        numbers = numbers.clip(*window)
    mean = numbers.mean((1, 2, 3), keepdims=True)
    std = numbers.std((1, 2, 3), keepdims=True)
    return (numbers - mean) / np.where(std < 1e-6, 1, std), labels


def _voxels(path: Path, root: Path) -> np.ndarray:
    """All numbers of a file, as its header scales them."""
    image = _opened(path, root)
    try:
        return np.asarray(image.dataobj)
    except Exception as error:  # zlib's, nibabel's and numpy's of a file that is cut off
        raise DataError(f"{path.relative_to(root)}: cannot be read: {error}") from error


def _resampled(volume: np.ndarray, sides: tuple[int, ...], *, order: int) -> np.ndarray:
    """Channels (n, a, b, c) with other sides over the same space, from edge to edge."""
    from scipy.ndimage import zoom  # takes a moment to import

    factors = [new / old for new, old in zip(sides, volume.shape[1:], strict=True)]
    found = [zoom(part, factors, order=order, mode="nearest", grid_mode=True) for part in volume]
    return np.stack(found)


def _starts(sides: Sequence[int], options: Nifti) -> list[tuple[int, int, int]]:
    """Where a volume's patches begin; before it, where it is smaller than a patch."""
    axes = []
    for side, wanted in zip(sides, options.size, strict=True):
        middle = (side - wanted) // 2
        if options.patches == "centre" or side <= wanted:
            axes.append([middle])
        else:
            count = -(-side // wanted)
            axes.append([round(n * (side - wanted) / (count - 1)) for n in range(count)])
    return [(a, b, c) for a in axes[0] for b in axes[1] for c in axes[2]]


def _by(sizes: Sequence[float]) -> str:
    return " × ".join(f"{size:g}" for size in sizes)
