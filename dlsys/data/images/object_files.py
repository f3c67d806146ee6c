"""Images in files with their objects, whoever wrote these down: checked at the start, decoded when
fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.files import listed
from dlsys.data.images.decoding import FORMATS, damage, shown, size_seen
from dlsys.data.images.masks import decoded
from dlsys.data.images.normalize import normalized
from dlsys.data.images.objects import ObjectRow, batched, counted, of_classes
from dlsys.data.split import split_rows
from dlsys.errors import DataError
from dlsys.spec.data.boxes import ObjectFiles

# What fills an image that does not fill its place: no edge that a ground of any colour would have.
_GREY = 128


@dataclass(frozen=True)
class Scene:
    """What was written down about an image.

    Attributes:
        path: its file.
        number: its own, as its data set counts.
        size: width and height in pixels, as the objects' places mean them; None takes the file's.
        boxes: float64 (n, 4): left, top, right, bottom in pixels.
        labels: int64 (n,).
        area: float64 (n,), the objects' own in square pixels.
        crowd: bool (n,).
        outlines: of each object what `masks.decoded` reads; empty where nobody asks for masks.
        where: what messages call it.
    """

    path: Path
    number: int
    size: tuple[int, int] | None
    boxes: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    outlines: Sequence[Any] = field(default=(), repr=False)
    where: str = ""


@dataclass(frozen=True)
class _Files:
    scenes: list[Scene]
    sides: tuple[int, int]
    channels: int
    stretch: bool
    wanted: str

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Raises DataError for a file that can't be decoded, naming it."""
        return batched([self._row(self.scenes[row]) for row in rows], self.wanted)

    def _row(self, scene: Scene) -> ObjectRow:
        height, width = self.sides
        try:
            with Image.open(scene.path, formats=FORMATS) as image:
                picture = _as_written(image, scene, self.channels)
        except DataError:
            raise
        except Exception as error:  # pillow raises almost anything on a damaged file
            raise DataError(f"{scene.where}: {scene.path}: cannot be decoded: {error}") from error
        across, down = width / picture.width, height / picture.height
        if not self.stretch:
            across = down = min(across, down)
        inner = max(1, round(picture.width * across)), max(1, round(picture.height * down))
        mode = "L" if self.channels == 1 else "RGB"
        sheet = Image.new(mode, (width, height), _GREY if self.channels == 1 else (_GREY,) * 3)
        sheet.paste(picture.resize(inner, Image.Resampling.BILINEAR), (0, 0))
        masks = None
        if self.wanted != "boxes":
            masks = np.zeros((len(scene.labels), height, width), dtype=bool)
            for place, outline in enumerate(scene.outlines):
                mask = decoded(outline, picture.size, scene.where)
                small = Image.fromarray(mask).resize(inner, Image.Resampling.NEAREST)
                masks[place, : inner[1], : inner[0]] = np.asarray(small)
        return ObjectRow(
            image=np.asarray(sheet).reshape(height, width, self.channels),
            boxes=(scene.boxes * (across, down, across, down)).astype(np.float32),
            labels=scene.labels,
            area=scene.area.astype(np.float32),
            crowd=scene.crowd,
            masks=masks,
            scale=(across * down) ** -0.5,
            number=scene.number,
        )


def _as_written(image: Image.Image, scene: Scene, channels: int) -> Image.Image:
    """The picture in which the objects' places are pixels: turned as a viewer shows it, or as it is stored.

    Raises:
        DataError: neither has the size that was written down.
    """
    stored = image.size
    if scene.size in (None, seen := size_seen(image)):
        return shown(image, channels)
    if scene.size == stored:  # turned by a camera's mark, of which whoever drew the boxes knew nothing
        image.load()
        image.getexif().clear()
        image.info.pop("exif", None)
        return shown(image.copy(), channels)
    raise DataError(
        f"{scene.where}: {scene.path} has {seen[0]} × {seen[1]} pixels, and its boxes are of "
        f"{scene.size[0]} × {scene.size[1]}: mend width and height, or bring the image that was labelled"
    )


def object_splits(
    options: ObjectFiles, parts: Mapping[str, list[Scene]], classes: Sequence[str], name: str, wanted: str
) -> Splits:
    """The splits of scenes; what is not there for validation and test is cut from those to train on.

    Args:
        parts: `train`, and `valid` and `test` where they are given.
        classes: names, in the order of the labels.
        name: the source, as messages say it.
        wanted: as `batched` has it.

    Raises:
        DataError: an image is missing or damaged and `corrupt` says so, or no row is left.
    """
    skipped: list[str] = []
    found = {part: _readable(scenes, options, skipped) for part, scenes in parts.items()}
    for part, scenes in found.items():
        if not scenes:
            raise DataError(f"{name}: no readable image in {part!r}")
    if "valid" not in found:
        everything = found["train"]
        test = 0.0 if "test" in found else options.test
        cut = split_rows(len(everything), valid=options.valid, test=test, seed=options.split_seed, name=name)
        found |= {
            part: [everything[row] for row in rows] for part, rows in cut._asdict().items() if len(rows)
        }
    most = max(len(scene.labels) for scenes in found.values() for scene in scenes)
    counts = counted(found["train"], len(classes))
    shape, learnt = of_classes(
        classes, wanted, image=(options.channels, *options.sides), most=most, counts=counts
    )
    learnt["image"]["resize"] = options.resize

    def part_of(name: str) -> _Files | None:
        stretch = options.resize == "stretch"
        if name not in found:
            return None
        return _Files(found[name], options.sides, options.channels, stretch, wanted)

    train, valid = part_of("train"), part_of("valid")
    assert train is not None
    assert valid is not None
    notes = (f"Left out {len(skipped)} unreadable images: {listed(skipped, ', ')}.",) if skipped else ()
    splits = Splits(train, valid, part_of("test"), shape, notes, learnt)
    return normalized(splits, options.normalize, name)


def _readable(scenes: list[Scene], options: ObjectFiles, skipped: list[str]) -> list[Scene]:
    found = []
    for scene in scenes:
        problem = damage(scene.path) if scene.path.exists() else "no such file"
        if not problem:
            found.append(scene)
        elif options.corrupt == "error":
            raise DataError(
                f"{scene.where}: {scene.path}: {problem}", hint="mend the file, or say corrupt: skip"
            )
        else:
            skipped.append(str(scene.path))
    return found
