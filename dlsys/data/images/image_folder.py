"""Folders of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.files import entries, folder_of, listed
from dlsys.data.images.decoding import SUFFIXES, Form, damage, decoded
from dlsys.data.images.normalize import Scaling, normalized
from dlsys.data.split import split_rows
from dlsys.errors import DataError
from dlsys.registry import did_you_mean
from dlsys.spec.data import ImageFolder
from dlsys.spec.rows import Shape

_PARTS = ("train", "valid", "test")


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
    root = folder_of(options.path, folder)
    given = given_parts(root, options.path)
    base = root / "train" if given else root
    classes = folders(base, root)
    if not classes:
        raise DataError(f"{options.path}: no class folders in {base}")

    skipped: list[str] = []
    form = Form(options.size, options.channels, options.resize)
    found = {
        part: _scan(root / part if given else root, root, classes, form, options.corrupt, skipped)
        for part in given or ("train",)
    }
    for number, name in enumerate(classes):
        if number not in found["train"].labels:
            raise DataError(f"{options.path}: no readable image of class {name!r} in {base}")
    for part, files in found.items():
        if not len(files):
            raise DataError(f"{options.path}: no readable image in {part!r}")
    if "valid" not in given:
        everything = found["train"]
        rows = split_rows(
            len(everything),
            valid=options.valid,
            test=0 if given else options.test,
            seed=options.split_seed,
            name=options.path,
            labels=everything.labels,
        )
        found |= {part: everything.take(rows) for part, rows in rows._asdict().items() if len(rows)}
    splits = Splits(
        train=found["train"],
        valid=found["valid"],
        test=found.get("test"),
        shape=Shape(
            row={"image": (options.channels, options.size, options.size), "label": ()}, classes=len(classes)
        ),
        notes=(f"Left out {len(skipped)} unreadable images: {listed(skipped, ', ')}.",) if skipped else (),
        learnt={
            "image": form.told,
            "target": {
                "name": "label",
                "classes": classes,
                "counts": np.bincount(found["train"].labels, minlength=len(classes)).tolist(),
            },
        },
    )
    return normalized(splits, options.normalize, options.path)


def given_parts(root: Path, name: str) -> list[str]:
    """Which of train, valid and test are folders of their own; empty where none is."""
    inside = folders(root, root)
    given = [part for part in _PARTS if part in inside]
    if given and "train" not in given:
        raise DataError(f"{name}: has a folder {given[0]!r}, but none named 'train'")
    for other in inside:
        if given and other not in _PARTS:
            raise DataError(
                f"{name}: unknown folder {other!r} beside 'train'.{did_you_mean(other, _PARTS)} "
                f"Known: {', '.join(_PARTS)}"
            )
    return given


def folders(folder: Path, root: Path) -> list[str]:
    return [entry.name for entry in entries(folder, root) if entry.is_dir()]


def _scan(
    part: Path, root: Path, classes: list[str], form: Form, corrupt: str, skipped: list[str]
) -> _ImageFiles:
    """The readable images under a part's class folders; adds the others' names to `skipped`."""
    paths: list[Path] = []
    labels: list[int] = []
    for name in folders(part, root):
        if name not in classes:
            raise DataError(
                f"{(part / name).relative_to(root)}: class {name!r} is not in 'train'."
                f"{did_you_mean(name, classes)} Known: {listed(classes, ', ')}"
            )
        for path in entries(part / name, root):
            where = str(path.relative_to(root))
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
            labels.append(classes.index(name))
    return _ImageFiles(paths, np.array(labels, dtype=np.int64), root, form)
