"""Synthetic clicks with a planted structure that a right model must find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data import rowwise
from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import SyntheticCTR
from dlsys.spec.rows import Shape

# Criteo's layout: 13 counts and 26 categories, and about a quarter of the rows are clicks.
_NUMBERS, _CATEGORIES, _CLICKS = 13, 26, 0.25

# The planted logit: the variance of each of its parts, over many data seeds. They add up to 1.
# Without the categories' own effects, products of two unknowns would give gradient descent
# nothing to start from.
_LINEAR, _EFFECTS, _PAIRS = 0.1, 0.2, 0.7
# The columns that matter, the first ones: column 0 is multiplied with 1, 2 with 3, 4 with 5.
_PAIRED = 6


def ctr(options: SyntheticCTR, folder: Path) -> Splits:  # noqa: ARG001
    """Synthetic clicks in Criteo's layout: nobody clicked on anything.

    Rows are `dense` float32 (13,), log(1 + x) of log-normal counts; `sparse` int64 (26,), each
    drawn with Zipf's law (the commonest is 0); and `label` float32, 1 for a click. A row is a
    click when `planted_logit` plus Gaussian noise is among the largest quarter, so that with
    `noise: 0` a right model is always right. The planted logit is a weighted sum of `dense`, a
    hidden number of each category of the first six columns, and, for most of its variance, the
    products of the hidden numbers in columns 0 and 1, 2 and 3, 4 and 5. No linear model can see
    those; a model of pairs (a factorization machine, DLRM) can. The other columns mean nothing.
    """
    generator = np.random.default_rng(options.data_seed)
    dense = np.log1p(generator.lognormal(size=(options.rows, _NUMBERS))).astype(np.float32)
    # Log-uniform numbers, rounded down, follow Zipf's law: p(k) = log(1 + 1/(k+1)) / log(c+1).
    sparse = np.floor((options.cardinality + 1.0) ** generator.random((options.rows, _CATEGORIES)))
    sparse = (sparse.astype(np.int64) - 1).clip(0, options.cardinality - 1)
    score = planted_logit(dense, sparse, options.data_seed)
    score += options.noise * generator.standard_normal(options.rows)
    label = (score > np.quantile(score, 1 - _CLICKS)).astype(np.float32)
    parts = split_rows(
        options.rows,
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name="synthetic-ctr",
        labels=label,
    )
    shape = Shape(
        row={"dense": (_NUMBERS,), "sparse": (_CATEGORIES,), "label": ()},
        classes=2,
        cardinalities=(options.cardinality,) * _CATEGORIES,
    )
    fields = {"dense": dense, "sparse": sparse, "label": label}
    return tensor_splits({name: torch.from_numpy(array) for name, array in fields.items()}, parts, shape)


def planted_logit(dense: np.ndarray, sparse: np.ndarray, data_seed: int) -> np.ndarray:
    """The noise-free logit of rows of `ctr`: float64, shape (N,).

    No model can rank rows better (Bayes), so its AUC on a split is the best reachable one.

    Args:
        dense: (N, 13).
        sparse: (N, 26).
        data_seed: the source's option.
    """
    weights = np.random.default_rng([data_seed, _NUMBERS]).standard_normal(_NUMBERS)
    # 0.52: the standard deviation of log(1 + x) for a log-normal x.
    linear = dense @ (weights / np.linalg.norm(weights) / 0.52)
    hidden = np.stack([_hidden(sparse[:, column], column, data_seed) for column in range(_PAIRED)], axis=1)
    pairs = hidden[:, 0::2] * hidden[:, 1::2]
    return np.asarray(
        np.sqrt(_LINEAR) * linear
        + np.sqrt(_EFFECTS / _PAIRED) * hidden.sum(1)
        + np.sqrt(_PAIRS / pairs.shape[1]) * pairs.sum(1),
        dtype=np.float64,
    )


def _hidden(categories: np.ndarray, column: int, data_seed: int) -> np.ndarray:
    """A standard normal number of each row's category: (N,).

    Hashed rather than kept in a table, which for ten million categories would be large.
    """
    values, rows = np.unique(categories, return_inverse=True)
    numbers = rowwise.normal(rowwise.keys(data_seed, column, values), 1)
    return np.asarray(numbers[torch.from_numpy(rows), 0])
