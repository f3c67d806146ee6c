"""Value iteration (Bellman 1957): Sutton and Barto 2018, chapter 4.4.

http://incompleteideas.net/book/RLbook2020.pdf
"""

from __future__ import annotations

import numpy as np

from dlsys.rl.tabular.mdp import MDP


def backup(mdp: MDP, values: np.ndarray) -> np.ndarray:
    """Q(s, a) = Σ P(s'|s,a)·(R(s,a,s') + γ·V(s')), [S, A], from V [S]."""
    q: np.ndarray = mdp.expected_rewards + mdp.gamma * (mdp.transitions @ values)
    return q


def sweep(mdp: MDP, values: np.ndarray) -> np.ndarray:
    """V(s) ← max over a of Q(s, a), for all states at once: [S] to [S].

    The distance to V* shrinks by the factor γ with every sweep, in the maximum norm.
    """
    best: np.ndarray = backup(mdp, values).max(axis=1)
    return best


def greedy(q: np.ndarray) -> np.ndarray:
    """The policy of the best actions, the first of equal ones: [S, A] to [S]."""
    policy: np.ndarray = q.argmax(axis=1)
    return policy
