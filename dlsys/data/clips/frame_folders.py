"""Folders of clips, each a folder of frames, as tools that take videos apart leave them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.files import entries, folder_of, listed
from dlsys.data.images.decoding import SUFFIXES, Form, damage, decoded
from dlsys.data.images.image_folder import folders, given_parts
from dlsys.data.split import split_rows
from dlsys.errors import DataError
from dlsys.registry import did_you_mean
from dlsys.spec.data import FrameFolders
from dlsys.spec.rows import Shape


@dataclass(frozen=True)
class _Clips:
    """Clips whose frames are decoded when they are fetched.

    Attributes:
        frames: the chosen ones of each clip, in order.
        labels: int64, shape (N,).
        root: the source's folder; messages name files from there.
    """

    frames: list[list[Path]]
    labels: np.ndarray
    root: Path
    form: Form

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: np.ndarray) -> _Clips:
        return replace(self, frames=[self.frames[row] for row in rows], labels=self.labels[rows])

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Raises DataError for a file that can't be decoded, naming it."""
        paths = [path for row in rows for path in self.frames[row]]
        found = decoded(paths, self.form, self.root)
        clip = found.view(len(rows), -1, *found.shape[1:])
        return {"clip": clip, "label": torch.from_numpy(self.labels[rows])}


def frame_folders(options: FrameFolders, folder: Path) -> Splits:
    """`clip` float32 (frames, channels, size, size) in 0…1, `label` int64, the number of the class's folder.

    Frames are ordered by the numbers in their names (`frame2.jpg` before `frame10.jpg`). Of a clip with more
    than `frames`, the middles of as many equal parts are taken; of one with fewer, some several times.

    Raises:
        DataError: no clips, a clip without frames, an unknown folder, a link out of the folder, or a file
            that is no image.
    """
    root = folder_of(options.path, folder)
    given = given_parts(root, options.path)
    base = root / "train" if given else root
    classes = folders(base, root)
    form = Form(options.size, options.channels, options.resize)
    found = {
        part: _scan(root / part if given else root, root, classes, form, options.frames)
        for part in given or ("train",)
    }
    for part, clips in found.items():
        if not len(clips):
            raise DataError(
                f"{options.path}: no clip in {part!r}: a folder for each class has one for each clip"
            )
    if missing := [name for number, name in enumerate(classes) if number not in found["train"].labels]:
        raise DataError(f"{options.path}: no clip of class {missing[0]!r} in {base}")
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
        found |= {part: everything.take(chosen) for part, chosen in rows._asdict().items() if len(chosen)}
    row = {"clip": (options.frames, options.channels, options.size, options.size), "label": ()}
    counts = np.bincount(found["train"].labels, minlength=len(classes)).tolist()
    return Splits(
        train=found["train"],
        valid=found["valid"],
        test=found.get("test"),
        shape=Shape(row=row, classes=len(classes)),
        learnt={
            "clip": {**form.told, "frames": options.frames},
            "target": {"name": "label", "classes": classes, "counts": counts},
        },
    )


def _scan(part: Path, root: Path, classes: Sequence[str], form: Form, frames: int) -> _Clips:
    """The clips under a part's class folders."""
    chosen: list[list[Path]] = []
    labels: list[int] = []
    for name in folders(part, root):
        if name not in classes:
            raise DataError(
                f"{(part / name).relative_to(root)}: class {name!r} is not in 'train'."
                f"{did_you_mean(name, classes)} Known: {listed(classes, ', ')}"
            )
        for clip in folders(part / name, root):
            inside = sorted(entries(part / name / clip, root), key=_natural)
            paths = [path for path in inside if path.suffix.lower() in SUFFIXES]
            if not paths:
                raise DataError(f"{(part / name / clip).relative_to(root)}: has no frame that is an image")
            taken = [paths[place] for place in evenly(len(paths), frames)]
            for path in dict.fromkeys(taken):
                if problem := damage(path):
                    raise DataError(
                        f"{path.relative_to(root)}: cannot be read: {problem}",
                        hint="mend the file, or take its clip out",
                    )
            chosen.append(taken)
            labels.append(classes.index(name))
    return _Clips(chosen, np.array(labels, dtype=np.int64), root, form)


def evenly(there: int, wanted: int) -> list[int]:
    """The frames in the middle of each of `wanted` equal parts of a clip of `there` frames."""
    return [(2 * place + 1) * there // (2 * wanted) for place in range(wanted)]


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """By the numbers in a name, and by its letters between them."""
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]
