"""AlphaZero (Silver et al. 2017): https://arxiv.org/abs/1712.01815

A network guides a tree search, the search plays the games, and the network learns what the search found and
how the games ended. On Go this is AlphaGo Zero, without its matches for which network is to play.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dlsys.rl.games.agent import GameAgent, game_at, priors_of, turned
from dlsys.rl.games.game import Game, Rows
from dlsys.rl.games.network import BoardNetwork, cross_entropy
from dlsys.rl.games.search import Found
from dlsys.rl.policy import Policy
from dlsys.spec.rl.games import AlphaZero
from dlsys.spec.rl.job import RLJob


class AlphaZeroAgent(GameAgent):
    """Searches with the rules of the game, and a network for what it cannot see."""

    network: BoardNetwork

    @staticmethod
    def build(game: Game, told: AlphaZero) -> BoardNetwork:
        return BoardNetwork(game, told.hidden, told.blocks)

    def root(self, rows: Rows, planes: Tensor) -> Found:
        logits, values = self.network(planes)
        none = np.zeros(len(rows))
        return Found(rows, priors_of(self.game, rows, logits), values.numpy(), none, none > 0)

    def expand(self, states: NDArray[Any], actions: NDArray[np.int64]) -> Found:
        rows, over, outcomes = self.game.play(states, actions)
        logits, values = self.network(torch.from_numpy(self.game.planes(rows)))
        found = np.where(over, 0.0, values.numpy())
        return Found(rows, priors_of(self.game, rows, logits), found, outcomes, over)

    def losses(self, chosen: NDArray[np.int64], random: np.random.Generator) -> dict[str, Tensor]:
        planes = self.game.planes(self.memory.rows[chosen])
        planes, policies, _ = turned(self.game, planes, self.memory.policies[chosen], random)
        logits, values = self.network(torch.from_numpy(planes))
        return {
            "policy_loss": cross_entropy(logits, torch.from_numpy(policies)).mean(),
            "value_loss": functional.mse_loss(values, torch.from_numpy(self.targets(chosen))),
        }


def policy(job: RLJob, weights: Mapping[str, Tensor]) -> Policy:
    """The network's policy, which searches nothing and may choose a move that is not legal."""
    network = AlphaZeroAgent.build(game_at(job), job.algorithm)  # type: ignore[arg-type]
    network.load_state_dict(dict(weights))
    return Policy(network)
