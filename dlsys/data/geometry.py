"""Moves images, and with them their boxes, masks and keypoints; each row in a way of its own.

A place in an image is counted in pixels from its left upper corner, so that pixel (r, c) covers r … r + 1
down and c … c + 1 across.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from dlsys.data import rowwise
from dlsys.data.dataset import Batch
from dlsys.spec.train.regularizer import DataAugmentation

# A row's random numbers that are this file's own.
_SHIFT, _FLIP, _FLIP_VERTICAL, _WARP = 16, 17, 19, 20
# What is left of a box when less than this share of it stays in the image is not an object any more.
_LEFT = 0.25
# What a mask of classes says of a pixel that was not in the image: that it does not count.
_UNCOUNTED = -1


def moved(batch: Batch, options: DataAugmentation) -> Batch:
    """The batch with its images mirrored, warped and shifted as the options say, in this order.

    Mirroring and shifting move whole pixels and change none. All else is one warp, in which images are read
    between pixels and masks at the nearest one; what comes from outside is 0, and counts for no class.

    Args:
        batch: `image` (N, C, H, W) and `key` (N,); what else there is of `boxes` (N, n, 4) with `labels`,
            `area`, `masks` (N, n, H, W), `mask` (N, H, W) and `keypoints` (N, n, k, 3), of which
            `mirror` (N, k) tells what each is in a mirror, follows.
    """
    key = batch["key"]
    if options.flip:
        batch = flipped(batch, rowwise.uniform(key, 1, stream=_FLIP)[:, 0] < 0.5)
    if options.flip_vertical:
        batch = flipped(batch, rowwise.uniform(key, 1, stream=_FLIP_VERTICAL)[:, 0] < 0.5, upright=True)
    if options.warps:
        batch = warped(batch, _matrix(options, key, batch["image"].shape[-2:]))
    if options.shift:
        corner = (rowwise.uniform(key, 2, stream=_SHIFT) * (2 * options.shift + 1)).long()
        batch = shifted(batch, *(options.shift - corner).unbind(1))
    return batch


def flipped(batch: Batch, chosen: Tensor, *, upright: bool = False) -> Batch:
    """The chosen rows mirrored, left to right or upside down.

    Args:
        chosen: bool (N,).
    """
    axis, side = (-2, 1) if upright else (-1, 0)
    found = dict(batch)
    for name in {"image", "mask", "masks"} & batch.keys():
        value = batch[name]
        found[name] = torch.where(_like(chosen, value), value.flip(axis), value)
    length = batch["image"].shape[axis]
    if "boxes" in batch:
        boxes = batch["boxes"]
        mirrored = boxes.clone()
        mirrored[..., side], mirrored[..., side + 2] = (
            length - boxes[..., side + 2],
            length - boxes[..., side],
        )
        there = _like(chosen, boxes) & (batch["labels"] >= 0)[..., None]
        found["boxes"] = torch.where(there, mirrored, boxes)
    if "keypoints" in batch:
        points = batch["keypoints"]
        mirrored = points.clone()
        mirrored[..., side] = torch.where(points[..., 2] > 0, length - points[..., side], 0.0)
        if "mirror" in batch:  # a left hand is a right one in a mirror, upside down too
            joints = batch["mirror"][:, None, :, None].expand_as(mirrored)
            mirrored = mirrored.gather(2, joints)
        found["keypoints"] = torch.where(_like(chosen, points), mirrored, points)
    return found


def shifted(batch: Batch, down: Tensor, right: Tensor) -> Batch:
    """Rows moved by whole pixels, int64 (N,) each; what leaves the image is lost."""
    found = dict(batch)
    for name, blank in _BLANKS.items():
        if name in batch:
            found[name] = _placed(batch[name], down, right, blank)
    by = torch.stack([right, down], 1)
    return _followed(found, batch, lambda places: places + by[:, None, None].to(places))


def _placed(value: Tensor, down: Tensor, right: Tensor, blank: float) -> Tensor:
    """(N, …, H, W) with each row's own shift."""
    rows, height, width = len(value), value.shape[-2], value.shape[-1]
    flat = value.reshape(rows, -1, height, width)
    y = torch.arange(height, device=value.device) - down[:, None]
    x = torch.arange(width, device=value.device) - right[:, None]
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    row = torch.arange(rows, device=value.device)[:, None, None]
    # Indices on both sides of the slice put the channels last.
    taken = flat[row, :, y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None]]
    taken = taken.permute(0, 3, 1, 2)
    return torch.where(inside[:, None], taken, torch.tensor(blank).to(value)).reshape(value.shape)


def _matrix(options: DataAugmentation, key: Tensor, size: torch.Size) -> Tensor:
    """Where each place goes: float64 (N, 2, 3), of columns (x, y, 1)."""
    height, width = size
    drawn = rowwise.uniform(key, 9, stream=_WARP).double()
    turn, shear_x, shear_y, *move = (2 * drawn[:, :5] - 1).unbind(1)
    angle = turn * math.radians(options.rotate)
    least, most = options.scale
    # As likely to double as to halve.
    size_of = torch.exp(math.log(least) + drawn[:, 5] * math.log(most / least))
    # The share of each side that a crop keeps.
    kept = (options.crop + drawn[:, 6] * (1 - options.crop)) ** 0.5
    size_of = size_of / kept
    slant = math.radians(options.shear)
    cos, sin = angle.cos() * size_of, angle.sin() * size_of
    across, upward = torch.tan(shear_x * slant), torch.tan(shear_y * slant)
    # A turn of what was slanted.
    linear = torch.stack([cos - sin * upward, cos * across - sin, sin + cos * upward, sin * across + cos], 1)
    linear = linear.view(-1, 2, 2)
    middle = drawn.new_tensor([width / 2, height / 2])
    # A crop's centre lies where the crop is within the image.
    room = (1 - kept)[:, None] * middle * (2 * drawn[:, 7:] - 1)
    moves = torch.stack(move, 1) * middle * 2 * options.translate
    offset = middle + moves - (linear @ (middle + room)[..., None])[..., 0]
    return torch.cat([linear, offset[..., None]], 2)


