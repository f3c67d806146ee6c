"""Synthetic rows with a planted structure that a right model must find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dlsys.data import rowwise
from dlsys.data.dataset import Splits
from dlsys.data.split import split_rows, tensor_splits
from dlsys.spec.data import GaussianRing, SyntheticCTR
from dlsys.zoo.card import Shape

# Criteo's layout: 13 counts and 26 categories, and about a quarter of the rows are clicks.
_NUMBERS, _CATEGORIES, _CLICKS = 13, 26, 0.25

# The planted logit: the variance of each of its parts. They add up to 1.
_LINEAR, _EFFECTS, _PAIRS = 0.15, 0.15, 0.7
# The columns whose hidden vectors are multiplied, each with its neighbour, and their length.
_PAIRED, _LENGTH = 4, 2


def ctr(options: SyntheticCTR, folder: Path) -> Splits:
    """Synthetic clicks in Criteo's layout: nobody clicked on anything.

    Rows are `dense` float32 (13,), log(1 + x) of log-normal counts; `sparse` int64 (26,), each
    drawn with Zipf's law (the commonest is 0); and `label` float32, 1 for a click. A row is a
    click when `planted_logit` plus Gaussian noise is among the largest quarter, so that with
    `noise: 0` a right model is always right. Most of the logit is products of hidden vectors of
    two categories, which no linear model can see and a model of pairs (a factorization machine,
    DLRM) can.
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
    effects = sum(_hidden(sparse, column, 1, data_seed, kind=0)[:, 0] for column in range(_CATEGORIES))
    vectors = [_hidden(sparse, column, _LENGTH, data_seed, kind=1) for column in range(_PAIRED)]
    pairs = [(vectors[i] * vectors[i + 1]).sum(1) for i in range(0, _PAIRED, 2)]
    logit = (
        np.sqrt(_LINEAR) * linear
        + np.sqrt(_EFFECTS / _CATEGORIES) * effects
        + np.sqrt(_PAIRS / (len(pairs) * _LENGTH)) * sum(pairs)
    )
    return np.asarray(logit, dtype=np.float64)


def _hidden(sparse: np.ndarray, column: int, length: int, data_seed: int, *, kind: int) -> np.ndarray:
    """A standard normal vector of each row's category: (N, length).

    Hashed rather than kept in a table, which ten million categories would make gigabytes.
    """
    values, rows = np.unique(sparse[:, column], return_inverse=True)
    keys = rowwise.keys(data_seed, 2 * column + kind, values)
    return rowwise.normal(keys, length).numpy()[rows]


def gaussian_ring(options: GaussianRing, folder: Path) -> Splits:
    """Synthetic points in the plane: equal Gaussians at equal angles on a circle, the first at
    angle 0. Rows are `point` float32 (2,)."""
    generator = np.random.default_rng(options.data_seed)
    angle = 2 * np.pi * generator.integers(options.modes, size=options.rows) / options.modes
    centre = options.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    point = centre + options.sigma * generator.standard_normal((options.rows, 2))
    parts = split_rows(
        options.rows, valid=options.valid, test=options.test, seed=options.split_seed, name="gaussian-ring"
    )
    return tensor_splits({"point": torch.from_numpy(point).float()}, parts, Shape(row={"point": (2,)}))
