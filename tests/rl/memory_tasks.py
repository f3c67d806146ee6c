"""Environments that need a memory, a mask, a scale, or patience."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

CHOICES = 10


class Recall(gymnasium.Env[Any, Any]):
    """Shows a cue at first, and pays 1 for it at the end and takes 1 for the other one: without a memory,
    0."""

    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, steps: int = 6) -> None:
        self.steps = steps

    def _seen(self) -> NDArray[np.float32]:
        seen = np.zeros(3, np.float32)
        seen[self.cue] = self.t == 0
        seen[2] = self.t == self.steps - 1
        return seen

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.cue = 0, int(self.np_random.integers(2))
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        over = self.t == self.steps
        return self._seen(), (1.0 if action == self.cue else -1.0) * over, over, False, {}


class Masked(gymnasium.Env[Any, Any]):
    """Two of ten actions are legal at each step; another one raises. The higher one pays.

    Args:
        how: where the mask is: in the `observation`, in `info`, or told when it is `asked`.
        several: whether two such indices are chosen at once.
    """

    def __init__(self, how: str = "info", several: bool = False) -> None:
        self.how, self.count = how, 2 if several else 1
        self.action_space = spaces.MultiDiscrete([CHOICES, CHOICES]) if several else spaces.Discrete(CHOICES)
        wide = CHOICES * self.count
        self.observation_space = spaces.Box(0, 1, (wide,), np.float32)
        if how == "observation":
            mask = spaces.Box(0, 1, (wide,), np.int8)
            self.observation_space = spaces.Dict(  # type: ignore[assignment]
                observations=self.observation_space, action_mask=mask
            )
        if how == "asked":
            self.action_masks = lambda: self.mask.astype(bool)

    def _next(self) -> tuple[Any, dict[str, Any]]:
        self.mask = np.zeros(CHOICES * self.count, np.int8)
        self.legal = [self.np_random.choice(CHOICES, 2, replace=False) for _ in range(self.count)]
        for index, pair in enumerate(self.legal):
            self.mask[index * CHOICES + pair] = 1
        seen = self.mask.astype(np.float32)
        if self.how == "observation":
            return {"observations": seen, "action_mask": self.mask}, {}
        return seen, {"action_mask": self.mask} if self.how == "info" else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._next()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        reward = 0.0
        for choice, pair in zip(np.atleast_1d(action), self.legal, strict=True):
            assert choice in pair, f"{action} is not legal"
            reward += float(choice == max(pair))
        seen, info = self._next()
        return seen, reward, False, self.t == 20, info


class Scaled(gymnasium.Env[Any, Any]):
    """A goal among numbers of any scale, and rewards of another."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def _seen(self) -> NDArray[np.float32]:
        self.goal = int(self.np_random.integers(2))
        return np.array([1e4 + self.goal, self.np_random.normal() * 1e3], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        reward = 1000.0 * (action == self.goal)
        return self._seen(), reward, False, self.t == 20, {}


class Flaky(Scaled):
    """Pays 1 for each step, and raises at its eighth."""

    def __init__(self, after: int = 8) -> None:
        self.after, self.made = after, 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.made += 1
        if self.made == self.after:
            raise KeyError("no prices for this day")
        seen, _, _, _, info = super().step(action)
        return seen, 1.0, False, False, info
