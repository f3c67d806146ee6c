"""Support vector machines on fixed features: their loss, and histograms of gradients and of patterns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dlsys.errors import UsageError
from dlsys.spec.rows import Shape
from dlsys.zoo.load import load_workload
from dlsys.zoo.objective import hinge
from dlsys.zoo.tasks.svm import Standardized
from dlsys.zoo.vision.hog_svm.card import HOGOptions
from dlsys.zoo.vision.hog_svm.model import HOG
from dlsys.zoo.vision.lbp_svm.card import LBPOptions
from dlsys.zoo.vision.lbp_svm.model import LBP, neighbours, places


def image(*size: int) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def shape(*size: int) -> Shape:
    return Shape(row={"image": size, "label": ()}, classes=3)


# The label's score is 0.5 above the best other one, then 3 above it, then 1 below it.
SCORES = torch.tensor([[1.0, 0.5, -2.0], [0.0, 4.0, 1.0], [2.0, 0.0, 1.0]])
LABELS = torch.tensor([0, 1, 2])


def test_hinge_by_hand() -> None:
    assert float(hinge(SCORES, LABELS)) == pytest.approx((0.5 + 0 + 2) / 3)
    assert float(hinge(SCORES, LABELS, margin=4)) == pytest.approx((3.5 + 1 + 5) / 3)
    # Each class by itself: 0 + 1.5 + 0, then 1 + 0 + 2, then 3 + 1 + 0.
    assert float(hinge(SCORES, LABELS, way="one-vs-rest")) == pytest.approx((1.5 + 3 + 4) / 3)
    weights = torch.tensor([2.0, 5.0, 0.5])
    assert float(hinge(SCORES, LABELS, weights=weights)) == pytest.approx((1 + 0 + 1) / 3)


@pytest.mark.parametrize("name", ["hog-svm", "lbp-svm", "surf-svm"])
def test_a_machine_learns_by_the_hinge_loss_and_raw_pixels_are_one_option_away(name: str) -> None:
    rows = shape(2, 32, 32)
    workload = load_workload(name, {"features": "raw"}, rows)
    model = workload.build()
    assert [type(part) for part in model] == [Standardized, torch.nn.Linear]
    assert model[1].in_features == 2 * 32 * 32
    assert float(workload.objective(SCORES, {"label": LABELS}).value) == pytest.approx(2.5 / 3)
    assert load_workload(name, {}, rows).build()[1].in_features < 1000


def test_raw_pixels_are_free_of_brightness_and_contrast() -> None:
    pixels = image(4, 2, 5, 6)
    found = Standardized()(pixels)
    torch.testing.assert_close(Standardized()(0.3 * pixels + 0.2), found)
    torch.testing.assert_close(found.std(1, correction=0), torch.ones(4, dtype=torch.float64))
    assert (Standardized()(torch.full((1, 1, 3, 3), 0.7)).abs() < 1e-3).all()


def hog_by_definition(pixels: np.ndarray, options: HOGOptions) -> np.ndarray:
    """Pixel by pixel, as the paper's text goes: (blocks, cells · bins) of (channels, height, width)."""
    _, height, width = pixels.shape
    cell, block, bins = options.cell, options.block, options.bins
    side, turn = cell * block, 360 if options.signed else 180
    found = []
    for top in range(0, height - side + 1, cell):
        for left in range(0, width - side + 1, cell):
            histograms = np.zeros((block, block, bins))
            for y in range(top, top + side):
                for x in range(left, left + side):
                    inner_y, inner_x = 0 < y < height - 1, 0 < x < width - 1
                    gradients = [
                        (
                            (channel[y + 1, x] - channel[y - 1, x]) * inner_y if inner_y else 0,
                            (channel[y, x + 1] - channel[y, x - 1]) * inner_x if inner_x else 0,
                        )
                        for channel in pixels
                    ]
                    down, right = max(gradients, key=lambda gradient: math.hypot(*gradient))
                    place = math.degrees(math.atan2(down, right)) % turn / turn * bins - 0.5
                    from_middle = [y - top - (side - 1) / 2, x - left - (side - 1) / 2]
                    size = math.hypot(down, right) * math.exp(
                        -(from_middle[0] ** 2 + from_middle[1] ** 2) / (2 * (side / 2) ** 2)
                    )
                    for i in range(block):
                        for j in range(block):
                            near_y = 1 - abs(y - top + 0.5 - (i + 0.5) * cell) / cell
                            near_x = 1 - abs(x - left + 0.5 - (j + 0.5) * cell) / cell
                            if near_y > 0 and near_x > 0:
                                first, rest = math.floor(place), place - math.floor(place)
                                vote = size * near_y * near_x
                                histograms[i, j, first % bins] += vote * (1 - rest)
                                histograms[i, j, (first + 1) % bins] += vote * rest
            vector = histograms.ravel()
            vector = np.minimum(vector / math.sqrt(vector @ vector + 1e-4), options.clip)
            found.append(vector / math.sqrt(vector @ vector + 1e-4))
    return np.stack(found)


@pytest.mark.parametrize(
    "options",
    [HOGOptions(cell=4), HOGOptions(cell=3, block=3, bins=6, signed=True), HOGOptions(cell=4, block=1)],
    ids=["paper", "signed", "single cells"],
)
def test_hog_is_as_defined(options: HOGOptions) -> None:
    pixels = image(2, 2, 13, 18)
    found = HOG(options).double()(pixels)
    expected = np.stack([hog_by_definition(row.numpy(), options).ravel() for row in pixels])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_hog_of_a_slope_is_its_direction() -> None:
    slope = (torch.arange(16.0) / 16).expand(1, 1, 16, 16)
    bins = HOG(HOGOptions(bins=9))(slope).view(4, 9)
    # Bins are around 10, 30 … 170 degrees: 0 degrees is halfway between the last and the first.
    assert (bins[:, 1:8].abs() < 1e-6).all()
    torch.testing.assert_close(bins[:, 0], bins[:, 8])
    assert (bins[:, 0] > 0.3).all()
    down = HOG(HOGOptions(bins=9))(slope.mT).view(4, 9)
    assert (down.argmax(1) == 4).all()  # 90 degrees


