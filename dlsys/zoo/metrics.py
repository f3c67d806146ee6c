"""Metrics as sums: what batches and workers add up, and the figure that the sums give."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

AUC_BINS = 8192


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many rows have their largest logit at their label.

    Args:
        logits: shape (rows, classes).
        labels: int64, shape (rows,).
    """
    return (logits.argmax(-1) == labels).sum().to(torch.float64)


def auc_histogram(logits: Tensor, labels: Tensor) -> Tensor:
    """Counts of negatives and positives by score: float64, shape (2, AUC_BINS).

    The bins are even in x / (1 + |x|) of the logit x. A sigmoid would put all scores beyond
    ±9 into one bin; this map still tells 20 from 21. A bin at x is (1 + |x|)² / 4096 wide:
    scores that differ by less than a few of these (a nearly constant model far from 0) are ties.

    Args:
        logits: shape (rows,).
        labels: 0 or 1, shape (rows,).
    """
    place = (F.softsign(logits.detach().double()) + 1) / 2 * AUC_BINS
    bins = place.long().clamp(0, AUC_BINS - 1) + AUC_BINS * labels.long()
    return torch.bincount(bins, minlength=2 * AUC_BINS).to(torch.float64).view(2, AUC_BINS)


def auc(histogram: Tensor) -> float:
    """Area under the ROC curve from the sum of histograms; NaN where a class is missing.

    A pair within one bin counts one half, so the error is at most half of the share of pairs
    (one positive, one negative) that share a bin.
    """
    negatives, positives = histogram
    below = negatives.cumsum(0) - negatives
    wins = (positives * (below + negatives / 2)).sum()
    return float(wins / (negatives.sum() * positives.sum()))


def equal_error_rate(histogram: Tensor) -> float:
    """The share of positives refused where as great a share of negatives is accepted; NaN where a class is
    missing.

    Args:
        histogram: a sum of `auc_histogram`'s. Between two of its bins rates change evenly.
    """
    accepted_negatives, accepted_positives = _accepted(histogram)
    above = accepted_negatives + accepted_positives - 1  # of accepted over refused errors; rises
    if above.isnan().any():
        return float("nan")
    place = int((above >= 0).nonzero()[0])
    if place == 0 or above[place] == 0:
        return float(accepted_negatives[place])
    share = -above[place - 1] / (above[place] - above[place - 1])
    return float(torch.lerp(accepted_negatives[place - 1], accepted_negatives[place], share))


def accepted_at(histogram: Tensor, rate: float) -> float:
    """The share of positives accepted by a threshold that accepts at most `rate` of the negatives; NaN where
    a class is missing.

    Args:
        histogram: a sum of `auc_histogram`'s, between whose bins thresholds lie.
        rate: 0 to 1.
    """
    accepted_negatives, accepted_positives = _accepted(histogram)
    if accepted_negatives.isnan().any() or accepted_positives.isnan().any():
        return float("nan")
    return float(accepted_positives[accepted_negatives <= rate].max())


def _accepted(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of negatives and of positives above each threshold, from the highest to the lowest."""
    counts = torch.cat([histogram.new_zeros(2, 1), histogram.flip(1)], dim=1).cumsum(1)
    negatives, positives = counts / counts[:, -1:]
    return negatives, positives
