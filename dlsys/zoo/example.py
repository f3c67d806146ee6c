"""A small batch of each kind of rows: what a workload is counted and tested on where no data is at hand."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dlsys.data import rowwise
from dlsys.spec.rows import Rows, Shape, Values
from dlsys.zoo.workload import Batch


def batch_of(rows: Rows, shape: Shape, count: int, *, seed: int = 0) -> Batch:
    """A batch of made-up rows, as the loader would hand it out.

    Args:
        rows: the kind of rows.
        shape: what they look like.
        count: how many.
        seed: decides their numbers.

    Returns:
        The fields of the kind, CPU tensors of shape (count, …), and `key`, int64 (count,).
    """
    generator = torch.Generator().manual_seed(seed)

    def whole(below: int, *size: int) -> Tensor:
        return torch.randint(below, size, generator=generator)

    text = Tensor()
    batch: Batch = {}
    for name, values in rows.fields.items():
        size = (count, *shape.row[name])
        match values:
            case Values.UNIT:
                batch[name] = torch.rand(size, generator=generator)
            case Values.NUMBER:
                batch[name] = torch.randn(size, generator=generator)
            case Values.BIT:
                batch[name] = (torch.arange(math.prod(size)) % 2).float().reshape(size)
            case Values.CLASS:
                batch[name] = whole(shape.classes, *size)
            case Values.CATEGORY:
                columns = [whole(below, count) for below in shape.cardinalities]
                batch[name] = torch.stack(columns, dim=1)
            case Values.TOKEN:
                text = whole(len(shape.vocabulary), count, size[1] + 1)
                batch[name] = text[:, :-1]
            case Values.NEXT:
                batch[name] = text[:, 1:]
            case Values.BOX:
                corners = torch.rand((count, size[1], 2, 2), generator=generator).sort(2).values
                height, width = shape.row["image"][-2:]
                # No box without an inside: a quarter of the image at least each way.
                corners[:, :, 0] *= 0.5
                corners[:, :, 1] = torch.maximum(corners[:, :, 1], corners[:, :, 0] + 0.25)
                batch[name] = (corners * torch.tensor([width, height])).flatten(2)
            case Values.BOX_CLASS:
                batch[name] = whole(shape.classes, *size)
                batch[name][1::2, -1] = -1  # every second row has one box less
                batch["boxes"][1::2, -1] = 0
                # Objects of a class are of one brightness, so that there is something to find.
                inside = _inside(batch["boxes"], *shape.row["image"][-2:])
                for place in range(size[1]):
                    shade = (batch[name][:, place] + 1.0)[:, None, None, None] / (shape.classes + 1)
                    batch["image"] = torch.where(inside[:, place, None], shade, batch["image"])
            case Values.PROPOSAL:
                # First the objects' boxes, half a step of the size too far right, then any.
                batch[name] = (
                    torch.rand((count, size[1], 2, 2), generator=generator).sort(2).values.flatten(2)
                )
                batch[name] *= torch.tensor(shape.row["image"][:0:-1]).repeat(2)
                shift = (batch["boxes"][..., 2] - batch["boxes"][..., 0]) / 8
                batch[name][:, : batch["boxes"].shape[1]] = batch["boxes"] + shift[..., None]
                batch[name][::2, -1] = 0  # every second row has one less
            case Values.BOX_MASK:
                batch[name] = _inside(batch["boxes"], *size[-2:])
            case Values.PIXEL_CLASS:
                # Told by the first channel (of a scan by the strength), so that there is something to find.
                seen = batch["scan"][:, 3] if "scan" in batch else next(iter(batch.values()))[:, 0]
                share = torch.special.ndtr(seen) if "volume" in batch else seen
                batch[name] = (share * shape.classes).long().clamp(max=shape.classes - 1)
                batch[name][..., 0] = -1
            case Values.JOINT:
                height, width = shape.row["image"][-2:]
                places = torch.rand((*size[:-1], 2), generator=generator) * torch.tensor([width, height])
                batch[name] = torch.cat([places, torch.full((*size[:-1], 1), 2.0)], -1)
                batch[name][::2, -1] = 0  # every second row has one person less
                batch[name][1::2, 0, -1] = 0  # and of the other's first, one joint is not marked
                _mark(batch["image"], batch[name])
            case Values.MIRRORED:
                batch[name] = torch.arange(size[1]).expand(size).contiguous()
            case Values.ANGLE:
                # Told by how bright a clip is, so that there is something to find.
                shade = batch["clip"].mean((2, 3, 4))
                batch[name] = (shade - shade.mean())[..., None].expand(size) * torch.arange(1, size[-1] + 1)
            case Values.SCAN:
                batch[name] = torch.randn(size, generator=generator)
                batch[name][:, 3].uniform_(0, 1, generator=generator)
                batch[name][:, 4] = batch[name][:, :3].norm(dim=1)
                batch[name][..., 0] = 0
            case Values.RING:
                angle = torch.arange(count) * (2 * math.pi / shape.planted["modes"])
                centre = shape.planted["radius"] * torch.stack([angle.cos(), angle.sin()], dim=1)
                noise = torch.randn(size, generator=generator)
                batch[name] = centre + shape.planted["sigma"] / 5 * noise
    return {**batch, "key": rowwise.keys(seed, 0, np.arange(count))}


def _mark(image: Tensor, joints: Tensor) -> None:
    """Makes the pixels of joints (rows, people, joints, 3) bright, the more the later a joint comes."""
    for place in range(joints.shape[2]):
        for row, (x, y, seen) in (
            (r, p) for r, people in enumerate(joints[:, :, place]) for p in people.tolist()
        ):
            if seen:
                image[row, :, int(y), int(x)] = (place + 1) / joints.shape[2]


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in each of boxes (rows, n, 4): bool (rows, n, height, width)."""
    left, top, right, bottom = boxes[..., None, None].unbind(2)
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    return (x > left) & (x < right) & (y > top) & (y < bottom)
