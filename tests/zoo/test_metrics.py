from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from dlsys.zoo.metrics import auc, auc_histogram, correct


@pytest.mark.parametrize(
    ("scale", "shift"),
    [(0.01, 0.0), (0.1, -3.0), (0.1, -8.0), (1.0, -8.0), (1.0, 0.0), (1.0, 3.0), (30.0, 0.0), (30.0, -8.0)],
)
@pytest.mark.parametrize("separation", [0.0, 1.0, 3.0])
def test_auc_is_near_the_exact_one(scale: float, shift: float, separation: float) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = (torch.rand(5000, generator=generator) < 0.2).float()
    logits = scale * (torch.randn(5000, generator=generator) + separation * labels) + shift
    found = auc(auc_histogram(logits, labels))
    assert abs(found - roc_auc_score(labels, logits)) < 1e-3


def test_histograms_of_parts_add_up() -> None:
    logits, labels = torch.randn(100), torch.arange(100) % 3 == 0
    whole = auc_histogram(logits, labels)
    parts = auc_histogram(logits[:31], labels[:31]) + auc_histogram(logits[31:], labels[31:])
    assert torch.equal(whole, parts)
    assert whole.sum() == 100


def test_ties_count_one_half_and_a_missing_class_gives_nan() -> None:
    assert auc(auc_histogram(torch.zeros(4), torch.tensor([0.0, 1.0, 0.0, 1.0]))) == 0.5
    assert math.isnan(auc(auc_histogram(torch.randn(4), torch.ones(4))))


def test_infinite_logits_have_a_bin() -> None:
    logits = torch.tensor([-1e30, 1e30, -5.0, 5.0])
    assert auc(auc_histogram(logits, torch.tensor([0.0, 1.0, 0.0, 1.0]))) == 1.0


def test_correct_counts_rows() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 4.0]])
    assert correct(logits, torch.tensor([0, 1, 1])) == 2
