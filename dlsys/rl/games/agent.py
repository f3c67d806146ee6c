"""What agents share that search, play games against themselves and learn from these."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlsys.rl import environments
from dlsys.rl.actors import Actors, Counted
from dlsys.rl.agent import Iteration
from dlsys.rl.games.environment import game_of
from dlsys.rl.games.game import Game, Rows
from dlsys.rl.games.search import Found, masked, noisy, search
from dlsys.rl.games.selfplay import Positions, self_play
from dlsys.rl.progress import stepped
from dlsys.spec.rl.games import Learned
from dlsys.spec.rl.job import RLJob
from dlsys.train.seeding import seed_all

Played = tuple[Positions, NDArray[np.float64], NDArray[np.int64]]


class GameAgent(Counted, ABC):
    """Implements `dlsys.rl.agent.Agent`; an iteration plays `games` games, and learns from those it keeps.

    What is random is drawn from the seed, the number of the iteration and whose share it is: a state has no
    generators, and whoever plays a share again plays the same games.
    """

    def __init__(self, job: RLJob) -> None:
        assert isinstance(job.algorithm, Learned)
        seed_all(job.seed)
        self._told, self._seed = job.algorithm, job.seed
        self.game = game_at(job)
        self.network = self.build(self.game, job.algorithm).eval()
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), job.algorithm.lr, weight_decay=job.algorithm.weight_decay
        )
        self.memory = Positions.none(self.game)
        self._iteration = self._games = 0
        alone = job.model_copy(update={"resources": job.resources.model_copy(update={"env_runners": 0})})
        self._remote = Actors(type(self), [(alone,)] * job.resources.env_runners, job.resources.cpus)

    @staticmethod
    @abstractmethod
    def build(game: Game, told: Any) -> nn.Module:
        """The network, from `planes` to logits [N, actions] and values [N], and what else it needs."""

    @abstractmethod
    def losses(self, chosen: NDArray[np.int64], random: np.random.Generator) -> dict[str, Tensor]:
        """What the network gets wrong about positions of the memory, [N] indices of them, by name; their sum
        is to fall."""

    @abstractmethod
    def root(self, rows: Rows, planes: Tensor) -> Found:
        """Positions [N, words] as a search begins with them."""

    @abstractmethod
    def expand(self, states: NDArray[Any], actions: NDArray[np.int64]) -> Found:
        """What follows moves in a search."""

    def iterate(self) -> Iteration:
        told, began = self._told, time.perf_counter()
        parts = self._play()
        self.memory = self.memory.joined([part[0] for part in parts], told.capacity)
        outcomes, lengths = (np.concatenate([part[index] for part in parts]) for index in (1, 2))
        self._iteration += 1
        self._games += len(outcomes)
        played = time.perf_counter()
        figures = {
            "games": float(self._games),
            "first_wins": float((outcomes > 0).mean()),
            "draws": float((outcomes == 0).mean()),
            **self._learn(),
        }
        seconds = {"sample": played - began, "learn": time.perf_counter() - played}
        return Iteration(int(lengths.sum()), outcomes.tolist(), lengths.tolist(), figures, seconds)

    def _play(self) -> list[Played]:
        if not self._remote:
            return [self.play(self._told.games, [self._seed, self._iteration, 1])]
        import ray

        weights = ray.put(self.weights())
        shares = [len(part) for part in np.array_split(np.arange(self._told.games), len(self._remote))]
        seed = [self._seed, self._iteration]
        return self._remote.ask(
            lambda one, index: one.play.remote(shares[index], [*seed, index + 1], weights)
        )

    def play(self, games: int, seed: list[int], weights: dict[str, NDArray[Any]] | None = None) -> Played:
        """Plays against itself.

        Args:
            games: how many.
            seed: decides everything random.
            weights: plays with these; by default with those it has.
        """
        if weights is not None:
            torch.set_num_threads(1)
            self.network.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
        random = np.random.default_rng(seed)
        with self.counted() if weights is not None else nullcontext():
            return self_play(
                self.game, games, lambda rows: self.move(rows, random), self._told.explore, random
            )

    def move(self, rows: Rows, random: np.random.Generator) -> NDArray[np.int64]:
        """Who plays the games that are learned from: what it has tried of positions, as `think`."""
        return self.think(rows, random)

    def think(self, rows: Rows, random: np.random.Generator | None = None) -> NDArray[np.int64]:
        """How often a search tries each move of positions [N, words], [N, actions].

        Args:
            rows: the positions.
            random: of its own games: noise at the root. Without it there is none, and it searches as it acts.
        """
        told = self._told
        stepped()
        with torch.inference_mode():
            root = self.root(rows, torch.from_numpy(self.game.planes(rows)))
            if random is not None:
                root = root._replace(priors=noisy(root.priors, told.noise, told.concentration, random))
            simulations = told.simulations if random is not None else told.acting or told.simulations
            return search(root, self.expand, simulations, c=told.c, gamma=told.gamma)[0]

    def _learn(self) -> dict[str, float]:
        told, totals = self._told, dict[str, float]()
        random = np.random.default_rng([self._seed, self._iteration, 0])
        self.network.train()
        for _ in range(told.updates):
            chosen = random.integers(len(self.memory.left), size=told.batch_size)
            losses = self.losses(chosen, random)
            loss = torch.stack(list(losses.values())).sum()
            stepped()
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            for name, value in {"loss": loss, **losses}.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) / told.updates
        self.network.eval()
        return totals

    def targets(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """What positions turned out to be worth to whoever is to move, [N]."""
        return self.memory.outcomes[chosen] * np.float32(self._told.gamma) ** self.memory.left[chosen]

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        return self.think(self.game.rows(observations)).argmax(1)

    def values(self, observations: NDArray[Any]) -> NDArray[Any]:
        """What the network thinks that observations are worth, without a search, [N]."""
        with torch.inference_mode():
            values: NDArray[Any] = self.network(torch.as_tensor(observations))[1].numpy()
        return values

    def state(self) -> dict[str, Any]:
        # Bits have no unsigned kind in every reader of checkpoints.
        memory = {**self.memory.columns(), "rows": self.memory.rows.view(np.int64)}
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "memory": memory,
            "iteration": self._iteration,
            "games": self._games,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        memory = state["memory"]
        self.memory = Positions(**{**memory, "rows": memory["rows"].view(np.uint64)})
        self._iteration, self._games = state["iteration"], state["games"]

    def weights(self) -> dict[str, NDArray[Any]]:
        return {name: value.numpy() for name, value in self.network.state_dict().items()}

    def close(self) -> None:
        self._remote.close()


def game_at(job: RLJob) -> Game:
    """The game of a job's environment."""
    env = environments.make(job.environment)
    game = game_of(env)
    env.close()  # type: ignore[no-untyped-call]
    return game


def turned(
    game: Game, planes: NDArray[np.float32], policies: NDArray[np.float32], random: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Positions turned at random, which changes nothing about them.

    Args:
        game: the rules.
        planes: of N positions, [N, height, width, channels].
        policies: of their moves, [N, actions].
        random: chooses.

    Returns:
        Both, turned, and which move comes to each move, [N, actions].
    """
    ways = random.integers(len(game.symmetries), size=len(planes))
    moves = game.turned[ways]
    cells = planes.reshape(len(planes), -1, game.channels)
    seen = np.take_along_axis(cells, game.symmetries[ways][:, :, None], 1).reshape(planes.shape)
    return seen, np.take_along_axis(policies, moves, 1), moves


def priors_of(game: Game, rows: Rows, logits: Tensor) -> NDArray[Any]:
    """The chances of legal moves of positions, as a search wants them."""
    return masked(logits.numpy(), game.legal(rows))
