"""Videos as folders of their frames."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dlsys.data.class_folders import ClassFolders
from dlsys.data.dataset import Splits
from dlsys.data.files import entries, listed
from dlsys.data.images.decoding import SUFFIXES, Form, damage, decoded
from dlsys.errors import DataError
from dlsys.spec.data import FrameFolders
from dlsys.spec.rows import Shape


@dataclass(frozen=True)
class _Clips:
    """Clips whose frames are decoded when they are fetched.

    Attributes:
        clips: the frames that are seen of each, in their order; of all as many.
        labels: int64, shape (N,).
        root: the source's folder; messages name files from there.
    """

    clips: list[list[Path]]
    labels: np.ndarray
    root: Path
    form: Form

    def __len__(self) -> int:
        return len(self.clips)

    def take(self, rows: np.ndarray) -> _Clips:
        return replace(self, clips=[self.clips[row] for row in rows], labels=self.labels[rows])

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Raises DataError for a frame that can't be decoded, naming it."""
        frames = decoded([path for row in rows for path in self.clips[row]], self.form, self.root)
        clip = frames.reshape(len(rows), -1, *frames.shape[1:])
        return {"clip": clip, "label": torch.from_numpy(self.labels[rows])}


def frame_folders(options: FrameFolders, folder: Path) -> Splits:
    """A folder of clips for each class: `clip` float32 (frames, C, size, size) in 0…1, `label` int64.

    Classes and parts are as those of `image_folder`. Frames that are seen are checked now and decoded when
    fetched.

    Raises:
        DataError: no clips, an unknown folder, a link out of the folder, too short a clip (with `short:
            error`), or an unreadable frame (with `corrupt: error`).
    """
    parted = ClassFolders.of(options.path, folder)
    form = Form(options.size, options.channels, options.resize)
    skipped: list[str] = []
    found = parted.split(lambda part: _scan(parted, part, form, options, skipped), options, "clip")
    classes = parted.classes
    return Splits(
        train=found["train"],
        valid=found["valid"],
        test=found.get("test"),
        shape=Shape(
            row={"clip": (options.frames, options.channels, options.size, options.size), "label": ()},
            classes=len(classes),
        ),
        notes=(f"Left out {len(skipped)} clips with unreadable frames: {listed(skipped, ', ')}.",)
        if skipped
        else (),
        learnt={
            "clip": {**form.told, "frames": options.frames},
            "target": {
                "name": "label",
                "classes": classes,
                "counts": np.bincount(found["train"].labels, minlength=len(classes)).tolist(),
            },
        },
    )


def _scan(parted: ClassFolders, part: str, form: Form, options: FrameFolders, skipped: list[str]) -> _Clips:
    """The readable clips under a part's class folders; adds the others' first unreadable frames to
    `skipped`."""
    clips: list[list[Path]] = []
    labels: list[int] = []
    for label, folder in parted.of_part(part):
        for clip in entries(folder, parted.root):
            where = clip.relative_to(parted.root)
            if not clip.is_dir():
                if clip.suffix.lower() in SUFFIXES:
                    raise DataError(f"{where}: is an image; frames must lie in a folder for each clip")
                continue
            frames = _seen(clip, parted.root, options)
            bad = next(((frame, problem) for frame in frames if (problem := damage(frame))), None)
            if bad is None:
                clips.append(frames)
                labels.append(label)
                continue
            name = str(bad[0].relative_to(parted.root))
            if options.corrupt == "error":
                raise DataError(
                    f"{name}: cannot be read: {bad[1]}", hint="mend the file, or say corrupt: skip"
                )
            skipped.append(name)
    return _Clips(clips, np.array(labels, dtype=np.int64), parted.root, form)


def _seen(clip: Path, root: Path, options: FrameFolders) -> list[Path]:
    """The frames of a clip that are seen: the middle ones of as many parts of equal length (Wang et al. 2016,
    arXiv:1608.00859, section 3.1, where chance decides in training)."""
    found = [path for path in entries(clip, root) if path.suffix.lower() in SUFFIXES]
    where, count = clip.relative_to(root), len(found)
    if not found:
        raise DataError(f"{where}: no frames; known endings: {', '.join(sorted(SUFFIXES))}")
    if count < options.frames and options.short == "error":
        raise DataError(
            f"{where}: {count} frame{'s' * (count > 1)}, and data.frames wants {options.frames}",
            hint="lower data.frames, or say short: repeat",
        )
    found.sort(key=lambda path: numbered(path.name))
    return [found[(2 * place + 1) * count // (2 * options.frames)] for place in range(options.frames)]


def numbered(name: str) -> list[tuple[int, str]]:
    """A key by which names are in the order of the numbers in them: `f9.png` before `f10.png`."""
    parts = re.split(r"([0-9]+)", name)
    # Text stands at even places, numbers at odd ones.
    return [(int(part) if place % 2 else 0, part) for place, part in enumerate(parts)]
