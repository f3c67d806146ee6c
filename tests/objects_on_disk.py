"""Rendered shapes as files, in the formats in which people have theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dlsys.data.images.objects import ObjectRow
from dlsys.data.images.shapes import shapes
from dlsys.spec.data import Shapes

# Ids as COCO has them: neither from 0 nor without gaps, and not in the order of the names.
CATEGORIES = {7: "circle", 3: "square", 90: "triangle"}


def scenes(count: int, **options: Any) -> list[ObjectRow]:
    found = shapes(Shapes(source="shapes", rows=count, **options), Path())
    return [row for part in (found.train, found.valid, found.test) for row in getattr(part, "rows", [])]


def polygon(mask: np.ndarray) -> list[float]:
    """The outline of a mask that is convex: its rows' ends, down the right side and up the left one."""
    rows = np.flatnonzero(mask.any(1))
    ends = [(row, *np.flatnonzero(mask[row])[[0, -1]]) for row in rows]
    right = [(last + 1, y) for row, _, last in ends for y in (row, row + 1)]
    left = [(first, y) for row, first, _ in reversed(ends) for y in (row + 1, row)]
    return [float(number) for point in right + left for number in point]


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Down the columns, beginning with what is not of it."""
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(int), [0]])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff([0, *changes, mask.size])
    return {"counts": [int(count) for count in counts if count or mask[0, 0]], "size": list(mask.shape)}


def as_coco(rows: list[ObjectRow], folder: Path, *, crowds: bool = False) -> dict[str, Any]:
    """Writes `images/*.png` and `labels.json`; returns what stands there."""
    ids = list(CATEGORIES)
    told: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
    }
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        height, width = row.image.shape[:2]
        name = f"{number:04}.png"
        Image.fromarray(row.image).save(folder / "images" / name)
        told["images"].append({"id": 100 + number, "file_name": name, "width": width, "height": height})
        assert row.masks is not None
        for place, (box, label, mask) in enumerate(zip(row.boxes, row.labels, row.masks, strict=True)):
            left, top, right, bottom = map(float, box)
            crowd = crowds and place == 2
            told["annotations"].append(
                {
                    "id": len(told["annotations"]) + 1,
                    "image_id": 100 + number,
                    "category_id": ids[label],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(mask.sum()),
                    "iscrowd": int(crowd),
                    "segmentation": run_lengths(mask) if crowd else [polygon(mask)],
                }
            )
    (folder / "labels.json").write_text(json.dumps(told))
    return told


def as_voc(rows: list[ObjectRow], folder: Path, names: tuple[str, ...]) -> None:
    """Writes VOC's layout, with two lists; the last object of each image is difficult."""
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        Image.fromarray(row.image).save(folder / "JPEGImages" / f"{number}.jpg", quality=95)
        objects = ""
        for place, (box, label) in enumerate(zip(row.boxes, row.labels, strict=True)):
            left, top, right, bottom = map(int, box)
            corners = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
            box_told = "".join(f"<{name}>{corner}</{name}>" for name, corner in corners.items())
            hard = int(place == len(row.labels) - 1)
            objects += f"<object><name>{names[label]}</name><difficult>{hard}</difficult>"
            objects += f"<bndbox>{box_told}</bndbox></object>"
        (folder / "Annotations" / f"{number}.xml").write_text(f"<annotation>{objects}</annotation>")
    half = len(rows) // 2
    for name, chosen in (("train", range(half)), ("val", range(half, len(rows)))):
        (folder / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{number}\n" for number in chosen))


def as_kitti(rows: list[ObjectRow], folder: Path, names: tuple[str, ...]) -> None:
    """Writes KITTI's layout; each image also has a region of `DontCare`."""
    for part in ("image_2", "label_2"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        Image.fromarray(row.image).save(folder / "image_2" / f"{number:06}.png")
        lines = []
        for box, label in zip(row.boxes, row.labels, strict=True):
            sides = " ".join(f"{side:.2f}" for side in box)
            lines.append(f"{names[label]} 0.00 0 -1.58 {sides} 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59")
        lines.append("DontCare -1 -1 -10 1.00 2.00 9.00 8.00 -1 -1 -1 -1000 -1000 -1000 -10")
        (folder / "label_2" / f"{number:06}.txt").write_text("\n".join(lines) + "\n")
