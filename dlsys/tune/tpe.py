"""Tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization").

Optuna's sampler, in its multivariate form (Falkner et al. 2018) and group by group: parameters that
are drawn together, such as those of one option, have one joint density. A fresh sampler, which knows
nothing but what was told, makes each proposal.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from dlsys.spec.sweep import space
from dlsys.spec.sweep.entries import Choice, Range
from dlsys.spec.sweep.sweep import TPE, Sweep
from dlsys.tune.learner import Learner
from dlsys.tune.searcher import Point, Settings

# How often it looks for settings that were not tried yet, in a space that has few.
_ATTEMPTS = 4


class TPESearcher(Learner):
    """TPE. Running trials count as bad ones, so that it stays away from them (the constant liar)."""

    def __init__(self, sweep: Sweep, options: TPE) -> None:
        super().__init__(sweep, options.startup)
        self._candidates = options.candidates
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def _choose(self, trial: int, seen: list[tuple[Point, float]], pending: list[Point]) -> Settings:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=1,
                n_ei_candidates=self._candidates,
                multivariate=True,
                group=True,
                constant_liar=True,
                seed=random.Random(f"{self.sweep.seed}/{trial}/tpe").getrandbits(32),
            )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials([self._frozen(point, score) for point, score in seen])
        study.add_trials([self._frozen(point, None) for point in pending])
        tried = set(self._points.values())
        for _ in range(_ATTEMPTS):
            # Each attempt is one more running trial, from which the next stays away.
            settings = space.from_cube(self.tree, list(_asked(self.tree, "", study.ask())))
            if self._point(settings) not in tried:
                return settings
        return settings  # which a trial has had; another is drawn in its place

    def _frozen(self, point: Point, score: float | None) -> FrozenTrial:
        """A trial as Optuna keeps it; one without a score is running."""
        told = list(_told(self.tree, "", iter(point)))
        return create_trial(
            state=TrialState.RUNNING if score is None else TrialState.COMPLETE,
            value=score,
            params={name: value for name, _, value in told},
            distributions={name: kind for name, kind, _ in told},
        )


def _kind(entry: Range | Choice) -> BaseDistribution:
    """A range is its place in the unit interval, or the number of its value; a choice is its option's."""
    if isinstance(entry, Choice):
        return CategoricalDistribution(range(len(entry.choice)))
    return FloatDistribution(0, 1) if entry.size is None else IntDistribution(0, entry.size - 1)


def _parts(tree: space.Node, name: str) -> Iterator[tuple[space.Node, str]]:
    """The parts of a plain part of the tree, each with its name: its path in numbers."""
    parts = tree.values() if isinstance(tree, Mapping) else tree if isinstance(tree, list) else ()
    for index, part in enumerate(parts):
        yield part, f"{name}/{index}"


def _asked(tree: space.Node, name: str, trial: Trial) -> Iterator[float]:
    """A point of the unit cube, drawn by Optuna."""
    if isinstance(tree, Range):
        if tree.size is None:
            yield trial.suggest_float(name, 0, 1)
        else:
            yield (trial.suggest_int(name, 0, tree.size - 1) + 0.5) / tree.size
    elif isinstance(tree, Choice):
        chosen = trial.suggest_categorical(name, range(len(tree.choice)))
        yield from (float(i == chosen) for i in range(len(tree.choice)))
        for i, option in enumerate(tree.choice):
            if i == chosen:
                yield from _asked(option, f"{name}/{i}", trial)
            else:
                yield from [0.5] * space.width(option)
    for part, path in _parts(tree, name):
        yield from _asked(part, path, trial)


def _told(
    tree: space.Node, name: str, numbers: Iterator[float]
) -> Iterator[tuple[str, BaseDistribution, Any]]:
    """The parameters at a point of the unit cube, as (name, distribution, value)."""
    if isinstance(tree, Range):
        number = next(numbers)
        yield name, _kind(tree), number if tree.size is None else int(number * tree.size)
    elif isinstance(tree, Choice):
        votes = list(islice(numbers, len(tree.choice)))
        chosen = votes.index(max(votes))
        yield name, _kind(tree), chosen
        for i, option in enumerate(tree.choice):
            inside = list(_told(option, f"{name}/{i}", numbers))
            yield from inside if i == chosen else []
    for part, path in _parts(tree, name):
        yield from _told(part, path, numbers)
