"""Images with masks from files: VOC's layout and two plain folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from dlsys.data import Splits
from dlsys.data.images.mask_folder import mask_folder
from dlsys.errors import DataError
from dlsys.spec.data import MaskFolder


def read(folder: Path, **options: object) -> Splits:
    told = {"source": "mask-folder", "path": "data", "size": 8, **options}
    return mask_folder(MaskFolder.model_validate(told), folder)


def refused(folder: Path, **options: object) -> str:
    """What is said of the files, at once or when all rows are fetched."""
    with pytest.raises(DataError) as error:
        fetch(read(folder, **options))
    return str(error.value)


def fetch(splits: Splits) -> None:
    for part in (splits.train, splits.valid):
        part.batch(np.arange(len(part)))


def paint(path: Path, pixels: np.ndarray, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([7, 200, 90] * 256)  # colours say nothing: indices do
    image.save(path)


def fill(folder: Path, images: str, masks: str, count: int = 10) -> None:
    """Images dark above and bright below, of the class 0 above and their number, modulo 3, below."""
    for number in range(count):
        pixels = np.zeros((8, 12, 3), np.uint8)
        pixels[4:] = 100 + number
        mask = np.zeros((8, 12), np.uint8)
        mask[4:] = number % 3
        mask[0] = 255
        paint(folder / images / f"a{number}.png", pixels)
        paint(folder / masks / f"a{number}.png", mask, palette=True)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    fill(tmp_path / "data", "images", "masks")
    return tmp_path


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    fill(tmp_path / "data", "JPEGImages", "SegmentationClass")
    lists = tmp_path / "data" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"a{number}\n" for number in range(6)))
    (lists / "val.txt").write_text("a8\na7\n")
    return tmp_path


def test_two_plain_folders(plain: Path) -> None:
    splits = read(plain, classes=["sky", "sea", "sand"])
    assert splits.shape.row == {"image": (3, 8, 8), "mask": (8, 8)}
    assert splits.shape.classes == 3
    assert splits.learnt["pixels"]["classes"] == ["sky", "sea", "sand"]
    assert [len(part) for part in (splits.train, splits.valid, splits.test) if part] == [8, 1, 1]
    batch = splits.train.batch(np.arange(8))
    assert batch["mask"].dtype == torch.int64
    assert (batch["mask"][:, 0] == -1).all()
    assert (batch["mask"][:, 1:4] == 0).all()
    # A row's image says which one it is.
    number = (batch["image"][:, 0, 7, 0] * 255).round().long() - 100
    assert torch.equal(batch["mask"][:, 7, 3], number % 3)
    assert splits.test is not None


def test_vocs_layout(voc: Path) -> None:
    splits = read(voc, channels=1)
    assert (len(splits.train), len(splits.valid), splits.test) == (6, 2, None)
    assert splits.shape.classes == 21
    assert splits.learnt["pixels"]["classes"][:2] == ["background", "aeroplane"]
    batch = splits.valid.batch(np.array([0, 1]))
    assert batch["image"].shape == (2, 1, 8, 8)
    assert batch["mask"][:, 7, 0].tolist() == [8 % 3, 7 % 3]  # in the list's order
    (voc / "data" / "ImageSets" / "Segmentation" / "val.txt").unlink()
    assert [len(part) for part in (read(voc).train, read(voc).valid)] == [5, 1]


@pytest.mark.parametrize(("resize", "column"), [("crop", 2), ("stretch", 0)])
def test_masks_take_the_place_of_their_image(tmp_path: Path, resize: str, column: int) -> None:
    """A mark of two columns at the left edge is cropped away, or squeezed."""
    mask = np.zeros((8, 12), np.uint8)
    mask[:, 2:4] = 1
    for number in range(3):
        paint(tmp_path / "data" / "images" / f"{number}.png", mask[..., None].repeat(3, 2) * 255)
        paint(tmp_path / "data" / "masks" / f"{number}.png", mask)
    batch = read(tmp_path, resize=resize, test=0.0).train.batch(np.array([0]))
    bright = batch["image"][0, 0, 4] > 0.5
    assert torch.equal(bright, batch["mask"][0, 4] == 1)
    assert bool(bright[0]) == (resize == "crop")


def test_large_masks_stay_whole_numbers(tmp_path: Path) -> None:
    """A mask scaled as an image is would have classes between two others along their edge."""
    mask = np.zeros((90, 90), np.uint8)
    mask[:, 45:] = 2
    for number in range(3):
        paint(tmp_path / "data" / "images" / f"{number}.png", np.zeros((90, 90, 3), np.uint8))
        paint(tmp_path / "data" / "masks" / f"{number}.png", mask)
    splits = read(tmp_path, size=32, classes=["a", "b", "c"])
    assert set(splits.train.batch(np.array([0]))["mask"].unique().tolist()) == {0, 2}


def test_values_and_void(plain: Path) -> None:
    for path in (plain / "data" / "masks").iterdir():
        mask = np.array(Image.open(path))
        paint(path, np.where(mask == 255, 9, np.where(mask > 0, 255, 0)).astype(np.uint8))
    found = read(plain, values=[0, 255], void=9).train.batch(np.arange(8))["mask"]
    assert set(found.unique().tolist()) == {-1, 0, 1}
    assert "holds a pixel of 9, which is none of the 2 classes" in refused(plain, values=[0, 255], void=None)


def test_masks_of_two_values(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "data" / "images" / f"{number}.png", np.zeros((8, 8, 3), np.uint8))
        path = tmp_path / "data" / "masks" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.eye(8, dtype=bool)).save(path)
    found = read(tmp_path).train.batch(np.array([0]))["mask"]
    assert torch.equal(found[0], torch.eye(8, dtype=torch.int64))


def test_what_is_wrong_with_files_is_said(plain: Path) -> None:
    data, three = plain / "data", {"classes": ["a", "b", "c"], "valid": 0.4, "test": 0.0}
    assert "a2.png: holds a pixel of 2, which is none of the 2 classes" in refused(plain)
    paint(data / "masks" / "a2.png", np.zeros((8, 12, 3), np.uint8))
    assert "masks/a2.png: cannot be decoded: pixels of pillow's mode RGB are colours" in refused(
        plain, **three
    )
    paint(data / "masks" / "a2.png", np.zeros((4, 6), np.uint8))
    assert "masks/a2.png: is of 6 × 4 pixels, and its image of 12 × 8" in refused(plain, **three)
    (data / "masks" / "a2.png").write_bytes((data / "masks" / "a1.png").read_bytes()[:60])
    assert "masks/a2.png: cannot be decoded" in refused(plain, **three)
    (data / "masks" / "a2.png").unlink()
    assert "data: no mask for a2.png" in refused(plain)
    (data / "masks" / "a2.png").symlink_to(plain.parent / "elsewhere.png")
    assert "masks/a2.png: is a link out of" in refused(plain)


def test_what_is_wrong_with_folders_is_said(plain: Path, tmp_path: Path) -> None:
    assert "elsewhere: no such folder" in refused(plain, path="elsewhere")
    assert "data/images: no folder 'images'" in refused(plain, path="data/images")


def test_what_is_wrong_with_vocs_lists_is_said(voc: Path) -> None:
    lists = voc / "data" / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("a1\nb1\n")
    assert "val.txt: names what is not in JPEGImages: b1" in refused(voc)
    (lists / "val.txt").write_text("\n")
    assert "val.txt: names no image" in refused(voc)
    (lists / "train.txt").unlink()
    (lists / "val.txt").unlink()
    assert "no ImageSets/Segmentation/train.txt" in refused(voc)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"values": [0, 0]}, "each class has a value of its own"),
        ({"values": [0, 1, 2]}, "there are 2 classes, got 3 values"),
        ({"classes": ["a"]}, "at least 2 items"),
    ],
)
def test_options_that_fit_nothing(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MaskFolder.model_validate({"source": "mask-folder", "path": "p", **options})
