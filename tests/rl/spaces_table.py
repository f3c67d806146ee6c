"""Every kind of space there is, nested once, and an environment of any two of them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

inf = np.inf


def _image(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


SEEN: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "doubles": spaces.Box(-inf, inf, (3,), np.float64),
    "whole": spaces.Box(-5, 5, (2,), np.int64),
    "one number": spaces.Box(0, 1, (), np.float32),
    "bytes": _image(5),
    "table of numbers": spaces.Box(-inf, inf, (20, 6), np.float32),
    "category": spaces.Discrete(4),
    "category from five": spaces.Discrete(3, start=5),
    "categories": spaces.MultiDiscrete([2, 5]),
    "categories in rows": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "switches": spaces.MultiBinary(3),
    "switches in rows": spaces.MultiBinary([2, 2]),
    "color": _image(10, 12, 3),
    "color first": _image(3, 10, 12),
    "gray": _image(10, 12),
    "floats": spaces.Box(0, 1, (10, 12, 1), np.float32),
    "stack": _image(4, 10, 12),
    "stack of colors": _image(4, 10, 12, 3),
    "dictionary": spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-1, 1, (3,), np.float64)),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(3))),
    "image and vector": spaces.Dict(camera=_image(10, 12, 3), speed=spaces.Box(-1, 1, (2,), np.float32)),
    "nested": spaces.Dict(
        inner=spaces.Dict(camera=_image(10, 12, 3), flag=spaces.MultiBinary(2)),
        pair=spaces.Tuple((_image(10, 12), spaces.Discrete(3, start=-1))),
    ),
}
TAKEN: dict[str, spaces.Space[Any]] = {
    "category": spaces.Discrete(3),
    "category from five": spaces.Discrete(2, start=5),
    "bounds": spaces.Box(np.array([0, 100], np.float32), np.array([10, 200], np.float32)),
    "square": spaces.Box(0, 10, (2, 2), np.float32),
    "one number": spaces.Box(0, 10, (), np.float32),
    "whole": spaces.Box(0, 4, (2,), np.int32),
    "free": spaces.Box(-inf, inf, (1,), np.float32),
    "half": spaces.Box(0, inf, (1,), np.float64),
    "categories": spaces.MultiDiscrete([2, 3]),
    "categories in rows": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "categories from somewhere": spaces.MultiDiscrete([2, 3], start=[5, -1]),
    "switches": spaces.MultiBinary(3),
    "switches in rows": spaces.MultiBinary([2, 2]),
    "dictionary": spaces.Dict(a=spaces.Discrete(2, start=1), b=spaces.Box(-3, 3, (2,), np.float32)),
    "tuple": spaces.Tuple((spaces.MultiBinary(2), spaces.Discrete(3))),
    "nested": spaces.Dict(
        go=spaces.Tuple((spaces.Box(0, 4, (1,), np.int32), spaces.Discrete(2))),
        stop=spaces.MultiDiscrete([3]),
    ),
}
UNSERVED: dict[str, spaces.Space[Any]] = {
    "text": spaces.Text(5),
    "sequence": spaces.Sequence(spaces.Discrete(3)),
    "graph": spaces.Graph(spaces.Box(-1, 1, (2,)), spaces.Discrete(2)),
    "text inside": spaces.Dict(a=spaces.Text(5), b=spaces.Discrete(2)),
    "one of": spaces.OneOf((spaces.Discrete(2), spaces.Box(-1, 1, (1,)))),
}
SHOWN, DONE = SEEN | UNSERVED, TAKEN | UNSERVED


class Both(gymnasium.Env[Any, Any]):
    """Shows random elements of one space, takes those of another and nothing else, and pays a random reward.

    An episode is seven steps, and terminates or is cut by chance.
    """

    def __init__(self, seen: str = "vector", taken: str = "category") -> None:
        self.observation_space, self.action_space = SHOWN[seen], DONE[taken]
        self.given: list[Any] = []

    def _shown(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        found = self.observation_space.sample()
        if self.observation_space == SEEN["doubles"]:
            return np.clip(found, -1e6, 1e6)
        return found

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._shown(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.given.append(action)
        self.steps += 1
        over = self.steps == 7
        end = bool(self.np_random.random() < 0.5)
        return self._shown(), float(self.np_random.normal()), over and end, over and not end, {}
