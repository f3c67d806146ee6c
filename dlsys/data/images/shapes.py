"""Rendered shapes, whose boxes, masks and classes are known to the pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.images.objects import ObjectRow, batched, counted, of_classes, with_proposals
from dlsys.data.split import split_rows
from dlsys.spec.data import Shapes

# Where a shape finds no place in so many attempts, the image has one less.
_ATTEMPTS = 20
# Between ground and shape, in 0…1: what makes a shape visible.
_CONTRAST = 0.3


def shapes(options: Shapes, folder: Path) -> Splits:  # noqa: ARG001
    """Shapes on a noisy ground: `image` float32 (C, size, size) in 0…1, and what `wanted` says.

    Each shape has a colour of its own that differs from the ground, and a side drawn by its logarithm; later
    ones lie over earlier ones, whose boxes and masks are of what is still to be seen. A class is what the
    shape is; under `wanted: mask` class 0 is the ground.
    """
    generator = np.random.default_rng(options.data_seed)
    rows = [
        _scene(options, np.random.default_rng(seed)) for seed in generator.integers(2**63, size=options.rows)
    ]
    if options.wanted == "proposals":
        rows = with_proposals(rows, options.proposals)
    parts = split_rows(
        options.rows, valid=options.valid, test=options.test, seed=options.split_seed, name="shapes"
    )
    size = (options.size, options.size)
    found = {
        part: _Scenes([rows[row] for row in chosen], options.wanted)
        for part, chosen in parts._asdict().items()
        if len(chosen)
    }
    shape, learnt = of_classes(
        options.kinds,
        options.wanted,
        image=(options.channels, *size),
        most=max(len(row.labels) for row in rows),
        counts=counted(found["train"].rows, len(options.kinds)),
        proposals=options.proposals,
    )
    return Splits(
        train=found["train"], valid=found["valid"], test=found.get("test"), shape=shape, learnt=learnt
    )


@dataclass(frozen=True)
class _Scenes:
    """Images held as 8-bit numbers, and made rows of when fetched."""

    rows: list[ObjectRow]
    wanted: str

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        return batched([self.rows[row] for row in rows], self.wanted)


def _scene(options: Shapes, generator: np.random.Generator) -> ObjectRow:
    """One image with its shapes."""
    size, channels = options.size, options.channels
    y, x = np.mgrid[:size, :size] + 0.5
    ground = generator.uniform(0, 1, channels)
    slope = generator.uniform(-0.15, 0.15, (2, channels))
    image = ground + (y[..., None] / size - 0.5) * slope[0] + (x[..., None] / size - 0.5) * slope[1]
    wanted = int(generator.integers(options.objects[0], options.objects[1] + 1))
    placed: list[_Placed] = []
    for number in range(wanted):
        beside = placed[0] if options.touching and number == 1 and placed else None
        if new := _place(options, generator, placed, beside):
            placed.append(new)
    masks: list[np.ndarray] = []
    labels: list[int] = []
    for shape in placed:
        mask = drawn(options.kinds[shape.kind], x - shape.x, y - shape.y, shape.side, shape.angle)
        for other in masks:
            other &= ~mask
        masks.append(mask)
        labels.append(shape.kind)
        colour = generator.uniform(0, 1, channels)
        # Far from the ground in one channel at least: in which, and to which side, is left to chance.
        channel = int(generator.integers(channels))
        colour[channel] = (ground[channel] + generator.uniform(_CONTRAST, 1 - _CONTRAST)) % 1
        image[mask] = colour
    image = image + options.noise * generator.standard_normal(image.shape)
    seen = [number for number, mask in enumerate(masks) if mask.any()]
    return ObjectRow.of_masks(
        (image.clip(0, 1) * 255).round().astype(np.uint8),
        np.array([labels[number] for number in seen], dtype=np.int64),
        np.array([masks[number] for number in seen], dtype=bool).reshape(len(seen), size, size),
    )


@dataclass(frozen=True)
class _Placed:
    """A shape's class, centre and side in pixels, and its turn in radians."""

    kind: int
    x: float
    y: float
    side: float
    angle: float
    box: np.ndarray = field(repr=False)


def _place(
    options: Shapes, generator: np.random.Generator, placed: list[_Placed], beside: _Placed | None
) -> _Placed | None:
    """A shape where it overlaps no other too much, or None if none was found."""
    least, most = np.log(options.sides[0]), np.log(options.sides[1])
    for _ in range(_ATTEMPTS):
        side = float(np.exp(generator.uniform(least, most)))
        kind = int(generator.integers(len(options.kinds)))
        x, y = generator.uniform(side / 2, options.size - side / 2, 2)
        if beside:
            kind, side = beside.kind, float(np.clip(side, 0.7 * beside.side, 1.3 * beside.side))
            turn = generator.uniform(0, 2 * np.pi)
            # So near that pixels touch, and hardly overlap.
            reach = 0.46 * (side + beside.side)
            x, y = beside.x + reach * np.cos(turn), beside.y + reach * np.sin(turn)
            if not side / 2 <= min(x, y) <= max(x, y) <= options.size - side / 2:
                continue
        box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
        others = [shape for shape in placed if shape is not beside]
        if all(_iou(box, shape.box) <= options.overlap for shape in others):
            return _Placed(kind, float(x), float(y), side, float(generator.uniform(-0.4, 0.4)), box)
    return None


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    begin, end = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = float((end - begin).clip(0).prod())
    areas = float((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod())
    return shared / (areas - shared)


def drawn(kind: str, x: np.ndarray, y: np.ndarray, side: float, angle: float) -> np.ndarray:
    """The pixels of a shape: bool (H, W).

    Args:
        x, y: of each pixel, from the shape's centre.
        angle: a turn, which leaves the shape within its square.
    """
    half = side / 2
    distance, inner = np.hypot(x, y), half * 0.5 * (kind == "ring")
    if kind in ("circle", "ring"):
        return np.asarray((distance <= half) & (distance >= inner))
    # Turned, a square's corners would leave its place: it shrinks as much.
    half /= abs(np.cos(angle)) + abs(np.sin(angle))
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside = np.maximum(abs(u), abs(v)) <= half
    if kind == "cross":
        inside &= np.minimum(abs(u), abs(v)) <= half / 3
    if kind == "triangle":
        inside &= v >= 2 * abs(u) - half
    return np.asarray(inside)
