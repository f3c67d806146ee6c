"""Monte Carlo tree search (Kocsis and Szepesvári 2006): it learns nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.rl import environments
from dlsys.rl.agent import Iteration
from dlsys.rl.games.environment import game_of
from dlsys.rl.games.game import Rows, ints
from dlsys.rl.games.selfplay import self_play
from dlsys.rl.games.uct import uct
from dlsys.spec.rl.games import MCTS
from dlsys.spec.rl.job import RLJob


class MCTSAgent:
    """Implements `dlsys.rl.agent.Agent`; its one iteration is a game against itself."""

    def __init__(self, job: RLJob) -> None:
        assert isinstance(job.algorithm, MCTS)
        self._told, self._seed = job.algorithm, job.seed
        env = environments.make(job.environment)
        self._game = game_of(env)
        env.close()  # type: ignore[no-untyped-call]

    def iterate(self) -> Iteration:
        began = time.perf_counter()
        _, outcomes, lengths = self_play(self._game, 1, self._think, 0, np.random.default_rng(self._seed))
        seconds = {"sample": time.perf_counter() - began}
        figures = {"games": 1.0, "draws": float((outcomes == 0).mean())}
        return Iteration(int(lengths.sum()), outcomes.tolist(), lengths.tolist(), figures, seconds, done=True)

    def _think(self, rows: Rows) -> NDArray[np.int64]:
        told = self._told
        tried = []
        for words in map(ints, rows):
            random = Random(f"{self._seed} {words}")
            tried.append(uct(self._game, words, told.simulations, told.c, random, decisive=told.decisive))
        return np.array(tried)

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        return self._think(self._game.rows(observations)).argmax(1)

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass

    def weights(self) -> dict[str, NDArray[Any]]:
        return {}

    def close(self) -> None:
        pass


def policy(job: RLJob, _: Mapping[str, Tensor]) -> nn.Module:
    """Raises UsageError: there is no network."""
    raise UsageError(f"{job.name}: mcts only searches, and has no policy that a file could hold")
