"""AlphaGo (Silver et al. 2016): https://doi.org/10.1038/nature16961

A policy learns a teacher's moves, and a linear policy learns them too, for playouts that are quick and not
random. A copy of the policy learns to win against earlier versions of itself, and a network learns how games
end that this copy plays. The search values positions by that network and by a playout.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dlsys.rl.agent import Iteration
from dlsys.rl.algorithms.alphazero import AlphaZeroAgent
from dlsys.rl.games.agent import Played, game_at, turned
from dlsys.rl.games.game import Game, Rows, ints
from dlsys.rl.games.network import BoardNetwork, cross_entropy
from dlsys.rl.games.search import Found
from dlsys.rl.games.selfplay import Positions, drawn, played
from dlsys.rl.games.uct import uct
from dlsys.rl.policy import Policy
from dlsys.rl.progress import stepped
from dlsys.spec.rl.games import AlphaGo
from dlsys.spec.rl.job import RLJob

# Policies, and where it is their turn, [N].
_Turns = tuple[tuple[BoardNetwork, NDArray[np.bool_]], ...]


class _Networks(BoardNetwork):
    """The supervised policy, and with it the policy of playouts, the reinforced policy, and values."""

    def __init__(self, game: Game, told: AlphaGo) -> None:
        super().__init__(game, told.hidden, told.blocks)
        self.playout = nn.Linear(game.height * game.width * game.channels, game.actions)
        self.reinforced = BoardNetwork(game, told.hidden, told.blocks)
        self.values = BoardNetwork(game, told.hidden, told.blocks)


class AlphaGoAgent(AlphaZeroAgent):
    """Searches as AlphaZero's, with playouts besides, and learns in AlphaGo's stages."""

    _told: AlphaGo
    network: _Networks

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        told = self._told
        groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for name, parameter in self.network.named_parameters():
            groups[name.startswith("reinforced.")].append(parameter)
        self._optimizer = torch.optim.AdamW(
            [{"params": groups[0], "lr": told.lr}, {"params": groups[1], "lr": told.reinforce_lr}],
            weight_decay=told.weight_decay,
        )
        # Earlier versions of the reinforced policy, and one of them that plays.
        self._pool: list[dict[str, Tensor]] = []
        self._earlier = copy.deepcopy(self.network.reinforced)

    @staticmethod
    def build(game: Game, told: AlphaGo) -> _Networks:  # type: ignore[override]
        return _Networks(game, told)

    def iterate(self) -> Iteration:
        valued = self._valued()
        if self._iteration == self._told.supervised:
            own, known = self.network.reinforced, self.network.state_dict()
            own.load_state_dict({name: known[name] for name in own.state_dict()})
            self._pool = [_copied(own)]
        if valued < 0 <= valued + self._told.reinforced:
            return self._reinforce()
        if valued == 0:
            self.memory = Positions.none(self.game)
        return super().iterate()

    def _valued(self) -> int:
        """How many iterations have learned the values of the reinforced policy's games; below 0 before."""
        return self._iteration - self._told.supervised - self._told.reinforced

    def move(self, rows: Rows, random: np.random.Generator) -> NDArray[np.int64]:
        """The teacher's search."""
        seeds = random.integers(2**63, size=len(rows)).tolist()
        tried = []
        for row, seed in zip(rows, seeds, strict=True):
            stepped()
            tried.append(uct(self.game, ints(row), self._told.teacher, 1.0, Random(seed)))
        return np.array(tried)

    def _reinforce(self) -> Iteration:
        began, told = time.perf_counter(), self._told
        random = np.random.default_rng([self._seed, self._iteration, 0])
        batches, losses, sampled = [], [], 0.0
        for _ in range(told.updates):
            started = time.perf_counter()
            self._earlier.load_state_dict(self._pool[random.integers(len(self._pool))])
            batches.append(self.against(self.network.reinforced, self._earlier, told.games, random))
            sampled += time.perf_counter() - started
            losses.append(self._policy_gradient(*batches[-1]))
            stepped()
        self._pool.append(_copied(self.network.reinforced))
        self._iteration += 1
        self._games += told.games * told.updates
        outcomes = np.stack([ends for _, ends, _ in batches])
        lengths = np.stack([moves for _, _, moves in batches])
        figures = {
            "games": float(self._games),
            "first_wins": float((outcomes > 0).mean()),
            "draws": float((outcomes == 0).mean()),
            "against_earlier": float((outcomes * np.where(np.arange(told.games) % 2, -1, 1)).mean()),
            "loss": float(np.mean(losses)),
        }
        seconds = {"sample": sampled, "learn": time.perf_counter() - began - sampled}
        return Iteration(
            int(lengths.sum()), outcomes.ravel().tolist(), lengths.ravel().tolist(), figures, seconds
        )

    def _policy_gradient(self, found: Positions, _: NDArray[np.float64], lengths: NDArray[np.int64]) -> float:
        """One step of REINFORCE (Williams 1992) on games of `against`, with the supervised values as a
        baseline; its loss."""
        games = np.repeat(np.arange(len(lengths)), lengths)
        plies = lengths[games] - 1 - found.left
        own = found.at((games + plies) % 2 == 0)
        planes = torch.from_numpy(self.game.planes(own.rows))
        with torch.no_grad():
            gained = torch.from_numpy(own.outcomes) - self.network(planes)[1]
        legal = torch.from_numpy(self.game.legal(own.rows))
        logits = self.network.reinforced(planes)[0].masked_fill(~legal, -torch.inf)
        missed = functional.cross_entropy(logits, torch.from_numpy(own.actions), reduction="none")
        loss = (gained * missed).mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return float(loss.detach())

    def against(
        self, first: BoardNetwork, second: BoardNetwork, games: int, random: np.random.Generator
    ) -> Played:
        """Games of two policies; the first one begins those with even numbers."""

        def turns(ply: int, playing: NDArray[np.int64]) -> _Turns:
            even = (playing + ply) % 2 == 0
            return (first, even), (second, ~even)

        return self._drawn(turns, games, random)

    def _play(self) -> list[Played]:
        """The teacher's games, or those whose values are learned: the supervised policy begins, one move is
        random, and the reinforced policy goes on from the position after it, which alone is kept."""
        if self._valued() < 0:
            return super()._play()
        count = self._told.games * self._told.updates
        random = np.random.default_rng([self._seed, self._iteration, 1])
        at = random.integers(self.game.longest, size=count)

        def turns(ply: int, playing: NDArray[np.int64]) -> _Turns:
            return (self.network, ply < at[playing]), (self.network.reinforced, ply > at[playing])

        found, outcomes, lengths = self._drawn(turns, count, random)
        plies = np.repeat(lengths, lengths) - 1 - found.left
        return [(found.at(plies == np.repeat(at, lengths) + 1), outcomes, lengths)]

    def _drawn(
        self,
        turns: Callable[[int, NDArray[np.int64]], _Turns],
        count: int,
        random: np.random.Generator,
    ) -> Played:
        """Games of moves drawn from policies, and from all legal ones alike where it is no policy's turn.

        Args:
            turns: from the number of moves made and which games go on, [N], to whose turn it is, [N].
            count: games.
            random: draws.
        """
        game = self.game

        def choose(
            ply: int, playing: NDArray[np.int64], rows: Rows
        ) -> tuple[NDArray[np.int64], NDArray[Any]]:
            stepped()
            logits = np.zeros((len(rows), game.actions))
            for network, turn in turns(ply, playing):
                if turn.any():
                    logits[turn] = network(torch.from_numpy(game.planes(rows[turn])))[0].numpy()
            actions = drawn(logits, game.legal(rows), random)
            return actions, np.eye(game.actions)[actions]

        with torch.inference_mode():
            return played(game, count, choose)

    def think(self, rows: Rows, random: np.random.Generator | None = None) -> NDArray[np.int64]:
        self._random = np.random.default_rng(self._seed)
        return super().think(rows, random)

    def expand(self, states: NDArray[Any], actions: NDArray[np.int64]) -> Found:
        found, mix = super().expand(states, actions), self._told.mix
        going = np.flatnonzero(~found.over)
        if not len(going):
            return found
        if self._valued() > 0 and mix < 1:
            found.values[going] = self.values(self.game.planes(found.states[going]))
        if mix > 0:
            ended = self.playouts(found.states[going], self._random)
            found.values[going] = (1 - mix) * found.values[going] + mix * ended
        return found

    def playouts(self, rows: Rows, random: np.random.Generator) -> NDArray[np.float64]:
        """What games of the playout policy are, to whoever is to move in positions [N, words]."""
        weight = self.network.playout.weight.detach().numpy().T
        bias = self.network.playout.bias.detach().numpy()
        outcomes, playing, sign = np.zeros(len(rows)), np.arange(len(rows)), 1.0
        while len(playing):
            logits = self.game.planes(rows).reshape(len(rows), -1) @ weight + bias
            allowed = self.game.sensible(rows)
            if self._told.decisive:
                urgent = self.game.urgent(rows)
                allowed = np.where(urgent.any(1, keepdims=True), urgent, allowed)
            rows, over, outcome = self.game.play(rows, drawn(logits, allowed, random))
            outcomes[playing[over]] = sign * outcome[over]
            rows, playing, sign = rows[~over], playing[~over], -sign
        return outcomes

    def losses(self, chosen: NDArray[np.int64], random: np.random.Generator) -> dict[str, Tensor]:
        planes, policies = self.game.planes(self.memory.rows[chosen]), self.memory.policies[chosen]
        if self._valued() > 0:
            planes, _, _ = turned(self.game, planes, policies, random)
            values = self.network.values(torch.from_numpy(planes))[1]
            return {"value_loss": functional.mse_loss(values, torch.from_numpy(self.targets(chosen)))}
        logits = self.network.playout(torch.from_numpy(planes).flatten(1))
        playout = cross_entropy(logits, torch.from_numpy(policies)).mean()
        return {**super().losses(chosen, random), "playout_loss": playout}

    def values(self, observations: NDArray[Any]) -> NDArray[Any]:
        if self._valued() <= 0:
            return super().values(observations)
        with torch.inference_mode():
            values: NDArray[Any] = self.network.values(torch.as_tensor(observations))[1].numpy()
        return values

    def state(self) -> dict[str, Any]:
        return {**super().state(), "pool": self._pool}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self._pool = state["pool"]


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def policy(job: RLJob, weights: Mapping[str, Tensor]) -> Policy:
    """The network's policy, which searches nothing and may choose a move that is not legal."""
    assert isinstance(job.algorithm, AlphaGo)
    network = _Networks(game_at(job), job.algorithm)
    network.load_state_dict(dict(weights))
    return Policy(network)
