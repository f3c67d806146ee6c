"""Integral images, Haar features and boosting, by hand and held against OpenCV."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dlsys.data import rowwise
from dlsys.spec.rows import Shape
from dlsys.zoo.load import load_workload
from dlsys.zoo.vision.viola_jones.haar import drawn, integral, values, windows
from dlsys.zoo.vision.viola_jones.model import _BINS, _REACH, Cascade, Seen, ViolaJones

pytestmark = pytest.mark.usefixtures("seeded")


def workload_of(**options: Any) -> ViolaJones:
    shape = Shape(row={"image": (1, 48, 48), "boxes": (1, 4), "labels": (1,)}, classes=1)
    found = load_workload("viola-jones", options, shape)
    assert isinstance(found, ViolaJones)
    return found


def test_integral_images_are_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    image = torch.rand(2, 7, 9)
    for ours, theirs in zip(integral(image), image.numpy(), strict=True):
        assert torch.allclose(ours, torch.from_numpy(cv2.integral(theirs)))


def test_a_feature_is_a_difference_of_means_in_deviations() -> None:
    image = torch.rand(1, 40, 40)
    window = torch.tensor([[3, 5, 24], [0, 1, 36]])
    # The left half less the right half, at the scale of each window.
    left, right, none = [0.0, 0.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]
    told = torch.tensor([[left, right, none]], dtype=torch.float64)
    found = values(image, torch.zeros(2, dtype=torch.int64), window, told, torch.tensor([[1.0, -1.0, 0.0]]))
    for value, (top, start, side) in zip(found[:, 0], window.tolist(), strict=True):
        patch = image[0, top : top + side, start : start + side].double()
        halves = patch[:, : side // 2].mean() - patch[:, side // 2 :].mean()
        assert float(value) == pytest.approx(float(halves / patch.std(correction=0)), rel=1e-6)


def test_features_do_not_see_light_or_contrast() -> None:
    image, window = torch.rand(1, 30, 30), torch.tensor([[2, 1, 24]])
    first = values(image, torch.zeros(1, dtype=torch.int64), window, *drawn(50))
    lit = values(0.3 * image + 0.4, torch.zeros(1, dtype=torch.int64), window, *drawn(50))
    torch.testing.assert_close(lit, first, rtol=1e-4, atol=1e-5)
    assert first.abs().max() > 0.1
    _, weights = drawn(50)
    rectangles = drawn(50)[0]
    areas = (rectangles[..., 2:] - rectangles[..., :2]).prod(-1)
    assert (areas[weights != 0] > 0).all()
    assert rectangles.min() >= 0
    assert rectangles.max() <= 1
    torch.testing.assert_close(weights.sum(1), torch.zeros(50, dtype=torch.float64))


def test_windows_are_all_that_fit() -> None:
    found = windows(30, 24, 20, 1.2, 0.1)
    assert found[:, 2].unique().tolist() == [20, 24]
    assert (found[:, 0] + found[:, 2] <= 30).all()
    assert (found[:, 1] + found[:, 2] <= 24).all()
    # Of 20 pixels, 2 apart: 6 down and 3 across; of 24, 2 apart: 4 and 1.
    assert len(found) == 6 * 3 + 4


def test_the_stump_that_errs_the_least_is_added() -> None:
    """Of feature 1, a quarter of the others are above the edge, and all objects; feature 0 tells nothing."""
    workload = workload_of(features=2, stages=1, stumps=3)
    model = workload.build()
    counts = torch.zeros(2, 2, _BINS, dtype=torch.float64)
    counts[:, 0, 10] = torch.tensor([8.0, 4.0])
    counts[0, 1, 20], counts[0, 1, 40] = 6, 2
    counts[1, 1, 30] = 4
    scores = torch.zeros(2, 400, dtype=torch.float64)
    scores[0, 200], scores[1, 200] = 8, 4
    workload.solve(model, {"values": counts, "scores": scores})
    assert int(model.count[0]) == 1
    assert int(model.chosen[0, 0]) == 1
    assert float(model.sign[0, 0]) == 1
    # Between bins 20 and 30: the first edge of the least error.
    assert float(model.edge[0, 0]) == pytest.approx((2 * 21 / _BINS - 1) * _REACH)
    # Objects and others weigh a half each: a quarter of the others is an eighth of all.
    assert float(model.say[0, 0]) == pytest.approx(0.5 * math.log((1 - 1 / 8) / (1 / 8)))


def test_a_stage_is_done_when_it_refuses_enough() -> None:
    workload = workload_of(features=2, stages=2, stumps=3, keep=0.75, refuse=0.5)
    model = workload.build()
    model.count[0] = 1
    counts = torch.ones(2, 2, _BINS, dtype=torch.float64)
    scores = torch.zeros(2, 400, dtype=torch.float64)
    scores[0, 100], scores[0, 300] = 6, 4  # others at -0.5 and 0.5
    scores[1, 150], scores[1, 250] = 1, 3  # objects at -0.25 and 0.25
    told = workload.solve(model, {"values": counts, "scores": scores})
    assert told == {"stages": 1.0, "passed": 0.4}
    assert float(model.cut[0]) == pytest.approx(0.25), "the highest that three of four objects reach"
    assert int(model.done) == 1
    scores[0, 300] = 7  # of 13 others, 7 would pass
    told = workload.solve(model, {"values": counts, "scores": scores})
    assert int(model.count[1]) == 1, "another stump, and no cut"
    assert told["stages"] == 1


def rings(count: int) -> dict[str, Tensor]:
    """A ring in each image, brighter than its ground or darker."""
    y, x = torch.arange(48)[:, None] + 0.5, torch.arange(48) + 0.5
    images, boxes = [], []
    for _ in range(count):
        side = float(torch.randint(20, 28, ()))
        left, top = (torch.rand(2) * (46 - side) + 1).tolist()
        away = torch.hypot(x - left - side / 2, y - top - side / 2) / (side / 2)
        ring = ((away > 0.55) & (away < 1)).float()
        ground = 0.3 + 0.4 * torch.rand(())
        images.append(
            (ground + (0.3 if torch.rand(()) < 0.5 else -0.3) * ring + 0.03 * torch.randn(48, 48))[None]
        )
        boxes.append([[left, top, left + side, top + side]])
    keys = rowwise.keys(0, 0, torch.arange(count).numpy())
    labels = torch.zeros(count, 1, dtype=torch.int64)
    return {"image": torch.stack(images), "boxes": torch.tensor(boxes), "labels": labels, "key": keys}


@torch.no_grad()
def test_a_cascade_finds_what_it_learnt_and_refuses_most_at_once() -> None:
    workload = workload_of(features=120, stages=4, negatives=10, neighbours=2)
    model, learnt = workload.build(), rings(40)
    for step in range(30):
        learnt["key"] = rowwise.keys(0, step, torch.arange(40).numpy())
        if workload.solve(model, workload.statistics(model, learnt))["stages"] == 4:
            break
    other = rings(30)
    outputs, _ = workload.forward(model, other, None)
    assert isinstance(outputs, Seen)
    figures = workload.summarize({**workload.measure(outputs, other), "rows": torch.tensor(30.0)})
    assert figures["recall"] > 0.85
    assert figures["precision"] > 0.85
    assert figures["depth"] < 0.6
    assert (outputs.visited >= 1).all()
    assert (outputs.visited[outputs.passed] == int(model.done)).all()


def test_a_cascade_without_stages_lets_all_through() -> None:
    model = workload_of().build()
    assert isinstance(model, Cascade)
    seen = model(torch.rand(2, 1, 48, 48))
    assert seen.passed.all()
    assert not seen.visited.any()


def test_neighbours_become_one_detection() -> None:
    workload = workload_of(neighbours=2)
    near = torch.tensor([[10.0, 10, 30, 30], [12, 10, 32, 30], [11, 13, 31, 33], [60, 60, 80, 80]])
    boxes, scores = workload._found(near)
    assert boxes.tolist() == [[11, 11, 31, 31]], "the mean of three; one alone is none"
    assert scores.tolist() == pytest.approx([3 / 13])
