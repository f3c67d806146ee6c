"""Objects in files: what stands in them comes out of them, to the pixel, and what is wrong with them is
told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from objects_on_disk import CATEGORIES, as_coco, as_kitti, as_voc, scenes
from PIL import Image
from pydantic import ValidationError

from dlsys.data import Splits, load
from dlsys.data.images.objects import ObjectRow
from dlsys.errors import DataError
from dlsys.spec.data import COCO, KITTI, VOC

NAMES = ("circle", "square", "triangle")


@pytest.fixture(scope="module")
def rows() -> list[ObjectRow]:
    return scenes(12, objects=(1, 4), kinds=NAMES, overlap=0.0)


def coco(folder: Path, **options: Any) -> Splits:
    given = {"annotations": "labels.json", "images": "images", "size": 64, "valid": 0.2, "test": 0, **options}
    return load(COCO(source="coco", **given), folder)


def whole(splits: Splits) -> dict[int, dict[str, torch.Tensor]]:
    """Every row, by the number of its image."""
    found = {}
    for part in filter(None, (splits.train, splits.valid, splits.test)):
        for row in range(len(part)):
            batch = part.batch(np.array([row]))
            found[int(batch["image_id"][0])] = {name: value[0] for name, value in batch.items()}
    return found


def test_coco_comes_back(tmp_path: Path, rows: list[ObjectRow]) -> None:
    as_coco(rows, tmp_path, crowds=True)
    splits = coco(tmp_path, wanted="instances")
    found = whole(splits)
    assert sorted(found) == list(range(100, 112))
    # Classes are numbered in the order of ids: 3, 7, 90.
    assert splits.learnt["objects"]["classes"] == ["square", "circle", "triangle"]
    assert splits.learnt["objects"]["ids"] == [3, 7, 90]
    crowds = 0
    for number, row in enumerate(rows):
        batch, count = found[100 + number], len(row.labels)
        assert torch.equal(
            (batch["image"] * 255).round().byte().permute(1, 2, 0), torch.from_numpy(row.image)
        )
        assert torch.equal(batch["boxes"][:count], torch.from_numpy(row.boxes))
        assert batch["labels"].tolist()[:count] == [(1, 0, 2)[label] for label in row.labels]
        assert set(batch["labels"][count:].tolist()) <= {-1}
        assert torch.equal(batch["area"][:count], torch.from_numpy(row.area))
        assert torch.equal(batch["masks"][:count], torch.from_numpy(row.masks))
        assert batch["crowd"].tolist()[:count] == [place == 2 for place in range(count)]
        crowds += int(batch["crowd"].sum())
    assert crowds


def test_a_mask_of_classes_leaves_crowds_out(tmp_path: Path, rows: list[ObjectRow]) -> None:
    as_coco(rows, tmp_path, crowds=True)
    splits = coco(tmp_path, wanted="mask")
    assert splits.shape.classes == 4
    full = coco(tmp_path, wanted="instances")
    for part, other in ((splits.train, full.train), (splits.valid, full.valid)):
        everything = np.arange(len(part))
        mask, truth = part.batch(everything)["mask"], other.batch(everything)
        crowd = (truth["masks"] & truth["crowd"][..., None, None]).any(1)
        objects = (truth["masks"] & ~truth["crowd"][..., None, None]).any(1)
        assert torch.equal(mask == -1, crowd)
        assert torch.equal(mask > 0, objects & ~crowd)


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_boxes_follow_the_image(resize: str, tmp_path: Path) -> None:
    """A bright rectangle in a wide image stays within its box, whatever becomes of the image."""
    pixels = np.zeros((60, 120, 3), dtype=np.uint8)
    pixels[20:50, 30:90] = 255
    told = as_coco([ObjectRow.of_masks(pixels, np.array([0]), pixels[None, ..., 0] > 0)] * 3, tmp_path)
    assert told["annotations"][0]["bbox"] == [30, 20, 60, 30]
    splits = coco(tmp_path, size=(48, 48), resize=resize, wanted="instances", valid=0.4)
    batch = splits.train.batch(np.array([0]))
    wanted = [12, 8, 36, 20] if resize == "letterbox" else [12, 16, 36, 40]
    assert batch["boxes"][0, 0].tolist() == wanted
    left, top, right, bottom = wanted
    bright = batch["image"][0, 0] > 0.9
    assert bright[top + 1 : bottom - 1, left + 1 : right - 1].all()
    assert bright.sum() <= (right - left) * (bottom - top)
    assert bool(batch["masks"][0, 0, top:bottom, left:right].all())
    assert int(batch["masks"].sum()) == (right - left) * (bottom - top)
    # In original pixels an area is what it was.
    scale = float(batch["scale"][0])
    assert (right - left) * (bottom - top) * scale**2 == pytest.approx(60 * 30)
    assert float(batch["area"][0, 0]) == 60 * 30


def test_an_image_turned_by_its_camera(tmp_path: Path) -> None:
    """Boxes drawn by who saw it turned, and by who did not: the annotated size tells."""
    for seen in (True, False):
        pixels = np.zeros((60, 120, 3), dtype=np.uint8)
        pixels[:20, :40] = 255
        stored = np.rot90(pixels) if seen else pixels
        row = ObjectRow.of_masks(pixels, np.array([0]), pixels[None, ..., 0] > 0)
        as_coco([row] * 3, tmp_path)
        for path in (tmp_path / "images").iterdir():
            turned = Image.Exif()
            turned[0x0112] = 6  # to be turned by a quarter, clockwise
            Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=turned)
        batch = coco(tmp_path, size=(60, 120), valid=0.4).train.batch(np.array([0]))
        assert torch.equal(batch["image"][0, 0] > 0.5, torch.from_numpy(row.masks[0])), seen


def test_given_parts_are_those(tmp_path: Path, rows: list[ObjectRow]) -> None:
    as_coco(rows[:8], tmp_path)
    as_coco(rows[8:], tmp_path / "other")
    splits = coco(tmp_path, valid_annotations="other/labels.json", valid_images="other/images", test=0.5)
    assert (len(splits.train), len(splits.valid), splits.test) == (8, 4, None)


def test_voc_comes_back(tmp_path: Path, rows: list[ObjectRow]) -> None:
    as_voc(rows, tmp_path / "VOC", NAMES)
    options = VOC(source="voc", path="VOC", train_list="train", valid_list="val", size=64)
    splits = load(options, tmp_path)
    assert (len(splits.train), len(splits.valid), splits.test) == (6, 6, None)
    assert splits.learnt["objects"]["classes"] == list(NAMES)
    batch = splits.valid.batch(np.arange(6))
    for place, row in enumerate(rows[6:]):
        count = len(row.labels)
        assert torch.equal(batch["boxes"][place, :count], torch.from_numpy(row.boxes))
        assert batch["labels"][place, :count].tolist() == row.labels.tolist()
        assert batch["crowd"][place].tolist() == [n == count - 1 for n in range(batch["crowd"].shape[1])]
        close = (batch["image"][place].permute(1, 2, 0) - torch.from_numpy(row.image) / 255).abs().mean()
        assert close < 0.05
    learnt = load(options.model_copy(update={"difficult": "learn"}), tmp_path)
    assert not learnt.valid.batch(np.arange(6))["crowd"].any()


def test_kitti_comes_back(tmp_path: Path, rows: list[ObjectRow]) -> None:
    as_kitti(rows, tmp_path / "training", ("Car", "Van", "Cyclist"))
    options = KITTI(source="kitti", path="training", size=64, test=0, classes=("Car", "Cyclist"))
    found = whole(load(options, tmp_path))
    for number, row in enumerate(rows):
        batch = found[number]
        there = (batch["labels"] >= 0) & ~batch["crowd"]
        kept = [(0, None, 1)[label] for label in row.labels if label != 1]
        assert batch["labels"][there].tolist() == kept
        assert torch.allclose(batch["boxes"][there], torch.from_numpy(row.boxes[row.labels != 1]), atol=0.01)
        # A region that nobody looked at counts for no class.
        assert batch["labels"][batch["crowd"]].tolist() == [0, 1]
        assert batch["boxes"][batch["crowd"]].tolist() == [[1, 2, 9, 8]] * 2


def spoil(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """Puts a value where a path leads."""

    def change(told: dict[str, Any]) -> None:
        *way, last = path
        for key in way:
            told = told[key]
        told[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("images", value={}), "has no list 'images'"),
        (spoil("images", 1, "id", value=100), "images: two entries have the same id"),
        (spoil("images", 1, "file_name", value=7), r"images\[1\].file_name: 7 is no text"),
        (spoil("annotations", 0, "image_id", value=5), r"annotations\[0\].image_id: 5 is not in the file"),
        (spoil("annotations", 0, "category_id", value=5), r"annotations\[0\].category_id: 5 is not in"),
        (spoil("annotations", 0, "bbox", value=[1, 2]), r"annotations\[0\].bbox: \[1, 2\] is not \[left"),
        (
            spoil("annotations", 0, "bbox", value=[1, 2, float("nan"), 4]),
            r"annotations\[0\].bbox: \[1, 2, nan",
        ),
        (spoil("annotations", 0, "area", value="large"), r"annotations\[0\].area: 'large' is no number"),
        (spoil("annotations", 0, "area", value=None), r"annotations\[0\].area: None is no number"),
        (spoil("annotations", 0, "segmentation", value=[]), r"annotations\[0\].segmentation: is not there"),
        (spoil("annotations", 0, "segmentation", value=[["a"]]), "image 100: is neither polygons nor run"),
        (spoil("images", 0, "file_name", value="../x.png"), r"image 100: '../x.png' leads out of"),
        (spoil("images", 0, "width", value=9), "has 64 × 64 pixels, and its boxes are of 9 × 64"),
        (spoil("images", 0, "file_name", value="none.png"), "none.png: no such file"),
    ],
)
def test_what_is_wrong_with_annotations_is_told(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path, rows: list[ObjectRow]
) -> None:
    told = as_coco(rows, tmp_path)
    change(told)
    (tmp_path / "labels.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=message):
        whole(coco(tmp_path, wanted="instances", corrupt="error"))


def test_missing_images_are_left_out_and_said(tmp_path: Path, rows: list[ObjectRow]) -> None:
    as_coco(rows, tmp_path)
    (tmp_path / "images" / "0003.png").unlink()
    (tmp_path / "images" / "0004.png").write_bytes(b"no picture")
    splits = coco(tmp_path)
    assert sorted(whole(splits)) == [n for n in range(100, 112) if n not in (103, 104)]
    assert splits.notes[0].startswith("Left out 2 unreadable images: ")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("Annotations/0.xml", "<annotation>", "0.xml: is no XML"),
        ("Annotations/0.xml", "<!DOCTYPE a><annotation/>", "0.xml: declares entities"),
        (
            "Annotations/0.xml",
            "<a><object><name>circle</name></object></a>",
            r"0.xml: object 1: bndbox has \[None, None, None, None\]",
        ),
        ("ImageSets/Main/train.txt", "77\n", "Annotations/77.xml: no such file"),
        ("ImageSets/Main/train.txt", "", "no object in the images of 'train'"),
    ],
)
def test_what_is_wrong_with_voc_is_told(
    file: str, content: str, message: str, tmp_path: Path, rows: list[ObjectRow]
) -> None:
    as_voc(rows, tmp_path / "VOC", NAMES)
    (tmp_path / "VOC" / file).write_text(content)
    with pytest.raises(DataError, match=message):
        load(VOC(source="voc", path="VOC", train_list="train", valid_list="val"), tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Car 0 0 0 1 2 3", r"label_2/000002.txt:1: 7 words: a line is a type and 14 numbers"),
        ("Car 0 0 0 a 2 3 4 1 1 1 1 1 1 1", r"label_2/000002.txt:1: behind the type stand numbers"),
    ],
)
def test_what_is_wrong_with_kitti_is_told(
    line: str, message: str, tmp_path: Path, rows: list[ObjectRow]
) -> None:
    as_kitti(rows, tmp_path / "training", ("Car", "Van", "Cyclist"))
    (tmp_path / "training/label_2/000002.txt").write_text(line)
    with pytest.raises(DataError, match=message):
        load(KITTI(source="kitti", path="training"), tmp_path)


def test_a_folder_without_its_annotations_is_told() -> None:
    with pytest.raises(
        ValidationError, match="test_images: is the folder of test_annotations, which is not said"
    ):
        COCO(source="coco", annotations="a.json", images="b", test_images="c")


def test_categories_must_agree(tmp_path: Path, rows: list[ObjectRow]) -> None:
    as_coco(rows, tmp_path)
    told = as_coco(rows, tmp_path / "other")
    told["categories"][0]["name"] = "disc"
    (tmp_path / "other/labels.json").write_text(json.dumps(told))
    with pytest.raises(
        DataError, match=r"has the categories 3 square, 7 disc, 90 triangle, and labels\.json has"
    ):
        coco(tmp_path, valid_annotations="other/labels.json", valid_images="other/images")
    assert sorted(CATEGORIES) == [3, 7, 90]
