"""A folder with a folder for each class, or such ones for training, validation and the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np

from dlsys.data.dataset import Dataset
from dlsys.data.files import entries, folder_of, listed
from dlsys.data.split import split_rows
from dlsys.errors import DataError
from dlsys.registry import did_you_mean

_PARTS = ("train", "valid", "test")


class ClassRows(Dataset, Protocol):
    """Rows of which each is of a class, its number in `labels`, int64 (N,)."""

    @property
    def labels(self) -> np.ndarray: ...

    def take(self, rows: np.ndarray) -> Self:
        """Those of these numbers."""
        ...


_Read = TypeVar("_Read", bound=ClassRows)


class Cut(Protocol):
    """What decides which rows of one folder go where, as `SplitSection` has it."""

    @property
    def path(self) -> str: ...
    @property
    def valid(self) -> float: ...
    @property
    def test(self) -> float: ...
    @property
    def split_seed(self) -> int: ...


@dataclass(frozen=True)
class ClassFolders:
    """Where each part's class folders lie.

    Attributes:
        root: the data set's folder, without links.
        parts: their folders: one alone where the parts are still to be cut.
        given: whether parts have folders of their own.
        classes: the names of the folders to train on, in their order.
    """

    root: Path
    parts: dict[str, Path]
    given: bool
    classes: list[str]

    @classmethod
    def of(cls, path: str, folder: Path) -> ClassFolders:
        """Those of a folder that a job names.

        Args:
            path, folder: as `folder_of` has them.

        Raises:
            DataError: no classes, or an unknown folder beside `train`.
        """
        root = folder_of(path, folder)
        given = _given_parts(root, path)
        parts = {part: root / part for part in given} or {"train": root}
        classes = folders(parts["train"], root)
        if not classes:
            raise DataError(f"{path}: no class folders in {parts['train']}")
        return cls(root, parts, bool(given), classes)

    def of_part(self, part: str) -> list[tuple[int, Path]]:
        """A part's class folders, each with its class.

        Raises:
            DataError: one is of a class that is not trained on.
        """
        found = []
        for name in folders(self.parts[part], self.root):
            if name not in self.classes:
                raise DataError(
                    f"{(self.parts[part] / name).relative_to(self.root)}: class {name!r} is not in 'train'."
                    f"{did_you_mean(name, self.classes)} Known: {listed(self.classes, ', ')}"
                )
            found.append((self.classes.index(name), self.parts[part] / name))
        return found

    def split(self, read: Callable[[str], _Read], cut: Cut, what: str) -> dict[str, _Read]:
        """The rows of each part; those without a folder are cut from `train`, class by class.

        Args:
            read: what gives a part's rows.
            what: a row, as messages call it.

        Raises:
            DataError: a class without rows to train on, or a part without any.
        """
        found = {part: read(part) for part in self.parts}
        for number, name in enumerate(self.classes):
            if number not in found["train"].labels:
                raise DataError(f"{cut.path}: no readable {what} of class {name!r} in {self.parts['train']}")
        for part, rows in found.items():
            if not len(rows):
                raise DataError(f"{cut.path}: no readable {what} in {part!r}")
        if "valid" not in found:
            everything = found["train"]
            parts = split_rows(
                len(everything),
                valid=cut.valid,
                test=0 if self.given else cut.test,
                seed=cut.split_seed,
                name=cut.path,
                labels=everything.labels,
            )
            found |= {
                part: everything.take(chosen) for part, chosen in parts._asdict().items() if len(chosen)
            }
        return found


def folders(folder: Path, root: Path) -> list[str]:
    """The names of the folders in one, as `entries` has them."""
    return [entry.name for entry in entries(folder, root) if entry.is_dir()]


def _given_parts(root: Path, name: str) -> list[str]:
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