def warped(batch: Batch, matrix: Tensor) -> Batch:
    """Rows under affine maps.

    Args:
        matrix: float64 (N, 2, 3): a place (x, y, 1) goes to `matrix` times it.
    """
    height, width = batch["image"].shape[-2:]
    square = torch.eye(3, dtype=matrix.dtype, device=matrix.device).repeat(len(matrix), 1, 1)
    square[:, :2] = matrix
    # From places of the new image back to the old one, in grid_sample's units: −1 … 1 from edge to edge.
    unit = matrix.new_tensor([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    back = unit @ torch.linalg.inv(square) @ torch.linalg.inv(unit)
    grid = functional.affine_grid(
        back[:, :2].to(batch["image"]), [len(matrix), 1, height, width], align_corners=False
    )
    found = dict(batch)
    for name, blank in _BLANKS.items():
        if name in batch:
            found[name] = _sampled(batch[name], grid, blank)

    def go(places: Tensor) -> Tensor:
        linear, offset = matrix[:, None, :, :2].to(places), matrix[:, None, None, :, 2].to(places)
        return places @ linear.mT + offset

    return _followed(found, batch, go)


def _sampled(value: Tensor, grid: Tensor, blank: float) -> Tensor:
    """(N, …, H, W) read at the places of a grid; numbers between pixels, all else at the nearest one."""
    rows, height, width = len(value), value.shape[-2], value.shape[-1]
    flat = value.reshape(rows, -1, height, width)
    if not flat.shape[1]:
        return value
    if value.is_floating_point():
        return functional.grid_sample(flat, grid, align_corners=False).reshape(value.shape)
    # Zeros stand outside: less the blank, what was there is not.
    shown = functional.grid_sample(flat.float() - blank, grid, mode="nearest", align_corners=False)
    return (shown + blank).to(value.dtype).reshape(value.shape)


# What comes from outside of the image, by field.
_BLANKS = {"image": 0, "masks": 0, "mask": _UNCOUNTED}


def _corners(boxes: Tensor) -> Tensor:
    """Of boxes (N, n, 4): (N, n, 4, 2)."""
    left, top, right, bottom = boxes.unbind(-1)
    pairs = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return torch.stack([torch.stack(pair, -1) for pair in pairs], -2)


def _followed(found: Batch, before: Batch, go: Callable[[Tensor], Tensor]) -> Batch:
    """Boxes and keypoints where their images' places went; what is no longer in the image is left out."""
    height, width = before["image"].shape[-2:]
    if "keypoints" in before:
        points = before["keypoints"]
        places = go(points[..., :2])
        inside = (places >= 0).all(-1) & (places[..., 0] < width) & (places[..., 1] < height)
        seen = torch.where(inside, points[..., 2], torch.zeros_like(points[..., 2]))
        found["keypoints"] = torch.cat([places * (seen > 0)[..., None], seen[..., None]], -1)
    if "boxes" not in before:
        return found
    boxes = before["boxes"]
    corners = go(_corners(boxes))
    whole = torch.cat([corners.amin(-2), corners.amax(-2)], -1)
    limits = boxes.new_tensor([width, height, width, height])
    clipped = torch.minimum(whole.clamp(min=0), limits)
    if "masks" in before:  # a turned box is larger than what it holds
        clipped = _tight(found["masks"]).to(boxes)
        held, had = found["masks"].sum((-2, -1)), before["masks"].sum((-2, -1))
        left = held / had.clamp(min=1)
    else:
        left = _area(clipped) / _area(whole).clamp(min=1e-6)
    stays = (before["labels"] >= 0) & (left >= _LEFT) & (_area(clipped) >= 1)
    found["boxes"] = clipped * stays[..., None]
    found["labels"] = torch.where(stays, before["labels"], -1)
    if "masks" in before:
        found["masks"] = found["masks"] & stays[..., None, None]
    if "area" in before:
        grown = _area(whole) / _area(boxes).clamp(min=1e-6)
        found["area"] = before["area"] * (left if "masks" in before else left * grown) * stays
    return found


def _tight(masks: Tensor) -> Tensor:
    """The boxes of masks (N, n, H, W), zeros where one has no pixel: (N, n, 4)."""
    found = []
    for axis in (-2, -1):  # across, then down
        line = masks.any(axis)
        length = line.shape[-1]
        number = torch.arange(length, device=masks.device)
        first = torch.where(line, number, length).amin(-1)
        last = torch.where(line, number + 1, 0).amax(-1)
        found.append((torch.minimum(first, last), last))
    (left, right), (top, bottom) = found
    return torch.stack([left, top, right, bottom], -1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def _like(chosen: Tensor, value: Tensor) -> Tensor:
    """(N,) with as many dims as `value`."""
    return chosen.view(-1, *[1] * (value.ndim - 1))
