"""Speeded-up robust features: blobs found where they were planted, and again in turned and scaled images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor
from torch.nn import functional as F

from dlsys.zoo.vision.surf_svm import surf
from dlsys.zoo.vision.surf_svm.card import SURFOptions
from dlsys.zoo.vision.surf_svm.model import SURF, Bag


def grid(side: int) -> tuple[Tensor, Tensor]:
    """y and x of each pixel."""
    y, x = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    return y, x


def blob(side: int, x: float, y: float, deviation: float, height: float = 0.5) -> Tensor:
    down, across = grid(side)
    return 0.5 + height * torch.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * deviation**2))


def strongest(deviation: float) -> float:
    """The scale at which boxes answer most to a Gaussian blob around their middle, by its integral."""
    size = np.arange(6, 60, 0.01)

    def within(reach: np.ndarray) -> np.ndarray:
        return torch.erf(torch.from_numpy(reach / deviation / math.sqrt(2))).numpy()

    second = within(size / 3 - 0.5) * (within(size / 2) - 3 * within(size / 6)) / size**2
    return float(size[np.abs(second).argmax()]) * 1.2 / 9


@pytest.mark.parametrize("deviation", [2.5, 3.0, 4.5, 6.0])
@pytest.mark.parametrize("height", [0.5, -0.4])
def test_a_blob_is_found_where_it_is_and_as_large_as_it_is(deviation: float, height: float) -> None:
    sums = surf.integral(blob(64, 30.3, 33.8, deviation, height)[None])
    found = surf.detect(sums, 5, octaves=2, threshold=1e-4)
    assert found.there[0, 0]
    assert found.place[0, 0].tolist() == pytest.approx([30.3, 33.8], abs=0.15)
    assert float(found.scale[0, 0]) == pytest.approx(strongest(deviation), rel=0.12)
    assert float(found.bright[0, 0]) == math.copysign(1, height)


def test_only_what_is_striking_is_found() -> None:
    _, x = grid(48)
    for pixels in (torch.full((48, 48), 0.5), x / 48, (x > 20).float()):
        found = surf.detect(surf.integral(pixels[None]), 5, octaves=2, threshold=1e-5)
        assert not found.there.any(), "neither plain areas nor slopes nor straight edges are blobs"
    weak = surf.integral(blob(48, 24, 24, 3, 0.01)[None])
    assert not surf.detect(weak, 5, octaves=2, threshold=1e-4).there.any()
    assert surf.detect(weak, 5, octaves=2, threshold=1e-7).there.any()


def test_steps_of_a_slope_are_its_rise() -> None:
    y, x = grid(32)
    sums = surf.integral((0.01 * x + 0.03 * y)[None])
    places = torch.tensor([[[[14.0, 15.0], [14.3, 15.9]]]])
    expected = torch.tensor([0.01, 0.03]).expand(1, 1, 2, 2)
    for half in (2.0, 2.7):
        # Pixels are plain, and boxes that end in one take a part of it: nearly the slope.
        steps = surf._haar(sums, places, torch.full((1, 1, 1), half))
        # The middles of the two halves are `half` pixels apart.
        torch.testing.assert_close(steps, expected * half, rtol=0.02, atol=0)


@pytest.mark.parametrize("degrees", [0, 33, 90, 200, 300])
def test_a_slope_gives_direction_and_descriptor(degrees: int) -> None:
    y, x = grid(64)
    angle = math.radians(degrees)
    sums = surf.integral((0.01 * (math.cos(angle) * x + math.sin(angle) * y))[None])
    one = torch.ones(1, 1)
    found = surf.Keypoints(torch.full((1, 1, 2), 31.5), 2 * one, one, one.bool())
    direction = surf.orient(sums, found)
    assert math.remainder(float(direction) - angle, 2 * math.pi) == pytest.approx(0, abs=0.05)
    parts = surf.describe(sums, found, torch.full((1, 1), angle)).view(16, 4)
    # Seen along the slope, all is dx: Σ dx and Σ |dx|, and nothing across it.
    assert (parts[:, 0] > 0).all()
    torch.testing.assert_close(parts[:, 0], parts[:, 2])
    assert parts[:, [1, 3]].abs().max() < 1e-3
    assert float(parts.square().sum()) == pytest.approx(1, rel=1e-5)
    # The parts in the middle weigh the most, by the Gaussian.
    assert parts[5, 0] > parts[1, 0] > parts[0, 0]


class Seen(NamedTuple):
    place: Tensor
    descriptor: Tensor
    bright: Tensor


def seen(pixels: Tensor) -> Seen:
    sums = surf.integral(pixels[None])
    found = surf.detect(sums, 200, octaves=3, threshold=1e-4)
    described = surf.describe(sums, found, surf.orient(sums, found))
    there = found.there[0]
    return Seen(found.place[0, there], described[0, there], found.bright[0, there])


def moved(pixels: Tensor, degrees: float, scale: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A square image turned and scaled around its middle, and where that takes places (n, 2)."""
    side = len(pixels)
    angle, middle = math.radians(degrees), (side - 1) / 2
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    y, x = grid(side)
    from_middle = torch.stack([x, y], -1) - middle
    back = (from_middle @ turn.T / scale / middle)[None]
    image = F.grid_sample(pixels[None, None], back, mode="bicubic", padding_mode="border", align_corners=True)
    return image[0, 0], lambda places: (places - middle) @ turn * scale + middle


