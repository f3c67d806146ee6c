from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from torch.nn import functional as F

from dlsys.spec.rows import Shape
from dlsys.zoo import metrics
from dlsys.zoo.tasks.verify import contrastive, triplet
from dlsys.zoo.vision.facenet.card import FaceNetOptions
from dlsys.zoo.vision.facenet.model import FaceNet

ONE_OF_TWO = torch.tensor([[1.0, 0.0]])


def points(*angles: float) -> torch.Tensor:
    """On the unit circle: (1, points, 2)."""
    angle = torch.tensor(angles, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], dim=1)[None]


def squared(angle: float) -> float:
    return float(2 - 2 * np.cos(angle))


def test_a_triplets_loss_is_what_torch_says() -> None:
    torch.manual_seed(0)
    drawn = F.normalize(torch.randn(50, 3, 8, dtype=torch.float64), dim=-1)
    same = ONE_OF_TWO.expand(50, 2)
    expected = torch.nn.TripletMarginWithDistanceLoss(
        distance_function=lambda a, b: (a - b).square().sum(-1), margin=0.2
    )(*drawn.unbind(1))
    torch.testing.assert_close(triplet(drawn, same, 0.2), expected)
    # Of unit vectors, half of the squared distance is 1 less the cosine.
    cosine = F.cosine_similarity(drawn[:, :1], drawn[:, 1:], dim=-1)
    by_hand = F.relu(2 * (cosine[:, 1] - cosine[:, 0]) + 0.2).mean()
    torch.testing.assert_close(triplet(drawn, same, 0.2), by_hand)


def test_a_triplet_whose_margin_is_met_loses_nothing() -> None:
    met, missed = points(0, 0.1, 1.0), points(0, 0.5, 0.55)
    assert triplet(met, ONE_OF_TWO, 0.2) == 0
    assert float(triplet(missed, ONE_OF_TWO, 0.2)) == pytest.approx(squared(0.5) - squared(0.55) + 0.2)


def test_a_step_down_draws_the_class_nearer_and_pushes_the_other_away() -> None:
    for loss in (lambda e: triplet(e, ONE_OF_TWO, 0.2), lambda e: contrastive(e, ONE_OF_TWO, 1.0)):
        before = points(0, 0.5, 0.55).requires_grad_()
        loss(before).backward()
        assert before.grad is not None
        with torch.no_grad():
            away = [(e[0, 0] - e[0, 1:]).norm(dim=-1) for e in (before, before - 0.01 * before.grad)]
        assert away[1][0] < away[0][0]
        assert away[1][1] > away[0][1]


@pytest.mark.parametrize(
    ("others", "taken"),
    [
        ((0.2, 0.55, 0.9), 0.55),  # the nearest beyond the positive, though 0.2 is harder
        ((0.2, 0.9, 0.51), 0.51),
        ((0.2, 0.4, 0.3), 0.4),  # none beyond: the farthest
    ],
)
def test_the_negative_is_semi_hard(others: tuple[float, ...], taken: float) -> None:
    same = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    drawn = points(0, others[0], 0.5, *others[1:])
    expected = squared(0.5) - squared(taken) + 0.2
    assert float(triplet(drawn, same, 0.2)) == pytest.approx(expected)


def test_a_row_without_both_kinds_loses_nothing_and_spoils_no_gradient() -> None:
    for same in (torch.ones(1, 2), torch.zeros(1, 2)):
        drawn = points(0, 0.5, 0.55).requires_grad_()
        loss = triplet(drawn, same, 0.2)
        loss.backward()
        assert loss == 0
        assert drawn.grad is not None
        assert (drawn.grad == 0).all()


def test_the_contrastive_loss_by_hand() -> None:
    drawn = points(0, 0.5, 0.55)
    lacking = 1.0 - squared(0.55) ** 0.5
    expected = (squared(0.5) + lacking**2) / 4  # half, of two pairs
    assert float(contrastive(drawn, ONE_OF_TWO, 1.0)) == pytest.approx(expected)
    assert contrastive(points(0, 0, 2.0), ONE_OF_TWO, 1.0) == 0
    equal = points(0, 0, 0).requires_grad_()
    contrastive(equal, ONE_OF_TWO, 1.0).backward()
    assert equal.grad is not None
    assert equal.grad.isfinite().all()


def test_rates_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    label = np.arange(4000) % 4 == 0
    score = generator.normal(label * 1.5).clip(-3, 3)
    histogram = metrics.auc_histogram(torch.from_numpy(score), torch.from_numpy(label))
    false, true, _ = roc_curve(label, score, drop_intermediate=False)
    nearest = np.abs(false - (1 - true)).argmin()
    assert metrics.equal_error_rate(histogram) == pytest.approx(
        (false[nearest] + 1 - true[nearest]) / 2, abs=2e-3
    )
    for rate in (0.0, 0.01, 0.2, 1.0):
        assert metrics.accepted_at(histogram, rate) == pytest.approx(true[false <= rate].max(), abs=5e-3)


def test_rates_at_the_ends() -> None:
    def of(*pairs: tuple[float, int]) -> torch.Tensor:
        score, label = zip(*pairs, strict=True)
        return metrics.auc_histogram(torch.tensor(score), torch.tensor(label))

    right, wrong, equal = of((1, 1), (-1, 0)), of((-1, 1), (1, 0)), of((0, 1), (0, 0))
    assert [metrics.equal_error_rate(h) for h in (right, wrong, equal)] == [0, 1, 0.5]
    assert [metrics.accepted_at(h, 0.01) for h in (right, wrong, equal)] == [1, 0, 0]
    assert np.isnan([metrics.equal_error_rate(of((1, 1))), metrics.accepted_at(of((1, 0)), 0.01)]).all()


def workload(others: int) -> FaceNet:
    return FaceNet(FaceNetOptions(), Shape(row={"images": (1 + others, 1, 8, 8), "same": (others,)}))


def summary(outputs: torch.Tensor, same: torch.Tensor) -> dict[str, float]:
    found = workload(same.shape[1])
    sums = found.measure(outputs, {"same": same})
    return found.summarize({**sums, "rows": torch.tensor(float(len(same)))})


def test_one_shot_is_the_share_of_nearest_neighbours() -> None:
    rows = torch.cat([points(0, 0.1, 0.5, 1), points(0, 0.3, 0.2, 1), points(0, 0.1, 2, 0.05)])
    same = torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3)
    assert summary(rows, same)["one_shot"] == pytest.approx(1 / 3)


def test_a_model_of_one_point_is_right_of_nothing() -> None:
    found = summary(torch.ones(7, 4, 2), torch.tensor([[1.0, 0.0, 0.0]]).expand(7, 3))
    assert found == pytest.approx(
        {"loss": 0.2, "auc": 0.5, "equal_error_rate": 0.5, "tar_at_far_0.01": 0, "one_shot": 0}
    )


def test_pairs_ask_for_no_nearest_one() -> None:
    found = summary(torch.cat([points(0, 0.1), points(0, 2)]), torch.tensor([[1.0], [0.0]]))
    assert found == pytest.approx({"loss": 0, "auc": 1, "equal_error_rate": 0, "tar_at_far_0.01": 1})


def test_the_model_itself_turns_images_into_points() -> None:
    points = workload(2).build()(torch.rand(5, 1, 8, 8))
    assert points.shape == (5, 128)
    torch.testing.assert_close(points.norm(dim=-1), torch.ones(5))
