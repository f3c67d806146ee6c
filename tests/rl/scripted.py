"""Agents that know what to do from the start, for recordings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsys.rl.agent import Iteration


class Scripted:
    """Implements what evaluations and recordings ask of an agent."""

    def iterate(self) -> Iteration:
        raise NotImplementedError

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass

    def weights(self) -> dict[str, NDArray[Any]]:
        return {}

    def close(self) -> None:
        pass


class Balancer(Scripted):
    """Balances CartPole's pole for 500 steps."""

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        lean = observations @ np.array([0.05, 0.15, 1.0, 0.5])
        return (lean > 0).astype(np.int64)


class SwingUp(Scripted):
    """Pumps energy into Pendulum until it is up, and holds it there (Åström and Furuta 2000)."""

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        up, side, speed = observations.T
        angle = np.arctan2(side, up)
        missing = 15 * (1 - up) - speed**2 / 2  # 3g/2l = 15: the energy below that of standing upright
        pump = np.sign(speed) * np.clip(missing, -2, 2)
        hold = -(16 * angle + 4 * speed)
        near = (np.abs(angle) < 0.5) & (np.abs(speed) < 3)
        return np.clip(np.where(near, hold, pump) / 2, -1, 1)[:, None].astype(np.float32)