def photograph(name: str) -> Tensor:
    return torch.from_numpy(load_sample_image(name).mean(2) / 255).float()[100:356, 200:456]


def pattern() -> Tensor:
    """Random discs and squares."""
    generator = np.random.default_rng(0)
    y, x = grid(256)
    found = torch.full((256, 256), 0.5)
    for _ in range(150):
        across, down, radius, value = generator.uniform([0, 0, 3, 0], [256, 256, 14, 1])
        x_away, y_away = (x - across).abs(), (y - down).abs()
        away = torch.hypot(x_away, y_away) if value < 0.5 else torch.maximum(x_away, y_away)
        found[away < radius] = value
    return found


PICTURES = {
    "china": lambda: photograph("china.jpg"),
    "flower": lambda: photograph("flower.jpg"),
    "pattern": pattern,
}


@pytest.mark.parametrize("picture", PICTURES)
def test_turned_and_scaled_pictures_are_matched(picture: str) -> None:
    pixels = PICTURES[picture]()
    first = seen(pixels)
    for degrees, scale in ((15, 1.0), (90, 1.0), (0, 1.5), (0, 0.7), (45, 1.2), (200, 0.8)):
        image, where = moved(pixels, degrees, scale)
        second = seen(image)
        pairs = surf.match(first.descriptor, second.descriptor, first.bright, second.bright)
        far = (where(first.place[pairs[:, 0]]) - second.place[pairs[:, 1]]).norm(dim=1)
        right = float((far < 3 * max(1, scale)).float().mean())
        assert len(pairs) >= 30
        assert right > 0.8, f"{degrees} degrees, × {scale}: {right:.0%} of {len(pairs)}"


def test_light_does_not_count() -> None:
    pixels = photograph("flower.jpg")
    first, second = seen(pixels), seen(0.9 * pixels + 0.05)
    pairs = surf.match(first.descriptor, second.descriptor, first.bright, second.bright)
    assert len(pairs) > 0.9 * len(first.place)
    far = (first.place[pairs[:, 0]] - second.place[pairs[:, 1]]).norm(dim=1)
    assert (far < 0.1).float().mean() > 0.95


def test_matches_are_near_alone_and_as_bright() -> None:
    a = torch.eye(3, 64)
    b = torch.stack([a[0], a[1] + 0.01 * a[0], a[1] + 0.01 * a[2], a[2], a[2] + 0.5])
    bright = torch.tensor([1.0, 1, 1, -1, 1])
    # The first is found; the second has two that are as near; what is like the third is dark.
    assert surf.match(a, b, torch.ones(3), bright).tolist() == [[0, 0]]
    assert surf.match(a, b, torch.tensor([1.0, 1, -1]), bright).tolist() == [[0, 0], [2, 3]]


def test_a_bag_counts_words_in_any_order() -> None:
    torch.manual_seed(0)
    blobs = blob(48, 20, 24, 2.5) + blob(48, 33, 12, 2, -0.4)
    images = torch.stack([blobs, torch.full((48, 48), 0.5)])[:, None]
    features, bag = SURF(SURFOptions(keypoints=6))(images), Bag(10)
    there = features[..., -1]
    assert features.shape == (2, 6, 66)
    assert 2 <= there[0].sum() < 6
    assert not features[1].any()
    counts = bag(features)
    torch.testing.assert_close(counts.mean(1), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(bag(features.flip(1)), counts)
    counts.sum().backward()
    assert bag.assign.weight.grad is not None
