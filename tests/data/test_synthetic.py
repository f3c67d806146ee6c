from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from dlsys.data import Dataset, Splits
from dlsys.data.clicks.synthetic_ctr import ctr, planted_logit
from dlsys.data.points.gaussian_ring import gaussian_ring
from dlsys.errors import DataError
from dlsys.spec.data import GaussianRing, SyntheticCTR
from dlsys.zoo.recommend.dlrm.card import DLRMOptions
from dlsys.zoo.recommend.dlrm.model import DLRM


def clicks(**options: object) -> Splits:
    return ctr(SyntheticCTR(source="synthetic-ctr", **options), Path())


def everything(part: Dataset) -> dict[str, torch.Tensor]:
    return part.batch(np.arange(len(part)))


def best_auc(batch: dict[str, torch.Tensor], data_seed: int = 0) -> float:
    logit = planted_logit(batch["dense"].numpy(), batch["sparse"].numpy(), data_seed)
    return float(roc_auc_score(batch["label"], logit))


def linear_auc(train: dict[str, torch.Tensor], valid: dict[str, torch.Tensor]) -> float:
    encoder = OneHotEncoder(handle_unknown="ignore").fit(train["sparse"])

    def features(batch: dict[str, torch.Tensor]) -> csr_matrix:
        return hstack([batch["dense"].numpy(), encoder.transform(batch["sparse"])]).tocsr()

    model = LogisticRegression(C=0.1, max_iter=200).fit(features(train), train["label"])
    return float(roc_auc_score(valid["label"], model.decision_function(features(valid))))


def pairwise_auc(splits: Splits) -> float:
    """DLRM's after two epochs; it overfits later."""
    torch.manual_seed(0)
    train, valid = everything(splits.train), everything(splits.valid)
    workload = DLRM(DLRMOptions(), splits.shape)
    model = workload.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        for rows in torch.randperm(len(train["label"])).split(256):
            batch = {name: tensor[rows] for name, tensor in train.items()}
            loss = workload.objective(workload.forward(model, batch, None)[0], batch).value
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float(roc_auc_score(valid["label"], workload.forward(model, valid, None)[0]))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors on several threads are many times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_pairs_must_be_seen() -> None:
    splits = clicks()
    train, valid = everything(splits.train), everything(splits.valid)
    linear, pairwise, best = linear_auc(train, valid), pairwise_auc(splits), best_auc(valid)
    print(f"AUC: linear {linear:.3f}, DLRM {pairwise:.3f}, best reachable {best:.3f}")
    assert best > 0.9
    assert pairwise > 0.82
    assert linear < 0.77
    assert pairwise < best


def test_without_noise_the_planted_logit_is_always_right() -> None:
    assert best_auc(everything(clicks(rows=3000, noise=0.0, valid=0.5).valid)) == 1.0
    assert best_auc(everything(clicks(rows=3000, noise=3.0, valid=0.5).valid)) < 0.75


def test_a_quarter_are_clicks_in_every_split() -> None:
    splits = clicks(rows=4000)
    for part in (splits.train, splits.valid, splits.test):
        assert abs(float(everything(part)["label"].mean()) - 0.25) < 0.006


def test_categories_follow_zipfs_law() -> None:
    sparse = everything(clicks(cardinality=1000).train)["sparse"]
    share = torch.bincount(sparse.flatten(), minlength=1000) / sparse.numel()
    expected = torch.log1p(1 / torch.arange(1, 1001)) / np.log(1001)
    assert (share[:20] / expected[:20] - 1).abs().max() < 0.05
    assert (share > 0).all()


def test_ten_million_categories_fit() -> None:
    sparse = everything(clicks(rows=200, cardinality=10_000_000).train)["sparse"]
    assert 1_000_000 < sparse.max() < 10_000_000


@pytest.mark.parametrize("seed", [1, 2])
def test_data_seed_makes_another_set_of_the_same_kind(seed: int) -> None:
    first, second = (everything(clicks(rows=2000, valid=0.5, data_seed=s).valid) for s in (0, seed))
    assert not torch.equal(first["dense"], second["dense"])
    assert best_auc(second, seed) > 0.88
    assert best_auc(second, seed + 5) < 0.8


def test_gaussian_ring() -> None:
    options = GaussianRing(source="gaussian-ring", rows=8000, modes=5, radius=3.0, sigma=0.05)
    point = everything(gaussian_ring(options, Path()).train)["point"].double()
    angle = torch.atan2(point[:, 1], point[:, 0]) / (2 * torch.pi) * 5
    mode = angle.round()
    assert ((mode % 5).long().bincount() / len(point) - 0.2).abs().max() < 0.03
    centre = 3 * torch.stack([torch.cos(mode * 2 * torch.pi / 5), torch.sin(mode * 2 * torch.pi / 5)], 1)
    assert abs(float((point - centre).std()) - 0.05) < 0.002


def test_too_few_rows() -> None:
    with pytest.raises(DataError, match=r"^synthetic-ctr: 2 rows are too few: 1 for validation and 1"):
        clicks(rows=2)
