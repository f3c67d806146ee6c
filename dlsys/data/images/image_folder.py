"""Folders of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.files import listed
from dlsys.data.images.normalize import Scaling, normalized
from dlsys.data.split import split_rows
from dlsys.errors import DataError
from dlsys.registry import did_you_mean
from dlsys.spec.data import ImageFolder
from dlsys.spec.rows import Shape

_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
# Whatever a file is called, pillow tries no other decoder on it (its EPS one starts Ghostscript).
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# With formats named, pillow only asks decoders that are already loaded.
Image.init()

_PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class _ImageFiles:
    """Images decoded when they are fetched.

    Attributes:
        paths: the files.
        labels: int64, shape (N,).
        root: the source's folder; messages name files from there.
    """

    paths: list[Path]
    labels: np.ndarray
    root: Path
    form: _Form

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> _ImageFiles:
        return replace(self, paths=[self.paths[row] for row in rows], labels=self.labels[rows])

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Raises DataError for a file that can't be decoded, naming it."""
        image = _images([self.paths[row] for row in rows], self.form, self.root)
        return {"image": image, "label": torch.from_numpy(self.labels[rows])}


@dataclass(frozen=True)
class _Form:
    """What every image becomes, as `ImageFolder` says it."""

    size: int
    channels: int
    resize: str = "crop"

    def decode(self, path: Path) -> np.ndarray:
        """An image as a square: uint8 (size, size, C).

        As a viewer shows it: turned as its EXIF tag says, and on white where it is transparent.
        """
        mode, square = "L" if self.channels == 1 else "RGB", (self.size, self.size)
        with Image.open(path, formats=_FORMATS) as image:
            # JPEG can be decoded at a half, quarter or eighth: never below the size given here.
            image.draft(mode, square)
            ImageOps.exif_transpose(image, in_place=True)
            picture = _on_white(_eight_bits(image))
            if picture.mode != mode:  # else it would be copied
                picture = picture.convert(mode)
            if self.resize == "stretch":
                fitted = picture.resize(square, Image.Resampling.BILINEAR)
            else:
                fitted = ImageOps.fit(picture, square, Image.Resampling.BILINEAR)
        return np.asarray(fitted).reshape(*square, self.channels)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits, which pillow's `convert` would cut off at 255."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """Without its transparency, under which files hold any colour."""
    if not image.has_transparency_data:
        return image
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)


def _images(paths: Sequence[Path], form: _Form, root: Path | None) -> Tensor:
    """float32 (N, C, size, size) in 0…1.

    Args:
        root: the folder from which messages name files; None names them as they are.

    Raises:
        DataError: a file cannot be decoded; names it.
    """
    pixels = np.empty((len(paths), form.size, form.size, form.channels), dtype=np.uint8)
    for place, path in enumerate(paths):
        try:
            pixels[place] = form.decode(path)
        except Exception as error:  # pillow raises almost anything on a damaged file
            raise DataError(
                f"{path.relative_to(root) if root else path}: cannot be decoded: {error}",
                hint=f"mend the file or move it out of {root}" if root else "",
            ) from error
    # Channels go first while they are bytes, a quarter of what they are as floats.
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(255)


def images_of(learnt: Mapping[str, Any], paths: Sequence[Path]) -> Tensor:
    """Other images as a model sees them that was trained on a folder: float32 (N, C, size, size).

    Args:
        learnt: what the folder's `Splits.learnt` says.
        paths: image files.

    Raises:
        DataError: one cannot be decoded.
    """
    told = learnt["image"]
    form = _Form(told["size"], told["channels"], told.get("resize", "crop"))
    image = _images(paths, form, None)
    if "mean" not in told:
        return image
    return Scaling(tuple(told["mean"]), tuple(told["std"]))({"image": image})["image"]


