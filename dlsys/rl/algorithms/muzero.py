"""MuZero (Schrittwieser et al. 2020): https://arxiv.org/abs/1911.08265

The search follows a learned model: what a board is to it (representation), what a move makes of that and
earns (dynamics), and which moves to try and who will win (prediction). The rules are asked for what may be
played where a search begins, and not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dlsys.rl.games.agent import GameAgent, game_at, priors_of, turned
from dlsys.rl.games.game import Game, Rows
from dlsys.rl.games.network import cross_entropy
from dlsys.rl.games.search import Found
from dlsys.rl.policy import Policy
from dlsys.spec.rl.games import MuZero
from dlsys.spec.rl.job import RLJob


class _Block(nn.Module):
    """A layer beside what it adds to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, width], as they came."""
        return inputs + self.layers(inputs)


class Model(nn.Module):
    """The three networks. A state is a vector of unit variance.

    Args:
        game: says how large boards are.
        told: widths.
    """

    def __init__(self, game: Game, told: MuZero) -> None:
        super().__init__()
        width, seen = told.hidden, game.height * game.width * game.channels

        def tower(inputs: int) -> nn.Sequential:
            blocks = (_Block(width) for _ in range(told.blocks))
            return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), *blocks)

        def head(outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))

        self._actions = game.actions
        self.representation, self.dynamics = tower(seen), tower(width + game.actions)
        self.prediction, self.reward = head(game.actions + 1), head(1)

    def represent(self, planes: Tensor) -> Tensor:
        """States [N, width] of planes [N, height, width, channels]."""
        return _scaled(self.representation(planes.flatten(1)))

    def follow(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The states [N, width] after moves [N], and what these earn whoever makes them, [N]."""
        moves = functional.one_hot(actions, self._actions).to(states.dtype)
        after = self.dynamics(torch.cat((states, moves), 1))
        return _scaled(after), self.reward(after).squeeze(1).tanh()

    def predict(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, actions] and values [N] of states."""
        found = self.prediction(states)
        return found[:, :-1], found[:, -1].tanh()

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and values of planes."""
        return self.predict(self.represent(planes))

    def forward_inference(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The most likely moves [N], legal or not."""
        return {"actions": self(batch["obs"])[0].argmax(1)}


def _scaled(states: Tensor) -> Tensor:
    # The paper's are between 0 and 1; of unit variance they are learned from in half the updates.
    return functional.layer_norm(states, states.shape[1:])


class MuZeroAgent(GameAgent):
    """Searches in its model."""

    _told: MuZero
    network: Model

    @staticmethod
    def build(game: Game, told: MuZero) -> Model:
        return Model(game, told)

    def root(self, rows: Rows, planes: Tensor) -> Found:
        states = self.network.represent(planes)
        logits, values = self.network.predict(states)
        none = np.zeros(len(rows))
        return Found(states.numpy(), priors_of(self.game, rows, logits), values.numpy(), none, none > 0)

    def expand(self, states: NDArray[Any], actions: NDArray[np.int64]) -> Found:
        after, rewards = self.network.follow(torch.from_numpy(states), torch.from_numpy(actions))
        logits, values = self.network.predict(after)
        never = np.zeros(len(states), bool)  # a model goes on where games are over
        return Found(after.numpy(), logits.softmax(1).numpy(), values.numpy(), rewards.numpy(), never)

    def losses(self, chosen: NDArray[np.int64], random: np.random.Generator) -> dict[str, Tensor]:
        memory, unroll = self.memory, self._told.unroll
        seen, policies, moves = turned(
            self.game, self.game.planes(memory.rows[chosen]), memory.policies[chosen], random
        )
        became = moves.argsort(1)  # which move each one is, turned
        states = self.network.represent(torch.from_numpy(seen))
        wrong = {name: torch.zeros(()) for name in ("policy_loss", "value_loss", "reward_loss")}
        for step in range(unroll + 1):
            there = step <= memory.left[chosen]
            at = np.where(there, chosen + step, chosen)
            logits, values = self.network.predict(states)
            share = 1.0 if step == 0 else 1.0 / unroll
            # Past the end nothing is to be chosen, and nothing to be won.
            policies = np.take_along_axis(memory.policies[at], moves, 1) * there[:, None]
            goals = torch.from_numpy(self.targets(at) * there)
            wrong["policy_loss"] = wrong["policy_loss"] + share * _mean(logits, policies)
            wrong["value_loss"] = wrong["value_loss"] + share * functional.mse_loss(values, goals)
            if step < unroll:
                played = np.where(there, memory.actions[at], random.integers(moves.shape[1], size=len(at)))
                played = np.take_along_axis(became, played[:, None], 1)[:, 0]
                earned = np.where(step == memory.left[chosen], memory.outcomes[at], np.float32(0))
                states, rewards = self.network.follow(states, torch.from_numpy(played))
                error = functional.mse_loss(rewards, torch.from_numpy(earned))
                # In full: all but one of a game's rewards are 0, and that one decides.
                wrong["reward_loss"] = wrong["reward_loss"] + error
                # Half of the gradient goes on: each state gets about as much, however far it is followed.
                states = (states + states.detach()) / 2
        weight = self._told.value_weight
        return {
            "policy_loss": wrong["policy_loss"],
            "value_loss": weight * wrong["value_loss"],
            "reward_loss": weight * wrong["reward_loss"],
        }


def _mean(logits: Tensor, policies: NDArray[np.float32]) -> Tensor:
    return cross_entropy(logits, torch.from_numpy(policies)).mean()


def policy(job: RLJob, weights: Mapping[str, Tensor]) -> Policy:
    """What the model would choose without a search; it may be a move that is not legal."""
    assert isinstance(job.algorithm, MuZero)
    model = Model(game_at(job), job.algorithm)
    model.load_state_dict(dict(weights))
    return Policy(model)
