"""Workloads that learn from sums over rows, held against scikit-learn and values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Reference
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from torch import Tensor, nn

from dlsys.data import rowwise
from dlsys.errors import DataError
from dlsys.spec.rows import Shape
from dlsys.zoo.foundation.k_means.model import Means, _candidates
from dlsys.zoo.load import load_workload
from dlsys.zoo.solved import Solved
from dlsys.zoo.tasks.cluster import adjusted_rand, normalized_information

pytestmark = pytest.mark.usefixtures("seeded")


def workload_of(name: str, numbers: int, classes: int = 0, **options: Any) -> Solved:
    row: dict[str, tuple[int, ...]] = {"features": (numbers,)}
    found = load_workload(name, options, Shape(row=row | ({"label": ()} if classes else {}), classes=classes))
    assert isinstance(found, Solved)
    return found


def rows_of(features: Tensor, label: Tensor | None = None, epoch: int = 0) -> dict[str, Tensor]:
    keys = rowwise.keys(0, epoch, np.arange(len(features)))
    return {"features": features, "key": keys} | ({} if label is None else {"label": label})


@torch.no_grad()
def step(workload: Solved, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, float]:
    return dict(workload.solve(model, workload.statistics(model, batch)))


def groups(rows: int, numbers: int, count: int) -> Tensor:
    centres = 6 * torch.randn(count, numbers)
    return centres[torch.arange(rows) % count] + torch.randn(rows, numbers)


def test_means_move_as_scikit_learns_do() -> None:
    rows = groups(300, 3, 5)
    workload = workload_of("k-means", 3, clusters=5)
    model = workload.build()
    assert isinstance(model, Means)
    for epoch in range(5):
        step(workload, model, rows_of(rows, epoch=epoch))
    begin = model.means[0].clone()
    assert len(begin.unique(dim=0)) == 5
    assert all((rows == mean).all(1).any() for mean in begin), "means begin at rows"
    moved = [step(workload, model, rows_of(rows))["moved"] for _ in range(50)]
    assert moved[0] > 0.1
    assert moved[-1] == pytest.approx(0, abs=1e-6)
    theirs = Reference(5, init=begin.numpy(), n_init=1, tol=0, max_iter=300).fit(rows.numpy())
    torch.testing.assert_close(
        model.means[0], torch.from_numpy(theirs.cluster_centers_), rtol=1e-5, atol=1e-5
    )
    outputs, _ = workload.forward(model, rows_of(rows), None)
    assert float(workload.objective(outputs, {}).value) * 300 == pytest.approx(theirs.inertia_, rel=1e-5)
    assert (outputs.argmin(1).numpy() == theirs.labels_).all()


def test_the_best_of_several_starts_is_taken() -> None:
    rows = groups(300, 2, 12)
    workload = workload_of("k-means", 2, clusters=12, starts=6)
    model = workload.build()
    for epoch in range(40):
        step(workload, model, rows_of(rows, epoch=epoch))
    assert isinstance(model, Means)
    of_each = model.of_all_starts(rows).min(2).values.sum(0)
    assert len(of_each.round(decimals=2).unique()) > 1, "starts end at several places"
    assert int(model.best) == int(of_each.argmin())
    torch.testing.assert_close(model(rows).min(1).values.sum(), of_each.min())


def test_a_mean_of_mini_batches_is_that_of_all_rows_it_got() -> None:
    workload = workload_of("k-means", 1, clusters=2, update="mini-batch")
    model = workload.build()
    assert isinstance(model, Means)
    model.chosen.fill_(2)
    model.means.copy_(torch.tensor([[[0.0], [10.0]]]))
    for batch in ([[1.0], [2.0], [9.0]], [[3.0], [11.0]], [[10.0]]):
        step(workload, model, rows_of(torch.tensor(batch)))
    # 1, 2 and 3 came to the first mean, 9, 11 and 10 to the second: where they began counts for nothing.
    torch.testing.assert_close(model.means[0], torch.tensor([[2.0], [10.0]]))
    assert model.rows.tolist() == [[3.0, 3.0]]


def test_a_mean_without_rows_stays() -> None:
    workload = workload_of("k-means", 1, clusters=2)
    model = workload.build()
    assert isinstance(model, Means)
    model.chosen.fill_(2)
    model.means.copy_(torch.tensor([[[0.0], [100.0]]]))
    step(workload, model, rows_of(torch.tensor([[1.0], [3.0]])))
    assert model.means.flatten().tolist() == [2.0, 100.0]


def test_numbers_far_from_zero_lose_no_digits() -> None:
    """|x|² − 2x·m + |m|² of numbers around 1e4 would be wrong by more than these distances."""
    workload = workload_of("k-means", 2, clusters=2)
    model = workload.build()
    assert isinstance(model, Means)
    model.chosen.fill_(2)
    model.means.copy_(torch.tensor([[[1e4, 1e4], [1e4 + 2, 1e4]]]))
    found = model(torch.tensor([[1e4 + 1, 1e4 + 1], [1e4, 1e4]]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 2.0], [0.0, 4.0]]))


def test_a_race_is_won_in_proportion_to_the_weights() -> None:
    weights = torch.tensor([[1.0], [3.0], [0.0], [6.0]])
    rows = torch.arange(4.0)[:, None]
    wins = torch.zeros(4)
    for epoch in range(2000):
        winner = _candidates(rows, rowwise.keys(0, epoch, np.arange(4)), weights)
        wins[int(winner[0, 0, 1])] += 1
    torch.testing.assert_close(wins / 2000, torch.tensor([0.1, 0.3, 0.0, 0.6]), atol=0.03, rtol=0)


@pytest.mark.parametrize("shape", [(5, 3), (1, 4), (4, 1), (1, 1), (6, 6)])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_agreement_is_scikit_learns(shape: tuple[int, int], rows: int) -> None:
    clusters, classes = (torch.randint(most, (rows,)) for most in shape)
    together = torch.zeros(*shape, dtype=torch.float64)
    together.index_put_((clusters, classes), torch.ones(rows, dtype=torch.float64), accumulate=True)
    theirs = adjusted_rand_score(classes, clusters)
    assert adjusted_rand(together) == pytest.approx(theirs, abs=1e-12)
    theirs = normalized_mutual_info_score(classes, clusters)
    assert normalized_information(together) == pytest.approx(theirs, abs=1e-9)


REFERENCES = {
    "gaussian": lambda: GaussianNB(),
    "bernoulli": lambda: BernoulliNB(alpha=0.7, binarize=0.5),
    "multinomial": lambda: MultinomialNB(alpha=0.7),
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_posteriors_are_scikit_learns(kind: str) -> None:
    label = torch.arange(90) % 3
    rows = (torch.randn(90, 6, dtype=torch.float64) + label[:, None]).abs()
    workload = workload_of("naive-bayes", 6, 3, kind=kind, smoothing=0.7)
    model = workload.build()
    for part in (slice(0, 50), slice(50, 90)):
        step(workload, model, rows_of(rows[part], label[part]))
    theirs = REFERENCES[kind]().fit(rows.numpy(), label.numpy()).predict_log_proba(rows.numpy())
    ours = model(rows).log_softmax(1)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-9, atol=1e-9)


def test_the_posterior_of_a_table_worked_out_by_hand() -> None:
    """Of 4 mails that are spam, 3 say "free"; of 6 that are not, 1 does. P(spam | free) = 3/4."""
    free = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0, 0, 0.0])[:, None]
    spam = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    workload = workload_of("naive-bayes", 1, 2, kind="bernoulli", smoothing=0)
    model = workload.build()
    step(workload, model, rows_of(free, spam))
    posterior = model(torch.tensor([[1.0], [0.0]])).softmax(1)[:, 1]
    torch.testing.assert_close(posterior, torch.tensor([3 / 4, 1 / 6]))


def test_a_class_without_rows_is_next_to_impossible() -> None:
    workload = workload_of("naive-bayes", 2, 3)
    model = workload.build()
    step(workload, model, rows_of(torch.randn(20, 2), torch.arange(20) % 2))
    logits = model(torch.randn(5, 2))
    assert logits.isfinite().all()
    assert (logits.softmax(1)[:, 2] < 1e-30).all()


def test_counts_are_not_negative() -> None:
    workload = workload_of("naive-bayes", 2, 2, kind="multinomial")
    with pytest.raises(DataError, match="multinomial counts what occurs, and a row has -1"):
        step(workload, workload.build(), rows_of(torch.tensor([[1.0, -1.0]]), torch.tensor([0])))
