"""What a policy is worth, from episodes that another one recorded.

Importance sampling per decision, and weighted: D. Precup, R. Sutton and S. Singh, "Eligibility traces for
off-policy policy evaluation", 2000; P. Thomas, "Safe reinforcement learning", 2015. Doubly robust: N. Jiang
and L. Li, "Doubly robust off-policy value evaluation for reinforcement learning", 2016, with the values of
fitted Q evaluation: H. Le, C. Voloshin and Y. Yue, "Batch policy learning under constraints", 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlsys.errors import DataError, UsageError
from dlsys.rl import environments
from dlsys.rl.agent import Player, Recurrent
from dlsys.rl.episodes import Recorded, chance, read
from dlsys.rl.observations import NUMBERS
from dlsys.spec.rl.job import Environment
from dlsys.spec.rl.section import Sees

Numbers = NDArray[np.float64]

_RESAMPLES = 500  # of the bootstrap
_INTERVAL = (2.5, 97.5)  # percentiles
_FEATURES = 200  # of the values, besides what is seen
_RIDGE = 1e-3  # for each row
_RECORD = "Record them with random actions: dlsys agents record RUN FILE.parquet --explore-share 0.2"


class Estimate(NamedTuple):
    """A policy's value, and between which bounds 95 % of the bootstrap's lie."""

    value: float
    low: float
    high: float


class Estimates(NamedTuple):
    """By each method."""

    per_decision: Estimate
    weighted: Estimate
    doubly_robust: Estimate
    effective: float
    """How many episodes of the policy itself would say as much: the effective sample size (Kong 1992) of
    the whole episodes' weights."""


def of_agent(
    agent: Player,
    environment: Environment,
    path: Path,
    explore: float,
    *,
    gamma: float,
    seed: int,
    sees: Sees,
) -> tuple[Estimates, float, int]:
    """Those of an agent, from a file of episodes.

    Args:
        agent: acts on what it sees alone.
        environment: where it does.
        path: what `dlsys.rl.episodes.record` wrote.
        explore: the share of random actions that the agent is to take.
        gamma, seed: as of `estimates`.
        sees: what the agent sees, as `environments.make` says.

    Returns:
        The estimates, the mean undiscounted return that was recorded, and of how many episodes.

    Raises:
        UsageError: the agent chooses more than one index, remembers, or sees more than numbers.
        DataError: of `read` and `estimates`.
    """
    env = environments.make(environment, sees=sees, ends=True)
    env.close()  # type: ignore[no-untyped-call]
    if not env.actions.single:
        raise UsageError(f"{environment.name}: estimates need Discrete actions, not {env.actions.space}")
    if isinstance(agent, Recurrent) and agent.memory() is not None:
        raise UsageError("model.memory: estimates are of agents that act on what they see alone")
    if env.seen is not None and list(env.seen.shapes) != [NUMBERS]:
        raise UsageError(
            f"{environment.name}: recorded episodes have numbers alone, not {list(env.seen.shapes)}"
        )
    space, count = env.observation_space, env.actions.counts[0]
    shape = (space.shape or ()) if env.seen is None else env.seen.shapes[NUMBERS]
    steps = read(path, int(np.prod(shape)), env.actions)
    shown = np.array(steps.observations).reshape(-1, *shape)  # networks want what can be written to
    seen = shown.astype(space.dtype) if env.seen is None else {NUMBERS: shown}
    best = agent.act(seen)[:, None] == np.arange(count)
    found = estimates(steps, chance(explore, count, best), gamma=gamma, seed=seed)
    episodes = int(steps.last.sum())
    return found, float(steps.rewards.sum()) / episodes, episodes


