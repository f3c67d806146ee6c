"""Gaussian process with expected improvement (Snoek et al. 2012, "Practical Bayesian Optimization of
Machine Learning Algorithms").

The kernel is Matérn 5/2 with a length scale for each dimension of the unit cube of `space.to_cube`, and
white noise. A choice is one-hot there; what belongs to an option that is not taken stands at 1/2.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import ndtr
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from threadpoolctl import threadpool_limits

from dlsys.spec.sweep import space
from dlsys.spec.sweep.sweep import GP, Sweep
from dlsys.tune.learner import Learner
from dlsys.tune.searcher import Point, Settings

Array = npt.NDArray[np.float64]

_DRAWN = 256  # points of the cube that are drawn at random
_BEST = 8  # of which so many are improved
_ROUNDS = 5
_NEIGHBOURS = 8  # that are drawn for each of these in a round
_FIT_STEPS = 20


class GPSearcher(Learner):
    """GP. Running trials count as what the model expects of them (the kriging believer)."""

    def __init__(self, sweep: Sweep, options: GP) -> None:
        super().__init__(sweep, options.startup)
        self._xi = options.xi
        widths = [space.width(part) for part in self.tree.values()]
        # Which key of the space each dimension belongs to.
        self._keys = np.repeat(np.arange(len(widths)), widths)

    def _choose(self, trial: int, seen: list[tuple[Point, float]], pending: list[Point]) -> Settings:
        # One thread: the others are the trials', and sums in another order would round otherwise.
        with threadpool_limits(1):
            return self._improved(trial, seen, pending)

    def _improved(self, trial: int, seen: list[tuple[Point, float]], pending: list[Point]) -> Settings:
        rng = np.random.default_rng([self.sweep.seed, trial])
        points, scores = map(np.array, zip(*seen, strict=True))
        model = _Model(points, _standard(scores))
        if pending:
            model.believe(np.array(pending))
        tried = set(self._points.values())

        def gain(points: Array) -> Array:
            """Expected improvement; less than nothing where a trial of this sweep has been."""
            known = np.array([tuple(point) in tried for point in points])
            return np.where(known, -1.0, model.improvement(points, self._xi))

        drawn = self._settled(rng.random((_DRAWN, len(self._keys))))
        points, gains = drawn, gain(drawn)
        for round in range(_ROUNDS):
            best = np.argsort(-gains, kind="stable")[:_BEST]
            points, gains = points[best], gains[best]
            near = self._settled(self._neighbours(points, drawn, 0.2 * 0.5**round, rng))
            points, gains = np.concatenate([points, near]), np.concatenate([gains, gain(near)])
        return space.from_cube(self.tree, points[np.argmax(gains)].tolist())

    def _neighbours(self, points: Array, others: Array, scale: float, rng: np.random.Generator) -> Array:
        """Points a little off; now and then with a key's part of another point, for options to change."""
        points = np.repeat(points, _NEIGHBOURS, axis=0)
        moved = np.clip(points + rng.normal(0, scale, points.shape), 0, 1)
        taken = rng.random((len(points), self._keys[-1] + 1)) < 0.5 / (self._keys[-1] + 1)
        return np.where(taken[:, self._keys], others[rng.integers(len(others), size=len(points))], moved)

    def _settled(self, points: Array) -> Array:
        """The points of the settings that points stand for: steps and options take the nearest."""
        return np.array([self._point(space.from_cube(self.tree, point)) for point in points.tolist()])


def _standard(scores: Array) -> Array:
    """Scores of mean 0 and deviation 1.

    None is farther below the median than the best is above it: how bad the bad ones are matters less
    than how the good ones differ, and one that diverged must not make all others look alike.
    """
    median, best = np.median(scores), scores.max()
    if best > median:
        scores = np.maximum(scores, 2 * median - best)
    standard: Array = (scores - scores.mean()) / (scores.std() or 1.0)
    return standard


class _Model:
    """The posterior over scores.

    Args:
        points: of trials, one each row.
        scores: theirs, standardised.
    """

    def __init__(self, points: Array, scores: Array) -> None:
        width = points.shape[1]
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(
            np.full(width, 0.5), (1e-2, 1e2), nu=2.5
        ) + WhiteKernel(1e-2, (1e-6, 1.0))
        # The logarithms of amplitude, length scales and noise are taken to be normal: few trials do not
        # tell them all.
        self._usual = np.log([1.0, *np.full(width, 0.5), 1e-2])
        self._spread = np.array([1.0, *np.full(width, 1.0), 2.0])
        self._fit(points, scores, kernel, self._most_probable)

    def _fit(self, points: Array, scores: Array, kernel: Any, optimizer: Any) -> None:
        self._points, self._scores = points, scores
        self._process = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(points, scores)
        # Of what the model expects there, for the largest of noisy scores is luck.
        self._best = float(self._process.predict(points).max())

    def _most_probable(self, likelihood: Any, theta: Array, bounds: Array) -> tuple[Array, float]:
        def cost(theta: Array) -> tuple[float, Array]:
            value, slope = likelihood(theta)
            off = (theta - self._usual) / self._spread
            return value + 0.5 * float(off @ off), slope + off / self._spread

        found = minimize(
            cost, theta, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _FIT_STEPS}
        )
        return found.x, found.fun

    def believe(self, points: Array) -> None:
        """Takes what it expects at points for scores."""
        scores = self._process.predict(points)
        joined = np.concatenate([self._points, points]), np.concatenate([self._scores, scores])
        self._fit(*joined, self._process.kernel_, None)

    def improvement(self, points: Array, xi: float) -> Array:
        """Expected improvement on the best, as far as it is larger than xi."""
        mean, deviation = self._process.predict(points, return_std=True)
        noise = self._process.kernel_.k2.noise_level
        deviation = np.sqrt(np.maximum(deviation**2 - noise, 1e-12))
        by = mean - self._best - xi
        z = by / deviation
        expected: Array = by * ndtr(z) + deviation * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        return expected
