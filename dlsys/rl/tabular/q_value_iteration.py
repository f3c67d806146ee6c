"""Value iteration on Q: Sutton and Barto 2018, chapter 4.4 with equation 3.20.

http://incompleteideas.net/book/RLbook2020.pdf
"""

from __future__ import annotations

import numpy as np

from dlsys.rl.tabular.mdp import MDP
from dlsys.rl.tabular.value_iteration import backup


def sweep(mdp: MDP, q: np.ndarray) -> np.ndarray:
    """Q(s,a) ← Σ P(s'|s,a)·(R(s,a,s') + γ·max over a' of Q(s',a')), from and to [S, A]."""
    return backup(mdp, q.max(axis=1))