def test_images_must_hold_what_is_asked_for() -> None:
    with pytest.raises(
        UsageError, match=r"model\.cell: blocks have 16 pixels a side, and images 12 × 20: make"
    ):
        load_workload("hog-svm", {}, shape(1, 12, 20)).build()
    with pytest.raises(UsageError, match=r"model\.radii: circles and cells take 11 pixels a side.* 10 × 12"):
        load_workload("lbp-svm", {"radii": [1.0, 3.5], "cells": 3}, shape(1, 10, 12)).build()
    load_workload("lbp-svm", {"radii": [1.0, 3.5], "cells": 2}, shape(1, 10, 12)).build()


def test_lbp_by_hand() -> None:
    # Counter-clockwise from the right: 5 and up are bits of ones. On the circle of radius 1 diagonal
    # neighbours are no pixels' middles: here all four around each corner decide alike.
    pixels = torch.tensor([[9.0, 9, 9], [0, 5, 9], [0, 0, 0]])
    around = neighbours(pixels[None], 8, 1.0)[0, :, 0, 0]
    assert around[[0, 2, 4, 6]].tolist() == [9, 9, 0, 0]
    part = 1 / math.sqrt(2)
    # Up and right: bilinear of 5 (middle), 9, 9 and 9.
    assert float(around[1]) == pytest.approx(9 - 4 * (1 - part) ** 2)
    # Ones to the right, above, and between them and to the left above: four in a row, uniform.
    pattern = int(((around >= 5) * 2 ** torch.arange(8)).sum())
    assert pattern == 0b1111
    histogram = LBP(LBPOptions(radii=(1.0,), rotation_invariant=True))(pixels[None, None])
    assert histogram[0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(("points", "plain", "invariant"), [(8, 59, 10), (4, 15, 6), (12, 135, 14)])
def test_uniform_patterns_are_as_many_as_the_paper_says(points: int, plain: int, invariant: int) -> None:
    for count, turned in ((plain, False), (invariant, True)):
        table = places(points, turned)
        assert table.unique().tolist() == list(range(count))
    table = places(points, True)
    patterns = torch.arange(2**points)
    turned_by_one = patterns * 2 % 2**points + patterns // 2 ** (points - 1)
    assert torch.equal(table[turned_by_one], table)
    # Two changes at the most: 0b0101 has four.
    assert int(places(points, False)[0b0101]) == plain - 1


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.0, 3.0])
def test_neighbours_lie_on_the_circle(radius: float) -> None:
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")
    edge = math.ceil(radius)
    for plane, part in ((x, math.cos), (y, lambda angle: -math.sin(angle))):
        found = neighbours(plane[None].double(), 12, radius)[0]
        middle = plane[edge:-edge, edge:-edge]
        for point in range(12):
            expected = middle + radius * part(2 * math.pi * point / 12)
            torch.testing.assert_close(found[point], expected.double(), atol=1e-5, rtol=0)


def test_a_plain_area_is_one_pattern_and_light_does_not_count() -> None:
    options = LBPOptions(radii=(1.0, 1.7), points=8)
    plain = LBP(options)(torch.full((1, 1, 12, 12), 0.3)).view(2, 59)
    assert torch.equal(plain, torch.zeros(2, 59).index_fill(1, torch.tensor([57]), 1.0)), "all ones"
    pixels = image(3, 1, 12, 14)
    found = LBP(options)(pixels)
    torch.testing.assert_close(found.square().view(3, 2, 59).sum(2), torch.ones(3, 2, dtype=torch.float64))
    torch.testing.assert_close(LBP(options)(pixels / 2), found, atol=0, rtol=0)


def test_a_turn_changes_only_what_is_not_invariant() -> None:
    pixels = image(1, 1, 20, 20)
    for invariant in (True, False):
        lbp = LBP(LBPOptions(rotation_invariant=invariant))
        same = torch.allclose(lbp(pixels), lbp(pixels.rot90(dims=(2, 3))))
        assert same == invariant


def test_cells_have_histograms_of_their_own() -> None:
    halves = torch.full((1, 1, 12, 12), 0.5)
    halves[..., 6:] = image(12, 6)
    cells = LBP(LBPOptions(radii=(1.0,), cells=2))(halves).view(2, 2, 59)
    assert (cells[:, 0, 57] > 0.85).all()
    assert (cells[:, 1, 57] < 0.5).all()


def test_lbp_is_scikit_images() -> None:
    theirs = pytest.importorskip("skimage.feature").local_binary_pattern
    pixels = image(20, 24)
    for radius in (1.0, 1.5, 2.0):
        edge = math.ceil(radius)
        for method, invariant in (("uniform", True), ("nri_uniform", False)):
            lbp = LBP(LBPOptions(radii=(radius,), rotation_invariant=invariant))
            patterns = theirs(pixels.numpy(), 8, radius, method)[edge:-edge, edge:-edge].astype(int)
            shares = np.bincount(patterns.ravel(), minlength=lbp.count) / patterns.size
            found = lbp(pixels[None, None])[0].square().numpy()
            if not invariant:  # uniform patterns stand there in another order
                shares, found = np.sort(shares), np.sort(found)
            np.testing.assert_allclose(found, shares, atol=1e-12)
