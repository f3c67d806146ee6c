"""Folders of images with a class for each of their pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.files import entries, folder_of, listed
from dlsys.data.images.decoding import SUFFIXES, Form, decoded, size_of
from dlsys.data.images.normalize import normalized
from dlsys.data.images.objects import UNCOUNTED
from dlsys.data.split import split_rows
from dlsys.errors import DataError
from dlsys.spec.data import MaskFolder
from dlsys.spec.rows import Shape

# Pascal VOC's, in the order of its palette images' numbers.
_VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
)
# Its lists of names; the test's masks are not public, but an own folder of its layout may have them.
_LISTS = {"train": "train.txt", "valid": "val.txt", "test": "test.txt"}
_UNKNOWN = -2
Found = TypeVar("Found")


@dataclass(frozen=True)
class _Masked:
    """Images and masks decoded when they are fetched.

    Attributes:
        files: an image and its mask each.
        root: messages name files from there.
        classes: of each value that a pixel may hold, its class: −1 does not count, −2 is none; int64
            (65536,).
    """

    files: list[tuple[Path, Path]]
    root: Path
    form: Form
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: np.ndarray) -> _Masked:
        return replace(self, files=[self.files[row] for row in rows])

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Raises DataError for a file that can't be decoded, or whose pixels are of no class, naming it."""
        chosen = [self.files[row] for row in rows]
        masks = np.stack([self._mask(image, mask) for image, mask in chosen])
        image = decoded([image for image, _ in chosen], self.form, self.root)
        return {"image": image, "mask": torch.from_numpy(masks)}

    def _mask(self, image: Path, mask: Path) -> np.ndarray:
        """int64 (size, size)."""
        name = mask.relative_to(self.root)
        seen, said = (self._asked(size_of, path) for path in (image, mask))
        if seen != said:
            raise DataError(
                f"{name}: is of {said[0]} × {said[1]} pixels, and its image of {seen[0]} × {seen[1]}: "
                "a mask is as large as its image"
            )
        values = self._asked(self.form.decode_classes, mask)
        found: np.ndarray = self.classes[values.clip(-1, len(self.classes) - 1)]
        if (found == _UNKNOWN).any():
            raise DataError(
                f"{name}: holds a pixel of {int(values[found == _UNKNOWN][0])}, which is none of the "
                f"{int(self.classes.max()) + 1} classes",
                hint="data.classes names all, data.values what stands for each, data.void what is left out",
            )
        return found

    def _asked(self, question: Callable[[Path], Found], path: Path) -> Found:
        try:
            return question(path)
        except Exception as error:  # pillow raises almost anything on a damaged file
            raise DataError(f"{path.relative_to(self.root)}: cannot be decoded: {error}") from error


def mask_folder(options: MaskFolder, folder: Path) -> Splits:
    """Images with masks: `image` float32 (C, size, size) in 0…1, `mask` int64 (size, size), −1 where a pixel
    does not count. Files are decoded when they are fetched.

    Raises:
        DataError: no images; an image without a mask; a list that names what is not there; a link out of the
            folder.
    """
    root = folder_of(options.path, folder)
    of_voc = (root / "SegmentationClass").is_dir()
    names = options.classes or (_VOC if of_voc else ("ground", "object"))
    values = np.full(2**16, _UNKNOWN, dtype=np.int64)
    if options.void is not None:
        values[options.void] = UNCOUNTED
    values[list(options.values or range(len(names)))] = np.arange(len(names))
    form = Form(options.size, options.channels, options.resize)
    found = {
        part: _Masked(files, root, form, values)
        for part, files in (
            _lists(root, options.path) if of_voc else {"train": _pairs(root, options.path)}
        ).items()
    }
    if "valid" not in found:
        everything = found["train"]
        rows = split_rows(
            len(everything),
            valid=options.valid,
            test=0 if of_voc else options.test,
            seed=options.split_seed,
            name=options.path,
        )
        found |= {part: everything.take(chosen) for part, chosen in rows._asdict().items() if len(chosen)}
    size = (options.size, options.size)
    splits = Splits(
        train=found["train"],
        valid=found["valid"],
        test=found.get("test"),
        shape=Shape(row={"image": (options.channels, *size), "mask": size}, classes=len(names)),
        learnt={
            "image": form.told,
            "pixels": {"classes": list(names)},
        },
    )
    return normalized(splits, options.normalize, options.path)


def _pairs(root: Path, name: str) -> list[tuple[Path, Path]]:
    """The files of `images`, by name, each with that of `masks` whose name is the same but for its ending."""
    for part in ("images", "masks"):
        if not (root / part).is_dir():
            raise DataError(
                f"{name}: no folder {part!r} in {root}",
                hint="lay out images/ and masks/, or JPEGImages/ and SegmentationClass/ as Pascal VOC does",
            )
    images, masks = (
        {path.stem: path for path in entries(root / part, root) if path.suffix.lower() in SUFFIXES}
        for part in ("images", "masks")
    )
    if not images:
        raise DataError(f"{name}: no image in {root / 'images'}")
    if missing := sorted(images.keys() - masks.keys()):
        raise DataError(f"{name}: no mask for {listed([images[stem].name for stem in missing], ', ')}")
    return [(path, masks[stem]) for stem, path in sorted(images.items())]


def _lists(root: Path, name: str) -> dict[str, list[tuple[Path, Path]]]:
    """Of each list of VOC's that is there, the images that it names, with their masks."""
    pictures, masks = (
        {path.stem: path for path in entries(root / part, root)}
        for part in ("JPEGImages", "SegmentationClass")
    )
    found = {}
    for part, file in _LISTS.items():
        path = root / "ImageSets" / "Segmentation" / file
        if not path.is_file():
            continue
        try:
            stems = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path.relative_to(root)}: cannot be read: {error}") from error
        for there, where in ((pictures, "JPEGImages"), (masks, "SegmentationClass")):
            if missing := [stem for stem in stems if stem not in there]:
                raise DataError(
                    f"{path.relative_to(root)}: names what is not in {where}: {listed(missing, ', ')}"
                )
        if not stems:
            raise DataError(f"{path.relative_to(root)}: names no image")
        found[part] = [(pictures[stem], masks[stem]) for stem in stems]
    if "train" not in found:
        raise DataError(f"{name}: no ImageSets/Segmentation/train.txt (looked in {root})")
    return found
