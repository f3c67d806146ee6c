"""A continuous environment as an MDP on a grid: Munos and Moore 2002, Variable Resolution Discretization.

https://doi.org/10.1023/A:1017992615625
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import gymnasium
import numpy as np

from dlsys.errors import UsageError
from dlsys.rl.tabular.mdp import MDP, Env, empty, name_of

RESETS = 100


@dataclass(frozen=True, eq=False)
class Grid:
    """Points in a box of D dimensions, in C order.

    Attributes:
        axes: the rising coordinates of the points along each dimension.
    """

    axes: tuple[np.ndarray, ...]

    def points(self) -> np.ndarray:
        """All points, [N, D]."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1).reshape(-1, len(self.axes))

    def corners(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points around each place, and their weights in multilinear interpolation.

        Args:
            places: [M, D]; those outside the box count as on its border.

        Returns:
            The points' indices and weights, both [M, 2^D]. Weights are not negative and sum to 1.
        """
        below, share = [], []
        for axis, x in zip(self.axes, places.T, strict=True):
            x = np.clip(x, axis[0], axis[-1])
            i = np.clip(np.searchsorted(axis, x, side="right") - 1, 0, len(axis) - 2)
            below.append(i)
            share.append((x - axis[i]) / (axis[i + 1] - axis[i]))
        shape = tuple(map(len, self.axes))
        indices, weights = [], []
        for corner in product((0, 1), repeat=len(self.axes)):
            indices.append(np.ravel_multi_index([i + c for i, c in zip(below, corner, strict=True)], shape))
            weights.append(np.prod([s if c else 1 - s for s, c in zip(share, corner, strict=True)], axis=0))
        return np.stack(indices, axis=1), np.stack(weights, axis=1)


def discretise(env: Env, bins: int, gamma: float, *, seed: int = 0) -> tuple[MDP, Grid]:
    """Steps the environment once from every grid point with every action.

    A step that ends between grid points leads to the corners around it, with the weights of
    interpolation as probabilities: value iteration then interpolates V, and stays a contraction. The
    last state stands for every end of an episode.

    Args:
        env: bounded observations, discrete actions from 0, and its observation as `env.unwrapped.state`,
            which may be set. MountainCar-v0 is one.
        bins: grid points along each dimension.
        gamma: the discount.
        seed: of the resets that tell where episodes begin.

    Raises:
        UsageError: the environment is none of this kind, or the table is too large.
    """
    box, choices = env.observation_space, env.action_space
    inner: Any = env.unwrapped
    starts = np.array([env.reset(seed=seed + i)[0] for i in range(RESETS)])
    fits = isinstance(box, gymnasium.spaces.Box) and len(box.shape) == 1 and box.is_bounded()
    same = np.array_equal(np.asarray(getattr(inner, "state", None), dtype=box.dtype), starts[-1])
    if not (fits and same and isinstance(choices, gymnasium.spaces.Discrete) and choices.start == 0):
        raise UsageError(
            f"{name_of(env)}: cannot be put on a grid: that needs bounded observations, discrete actions and "
            f"a state that can be set, as in MountainCar-v0, but got {box} and {choices}"
        )
    assert isinstance(box, gymnasium.spaces.Box)
    assert isinstance(choices, gymnasium.spaces.Discrete)
    limits = zip(box.low.tolist(), box.high.tolist(), strict=True)
    grid = Grid(tuple(np.linspace(low, high, bins) for low, high in limits))
    states, actions = bins ** len(grid.axes) + 1, int(choices.n)
    first = int(getattr(inner.action_space, "start", 0))
    transitions = empty(states, actions)
    rewards = np.zeros((states, actions))
    start = np.zeros(states)
    np.add.at(start, grid.corners(starts)[0], grid.corners(starts)[1] / RESETS)
    points = grid.points()
    for action in range(actions):
        places = np.empty_like(points)
        ended = np.zeros(states - 1, dtype=bool)
        for index, point in enumerate(points):
            inner.state = tuple(point)
            places[index], reward, ended[index], _, _ = inner.step(action + first)
            rewards[index, action] = reward
        targets, weights = grid.corners(places)
        transitions[np.flatnonzero(~ended)[:, None], action, targets[~ended]] = weights[~ended]
        transitions[np.flatnonzero(ended), action, -1] = 1
    transitions[-1, :, -1] = 1
    mdp = MDP(
        states=(*(str(tuple(np.round(point, 6).tolist())) for point in points), "end"),
        actions=tuple(map(str, range(actions))),
        transitions=transitions,
        rewards=rewards,
        terminal=np.arange(states) == states - 1,
        start=start,
        gamma=gamma,
    )
    return mdp, grid
