"""Boxes: overlap is what counting pixels says, and suppression what doing it box by box leaves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dlsys.zoo.layers.boxes import best, cornered, decode, encode, iou, suppress


def whole_boxes(count: int, generator: torch.Generator, side: int = 20) -> Tensor:
    """Boxes (count, 4) of whole pixels, one at least each way."""
    begin = torch.randint(0, side - 1, (count, 2), generator=generator)
    end = begin + 1 + (torch.rand(count, 2, generator=generator) * (side - begin)).long()
    return torch.cat([begin, end.clamp(max=side)], 1).float()


def test_iou_is_what_counting_pixels_says() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = whole_boxes(1000, generator), whole_boxes(1000, generator)
    y, x = torch.meshgrid(torch.arange(20) + 0.5, torch.arange(20) + 0.5, indexing="ij")

    def pixels(boxes: Tensor) -> Tensor:
        left, top, right, bottom = boxes[..., None, None].unbind(1)
        return (x > left) & (x < right) & (y > top) & (y < bottom)

    one, other = pixels(first), pixels(second)
    counted = (one & other).sum((1, 2)) / (one | other).sum((1, 2))
    found = iou(first[:, None], second[:, None])[:, 0, 0]
    assert 0 < (counted > 0).sum() < 1000, "some overlap and some do not"
    torch.testing.assert_close(found, counted)


def test_iou_with_an_empty_box_is_0() -> None:
    empty = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert iou(empty, empty).item() == 0
    assert iou(torch.zeros(0, 4), empty).shape == (0, 1)


def one_by_one(boxes: Tensor, threshold: float) -> list[bool]:
    """Suppression as it is told: take the best that is left, drop what overlaps it more, repeat."""
    kept: list[int] = []
    for place in range(len(boxes)):
        if not kept or iou(boxes[place : place + 1], boxes[kept]).max() <= threshold:
            kept.append(place)
    return [place in kept for place in range(len(boxes))]


def test_suppression_leaves_what_going_box_by_box_leaves() -> None:
    generator = torch.Generator().manual_seed(1)
    dropped = 0
    for number in range(500):
        boxes = whole_boxes(1 + number % 30, generator)
        threshold = (0.0, 0.3, 0.5, 0.7)[number % 4]
        wanted = one_by_one(boxes, threshold)
        assert suppress(boxes, threshold).tolist() == wanted
        dropped += wanted.count(False)
    assert dropped > 500


def test_only_what_overlaps_more_than_the_threshold_goes() -> None:
    """As torchvision's `nms`: an overlap of exactly the threshold stays."""
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]])
    assert suppress(boxes, 0.5).tolist() == [True, True]
    assert suppress(boxes, 0.49).tolist() == [True, False]


def test_a_box_that_goes_takes_none_with_it_and_one_that_does_not_count_neither() -> None:
    row = torch.tensor([[0.0, 0.0, 10.0, 1.0], [4.0, 0.0, 14.0, 1.0], [8.0, 0.0, 18.0, 1.0]])
    assert suppress(row, 0.3).tolist() == [True, False, True]
    assert suppress(row, 0.3, torch.tensor([False, True, True])).tolist() == [False, True, False]


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_found_is_no_error(count: int) -> None:
    assert suppress(torch.zeros(count, 4)[:0], 0.5).shape == (0,)
    boxes, scores, labels = best(
        torch.zeros(2, count, 4), torch.zeros(2, count, 5), score=0.1, overlap=0.5, candidates=10, most=4
    )
    assert boxes.shape[:2] == scores.shape == labels.shape
    assert (labels == -1).all()
    assert (scores == 0).all()


def test_classes_do_not_suppress_each_other_and_the_best_come_first() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 7.0], [20.0, 20.0, 30.0, 30.0]]])
    scores = torch.tensor([[[0.9, 0.3], [0.8, 0.6], [0.05, 0.7]]])
    found, sure, labels = best(boxes, scores, score=0.1, overlap=0.5, candidates=10, most=10)
    assert sure[labels >= 0].tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert labels[labels >= 0].tolist() == [0, 1, 1]
    torch.testing.assert_close(found[0, :3], boxes[0, [0, 2, 1]])
    _, sure, labels = best(boxes, scores, score=0.1, overlap=0.5, candidates=10, most=10, apart=False)
    assert sure[labels >= 0].tolist() == pytest.approx([0.9, 0.7]), "unless they are to"


def test_offsets_and_boxes_are_each_others_inverse() -> None:
    generator = torch.Generator().manual_seed(2)

    def some(count: int) -> Tensor:
        place, size = torch.rand(2, count, 2, generator=generator, dtype=torch.float64)
        return cornered(torch.cat([place * 64, 4 + size * 40], 1))

    boxes, anchors = some(200), some(200)
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes, rtol=0, atol=1e-5)
    single = decode(encode(boxes.float(), anchors.float()), anchors.float()).double()
    assert ((single - boxes).abs() / 64).max() < 1e-5, "in shares of the image, in float32 too"
