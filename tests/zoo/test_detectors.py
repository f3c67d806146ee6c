"""What each detector says and learns, by itself; that it keeps the protocol is `test_conformance`'s."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dlsys.errors import UsageError
from dlsys.spec.rows import IMAGES_WITH_BOXES, Shape
from dlsys.zoo import example
from dlsys.zoo.layers.anchors import BACKGROUND, BETWEEN
from dlsys.zoo.layers.boxes import centred, encode, iou
from dlsys.zoo.layers.focal import sigmoid_focal
from dlsys.zoo.load import load_workload
from dlsys.zoo.tasks.detect_anchors import Answers, focal_loss, hard_negatives
from dlsys.zoo.tasks.detect_cells import Cells
from dlsys.zoo.vision.efficientdet.model import BiFPN, Fusion

SHAPE = Shape(row={"image": (3, 64, 64), "boxes": (3, 4), "labels": (3,)}, classes=3)


def workload(name: str, shape: Shape = SHAPE, **options: Any) -> Any:
    torch.manual_seed(0)
    return load_workload(name, options, shape)


def batch(rows: int = 4, shape: Shape = SHAPE) -> dict[str, Tensor]:
    return example.batch_of(IMAGES_WITH_BOXES, shape, rows)


# -- losses


def test_focal_loss_without_gamma_is_cross_entropy_and_with_it_the_papers() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, generator=generator) * 4
    answers = (torch.rand(50, generator=generator) > 0.5).float()
    entropy = F.binary_cross_entropy_with_logits(logits, answers, reduction="none")
    torch.testing.assert_close(sigmoid_focal(logits, answers, gamma=0, alpha=None), entropy)
    right = torch.where(answers == 1, logits.sigmoid(), 1 - logits.sigmoid())
    weight = torch.where(answers == 1, 0.25, 0.75)
    torch.testing.assert_close(sigmoid_focal(logits, answers), weight * (1 - right) ** 2 * entropy)


def test_focal_loss_finds_the_one_in_a_thousand_that_cross_entropy_leaves() -> None:
    """Two clouds, one of a thousandth: after as many steps, of how many of them is the answer yes?"""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(20020, 2, generator=generator)
    answers = (torch.arange(20020) < 20).float()
    points[:20] += 3.5

    def recall(gamma: float) -> float:
        weight = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.Adam([weight], lr=0.2)
        for _ in range(100):
            optimizer.zero_grad()
            logits = points @ weight[:2] + weight[2]
            (sigmoid_focal(logits, answers, gamma=gamma, alpha=None).sum() / 20).backward()
            optimizer.step()
        assert not (logits[20:] > 0).any(), "and of no other"
        return float((logits[:20] > 0).float().mean())

    assert recall(2.0) > recall(0.0) + 0.3


def test_what_lies_between_teaches_nothing() -> None:
    logits = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0))
    losses = focal_loss(logits, torch.tensor([[1, BACKGROUND, BETWEEN]]), gamma=0.0, alpha=None)
    wanted = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    entropy = F.binary_cross_entropy_with_logits(logits[:, :2], wanted, reduction="none").sum(2)
    torch.testing.assert_close(losses, F.pad(entropy, (0, 1)))


def test_three_hard_negatives_learn_for_each_positive() -> None:
    losses = torch.rand(3, 40, generator=torch.Generator().manual_seed(0))
    positive = torch.zeros(3, 40, dtype=torch.bool)
    positive[0, :4], positive[1, 7] = True, True
    taught = hard_negatives(losses, positive, 3.0)
    assert taught.sum(1).tolist() == [4 + 12, 1 + 3, 3], "and a row without an object learns too"
    assert (taught | ~positive).all()
    ground = losses.masked_fill(positive, -1)
    for row in range(3):
        own = taught[row] & ~positive[row]
        assert ground[row][own].min() > ground[row][~own & ~positive[row]].max()


def test_only_anchors_with_an_object_teach_places() -> None:
    ssd = workload("ssd", channels=[16, 16, 32, 32], levels=2, sizes=[0.3, 0.6])
    rows = batch(2)
    with torch.no_grad():
        said: Answers = ssd.build()(rows["image"])
    number, _ = ssd.answering(said, rows)
    offsets = said.offsets.clone().requires_grad_()
    loss = ssd.objective(Answers(said.classes, offsets, said.anchors), rows)
    (gradient,) = torch.autograd.grad(loss.value, offsets)
    assert (number >= 0).any()
    assert torch.equal(gradient.abs().sum(2) > 0, number >= 0)
    # Its two terms are what the loss is, and right offsets leave that of places nothing.
    torch.testing.assert_close(loss.value, loss.metrics["loss_place"] + loss.metrics["loss_class"])
    boxes = rows["boxes"].gather(1, number.clamp(min=0)[..., None].expand(-1, -1, 4))
    right = Answers(said.classes, encode(boxes, said.anchors), said.anchors)
    assert float(ssd.objective(right, rows).metrics["loss_place"]) < 1e-6


def test_retinanet_begins_sure_of_nothing() -> None:
    retinanet = workload("retinanet")
    with torch.no_grad():
        scores = retinanet.scores(retinanet.build()(batch()["image"]).classes)
    assert scores.mean() == pytest.approx(0.01, abs=0.002)


def test_retinanets_loss_is_focal_or_cross_entropy() -> None:
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    answers = torch.tensor([[0, 1, 2, BACKGROUND, BETWEEN]] * 2)
    plain = workload("retinanet", loss="cross-entropy").class_loss(logits, answers)
    torch.testing.assert_close(plain, focal_loss(logits, answers, gamma=0, alpha=None))
    assert (workload("retinanet").class_loss(logits, answers) <= plain).all()


# -- grids and cells


def test_yolo_says_7_by_7_cells_of_two_boxes_and_the_classes() -> None:
    yolo = workload("yolo")
    assert yolo.build()(batch()["image"]).shape == (4, 7, 7, 2 * 5 + 3)


def test_yolo_that_says_the_truth_has_no_loss_and_finds_it() -> None:
    yolo = workload("yolo")
    rows = batch(1)
    rows["boxes"] = torch.tensor([[[4.0, 6.0, 20.0, 30.0], [30.0, 33.0, 60.0, 63.0]]])
    rows["labels"] = torch.tensor([[2, 0]])
    outputs = torch.zeros(1, 7, 7, 13)
    for box, label in zip(rows["boxes"][0], (2, 0), strict=True):
        x, y, width, height = (centred(box) / 64).tolist()
        column, row = int(x * 7), int(y * 7)
        told = [x * 7 - column, y * 7 - row, width**0.5, height**0.5, 1.0]
        outputs[0, row, column, 5:10] = torch.tensor(told)
        outputs[0, row, column, 10 + label] = 1.0
    assert float(yolo.objective(outputs, rows).value) == pytest.approx(0, abs=1e-9)
    found = yolo.detections(outputs, rows)
    assert found.labels[0, :2].sort().values.tolist() == [0, 2]
    torch.testing.assert_close(found.boxes[0, :2][found.labels[0, :2].argsort()], rows["boxes"][0, [1, 0]])
    # Unsure of one of them, or sure of what is not there: each is a loss, of its weight.
    for place, value, loss in ((9, 0.0, 1.0), (4, 1.0, 0.5)):
        other = outputs.clone()
        other[0, row, column, place] = value
        assert float(yolo.objective(other, rows).value) == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("name", ["yolo-v2", "yolo-v3"])
def test_cells_say_boxes_as_they_should_be_told(name: str) -> None:
    detector = workload(name)
    rows = batch(3)
    with torch.no_grad():
        said: Cells = detector.build()(rows["image"])
    number = said.answering(rows["boxes"], rows["labels"])
    for row, labels in zip(number, rows["labels"], strict=True):
        assert row.amax() < (labels >= 0).sum()
    wanted = rows["boxes"].gather(1, number.clamp(min=0)[..., None].expand(-1, -1, 4))
    own = number >= 0
    # The centre lies in the anchor's cell, and what is told says the box again.
    away = (centred(wanted) - centred(said.anchors))[..., :2] / said.cells
    assert (away[own].abs() <= 0.5 + 1e-5).all()
    told = said.told(wanted)
    logits = torch.cat([torch.logit(told[..., :2], eps=1e-6), told[..., 2:], said.said[..., 4:]], 2)
    again = Cells(logits, said.anchors, said.cells).boxes()
    torch.testing.assert_close(again[own], wanted[own], rtol=0, atol=1e-2)


def test_an_object_has_the_anchor_of_its_cell_whose_shape_is_most_like_its_own() -> None:
    anchors = torch.tensor([[4.0, 4, 12, 12], [0, 6, 16, 10], [20, 4, 28, 12], [16, 6, 32, 10]])
    cells = Cells(torch.zeros(1, 4, 6), anchors, torch.full((4, 2), 16.0))
    boxes = torch.tensor([[[1.0, 5, 13, 9], [19.0, 3, 27, 11], [0, 0, 0, 0]]])
    assert cells.answering(boxes, torch.tensor([[0, 0, -1]])).tolist() == [[-1, 0, 1, -1]]


def test_yolo_v3_has_three_grids_and_refuses_anchors_that_it_cannot_deal_out() -> None:
    said = workload("yolo-v3").build()(batch()["image"])
    sides, counts = said.cells[:, 0].unique(return_counts=True)
    assert sides.tolist() == [4.0, 8.0, 16.0]
    assert counts.tolist() == [3 * 16 * 16, 3 * 8 * 8, 3 * 4 * 4]
    with pytest.raises(UsageError, match="multiple of 3"):
        workload("yolo-v3", anchors=[[0.1, 0.1]] * 4).build()


# -- EfficientDet


def test_what_a_pyramid_adds_is_weighed_by_positive_shares_of_one() -> None:
    fusion = Fusion(3, 8)
    with torch.no_grad():
        fusion.weights.copy_(torch.tensor([2.0, -1.0, 6.0]))
    assert fusion.shares().tolist() == pytest.approx([0.25, 0.0, 0.75], abs=1e-4)
    assert float(fusion.shares().detach().sum()) < 1


def test_a_walk_over_a_pyramid_keeps_its_sizes_and_lets_each_level_see_all() -> None:
    torch.manual_seed(0)
    walk = BiFPN(3, 8)
    maps = [torch.randn(1, 8, *size, requires_grad=True) for size in ((9, 12), (5, 6), (3, 3))]
    found = walk(maps)
    assert [x.shape for x in found] == [x.shape for x in maps]
    for level in found:
        gradients = torch.autograd.grad(level.square().sum(), maps, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_efficientdets_sizes_grow_as_one() -> None:
    models = [workload("efficientdet", preset=preset) for preset in ("d0", "d1")]
    first, second = (model.options for model in models)
    assert (first.width, first.rounds, first.depth, first.levels) == (64, 3, 3, 5)
    assert (second.width, second.rounds, second.depth, second.levels) == (88, 4, 3, 5)
    with torch.device("meta"):
        counts = [sum(p.numel() for p in model.build().parameters()) for model in models]
    assert counts[0] < counts[1]


# -- one box, and windows


def test_box_regression_counts_the_first_object_where_there_is_one() -> None:
    regression = workload("box-regression")
    rows = batch(3)
    rows["labels"][1] = -1
    sides = torch.tensor([64.0, 64, 64, 64])
    right = centred(rows["boxes"][:, 0] / sides)
    right[1] += 9
    assert float(regression.objective(right, rows).value) == 0
    sums = {**regression.measure(right, rows), "rows": torch.tensor(3.0)}
    assert regression.summarize(sums)["iou"] == pytest.approx(1)
    half = right.clone()
    half[:, 2] /= 2
    assert regression.summarize({**regression.measure(half, rows), "rows": torch.tensor(3.0)})["iou"] == (
        pytest.approx(0.5, abs=1e-5)
    )


@pytest.mark.parametrize("size", [(64, 64), (40, 71), (22, 22)])
def test_a_net_as_a_convolution_says_what_it_says_of_each_window(size: tuple[int, int]) -> None:
    shape = Shape(row={**SHAPE.row, "image": (3, *size)}, classes=3)
    crops, whole = (
        workload("sliding-window-detector", shape, form=form).build() for form in ("crops", "convolution")
    )
    whole.load_state_dict(crops.state_dict())
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    counted = []
    answers = []
    for net in (crops, whole):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            answers.append(net(images))
        counted.append(counter.get_total_flops())
    assert answers[0].classes.shape[1] == math.prod((side - 22) // 4 + 1 for side in size)
    torch.testing.assert_close(answers[1].classes, answers[0].classes, rtol=0, atol=1e-5)
    assert torch.equal(answers[1].anchors, answers[0].anchors)
    # A window's own pixels, and none beside them.
    box = answers[0].anchors[-1].long().tolist()
    cut = images[:, :, box[1] : box[3], box[0] : box[2]]
    with torch.no_grad():
        torch.testing.assert_close(whole(cut).classes[:, 0], answers[0].classes[:, -1], rtol=0, atol=1e-5)
    assert counted[0] == counted[1] if size == (22, 22) else counted[1] < counted[0] / 2


def test_windows_that_show_an_object_are_counted_before_and_after_suppression() -> None:
    detector = workload("sliding-window-detector")
    rows = batch(1)
    rows["boxes"], rows["labels"] = torch.tensor([[[20.0, 20.0, 42.0, 42.0]]]), torch.tensor([[1]])
    with torch.no_grad():
        said: Answers = detector.build()(rows["image"])
    shows = iou(rows["boxes"][0], said.anchors)[0] > 0.5
    logits = torch.zeros_like(said.classes)
    logits[0, :, 0] = 9.0
    logits[0, shows, 2] = 18.0
    found = Answers(logits, said.offsets, said.anchors)
    figures = detector.summarize({**detector.measure(found, rows), "rows": torch.tensor(1.0)})
    assert figures["windows_each"] == shows.sum() > 4
    assert figures["kept_each"] == 1


def test_a_window_larger_than_the_image_is_refused() -> None:
    with pytest.raises(UsageError, match="say 64 at most"):
        workload("sliding-window-detector", window=66).build()
    with pytest.raises(UsageError, match="try 22 or 26"):
        workload("sliding-window-detector", window=24)
