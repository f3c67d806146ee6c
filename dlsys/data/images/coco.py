"""Images with annotations in COCO's JSON format (https://cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from dlsys.data.dataset import Splits
from dlsys.data.files import read_bytes
from dlsys.data.images.object_files import Scene, object_splits
from dlsys.errors import DataError
from dlsys.spec.data import COCO


def coco(options: COCO, folder: Path) -> Splits:
    """`image` float32 (C, height, width) in 0…1, and what `wanted` says.

    Classes are the categories in the order of their ids, whatever these are; every part must have the same.
    Images without an object are ground. Boxes and areas are the file's; what has no width or height is left
    out.

    Raises:
        DataError: a file is missing or is not of the format; names the entry.
    """
    classes: dict[int, str] = {}
    parts = {}
    for part in ("train", "valid", "test"):
        before = "" if part == "train" else f"{part}_"
        path = getattr(options, f"{before}annotations")
        images = getattr(options, f"{before}images") or options.images
        if path:
            found = Annotations(path, folder, (folder / images).resolve(), options.wanted != "boxes")
            classes = classes or found.classes
            if found.classes != classes:
                raise DataError(
                    f"{path}: has the categories {_named(found.classes)}, and {options.annotations} has "
                    f"{_named(classes)}: every part needs the same"
                )
            parts[part] = found.scenes()
    if not classes:
        raise DataError(f"{options.annotations}: categories: there is none")
    splits = object_splits(options, parts, list(classes.values()), options.annotations, options.wanted)
    if options.wanted == "mask":
        return splits
    splits.learnt["objects"]["ids"] = list(classes)
    return splits


def _named(classes: Mapping[int, str]) -> str:
    return ", ".join(f"{number} {name}" for number, name in classes.items())


class Annotations:
    """A file of annotations.

    Args:
        path: the file, as messages say it.
        folder: where relative paths start.
        images: the images' folder.
        masks: whether objects need outlines.

    Raises:
        DataError: as `coco`.

    Attributes:
        classes: names by id, in the order of ids.
    """

    def __init__(self, path: str, folder: Path, images: Path, masks: bool) -> None:
        self._path, self._images, self._masks = path, images, masks
        try:
            told = json.loads(read_bytes(path, folder))
        except ValueError as error:
            raise DataError(f"{path}: is no JSON: {error}") from error
        if not isinstance(told, dict):
            kind = type(told).__name__
            raise DataError(f"{path}: holds a {kind}, and COCO's format is an object with `images`")
        self._told = told
        categories = self._entries("categories", id=int, name=str)
        categories.sort(key=itemgetter("id"))
        self.classes = {entry["id"]: entry["name"] for entry in categories}

    def _entries(self, key: str, **wanted: Any) -> list[dict[str, Any]]:
        """A list of the file, each entry of which has the wanted keys; ids are unique."""
        entries = self._told.get(key)
        if not isinstance(entries, list):
            raise DataError(
                f"{self._path}: has no list {key!r}: COCO's format has images, annotations, categories"
            )
        for place, entry in enumerate(entries):
            for name, kind in wanted.items():
                value = entry.get(name) if isinstance(entry, dict) else None
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise DataError(f"{self._path}: {key}[{place}].{name}: {value!r} is no {_WORDS[kind]}")
        if len({entry["id"] for entry in entries}) < len(entries):
            raise DataError(f"{self._path}: {key}: two entries have the same id")
        return entries

    def images(self) -> list[dict[str, Any]]:
        """The entries of images, in the order of ids."""
        return sorted(self._entries("images", id=int, file_name=str), key=itemgetter("id"))

    def objects(self) -> Mapping[int, list[dict[str, Any]]]:
        """The annotations of each image, by its id, but for those without width or height."""
        known = {image["id"] for image in self.images()}
        objects = defaultdict(list)
        wanted = {"id": int, "image_id": int, "category_id": int, "bbox": list}
        for place, entry in enumerate(self._entries("annotations", **wanted)):
            for name, there in (("image_id", known), ("category_id", self.classes)):
                if entry[name] not in there:
                    raise DataError(
                        f"{self._path}: annotations[{place}].{name}: {entry[name]} is not in the file"
                    )
            box = entry["bbox"]
            if len(box) != 4 or not all(map(_is_number, box)):
                raise DataError(
                    f"{self._path}: annotations[{place}].bbox: {box!r} is not [left, top, width, height]"
                )
            if not _is_number(entry.get("area", 0)):
                raise DataError(f"{self._path}: annotations[{place}].area: {entry['area']!r} is no number")
            if self._masks and not entry.get("segmentation"):
                raise DataError(
                    f"{self._path}: annotations[{place}].segmentation: is not there: say wanted: boxes"
                )
            if min(box[2:]) > 0:
                objects[entry["image_id"]].append(entry)
        return objects

    def scenes(self) -> list[Scene]:
        """Every image, in the order of ids."""
        numbers = {number: place for place, number in enumerate(self.classes)}
        objects = self.objects()
        return [self._scene(image, objects.get(image["id"], []), numbers) for image in self.images()]

    def _scene(
        self, image: dict[str, Any], objects: list[dict[str, Any]], numbers: Mapping[int, int]
    ) -> Scene:
        sides = image.get("width"), image.get("height")
        path = (self._images / image["file_name"]).resolve()
        where = f"{self._path}: image {image['id']}"
        # Someone else's data set must not be able to show a job files that it was not given.
        if not path.is_relative_to(self._images):
            raise DataError(f"{where}: {image['file_name']!r} leads out of {self._images}")
        boxes = np.array([entry["bbox"] for entry in objects], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        areas = [entry.get("area", entry["bbox"][2] * entry["bbox"][3]) for entry in objects]
        return Scene(
            path=path,
            number=image["id"],
            size=sides if all(isinstance(side, int) for side in sides) else None,  # type: ignore[arg-type]
            boxes=boxes,
            labels=np.array([numbers[entry["category_id"]] for entry in objects], dtype=np.int64),
            area=np.array(areas, dtype=np.float64),
            crowd=np.array([bool(entry.get("iscrowd")) for entry in objects], dtype=bool),
            outlines=[entry["segmentation"] for entry in objects] if self._masks else (),
            where=where,
        )


def _is_number(value: Any) -> bool:
    # JSON has no infinity and no NaN, but Python reads them; beyond this, float32 has none.
    return isinstance(value, int | float) and abs(value) < 1e30


_WORDS = {int: "whole number", str: "text", list: "list"}