def estimates(
    steps: Recorded, chances: Numbers, *, values: Numbers | None = None, gamma: float = 1.0, seed: int = 0
) -> Estimates:
    """The expected discounted return of a policy, up to where recordings end.

    Args:
        steps: N of them, with discrete actions and the chances that these had.
        chances: of every action under the policy, at each step [N, actions].
        values: of every action under the policy [N, actions], if they are known; else they are fitted, for
            each half of the episodes on the other one, so that no episode speaks for itself.
        gamma: the discount.
        seed: of the features, the halves and the bootstrap.

    Raises:
        DataError: the recording does not tell its actions' chances, has one episode alone, or gave no chance
            to what the policy does.
    """
    if steps.logp is None:
        raise DataError(
            "the episodes do not tell how likely their actions were (column action_logp)",
            hint=_RECORD,
        )
    random = np.random.default_rng(seed)
    rows = np.arange(len(chances))
    before, taken = np.exp(steps.logp.astype(np.float64)), chances[rows, steps.actions]
    certain = (before > 1 - 1e-6) & (taken < 1 - 1e-6)
    if certain.any():
        raise DataError(
            f"at {certain.sum()} of {len(rows)} steps the recorded action was certain, and the agent takes "
            "others, of which nothing is known",
            hint=_RECORD,
        )
    ratios = taken / before
    episode: NDArray[np.int64] = np.cumsum(steps.last) - steps.last
    count = int(episode[-1]) + 1
    if count < 2:
        raise DataError("one episode alone says nothing of how sure an estimate is: record more")
    if values is None:
        values = _halves(steps, chances, episode, gamma, random)
    # By episode and step; after an episode's end its weight stays, and there are no rewards.
    time = rows - np.flatnonzero(np.append(True, steps.last[:-1]))[episode]
    shape = (count, int(time.max()) + 1)
    weights, rewards = np.ones(shape), np.zeros(shape)
    weights[episode, time] = ratios
    rewards[episode, time] = gamma**time * steps.rewards
    weights = weights.cumprod(1)
    weighted = weights * rewards
    robust = _robust(steps, ratios, (chances * values).sum(1), values[rows, steps.actions], gamma)

    # Each resample says how often each episode is in it; the first one is the recording itself.
    drawn = random.multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    times = np.concatenate([np.ones((1, count)), drawn])
    total = np.maximum(times @ weights, np.finfo(np.float64).tiny)
    effective = weights[:, -1].sum() ** 2 / max(np.square(weights[:, -1]).sum(), np.finfo(np.float64).tiny)
    return Estimates(
        _interval(times @ weighted.sum(1) / count),
        _interval((times @ weighted / total).sum(1)),
        _interval(times @ robust / count),
        float(effective),
    )


def _interval(found: Numbers) -> Estimate:
    low, high = np.percentile(found[1:], _INTERVAL)
    return Estimate(float(found[0]), float(low), float(high))


def _robust(steps: Recorded, ratios: Numbers, states: Numbers, taken: Numbers, gamma: float) -> Numbers:
    """The doubly robust value of each episode: what its states are worth, and the weighted errors of that."""
    found, later = [], 0.0
    for index in range(len(ratios) - 1, -1, -1):
        later = 0.0 if steps.last[index] else later
        later = states[index] + ratios[index] * (steps.rewards[index] + gamma * later - taken[index])
        if not index or steps.last[index - 1]:
            found.append(later)
    return np.array(found[::-1])


def _halves(
    steps: Recorded, chances: Numbers, episode: NDArray[np.int64], gamma: float, random: np.random.Generator
) -> Numbers:
    """Values of every action [N, actions], from the episodes of the other half."""
    half = random.permutation(episode[-1] + 1)[episode] % 2 == 0
    features = _features(steps.observations, random)
    values = np.zeros_like(chances)
    for own in (half, ~half):
        values[own] = features[own] @ fitted(steps, features, chances, ~own, gamma)
    return values


def _features(seen: NDArray[np.float32], random: np.random.Generator) -> Numbers:
    """Random features of what is seen [N, O]: it, standardized, what ReLUs make of it, and 1; [N, F]."""
    numbers = seen.astype(np.float64)
    numbers = (numbers - numbers.mean(0)) / np.maximum(numbers.std(0), 1e-6)
    directions = random.standard_normal((numbers.shape[1], _FEATURES)) / np.sqrt(numbers.shape[1])
    bent = np.maximum(numbers @ directions + random.uniform(-2, 2, _FEATURES), 0)
    return np.concatenate([np.ones((len(numbers), 1)), numbers, bent], 1)


def fitted(
    steps: Recorded, features: Numbers, chances: Numbers, kept: NDArray[np.bool_], gamma: float
) -> Numbers:
    """The weights of linear values of a policy's actions, by fitted Q evaluation.

    Args:
        steps: whole episodes, N steps.
        features: of what is seen, [N, F].
        chances: of every action under the policy, [N, actions].
        kept: the steps that are learned from, of whole episodes, [N].
        gamma: the discount.

    Returns:
        [F, actions]; that of an action that was never taken is 0.
    """
    here, policy, last = features[kept], chances[kept], steps.last[kept]
    actions, rewards = steps.actions[kept], steps.rewards[kept].astype(np.float64)
    # What least squares make of targets is linear in them, and the same at each pass.
    solvers = []
    for action in range(chances.shape[1]):
        rows = actions == action
        own = here[rows]
        ridge = _RIDGE * max(len(own), 1) * np.eye(here.shape[1])
        solvers.append((rows, np.linalg.solve(own.T @ own + ridge, own.T)))
    ends = np.flatnonzero(last)
    longest = int(np.diff(ends, prepend=-1).max()) if len(ends) else 0
    weights = np.zeros((here.shape[1], chances.shape[1]))
    for _ in range(longest):
        worth = (policy * (here @ weights)).sum(1)
        targets = rewards + gamma * np.where(last, 0.0, np.append(worth[1:], 0.0))
        weights = np.stack([solver @ targets[rows] for rows, solver in solvers], 1)
    return weights
