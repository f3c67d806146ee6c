"""Image files as numbers, all of one size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dlsys.errors import DataError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
# Whatever a file is called, pillow tries no other decoder on it (its EPS one starts Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# EXIF's tag of how a camera was held; from 5 on its sides change places.
_ORIENTATION = 274
# With formats named, pillow only asks decoders that are already loaded.
Image.init()


@dataclass(frozen=True)
class Form:
    """What every image becomes, as `ImageFolder` says it."""

    size: int
    channels: int
    resize: str = "crop"

    @property
    def told(self) -> dict[str, Any]:
        """The same as JSON, for `Splits.learnt`; `of` reads it."""
        return {"size": self.size, "channels": self.channels, "resize": self.resize, "values": "0 to 1"}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Form:
        """Of what `told` gave, in this version or an earlier one."""
        return cls(told["size"], told["channels"], told.get("resize", "crop"))

    def decode(self, path: Path) -> np.ndarray:
        """An image as a square: uint8 (size, size, C).

        As a viewer shows it: turned as its EXIF tag says, and on white where it is transparent.
        """
        square = (self.size, self.size)
        with Image.open(path, formats=FORMATS) as image:
            # JPEG can be decoded at a half, quarter or eighth: never below the size given here.
            image.draft("L" if self.channels == 1 else "RGB", square)
            picture = shown(image, self.channels)
            fitted = self._fitted(picture, Image.Resampling.BILINEAR)
        return np.asarray(fitted).reshape(*square, self.channels)

    def decode_classes(self, path: Path) -> np.ndarray:
        """A class for each pixel of an image of the same form, by the nearest pixel: whole numbers
        (size, size).

        Raises:
            ValueError: pixels are colours, not numbers.
        """
        with Image.open(path, formats=FORMATS) as file:
            image: Image.Image = file
            if image.mode == "1":
                image = image.convert("L").point(lambda value: value and 1)
            if image.mode not in ("P", "L", "I;16", "I"):
                raise ValueError(
                    f"pixels of pillow's mode {image.mode} are colours: a mask has numbers, or a palette"
                )
            return np.asarray(self._fitted(image, Image.Resampling.NEAREST))

    def _fitted(self, picture: Image.Image, resample: Image.Resampling) -> Image.Image:
        square = (self.size, self.size)
        if self.resize == "stretch":
            return picture.resize(square, resample)
        return ImageOps.fit(picture, square, resample)


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image as a viewer shows it, from its header."""
    with Image.open(path, formats=FORMATS) as image:
        return size_seen(image)


def size_seen(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened image as a viewer shows it."""
    turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else image.size


def shown(image: Image.Image, channels: int) -> Image.Image:
    """An opened image, turned as its EXIF tag says, on white where it is transparent, as grey or RGB."""
    mode = "L" if channels == 1 else "RGB"
    ImageOps.exif_transpose(image, in_place=True)
    picture = _on_white(_eight_bits(image))
    return picture if picture.mode == mode else picture.convert(mode)  # which would copy it


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


def decoded(paths: Sequence[Path], form: Form, root: Path | None) -> Tensor:
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
    return as_floats(pixels)


def as_floats(pixels: np.ndarray) -> Tensor:
    """Images uint8 (N, H, W, C) as float32 (N, C, H, W) in 0…1."""
    # Channels go first while they are bytes, a quarter of what they are as floats.
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(255)


def damage(path: Path) -> str:
    """What is wrong with an image file; empty for a good one.

    PNG's checksums and JPEG's end mark are cheap to look at; any other file is decoded.
    """
    if not path.is_file():
        return "not a file"
    try:
        with Image.open(path, formats=FORMATS) as image:
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
