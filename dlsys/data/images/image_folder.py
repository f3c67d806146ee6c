"""Folders of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlsys.data.class_folders import ClassFolders
from dlsys.data.dataset import Splits
from dlsys.data.files import entries, listed
from dlsys.data.images.decoding import SUFFIXES, Form, damage, decoded
from dlsys.data.images.normalize import Scaling, normalized
from dlsys.errors import DataError
from dlsys.spec.data import ImageFolder
from dlsys.spec.rows import Shape


@dataclass(frozen=True)
class _ImageFiles:
    """Images decoded when they are fetched.

    Attributes:
        paths: the files.
        labels: int64, shape (N,).
        root: the source's folder; messages name files from there.
    """

    paths: list[Path]
    labels: np.ndarray
    root: Path
    form: Form

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> _ImageFiles:
        return replace(self, paths=[self.paths[row] for row in rows], labels=self.labels[rows])

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Raises DataError for a file that can't be decoded, naming it."""
        image = decoded([self.paths[row] for row in rows], self.form, self.root)
        return {"image": image, "label": torch.from_numpy(self.labels[rows])}


def images_of(learnt: Mapping[str, Any], paths: Sequence[Path]) -> Tensor:
    """Other images as a model sees them that was trained on a folder: float32 (N, C, size, size).

    Args:
        learnt: what the folder's `Splits.learnt` says.
        paths: image files.

    Raises:
        DataError: one cannot be decoded.
    """
    told = learnt["image"]
    image = decoded(paths, Form.of(told), None)
    if "mean" not in told:
        return image
    return Scaling(tuple(told["mean"]), tuple(told["std"]))({"image": image})["image"]


def image_folder(options: ImageFolder, folder: Path) -> Splits:
    """A folder with a folder for each class: `image` float32 (C, size, size) in 0…1, `label` int64.

    Classes are numbered in the order of their folders' names. With a `train` folder inside, that
    and its neighbours `valid` and `test` are the splits; validation rows are cut from `train`
    when `valid` is not there. Files are checked now and decoded when fetched.

    Raises:
        DataError: no images, an unknown folder, a link out of the folder, or (with `corrupt:
            error`) an unreadable file.
    """
    parted = ClassFolders.of(options.path, folder)
    skipped: list[str] = []
    form = Form(options.size, options.channels, options.resize)
    found = parted.split(lambda part: _scan(parted, part, form, options.corrupt, skipped), options, "image")
    splits = Splits(
        train=found["train"],
        valid=found["valid"],
        test=found.get("test"),
        shape=Shape(
            row={"image": (options.channels, options.size, options.size), "label": ()},
            classes=len(parted.classes),
        ),
        notes=(f"Left out {len(skipped)} unreadable images: {listed(skipped, ', ')}.",) if skipped else (),
        learnt={
            "image": form.told,
            "target": {
                "name": "label",
                "classes": parted.classes,
                "counts": np.bincount(found["train"].labels, minlength=len(parted.classes)).tolist(),
            },
        },
    )
    return normalized(splits, options.normalize, options.path)


def _scan(parted: ClassFolders, part: str, form: Form, corrupt: str, skipped: list[str]) -> _ImageFiles:
    """The readable images under a part's class folders; adds the others' names to `skipped`."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in parted.of_part(part):
        for path in entries(folder, parted.root):
            where = str(path.relative_to(parted.root))
            if path.is_dir():
                raise DataError(f"{where}: is a folder; images must lie in their class folder itself")
            if path.suffix.lower() not in SUFFIXES:
                continue
            problem = damage(path)
            if problem and corrupt == "error":
                raise DataError(
                    f"{where}: cannot be read: {problem}", hint="mend the file, or say corrupt: skip"
                )
            if problem:
                skipped.append(where)
                continue
            paths.append(path)
            labels.append(label)
    return _ImageFiles(paths, np.array(labels, dtype=np.int64), parted.root, form)
