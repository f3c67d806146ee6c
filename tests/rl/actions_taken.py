"""Environments that look at what they are given."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

inf = np.inf
SPACES: dict[str, spaces.Space[Any]] = {
    "first": spaces.Discrete(3),
    "from minus one": spaces.Discrete(3, start=-1),
    "from five": spaces.Discrete(2, start=5),
    "bounds": spaces.Box(np.array([0, 100], np.float32), np.array([10, 200], np.float32)),
    "plus minus one": spaces.Box(-1, 1, (3,), np.float32),
    "double": spaces.Box(-0.1, 0.3, (2,), np.float64),
    "square": spaces.Box(0, 10, (2, 2), np.float32),
    "one number": spaces.Box(0, 10, (), np.float32),
    "whole": spaces.Box(0, 4, (2,), np.int32),
    "bytes": spaces.Box(0, 255, (2,), np.uint8),
    "free": spaces.Box(-inf, inf, (1,), np.float32),
    "half": spaces.Box(0, inf, (1,), np.float32),
    "some": spaces.Box(np.array([-inf, -2], np.float32), np.array([inf, 2], np.float32)),
    "as wide as float32": spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (1,), np.float32),
    "whole and free": spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (1,), np.int64),
}
UNBOUNDED = {"free", "half", "some", "as wide as float32", "whole and free"}


class Strict(gymnasium.Env[Any, Any]):
    """Takes what is in its space, of its type, and nothing else; earns nothing. An episode is ten steps."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, kind: str) -> None:
        self.action_space = SPACES[kind]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.steps += 1
        return self.observation_space.sample(), 0.0, False, self.steps == 10, {}


class Faulty(gymnasium.Env[Any, Any]):
    """Does wrong in its third step."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, how: str) -> None:
        self.how = how

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        if self.how == "reset":
            raise KeyError("no prices for this day")
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        now = self.steps == 3
        if now and self.how == "step":
            raise KeyError("no prices for this day")
        seen = np.full(2, np.nan if now and self.how == "observation" else 0.0, np.float32)
        if now and self.how == "shape":
            seen = np.zeros(3, np.float32)
        return seen, float("nan") if now and self.how == "reward" else 1.0, False, self.steps == 5, {}


class Table(Faulty):
    """Likewise, of two states."""

    observation_space = spaces.Discrete(2)  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return 0, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return (0, *super().step(action)[1:])  # type: ignore[return-value]


class Endless(Faulty):
    """Never ends."""

    def __init__(self, how: str = "", seconds: float = 0.0) -> None:
        super().__init__(how)
        self.seconds = seconds

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(self.seconds)
        seen, reward, _, _, info = super().step(action)
        return seen, reward, False, False, info


class OldApi:
    """Of a library before gymnasium."""


class NoSpaces(gymnasium.Env[Any, Any]):
    """Says not what it takes."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)


class Camera(Strict):
    """Pixels beside a vector, and a tuple of both."""

    def __init__(self, kind: str = "first") -> None:
        super().__init__(kind)
        pixels = spaces.Box(0, 255, (4, 4, 3), np.uint8)
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            {"camera": pixels, "both": spaces.Tuple((pixels, spaces.Box(-1, 1, (2,), np.float32)))}
        )


class Small(Strict):
    """Of two states, with actions from minus one."""

    def __init__(self) -> None:
        super().__init__("from minus one")
        self.observation_space = spaces.Discrete(2)  # type: ignore[assignment]
