"""What segmenters are measured and learn by: worked by hand, held against torchmetrics, the same in parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import job, train
from torch import Tensor
from torch.nn import functional as F

from dlsys.errors import SpecError, UsageError
from dlsys.spec.rows import Shape
from dlsys.spec.train import objective as spec
from dlsys.zoo.confusion import counted
from dlsys.zoo.drawing import beside
from dlsys.zoo.load import load_workload
from dlsys.zoo.measures import torchmetrics
from dlsys.zoo.objective import cross_entropy, dice, focal, loss_function
from dlsys.zoo.tasks.segment import overlaps

SHAPE = Shape(row={"image": (3, 32, 32), "mask": (32, 32)}, classes=4)
LOGITS = torch.randn(6, 4, 5, 7, generator=torch.manual_seed(0))
MASK = torch.randint(-1, 4, (6, 5, 7), generator=torch.manual_seed(1))
TEXT = """
kind: train
name: test
workload: unet
model: {channels: [8, 8]}
data: {source: shapes, wanted: mask, rows: 40, size: 16, sides: [6, 10], objects: [1, 2]}
batch_size: 8
optimizer: {name: adam, lr: 0.01}
stop: {steps: 3}
tracking: {log_every: 1}
"""


def told(classes: list[int], of: int) -> Tensor:
    """Logits (1, of, n) that name these classes."""
    return F.one_hot(torch.tensor(classes), of).float().mT[None]


def test_figures_worked_by_hand() -> None:
    #        right  1 for 0  0 for 1  right  right  does not count
    truth = torch.tensor([[0, 0, 1, 1, 2, -1]])
    table = counted(told([0, 1, 0, 1, 2, 2], 4), truth)
    assert table.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    # Overlaps by union: 1 of 3, 1 of 3, 1 of 1. The fourth class is nowhere, and in no mean.
    assert overlaps(table) == pytest.approx(
        {
            "pixel_accuracy": 3 / 5,
            "miou": (1 / 3 + 1 / 3 + 1) / 3,
            "worst_iou": 1 / 3,
            "dice": (1 / 2 + 1) / 2,
        }
    )


def test_a_class_found_where_there_is_none_has_nothing() -> None:
    figures = overlaps(counted(told([0, 3], 4), torch.tensor([[0, 0]])))
    assert figures == {"pixel_accuracy": 0.5, "miou": 0.25, "worst_iou": 0.0, "dice": 0.0}


def test_ground_alone_leaves_no_dice() -> None:
    figures = overlaps(counted(told([0, 0], 4), torch.tensor([[0, 0]])))
    assert figures == {"pixel_accuracy": 1.0, "miou": 1.0, "worst_iou": 1.0}


def test_figures_are_torchmetrics() -> None:
    figures = overlaps(counted(LOGITS, MASK))
    said, there = LOGITS.argmax(1), MASK
    theirs, told = torchmetrics.functional.classification, {"num_classes": 4, "ignore_index": -1}
    accuracy = theirs.multiclass_accuracy(said, there, average="micro", **told)
    assert figures["pixel_accuracy"] == pytest.approx(float(accuracy))
    assert figures["miou"] == pytest.approx(float(theirs.multiclass_jaccard_index(said, there, **told)))
    each = theirs.multiclass_jaccard_index(said, there, average="none", **told)
    assert figures["worst_iou"] == pytest.approx(float(each.min()))
    f1 = theirs.multiclass_f1_score(said, there, average="none", **told)
    assert figures["dice"] == pytest.approx(float(f1[1:].mean()))


def test_a_rows_loss_is_the_mean_over_its_pixels_that_count() -> None:
    rows = []
    for logits, mask in zip(LOGITS, MASK, strict=True):
        counts = mask >= 0
        rows.append(F.cross_entropy(logits[:, counts].T, mask[counts]))
    torch.testing.assert_close(cross_entropy(LOGITS, MASK), torch.stack(rows).mean())
    torch.testing.assert_close(focal(LOGITS, MASK, gamma=0), cross_entropy(LOGITS, MASK))


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice])
def test_a_row_of_which_nothing_counts_has_no_loss(loss: spec.Objective) -> None:
    mask = MASK.clone()
    mask[2] = -1
    logits = LOGITS.clone().requires_grad_()
    whole = loss(logits, mask)
    others = loss(logits[[0, 1, 3, 4, 5]], mask[[0, 1, 3, 4, 5]])
    torch.testing.assert_close(whole, others * 5 / 6)
    whole.backward()
    assert logits.grad is not None
    assert logits.grad[2].abs().max() == 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [cross_entropy, focal, dice])
def test_a_pixel_that_does_not_count_has_no_gradient(loss: spec.Objective) -> None:
    logits = LOGITS.clone().requires_grad_()
    loss(logits, MASK).backward()
    assert logits.grad is not None
    out = (MASK < 0)[:, None].expand_as(LOGITS)
    assert logits.grad[out].abs().max() == 0
    assert logits.grad[~out].abs().min() > 0


def test_dice_worked_by_hand() -> None:
    # Of two pixels of class 1, one is likely by 3/4, the other by 1/4; the third, of the ground, by 1/2.
    likely = torch.tensor([0.75, 0.25, 0.5])
    logits = torch.stack([(1 - likely).log(), likely.log()])[None]
    found = dice(logits, torch.tensor([[1, 1, 0]]), smooth=1.0)
    assert float(found) == pytest.approx(1 - (2 * 1.0 + 1) / (0.75**2 + 0.25**2 + 0.5**2 + 2 + 1))
    right = dice(torch.tensor([[[-50.0, 50.0], [50.0, -50.0]]]), torch.tensor([[1, 0]]))
    assert float(right) == pytest.approx(0, abs=1e-6)


def test_weights_are_of_classes_and_not_of_what_does_not_count() -> None:
    options = spec.CrossEntropy(name="cross-entropy", class_weights=(1.0, 0.0, 0.0, 0.0))
    found = loss_function(options, SHAPE, {})(LOGITS, MASK)
    losses = F.cross_entropy(LOGITS, MASK, ignore_index=-1, reduction="none") * (MASK == 0)
    torch.testing.assert_close(found, (losses.sum((1, 2)) / (MASK >= 0).sum((1, 2))).mean())


def test_a_job_says_the_loss_and_no_metrics() -> None:
    assert job(TEXT, "loss.name=dice").loss == spec.Dice(name="dice")
    with pytest.raises(SpecError, match="unet learns by cross-entropy or focal or dice, got 'mse'"):
        job(TEXT, "loss.name=mse")
    with pytest.raises(SpecError, match="metrics: unet has metrics of its own"):
        job(TEXT, "metrics.f1=F1Score")
    with pytest.raises(SpecError, match="resnet learns by cross-entropy or focal or hinge, got 'dice'"):
        job(TEXT, "loss.name=dice", "workload=resnet", "model=null", "data={source: digits}")
    with pytest.raises(UsageError, match=r"loss.name: dice is of a mask, and these rows have features"):
        loss_function(spec.Dice(name="dice"), Shape(row={"features": (3,), "label": ()}, classes=3), {})


def test_a_segmenter_needs_two_classes() -> None:
    with pytest.raises(UsageError, match="at least 2 classes, this source has 1"):
        load_workload("unet", {}, Shape(row=SHAPE.row, classes=1))


def test_a_run_leaves_pictures_and_the_table(tmp_path: Path) -> None:
    found = train(job(TEXT, "loss.name=dice"), tmp_path)
    assert {"valid/miou", "test/miou", "test/worst_iou", "test/pixel_accuracy"} <= found.points.keys()
    names = {path.name for path in (tmp_path / "artifacts").iterdir()}
    assert {"segmentation.png", "confusion.csv", "confusion.png"} <= names
    head = (tmp_path / "artifacts" / "confusion.csv").read_text().splitlines()[0]
    assert head == "true \\ taken for,ground,circle,square,triangle"


def test_truth_stands_beside_what_was_found() -> None:
    truth, found = torch.zeros(1, 8, 8, dtype=torch.int64), torch.zeros(1, 8, 8, dtype=torch.int64)
    truth[0, 0, 0], found[0, 0, 0] = 1, 2
    truth[0, 7, 7] = -1
    (sheet,) = beside(torch.full((1, 1, 8, 8), 0.5), truth, found)
    width = sheet.shape[2] // 2
    assert sheet.shape[1] == width
    assert not torch.equal(sheet[:, 0, 0], sheet[:, 0, width])
    assert torch.equal(sheet[:, 0, width - 1], sheet[:, 0, -1])
    assert sheet[:, -1, [width - 1, -1]].abs().max() == 0
