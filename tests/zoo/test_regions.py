"""Which regions a row learns from, and what a head's answers amount to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from dlsys.zoo.layers import rpn
from dlsys.zoo.layers.boxes import encode
from dlsys.zoo.layers.regions import Proposals, Regions, Truth, learnt_from, sample, told
from dlsys.zoo.vision.faster_rcnn.card import FasterRCNNOptions


def test_positive_ones_are_drawn_up_to_their_share_and_the_rest_is_negative() -> None:
    positive = torch.tensor([[True, True, True, False, False, False]])
    negative = torch.tensor([[False, False, False, True, True, False]])
    chance = torch.tensor([[0.9, 0.1, 0.5, 0.8, 0.3, 0.0]])
    index, drawn = sample(positive, negative, chance, 4, 0.5)
    assert index[0].tolist() == [1, 2, 4, 3]
    assert drawn.all()
    # With a larger share fewer negatives are left to be drawn than there are places.
    index, drawn = sample(positive, negative, chance, 6, 0.34)
    assert index[0, drawn[0]].tolist() == [1, 2, 4, 3]
    assert drawn[0].sum() == 4


def test_a_row_without_objects_learns_from_ground_alone() -> None:
    nothing = torch.zeros(1, 5, dtype=torch.bool)
    index, drawn = sample(nothing, ~nothing, torch.rand(1, 5), 3, 0.25)
    assert drawn.all()
    assert index.shape == (1, 3)


def scene() -> tuple[Proposals, Truth]:
    """Two rows: three proposals and two objects, and two proposals and one object."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [30.0, 30.0, 40.0, 40.0], [1.0, 0.0, 11.0, 10.0]])
    proposed = Proposals(boxes.repeat(2, 1, 1), torch.tensor([[True, True, True], [True, True, False]]))
    objects = torch.tensor([[[0.5, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]]] * 2)
    chance = torch.tensor([[0.5, 0.6, 0.7, 0.1, 0.9]] * 2)
    return proposed, Truth(objects, torch.tensor([[0, 1], [0, -1]]), chance)


def test_objects_themselves_are_learnt_from_and_padding_never() -> None:
    proposed, truth = scene()
    chosen = learnt_from(proposed, truth, count=16)
    first = {tuple(box) for box in chosen.boxes[0][chosen.valid[0]].tolist()}
    assert first == {tuple(box) for box in [*proposed.boxes[0].tolist(), *truth.boxes[0].tolist()]}
    second = {tuple(box) for box in chosen.boxes[1][chosen.valid[1]].tolist()}
    assert second == {(0.5, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 10.0), (30.0, 30.0, 40.0, 40.0)}


def test_what_a_row_learns_from_does_not_depend_on_the_others_of_its_batch() -> None:
    proposed, truth = scene()
    together = learnt_from(proposed, truth, count=4)
    # By itself the second row's batch has two proposals and one object.
    alone = learnt_from(
        Proposals(proposed.boxes[1:, :2], proposed.valid[1:, :2]),
        Truth(truth.boxes[1:, :1], truth.labels[1:, :1], truth.chance[1:, :4]),
        count=4,
    )
    own = alone.boxes[0][alone.valid[0]]
    # One in four shows an object: the one with the lowest chance, which is the object itself.
    assert own.tolist() == [[0.5, 0.0, 10.0, 10.0], [30.0, 30.0, 40.0, 40.0]]
    assert torch.equal(together.boxes[1][together.valid[1]], own)


def test_a_heads_answers_become_boxes_of_their_class() -> None:
    regions = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 40.0], [0.0, 0.0, 0.0, 0.0]]])
    wanted = torch.tensor([2.0, 0.0, 12.0, 12.0])
    classes = torch.tensor([[[0.0, 0.0, 9.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]])
    offsets = torch.zeros(1, 3, 2, 4)
    offsets[0, 0, 1] = encode(wanted, regions[0, 0])
    found = told(Regions(regions, torch.tensor([[True, True, False]]), classes, offsets), 50, 11)
    assert found.labels[0].tolist()[:1] == [1]
    assert (found.labels[0, 1:] < 0).all()
    # An image of 11 pixels ends there.
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor([2.0, 0.0, 11.0, 12.0]))


def test_proposals_are_the_anchors_that_show_something_moved() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [20.0, 20.0, 28.0, 28.0], [21.0, 20.0, 29.0, 28.0]])
    moved = torch.tensor([2.0, 2.0, 10.0, 10.0])
    offsets = torch.stack([encode(moved, anchors[0]), torch.zeros(4), torch.zeros(4)])[None]
    said = rpn.Anchored(torch.tensor([[3.0, 1.0, 2.0]]), offsets, anchors)
    found = rpn.proposed(said, 64, 64, candidates=3, most=3)
    # The third takes the second away, whose score is lower.
    assert found.valid[0].tolist() == [True, True, False]
    torch.testing.assert_close(found.boxes[0, :2], torch.stack([moved, anchors[2]]))


def test_a_net_that_says_what_there_is_loses_nothing() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [20.0, 20.0, 28.0, 28.0]])
    box = torch.tensor([[[1.0, 0.0, 9.0, 8.0]]])
    truth = Truth(box, torch.tensor([[4]]), torch.tensor([[0.2, 0.7]]))
    offsets = torch.stack([encode(box[0, 0], anchors[0]), torch.full((4,), 5.0)])[None]
    kind, place = rpn.losses(rpn.Anchored(torch.tensor([[30.0, -30.0]]), offsets, anchors), truth, count=2)
    assert float(kind) < 1e-6
    assert float(place) < 1e-6
    kind, place = rpn.losses(rpn.Anchored(torch.zeros(1, 2), offsets * 0, anchors), truth, count=2)
    assert abs(float(kind) - torch.log(torch.tensor(2.0)).item()) < 1e-6
    # A shift by an eighth of the width is 1.25 tenths: smooth L1 of 1.25.
    assert abs(float(place) - 0.75) < 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [0.4, 0.2]}, r"\[0.4, 0.2\] do not rise: the smallest stands first"),
        (
            {"pyramid": True, "channels": [16, 32], "sizes": [0.1, 0.2, 0.4]},
            "a map for each of these 3, and there are 2 stages: name fewer sizes, or more stages",
        ),
    ],
)
def test_anchors_and_maps_must_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FasterRCNNOptions(**options)
