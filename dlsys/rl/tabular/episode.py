"""One episode, as those that learn from it count it."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from dlsys.rl.tabular.mdp import Env


@dataclass
class Episode:
    """Attributes:
    total: the undiscounted sum of rewards.
    length: steps.
    over: whether it has ended, in a terminal state or at a time limit.
    error: the sum of the absolute errors of the estimates, for the learner to add to.
    seconds: spent in the environment.
    """

    total: float = 0.0
    length: int = 0
    over: bool = False
    error: float = 0.0
    seconds: float = 0.0

    def step(self, env: Env, action: int) -> tuple[int, float, bool]:
        """Acts once: the next state, the reward, and whether the next state is terminal.

        At a time limit an episode is over too, but its last state is still worth something.
        """
        begin = perf_counter()
        state, reward, terminated, truncated, _ = env.step(action)
        self.seconds += perf_counter() - begin
        self.total += float(reward)
        self.length += 1
        self.over = terminated or truncated
        return state, float(reward), terminated
