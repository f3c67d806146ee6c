"""TD(0) (Sutton 1988): Sutton and Barto 2018, chapter 6.1.

http://incompleteideas.net/book/RLbook2020.pdf
"""

from __future__ import annotations

import random

import numpy as np

from dlsys.rl.tabular.episode import Episode
from dlsys.rl.tabular.mdp import MDP, Env, absorb, empty
from dlsys.spec.rl.tabular import TDLearning


class TDPrediction:
    """Learns V of the policy that acts at random, all actions alike.

    Attributes:
        values: V, one number for each state.
        visits: how often each was updated.
    """

    def __init__(self, options: TDLearning, gamma: float, states: int, actions: int) -> None:
        self._options = options
        self._gamma = gamma
        self._actions = actions
        self.values = [options.initial] * states
        self.visits = [0] * states

    def learn(self, env: Env, rng: random.Random, seed: int | None = None) -> Episode:
        """Acts and learns for one episode; `seed` is the environment's."""
        values, visits = self.values, self.visits
        lr, decay, gamma = self._options.lr, self._options.lr_decay, self._gamma
        done = Episode()
        state, _ = env.reset(seed=seed)
        while not done.over:
            following, reward, terminated = done.step(env, int(rng.random() * self._actions))
            target = reward if terminated else reward + gamma * values[following]
            error = target - values[state]
            values[state] += lr / (1 + decay * visits[state]) * error
            visits[state] += 1
            done.error += abs(error)
            state = following
        return done


def random_walk(states: int, left: float = 0.0, right: float = 1.0) -> MDP:
    """A walk from the middle of a chain until it leaves it (example 6.2; 7.1 with 19 states and left −1).

    The last two states are the ends beyond the chain; to enter one earns `left` or `right`. Undiscounted,
    and acting at random, the i-th state from the left, from 1, is worth left + (right − left)·i/(states + 1).
    """
    transitions = empty(states + 2, 2)
    rewards = np.zeros((states + 2, 2))
    for state in range(states):
        transitions[state, 0, state - 1 if state else states] = 1
        transitions[state, 1, state + 1 if state < states - 1 else states + 1] = 1
    rewards[0, 0], rewards[states - 1, 1] = left, right
    terminal = np.arange(states + 2) >= states
    absorb(transitions, rewards, terminal)
    return MDP(
        states=(*map(str, range(1, states + 1)), "left", "right"),
        actions=("left", "right"),
        transitions=transitions,
        rewards=rewards,
        terminal=terminal,
        start=np.eye(states + 2)[states // 2],
        gamma=1.0,
    )
