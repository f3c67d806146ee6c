"""Anchors: where they lie, which object each answers for, and those that boxes are most like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dlsys.cli import data as cli
from dlsys.data import load
from dlsys.data.images.anchors import likeness, representative, sizes_of
from dlsys.errors import DataError, UsageError
from dlsys.spec.data import Shapes
from dlsys.zoo.layers import anchors
from dlsys.zoo.layers.anchors import BACKGROUND, BETWEEN
from dlsys.zoo.layers.boxes import iou


def test_a_place_has_sizes_and_ratios_less_one() -> None:
    found = anchors.shapes([4.0, 6.0, 8.0], [1.0, 4.0])
    assert found == [(4.0, 4.0), (6.0, 6.0), (8.0, 8.0), (8.0, 2.0)]
    assert len(anchors.grid(5, 7, (40, 56), found, torch.zeros(1))) == 5 * 7 * (3 + 2 - 1)


def test_corners_on_a_known_grid() -> None:
    found = anchors.grid(2, 3, (20, 60), [(4.0, 2.0), (8.0, 8.0)], torch.zeros(1))
    centres = [(10, 5), (30, 5), (50, 5), (10, 15), (30, 15), (50, 15)]
    assert found.tolist() == [
        [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        for x, y in centres
        for width, height in ((4, 2), (8, 8))
    ]


def test_a_maps_answers_stand_in_the_order_of_its_anchors() -> None:
    """Answers that say where they stand: row, column and anchor."""
    said = torch.stack(
        [torch.tensor([row, column, place]) for place in range(2) for row in range(2) for column in range(3)]
    )
    image = said.view(2, 2, 3, 3).permute(0, 3, 1, 2).reshape(1, 6, 2, 3)
    flat = anchors.flat(image, 2)[0].tolist()
    assert flat == [[row, column, place] for row in range(2) for column in range(3) for place in range(2)]


def scattered(rows: int, objects: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    begin = torch.rand(rows, objects, 2, generator=generator) * 48
    boxes = torch.cat([begin, begin + 2 + torch.rand(rows, objects, 2, generator=generator) * 14], 2)
    counts = torch.randint(0, objects + 1, (rows, 1), generator=generator)
    return boxes, torch.where(torch.arange(objects) < counts, 0, -1)


def test_every_object_has_an_anchor_and_only_objects_have() -> None:
    """Even where several overlap the same anchor most: more objects than a coarse grid tells apart."""
    boxes, labels = scattered(200, 5, seed=0)
    places = anchors.grid(4, 4, (64, 64), [(16.0, 16.0)], boxes)
    favourites = iou(boxes, places).argmax(2)
    shared = [
        len(set(own[there].tolist())) < there.sum()
        for own, there in zip(favourites, labels >= 0, strict=True)
    ]
    assert any(shared), "the case is there"
    found = anchors.match(boxes, labels, places, high=0.5, low=0.4)
    for row, there in zip(found, labels >= 0, strict=True):
        assert set(row[row >= 0].tolist()) == set(range(int(there.sum())))


def test_an_anchor_answers_for_what_it_overlaps_enough() -> None:
    boxes, labels = scattered(50, 3, seed=1)
    places = anchors.grid(16, 16, (64, 64), [(12.0, 12.0), (7.0, 7.0)], boxes)
    found = anchors.match(boxes, labels, places, high=0.5, low=0.4)
    overlap = iou(boxes, places) * (labels >= 0)[..., None]
    most, nearest = overlap.max(1)
    # Those that an object has whatever it overlaps, one for each, are left out.
    own = found >= 0
    assert (own & (most < 0.5)).sum(1).le((labels >= 0).sum(1)).all()
    clear = own & (most >= 0.5)
    assert ((found == nearest) | ~clear).sum() > 0.99 * found.numel()
    assert (most[found == BETWEEN] >= 0.4).all()
    assert (most[found == BETWEEN] < 0.5).all()
    assert (most[found == BACKGROUND] < 0.4).all()
    assert (most[~own] < 0.5).all()


def test_a_row_without_objects_is_all_background() -> None:
    places = anchors.grid(4, 4, (64, 64), [(16.0, 16.0)], torch.zeros(1))
    for objects in (0, 2):
        labels = torch.full((3, objects), -1)
        found = anchors.match(torch.zeros(3, objects, 4), labels, places, high=0.5)
        assert (found == BACKGROUND).all()


def test_anchors_found_from_boxes_are_more_like_them_than_those_set_by_hand(tmp_path: Path) -> None:
    splits = load(Shapes(source="shapes", rows=120, sides=(6, 40)), tmp_path)
    sizes = sizes_of(splits.train)
    assert len(sizes) == sum(splits.learnt["objects"]["counts"])
    by_hand = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.4, 0.2], [0.2, 0.4]])
    found = representative(sizes, 5)

    def mean(anchors: np.ndarray) -> float:
        return float(likeness(sizes, anchors).max(1).mean())

    assert mean(found) > mean(by_hand) + 0.05
    assert np.array_equal(found, representative(sizes, 5)), "the same on every worker"
    assert (np.diff(found.prod(1)) > 0).all()
    assert mean(representative(sizes, 9)) > mean(found)


def test_likeness_is_the_iou_of_boxes_around_one_centre() -> None:
    generator = np.random.default_rng(0)
    sizes, others = generator.uniform(1, 9, (6, 2)), generator.uniform(1, 9, (4, 2))
    first, second = (torch.from_numpy(np.concatenate([-s / 2, s / 2], 1)) for s in (sizes, others))
    np.testing.assert_allclose(likeness(sizes, others), iou(first, second).numpy())


def test_more_anchors_than_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="2 different sizes: too few for 3 anchors"):
        representative(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]), 3)


def test_a_jobs_anchors_are_printed_as_it_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    cli.anchors("vision/yolo_v2", ["data.rows=60"])
    said = capsys.readouterr()
    assert said.out.startswith("anchors: [[")
    assert len(eval(said.out.removeprefix("anchors: "))) == 5
    assert "with the job's own 5, 0." in said.err
    with pytest.raises(UsageError, match="--count"):
        cli.anchors("vision/ssd")
    with pytest.raises(UsageError, match="digits gives no images with boxes"):
        cli.anchors("vision/lenet5", count=3)
