"""Q-learning (Watkins 1989): Sutton and Barto 2018, chapter 6.5.

http://incompleteideas.net/book/RLbook2020.pdf
"""

from __future__ import annotations

import random

from dlsys.rl.tabular.episode import Episode
from dlsys.rl.tabular.mdp import Env
from dlsys.spec.rl.tabular import QLearning


class QTable:
    """Learns Q* while it explores.

    With the exploration function (Russell and Norvig, chapter 22.3), f(Q, N) = Q + κ/(1 + N) stands for Q
    wherever actions are compared: in choosing one, and in the target, so that states from which unknown
    ones can be reached look better too.

    Attributes:
        q: Q, a row for each state with a number for each action.
        visits: N, likewise: how often each was updated.
    """

    def __init__(self, options: QLearning, gamma: float, states: int, actions: int) -> None:
        self._options = options
        self._gamma = gamma
        self._kappa = options.kappa if options.exploration == "function" else 0.0
        # Plain lists: a step looks up single values, which costs ten times more from an array.
        self.q = [[options.initial] * actions for _ in range(states)]
        self.visits = [[0] * actions for _ in range(states)]

    def epsilon(self, episode: int) -> float:
        """The probability of a random action in an episode, counted from 0."""
        options = self._options
        if options.exploration == "function":
            return 0.0
        left = max(0.0, 1 - episode / options.epsilon_episodes)
        return options.epsilon_end + (options.epsilon_start - options.epsilon_end) * left

    def learn(self, env: Env, rng: random.Random, epsilon: float, seed: int | None = None) -> Episode:
        """Acts and learns for one episode; `seed` is the environment's."""
        q, visits, gamma = self.q, self.visits, self._gamma
        lr, decay = self._options.lr, self._options.lr_decay
        done = Episode()
        state, _ = env.reset(seed=seed)
        while not done.over:
            row, count = q[state], visits[state]
            if rng.random() < epsilon:
                action = int(rng.random() * len(row))
            else:
                action = _best(self._looks(state), rng)
            following, reward, terminated = done.step(env, action)
            target = reward if terminated else reward + gamma * max(self._looks(following))
            error = target - row[action]
            row[action] += lr / (1 + decay * count[action]) * error
            count[action] += 1
            done.error += abs(error)
            state = following
        return done

    def _looks(self, state: int) -> list[float]:
        """f(Q, N) of each action in a state."""
        row = self.q[state]
        if not self._kappa:
            return row
        return [q + self._kappa / (1 + n) for q, n in zip(row, self.visits[state], strict=True)]


def _best(values: list[float], rng: random.Random) -> int:
    """The index of the largest value; one of the largest at random, where several are equal."""
    best = max(values)
    if values.count(best) == 1:
        return values.index(best)
    return rng.choice([index for index, value in enumerate(values) if value == best])
