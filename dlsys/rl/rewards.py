"""Rewards in a unit of their own: `normalize.reward`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlsys.rl.networks import Running
from dlsys.rl.sampler import Rollout

_FAR = 10.0


class Rewards:
    """Divides rewards by the deviation of the discounted returns so far, which all runners share.

    Their mean stays: who gets paid for every step would not know it any more.

    Args:
        on: otherwise they are left as they are.
        gamma: the discount γ.
    """

    def __init__(self, on: bool, gamma: float) -> None:
        self._on, self._gamma = on, gamma
        self._running = Running(1)
        self._returns = np.zeros(0)

    def take(self, rollout: Rollout) -> None:
        """Learns from what was sampled."""
        if not self._on:
            return
        if len(self._returns) != rollout.rewards.shape[1]:
            self._returns = np.zeros(rollout.rewards.shape[1])
        found = np.empty_like(rollout.rewards, np.float64)
        held = np.ones(found.shape, bool) if rollout.held is None else rollout.held
        for step, rewards in enumerate(rollout.rewards):
            after = np.where(rollout.first[step], 0, self._returns) * self._gamma + rewards
            self._returns = np.where(held[step], after, self._returns)
            found[step] = self._returns
        self._running.update(torch.from_numpy(found[held]).unsqueeze(1))

    def scaled(self, rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._on:
            return rewards
        deviation = float(self._running.variance.sqrt().clamp(min=1e-4))
        return np.clip(rewards / np.float32(deviation), -_FAR, _FAR)

    def state_dict(self) -> dict[str, Any]:
        return {"running": self._running.state_dict(), "returns": self._returns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._running.load_state_dict(state["running"])
        self._returns = np.asarray(state["returns"])
