"""Features of regions, by hand, against torchvision's own Python, and against pooling region by region."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dlsys.own.operators import with_operators
from dlsys.zoo.layers.pyramid import FeaturePyramid, level_of
from dlsys.zoo.layers.roi import pasted, roi_align, roi_pool


def test_a_bin_of_roi_align_is_the_mean_of_four_points_between_cells() -> None:
    # Cells' centres lie at 1, 3, 5, 7 pixels; the value of a place is its x in pixels.
    ramp = torch.tensor([1.0, 3.0, 5.0, 7.0]).expand(1, 1, 4, 4)
    boxes = torch.tensor([[[2.0, 2.0, 6.0, 6.0], [1.5, 3.0, 3.5, 5.0]]])
    found = roi_align(ramp, boxes, 2, stride=2.0)
    assert found.shape == (1, 2, 1, 2, 2)
    # Two bins of 2 pixels have their means at 3 and 5; two of 1 pixel at 2 and 3.
    torch.testing.assert_close(found[0, :, 0], torch.tensor([[[3.0, 5.0]] * 2, [[2.0, 3.0]] * 2]))


def test_beyond_the_outermost_centres_a_value_goes_on() -> None:
    ramp = torch.tensor([1.0, 3.0]).expand(1, 1, 2, 2)
    found = roi_align(ramp, torch.tensor([[[0.0, 0.0, 4.0, 4.0]]]), 4, stride=2.0)
    # Points at 0.25, 0.75 … 3.75: those below 1 are 1, those above 3 are 3.
    torch.testing.assert_close(found[0, 0, 0, 0], torch.tensor([1.0, 1.5, 2.5, 3.0]))


def roi_align_of_torchvision() -> object:
    def load() -> object:
        from torchvision.ops.roi_align import _roi_align

        return _roi_align.__wrapped__  # it would be compiled

    return with_operators("torchvision", load)


@pytest.mark.parametrize("stride", [4.0, 8.0])
def test_roi_align_is_torchvisions(stride: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(3, 5, 7, 9, generator=generator, dtype=torch.float64)
    corners = torch.rand(3, 6, 2, 2, generator=generator, dtype=torch.float64).sort(2).values
    boxes = (corners * torch.tensor([9, 7]) * stride).flatten(2)
    numbered = torch.cat([torch.arange(3).repeat_interleave(6)[:, None], boxes.flatten(0, 1)], 1)
    theirs = roi_align_of_torchvision()(features, numbered, 1 / stride, 5, 5, 2, True)  # type: ignore[operator]
    torch.testing.assert_close(roi_align(features, boxes, 5, stride).flatten(0, 1), theirs)


def test_roi_align_has_gradients() -> None:
    features = torch.rand(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[[1.0, 2.0, 7.0, 9.0]], [[0.0, 0.0, 3.0, 8.0]]], dtype=torch.float64)
    torch.autograd.gradcheck(lambda x: roi_align(x, boxes, 3, 2.0), (features,))


def pooled_one_by_one(features: Tensor, box: Tensor, side: int, stride: float) -> Tensor:
    """Girshick's pooling of one region, bin by bin: (channels, side, side)."""
    left, top, right, bottom = (round(float(edge) / stride) for edge in box)
    found = torch.zeros(len(features), side, side)
    for row in range(side):
        for column in range(side):
            high, wide = (bottom - top + 1) / side, (right - left + 1) / side
            y = [top + int(row * high), top - int(-(row + 1) * high // 1)]
            x = [left + int(column * wide), left - int(-(column + 1) * wide // 1)]
            found[:, row, column] = features[:, y[0] : y[1], x[0] : x[1]].amax((1, 2))
    return found


def test_roi_pool_is_the_largest_cell_of_each_bin() -> None:
    features = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor(
        [
            [[0.0, 0.0, 40.0, 32.0], [9.0, 5.0, 21.0, 30.0]],
            [[13.0, 3.0, 18.0, 6.0], [3.0, 14.9, 38.0, 17.0]],
        ]
    )
    found = roi_pool(features, boxes, 3, stride=4.0)
    for row in range(2):
        for place in range(2):
            expected = pooled_one_by_one(features[row], boxes[row, place], 3, 4.0)
            torch.testing.assert_close(found[row, place], expected)


def test_a_region_at_the_edge_pools_what_there_is() -> None:
    features = torch.arange(16.0).view(1, 1, 4, 4)
    found = roi_pool(features, torch.tensor([[[12.0, 12.0, 16.0, 16.0]]]), 2, stride=4.0)
    assert found.flatten().tolist() == [15.0] * 4


def test_a_mask_is_laid_over_its_box_alone() -> None:
    masks = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    boxes = torch.tensor([[[2.0, 1.0, 6.0, 5.0], [0.0, 0.0, 0.0, 0.0]]])
    found = pasted(masks, boxes, 6, 8)
    assert found.shape == (1, 2, 6, 8)
    # The left half of the box, 4 pixels wide, whose right edge is uncertain.
    expected = torch.zeros(6, 8)
    expected[1:5, 2:6] = torch.tensor([1.0, 0.75, 0.25, 0.0])
    torch.testing.assert_close(found[0, 0], expected)
    assert not found[0, 1].any()


def test_a_mask_taken_from_an_image_comes_back() -> None:
    image = F.interpolate(torch.eye(4)[None, None], scale_factor=4)
    box = torch.tensor([[[0.0, 0.0, 16.0, 16.0]]])
    taken = roi_align(image, box, 16, 1.0)[:, :, 0]
    assert torch.equal(pasted(taken, box, 16, 16)[0] > 0.5, image[0] > 0.5)


def test_a_pyramid_keeps_sizes_and_hands_down_what_late_maps_know() -> None:
    pyramid = FeaturePyramid([3, 5, 8], 8)
    maps = [torch.rand(2, 3, 12, 20), torch.rand(2, 5, 6, 10), torch.rand(2, 8, 3, 5, requires_grad=True)]
    found = pyramid(maps)
    assert [tuple(x.shape) for x in found] == [(2, 8, 12, 20), (2, 8, 6, 10), (2, 8, 3, 5)]
    found[0].square().sum().backward()
    assert maps[2].grad is not None
    assert maps[2].grad.abs().sum() > 0


def test_each_doubling_of_a_box_is_a_level() -> None:
    sides = torch.tensor([1.0, 8.0, 11.0, 12.0, 22.0, 23.0, 500.0])
    boxes = torch.stack([sides * 0, sides * 0, sides * 2, sides / 2], 1)  # of that side's area
    assert level_of(boxes, [8.0, 16.0, 32.0]).tolist() == [0, 0, 0, 1, 1, 2, 2]