def image_folder(options: ImageFolder, folder: Path) -> Splits:
    """A folder with a folder for each class: `image` float32 (C, size, size) in 0…1, `label` int64.

    Classes are numbered in the order of their folders' names. With a `train` folder inside, that
    and its neighbours `valid` and `test` are the splits; validation rows are cut from `train`
    when `valid` is not there. Files are checked now and decoded when fetched.

    Raises:
        DataError: no images, an unknown folder, a link out of the folder, or (with `corrupt:
            error`) an unreadable file.
    """
    root = (folder / options.path).resolve()
    if not root.is_dir():
        raise DataError(f"{options.path}: no such folder (looked for {root})")
    given = _given_parts(root, options.path)
    base = root / "train" if given else root
    classes = _folders(base, root)
    if not classes:
        raise DataError(f"{options.path}: no class folders in {base}")

    skipped: list[str] = []
    found = {
        part: _scan(root / part if given else root, root, classes, options, skipped)
        for part in given or ("train",)
    }
    for number, name in enumerate(classes):
        if number not in found["train"].labels:
            raise DataError(f"{options.path}: no readable image of class {name!r} in {base}")
    for part, files in found.items():
        if not len(files):
            raise DataError(f"{options.path}: no readable image in {part!r}")
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
        found |= {part: everything.take(rows) for part, rows in rows._asdict().items() if len(rows)}
    splits = Splits(
        train=found["train"],
        valid=found["valid"],
        test=found.get("test"),
        shape=Shape(
            row={"image": (options.channels, options.size, options.size), "label": ()}, classes=len(classes)
        ),
        notes=(f"Left out {len(skipped)} unreadable images: {listed(skipped, ', ')}.",) if skipped else (),
        learnt={
            "image": {
                "size": options.size,
                "channels": options.channels,
                "resize": options.resize,
                "values": "0 to 1",
            },
            "target": {
                "name": "label",
                "classes": classes,
                "counts": np.bincount(found["train"].labels, minlength=len(classes)).tolist(),
            },
        },
    )
    return normalized(splits, options.normalize, options.path)


def _given_parts(root: Path, name: str) -> list[str]:
    """Which of train, valid and test are folders of their own; empty where none is."""
    inside = _folders(root, root)
    given = [part for part in _PARTS if part in inside]
    if given and "train" not in given:
        raise DataError(f"{name}: has a folder {given[0]!r}, but none named 'train'")
    for other in inside:
        if given and other not in _PARTS:
            raise DataError(
                f"{name}: unknown folder {other!r} beside 'train'.{did_you_mean(other, _PARTS)} "
                f"Known: {', '.join(_PARTS)}"
            )
    return given


def _entries(folder: Path, root: Path) -> list[Path]:
    """What a folder holds, by name, without hidden files."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
    for entry in entries:
        # Someone else's data set must not be able to show a job files that it was not given.
        if entry.is_symlink() and not _leads_into(entry, root):
            raise DataError(
                f"{entry.relative_to(root)}: is a link out of {root}, or in a circle; "
                "put the file itself there"
            )
    return entries


def _leads_into(link: Path, root: Path) -> bool:
    try:
        return link.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle; RuntimeError before Python 3.13
        return False


def _folders(folder: Path, root: Path) -> list[str]:
    return [entry.name for entry in _entries(folder, root) if entry.is_dir()]


def _scan(
    part: Path, root: Path, classes: list[str], options: ImageFolder, skipped: list[str]
) -> _ImageFiles:
    """The readable images under a part's class folders; adds the others' names to `skipped`."""
    paths: list[Path] = []
    labels: list[int] = []
    for name in _folders(part, root):
        if name not in classes:
            raise DataError(
                f"{(part / name).relative_to(root)}: class {name!r} is not in 'train'."
                f"{did_you_mean(name, classes)} Known: {listed(classes, ', ')}"
            )
        for path in _entries(part / name, root):
            where = str(path.relative_to(root))
            if path.is_dir():
                raise DataError(f"{where}: is a folder; images must lie in their class folder itself")
            if path.suffix.lower() not in _SUFFIXES:
                continue
            problem = _damage(path)
            if problem and options.corrupt == "error":
                raise DataError(
                    f"{where}: cannot be read: {problem}", hint="mend the file, or say corrupt: skip"
                )
            if problem:
                skipped.append(where)
                continue
            paths.append(path)
            labels.append(classes.index(name))
    form = _Form(options.size, options.channels, options.resize)
    return _ImageFiles(paths, np.array(labels, dtype=np.int64), root, form)


def _damage(path: Path) -> str:
    """What is wrong with an image file; empty for a good one.

    PNG's checksums and JPEG's end mark are cheap to look at; any other file is decoded.
    """
    if not path.is_file():
        return "not a file"
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.mode in ("I", "F"):
                return f"pixels of pillow's mode {image.mode} have no known range"
            if image.format == "PNG":
                image.verify()
            elif image.format != "JPEG" or not _has_jpeg_end(path):
                image.load()
    except Exception as error:  # pillow raises almost anything on a damaged file
        return str(error) or type(error).__name__
    return ""


def _has_jpeg_end(path: Path) -> bool:
    """Whether JPEG's end mark is among the last bytes (some cameras write more behind it)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1024))
        return b"\xff\xd9" in file.read()
