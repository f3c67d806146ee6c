"""After AlphaGo (Silver et al. 2016): https://doi.org/10.1038/nature16961

A network learns a teacher's moves and how its games ended, and a linear policy learns the moves too, for
playouts that are quick and not random. The search values positions by the network and by a playout.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlsys.rl.algorithms.alphazero import AlphaZeroAgent
from dlsys.rl.games.agent import game_at
from dlsys.rl.games.game import Game, Rows, ints
from dlsys.rl.games.network import BoardNetwork, cross_entropy
from dlsys.rl.games.search import Found
from dlsys.rl.games.uct import uct
from dlsys.rl.policy import Policy
from dlsys.rl.progress import stepped
from dlsys.spec.rl.games import AlphaGo
from dlsys.spec.rl.job import RLJob


class _Networks(BoardNetwork):
    """With the policy of playouts."""

    def __init__(self, game: Game, told: AlphaGo) -> None:
        super().__init__(game, told.hidden, told.blocks)
        self.playout = nn.Linear(game.height * game.width * game.channels, game.actions)


class AlphaGoAgent(AlphaZeroAgent):
    """Searches as AlphaZero's, with playouts besides, and learns from a teacher's games."""

    _told: AlphaGo
    network: _Networks

    @staticmethod
    def build(game: Game, told: AlphaGo) -> _Networks:  # type: ignore[override]
        return _Networks(game, told)

    def move(self, rows: Rows, random: np.random.Generator) -> NDArray[np.int64]:
        """The teacher's search."""
        seeds = random.integers(2**63, size=len(rows)).tolist()
        tried = []
        for row, seed in zip(rows, seeds, strict=True):
            stepped()
            tried.append(uct(self.game, ints(row), self._told.teacher, 1.0, Random(seed)))
        return np.array(tried)

    def think(self, rows: Rows, random: np.random.Generator | None = None) -> NDArray[np.int64]:
        self._random = np.random.default_rng(self._seed)
        return super().think(rows, random)

    def expand(self, states: NDArray[Any], actions: NDArray[np.int64]) -> Found:
        found, mix = super().expand(states, actions), self._told.mix
        going = np.flatnonzero(~found.over)
        if mix > 0 and len(going):
            played = self.playouts(found.states[going], self._random)
            found.values[going] = (1 - mix) * found.values[going] + mix * played
        return found

    def playouts(self, rows: Rows, random: np.random.Generator) -> NDArray[np.float64]:
        """What games of the playout policy are, to whoever is to move in positions [N, words]."""
        weight = self.network.playout.weight.detach().numpy().T
        bias = self.network.playout.bias.detach().numpy()
        outcomes, playing, sign = np.zeros(len(rows)), np.arange(len(rows)), 1.0
        while len(playing):
            logits = self.game.planes(rows).reshape(len(rows), -1) @ weight + bias
            # The highest of logits with Gumbel noise is a draw from their softmax.
            logits -= np.log(random.standard_exponential(logits.shape))
            actions = np.where(self.game.sensible(rows), logits, -np.inf).argmax(1)
            rows, over, outcome = self.game.play(rows, actions)
            outcomes[playing[over]] = sign * outcome[over]
            rows, playing, sign = rows[~over], playing[~over], -sign
        return outcomes

    def losses(self, chosen: NDArray[np.int64], random: np.random.Generator) -> dict[str, Tensor]:
        planes = torch.from_numpy(self.game.planes(self.memory.rows[chosen])).flatten(1)
        policies = torch.from_numpy(self.memory.policies[chosen])
        playout = cross_entropy(self.network.playout(planes), policies).mean()
        return {**super().losses(chosen, random), "playout_loss": playout}


def policy(job: RLJob, weights: Mapping[str, Tensor]) -> Policy:
    """The network's policy, which searches nothing and may choose a move that is not legal."""
    assert isinstance(job.algorithm, AlphaGo)
    network = _Networks(game_at(job), job.algorithm)
    network.load_state_dict(dict(weights))
    return Policy(network)
