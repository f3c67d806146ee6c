from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dlsys.data import Splits
from dlsys.data.images.image_folder import image_folder
from dlsys.errors import DataError
from dlsys.spec.data import ImageFolder


def read(folder: Path, **options: object) -> Splits:
    return image_folder(ImageFolder(source="image-folder", path="pictures", **{"size": 8, **options}), folder)


def message(folder: Path, **options: object) -> str:
    with pytest.raises(DataError) as error:
        read(folder, **options)
    return str(error.value)


def paint(path: Path, value: int | np.ndarray, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, 3), value, np.uint8) if isinstance(value, int) else value
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of ten images: cats are dark, dogs bright; each has its own shade."""
    for i in range(10):
        paint(tmp_path / "pictures" / "cat" / f"{i}.png", i)
        paint(tmp_path / "pictures" / "dog" / f"{i}.png", 200 + i)
    return tmp_path / "pictures"


def shades(splits: Splits) -> list[list[int]]:
    return [
        (part.batch(np.arange(len(part)))["image"][:, 0, 0, 0] * 255).round().int().tolist()
        for part in (splits.train, splits.valid, splits.test)
        if part is not None
    ]


def all_shades(splits: Splits) -> list[int]:
    return sorted(shade for part in shades(splits) for shade in part)


def test_a_flat_folder_is_split_by_class(tmp_path: Path, pictures: Path) -> None:
    (pictures / "cat" / "notes.txt").write_text("no image")
    (pictures / ".cache").mkdir()
    splits = read(tmp_path, valid=0.2, test=0.2)
    assert all_shades(splits) == [*range(10), *range(200, 210)]
    assert splits.shape.classes == 2
    assert splits.notes == ()
    for part, each in ((splits.train, 6), (splits.valid, 2), (splits.test, 2)):
        batch = part.batch(np.arange(len(part)))
        assert batch["label"].bincount().tolist() == [each, each]
        assert torch.equal(batch["label"], (batch["image"].mean((1, 2, 3)) > 0.5).long())


def test_given_splits_are_kept(tmp_path: Path, pictures: Path) -> None:
    for name in ("cat", "dog"):
        (pictures / "train").mkdir(exist_ok=True)
        (pictures / name).rename(pictures / "train" / name)
    splits = read(tmp_path, valid=0.2, test=0.5)
    assert [len(part) for part in shades(splits)] == [16, 4]
    assert splits.test is None
    paint(pictures / "test" / "dog" / "x.png", 99)
    assert [len(part) for part in shades(read(tmp_path, valid=0.2))] == [16, 4, 1]
    paint(pictures / "valid" / "dog" / "y.png", 98)
    splits = read(tmp_path, valid=0.2)
    assert [len(part) for part in shades(splits)] == [20, 1, 1]
    assert shades(splits)[1:] == [[98], [99]]
    assert splits.valid.batch(np.array([0]))["label"].tolist() == [1]


def test_scaled_to_the_shorter_side_and_cropped_at_the_centre(tmp_path: Path, pictures: Path) -> None:
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    tall = np.zeros((48, 16, 3), np.uint8)
    tall[16:32] = 255
    for path in pictures.rglob("*.png"):
        Image.fromarray(wide if path.parent.name == "cat" else tall).save(path)
    train = read(tmp_path).train
    image = train.batch(np.arange(len(train)))["image"]
    assert image.shape == (16, 3, 8, 8)
    assert image[:, :, 1:-1, 1:-1].min() == 1


def test_grey_and_colour(tmp_path: Path, pictures: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    for path in pictures.rglob("*.png"):
        Image.fromarray(red).save(path)
    assert read(tmp_path).valid.batch(np.array([0]))["image"].mean((0, 2, 3)).tolist() == [1, 0, 0]
    grey = read(tmp_path, channels=1)
    assert grey.shape.row["image"] == (1, 8, 8)
    assert abs(float(grey.valid.batch(np.array([0]))["image"].mean()) - 0.299) < 0.003


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path, pictures: Path) -> None:
    for path in pictures.rglob("*.png"):
        Image.fromarray(np.full((8, 8), 0x8080, np.uint16)).save(path)
    image = read(tmp_path, channels=1).valid.batch(np.array([0]))["image"]
    assert torch.allclose(image, torch.tensor(0x80 / 255))


def truncated(path: Path, suffix: str, keep: float) -> None:
    whole = path.with_suffix(suffix)
    noise = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    paint(whole, noise)
    data = whole.read_bytes()
    whole.write_bytes(data[: int(len(data) * keep)])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".webp", ".tiff", ".ppm"])
@pytest.mark.parametrize("keep", [0, 0.02, 0.5, 0.98])
def test_truncated_files_are_named(tmp_path: Path, pictures: Path, suffix: str, keep: float) -> None:
    truncated(pictures / "cat" / "broken", suffix, keep)
    splits = read(tmp_path)
    assert splits.notes == (f"Left out 1 unreadable images: cat/broken{suffix}.",)
    assert all_shades(splits) == [*range(10), *range(200, 210)]
    assert message(tmp_path, corrupt="error").startswith(f"cat/broken{suffix}: cannot be read: ")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".webp", ".tiff", ".ppm"])
def test_whole_files_are_not(tmp_path: Path, pictures: Path, suffix: str) -> None:
    truncated(pictures / "cat" / "whole", suffix, 1)
    splits = read(tmp_path, corrupt="error")
    assert len(all_shades(splits)) == 21


def test_a_jpeg_with_bytes_behind_its_end_is_good(tmp_path: Path, pictures: Path) -> None:
    truncated(pictures / "cat" / "whole", ".jpg", 1)
    with (pictures / "cat" / "whole.jpg").open("ab") as file:
        file.write(b"\0" * 5000)
    read(tmp_path, corrupt="error")


def test_other_formats_under_an_image_name_are_refused(tmp_path: Path, pictures: Path) -> None:
    (pictures / "cat" / "a.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    )
    (pictures / "cat" / "b.png").mkdir()
    assert message(tmp_path) == "cat/b.png: is a folder; images must lie in their class folder itself"
    (pictures / "cat" / "b.png").rmdir()
    assert read(tmp_path).notes == ("Left out 1 unreadable images: cat/a.png.",)


def test_a_file_that_breaks_later_is_named(tmp_path: Path, pictures: Path) -> None:
    splits = read(tmp_path)
    for path in pictures.rglob("*.png"):
        path.write_bytes(b"gone")
    with pytest.raises(DataError, match=r"^(cat|dog)/\d\.png: cannot be decoded: "):
        splits.train.batch(np.array([0]))


LINK = ", or in a circle; put the file itself there"


def test_links_stay_inside(tmp_path: Path, pictures: Path) -> None:
    os.symlink(pictures / "cat" / "0.png", pictures / "cat" / "again.png")
    assert len(all_shades(read(tmp_path))) == 21
    paint(tmp_path / "secret" / "x.png", 1)
    os.symlink(tmp_path / "secret" / "x.png", pictures / "cat" / "link.png")
    assert message(tmp_path) == f"cat/link.png: is a link out of {pictures}{LINK}"
    (pictures / "cat" / "link.png").unlink()
    os.symlink(tmp_path / "secret", pictures / "secret")
    assert message(tmp_path) == f"secret: is a link out of {pictures}{LINK}"
    (pictures / "secret").unlink()
    os.symlink("loop", pictures / "loop")
    assert message(tmp_path) == f"loop: is a link out of {pictures}{LINK}"


def test_a_broken_link_is_unreadable(tmp_path: Path, pictures: Path) -> None:
    os.symlink(pictures / "cat" / "no.png", pictures / "cat" / "link.png")
    assert message(tmp_path, corrupt="error") == "cat/link.png: cannot be read: not a file"


def test_missing_folder(tmp_path: Path) -> None:
    assert message(tmp_path) == f"pictures: no such folder (looked for {tmp_path / 'pictures'})"


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    assert message(tmp_path) == f"pictures: no class folders in {tmp_path / 'pictures'}"


def test_a_class_without_images(tmp_path: Path, pictures: Path) -> None:
    (pictures / "emu").mkdir()
    assert message(tmp_path) == f"pictures: no readable image of class 'emu' in {pictures}"


def test_folders_beside_train(tmp_path: Path, pictures: Path) -> None:
    paint(pictures / "train" / "cat" / "0.png", 0)
    assert message(tmp_path).startswith("pictures: unknown folder 'cat' beside 'train'.")
    for name in ("cat", "dog"):
        (pictures / name).rename(tmp_path / name)
    (pictures / "val").mkdir()
    assert message(tmp_path) == (
        "pictures: unknown folder 'val' beside 'train'. Did you mean 'valid'? Known: train, valid, test"
    )
    (pictures / "val").rename(pictures / "valid")
    assert message(tmp_path) == "pictures: no readable image in 'valid'"
    paint(pictures / "valid" / "cats" / "0.png", 0)
    assert message(tmp_path) == ("valid/cats: class 'cats' is not in 'train'. Did you mean 'cat'? Known: cat")


def test_valid_without_train(tmp_path: Path, pictures: Path) -> None:
    (pictures / "valid").mkdir()
    assert message(tmp_path) == "pictures: has a folder 'valid', but none named 'train'"


def test_a_photograph_is_turned_as_its_tag_says(tmp_path: Path) -> None:
    """As every viewer shows it: 6 is a quarter to the right, 2 is mirrored."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0] = 250  # a bright upper edge
    for name, orientation in {"plain": 1, "right": 6, "mirrored": 2}.items():
        for i in range(2):
            path = tmp_path / "pictures" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            tag = Image.Exif()
            tag[0x0112] = orientation
            Image.fromarray(pixels).save(path, exif=tag)
    splits = read(tmp_path, valid=0.3, test=0.0)
    images = {}
    for part in (splits.train, splits.valid):
        found = part.batch(np.arange(len(part)))
        images |= {int(label): image for label, image in zip(found["label"], found["image"], strict=True)}
    mirrored, plain, right = (images[number][0] for number in range(3))
    assert (plain[0] > 0.9).all()
    assert (mirrored[0] > 0.9).all()
    assert (right[:, -1] > 0.9).all()
    assert (right[:, 0] < 0.1).all()


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = (10, 10, 10, 255)
    for name in ("a", "b"):
        for i in range(2):
            path = tmp_path / "pictures" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(clear).save(path)
    image = read(tmp_path, valid=0.3, test=0.0).train.batch(np.arange(1))["image"][0]
    assert image.shape == (3, 8, 8)
    assert (image[:, :3] < 0.1).all()
    assert (image[:, 5:] > 0.9).all()
