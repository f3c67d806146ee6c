"""Pascal VOC's layout (Everingham et al. 2010): a list of names, and an image and an XML file for each."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from dlsys.data.dataset import Splits
from dlsys.data.files import read_bytes
from dlsys.data.images.object_files import Scene, object_splits
from dlsys.errors import DataError
from dlsys.spec.data import VOC


def voc(options: VOC, folder: Path) -> Splits:
    """`image` float32 (C, height, width) in 0…1, with `boxes` and `labels`.

    Classes are the names of the objects to train on, in the order of the alphabet. The first pixel of a
    file's boxes is 1 and their last one belongs to them, so that right less left is one pixel more than
    there.

    Raises:
        DataError: a list, image or annotation is missing, or is not of the format.
    """
    lists = {"train": options.train_list, "valid": options.valid_list, "test": options.test_list}
    read = {part: _listed(options.path, name, folder) for part, name in lists.items() if name}
    names = sorted({name for _, objects in read["train"] for name, *_ in objects})
    if not names:
        raise DataError(f"{options.path}: no object in the images of {options.train_list!r}")
    parts: dict[str, list[Scene]] = {part: [] for part in read}
    for part, images in read.items():
        for number, (image, objects) in enumerate(images):
            where = f"{options.path}/Annotations/{image}.xml"
            if unknown := sorted({name for name, *_ in objects} - {*names}):
                raise DataError(
                    f"{where}: the class {unknown[0]!r} is in no image of {options.train_list!r}. Known: "
                    f"{', '.join(names)}"
                )
            boxes = np.array([box for _, box, _ in objects], dtype=np.float64).reshape(-1, 4)
            boxes[:, :2] -= 1
            difficult = np.array([hard for *_, hard in objects], dtype=bool)
            parts[part].append(
                Scene(
                    path=folder / options.path / "JPEGImages" / f"{image}.jpg",
                    number=number,
                    size=None,
                    boxes=boxes,
                    labels=np.array([names.index(name) for name, *_ in objects], dtype=np.int64),
                    area=(boxes[:, 2:] - boxes[:, :2]).prod(1),
                    crowd=difficult & (options.difficult == "ignore"),
                    where=where,
                )
            )
    return object_splits(options, parts, names, options.path, "boxes")


_Object = tuple[str, list[float], bool]


def _listed(path: str, name: str, folder: Path) -> list[tuple[str, list[_Object]]]:
    """The images of a list, each with its objects: name, box and whether it is difficult."""
    text = read_bytes(f"{path}/ImageSets/Main/{name}.txt", folder).decode("utf-8", "replace")
    # A class's own list says behind each name whether it is there.
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
    return [(image, _objects(f"{path}/Annotations/{image}.xml", folder)) for image in names]


def _objects(path: str, folder: Path) -> list[_Object]:
    content = read_bytes(path, folder)
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError(f"{path}: declares entities, which no annotation needs: take the declaration out")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: is no XML: {error}") from error
    found: list[_Object] = []
    for place, entry in enumerate(root.iter("object"), start=1):
        where = f"{path}: object {place}"
        name = (entry.findtext("name") or "").strip()
        sides = [entry.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        try:
            box = [float(side or "") for side in sides]
        except ValueError as error:
            raise DataError(f"{where}: bndbox has {sides}, and xmin, ymin, xmax, ymax are numbers") from error
        if not name:
            raise DataError(f"{where}: has no name")
        if box[2] < box[0] or box[3] < box[1]:
            raise DataError(f"{where}: bndbox ends before it begins: {box}")
        found.append((name, box, (entry.findtext("difficult") or "0").strip() == "1"))
    return found
