"""Draws what a model found into the images in which it found it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from dlsys.zoo.average_precision import Detections, Objects

# Told apart by most colour-blind people too (Okabe and Ito 2008).
COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
# Images are enlarged to about so many pixels, in which a score can be read.
_SIDE = 192
# The height of a line of text.
_LINE = 12
# A clip's frames are enlarged to about so many pixels, and its classes take as many before them.
_FRAME, _LABEL = 72, 40


def outlined(images: Tensor, found: Detections, least: float, *, truth: Objects) -> Tensor:
    """Images with what was found outlined in a colour a class, with class and score, and what there is in
    white.

    Args:
        images: float (N, C, H, W) in 0…1.
        found: of these images, or of more.
        least: the score from which a detection is drawn.
        truth: what there is in them.

    Returns:
        float32 (N, 3, H′, W′) in 0…1, enlarged.
    """
    sheets = []
    for row, image in enumerate(images):
        picture, factor = enlarged(image)
        draw = ImageDraw.Draw(picture, "RGBA")
        for box in truth.boxes[row][truth.labels[row] >= 0].tolist():
            draw.rectangle([place * factor for place in box], outline=(255, 255, 255, 160), width=1)
        for place in range(found.labels.shape[1]):
            label, score = int(found.labels[row, place]), float(found.scores[row, place])
            if label < 0 or score < least:
                continue
            colour = COLOURS[label % len(COLOURS)]
            if found.masks is not None:
                _tint(picture, found.masks[row, place], colour)
            left, top, right, bottom = (float(place) * factor for place in found.boxes[row, place])
            if right > left and bottom > top:
                draw.rectangle((left, top, right, bottom), outline=colour, width=2)
                text = f"{label} {score:.2f}"
                # Above the box, where there is room, as its own colour would be lost on the object.
                corner = (left, max(0.0, top - _LINE))
                draw.rectangle(draw.textbbox(corner, text), fill=colour)
                draw.text(corner, text, fill="black")
        sheets.append(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255)
    return torch.stack(sheets)


def joined(images: Tensor, people: Sequence[Tensor], limbs: Sequence[tuple[int, int]]) -> Tensor:
    """Images with the limbs and joints of those who were found in them, each person in a colour.

    Args:
        images: float (N, C, H, W) in 0…1.
        people: of each image (or of more), (n, joints, 3) of x, y in its pixels and a score; 0 is not found.

    Returns:
        float32 (N, 3, H′, W′) in 0…1, enlarged.
    """
    sheets = []
    for image, found in zip(images, people, strict=False):
        picture, factor = enlarged(image)
        draw = ImageDraw.Draw(picture)
        for number, person in enumerate(found.tolist()):
            colour = COLOURS[number % len(COLOURS)]
            ends = [(x * factor, y * factor) if score > 0 else None for x, y, score in person]
            for start, end in ((ends[a], ends[b]) for a, b in limbs):
                if start and end:
                    draw.line([start, end], fill=colour, width=3)
            for x, y in (end for end in ends if end):
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill="white", outline=colour)
        sheets.append(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255)
    return torch.stack(sheets)


def beside(images: Tensor, truth: Tensor, found: Tensor) -> Tensor:
    """Images in grey, in which each pixel's class has a colour, as it is to the left and as it was found to
    the right (below, where images are wide); the first class is seen through, and pixels that do not count
    are black.

    Args:
        images: float (N, 1 or 3, H, W) in 0…1.
        truth, found: int64 (N, H, W); −1 of `truth` does not count.

    Returns:
        float32 (N, 3, H′, W′) in 0…1, enlarged.
    """
    sheets = []
    for image, true, said in zip(images, truth, found, strict=True):
        halves = []
        for classes in (true, torch.where(true < 0, true, said)):
            picture, factor = enlarged(image.mean(0, keepdim=True))
            large = classes.repeat_interleave(int(factor), 0).repeat_interleave(int(factor), 1)
            for kind in range(1, int(large.max()) + 1):
                _tint(picture, large == kind, COLOURS[(kind - 1) % len(COLOURS)])
            picture.paste((0, 0, 0), (0, 0), Image.fromarray((large < 0).byte().cpu().numpy() * 255))
            halves.append(np.asarray(picture))
        sheet = np.concatenate(halves, axis=1 if image.shape[-1] < 2 * image.shape[-2] else 0)
        sheets.append(torch.from_numpy(sheet.copy()).permute(2, 0, 1).float() / 255)
    return torch.stack(sheets)


def strips(clips: Tensor, truth: Tensor, found: Tensor) -> Tensor:
    """Clips as strips, one below the other: frames from left to right, before them the
    true class and, where it is another, the one found.

    Args:
        clips: float (N, frames, C, H, W) in 0…1.
        truth, found: classes, int64 (N,), or of more clips.

    Returns:
        float32 (1, 3, H′, W′) in 0…1.
    """
    sheets = []
    for clip, true, said in zip(clips, truth.tolist(), found.tolist(), strict=False):
        frames = [np.asarray(enlarged(frame, _FRAME)[0]) for frame in clip]
        sheet = Image.new("RGB", (_LABEL + len(frames) * (frames[0].shape[1] + 1), frames[0].shape[0] + 1))
        text, colour = (str(true), "white") if true == said else (f"{true}: {said}", COLOURS[5])
        ImageDraw.Draw(sheet).text((2, 2), text, fill=colour)
        for place, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (_LABEL + place * (frame.shape[1] + 1), 0))
        sheets.append(np.asarray(sheet))
    return torch.from_numpy(np.concatenate(sheets)).permute(2, 0, 1)[None].float() / 255


def enlarged(image: Tensor, side: int = _SIDE) -> tuple[Image.Image, float]:
    """An image (C, H, W) in 0…1 as a picture of about `side` pixels, in which text can be read, and how many
    times larger it is; in grey where it is not of three channels."""
    if image.shape[0] != 3:
        image = image.mean(0, keepdim=True)
    factor = max(1, round(side / max(image.shape[-2:])))
    pixels = F.interpolate(image[None].float().cpu(), scale_factor=factor)[0].clamp(0, 1)
    array = (pixels * 255).byte().permute(1, 2, 0).expand(-1, -1, 3).numpy()
    return Image.fromarray(array), float(factor)


def _tint(picture: Image.Image, mask: Tensor, colour: tuple[int, int, int]) -> None:
    """Lays a colour over the pixels of a mask (H, W), half seen through."""
    veil = Image.fromarray(mask.cpu().numpy().astype(np.uint8) * 128).resize(
        picture.size, Image.Resampling.NEAREST
    )
    picture.paste(colour, (0, 0), veil)
