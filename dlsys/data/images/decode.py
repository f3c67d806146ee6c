"""Image files as a viewer shows them, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
# Whatever a file is called, pillow tries no other decoder on it (its EPS one starts Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# With formats named, pillow only asks decoders that are already loaded.
Image.init()


def shown(image: Image.Image, channels: int) -> Image.Image:
    """An opened image, turned as its EXIF tag says, on white where it is transparent, as grey or RGB."""
    mode = "L" if channels == 1 else "RGB"
    return _on_white(_eight_bits(ImageOps.exif_transpose(image))).convert(mode)


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
