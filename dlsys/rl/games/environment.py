"""A board game against an opponent, as one of gymnasium's environments."""

from __future__ import annotations

from random import Random
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dlsys.rl.games.game import Game
from dlsys.rl.games.go import Go
from dlsys.rl.games.lines import Lines
from dlsys.rl.games.opponents import opponent as opponent_of

_CELL = 32  # pixels
_BOARD, _GRID = (222, 184, 135), (120, 90, 50)
_STONES = (20, 20, 20), (240, 240, 240)


class BoardGame(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One game an episode. An action is a move; what is seen is the board as whoever is to move sees it.

    The reward is 1 for a game won, -1 for one lost and 0 otherwise. A move that is not legal loses at once;
    `info["action_mask"]` says which are. The last `info` has 1 at one of `win`, `draw` and `loss`.

    Args:
        game: its rules.
        opponent: `random`, `perfect` or `mcts`.
        simulations: of the opponent `mcts`, for each move.
        first: who begins: `agent`, `opponent`, or either of them, as the seed says.
        render_mode: `rgb_array` draws.

    Raises:
        ValueError: a name is unknown, or the game has no such opponent.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012

    def __init__(
        self,
        game: Game,
        opponent: str = "random",
        simulations: int = 200,
        first: str = "either",
        render_mode: str | None = None,
    ) -> None:
        if first not in ("agent", "opponent", "either"):
            raise ValueError(f"first must be agent, opponent or either, got {first!r}")
        self.game, self.render_mode = game, render_mode
        self._opponent, self._first = opponent_of(game, opponent, simulations), first
        shape = (game.height, game.width, game.channels)
        self.observation_space = spaces.Box(0.0, 1.0, shape, np.float32)
        self.action_space = spaces.Discrete(game.actions)
        self._random = Random(0)
        self._words = game.begin
        # Whether the agent has the first player's stones.
        self._begins = self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._random = Random(int(self.np_random.integers(2**32)))
        self._words, self._over = self.game.begin, False
        self._begins = self._first == "agent" or (self._first == "either" and self._random.random() < 0.5)
        if not self._begins:
            self._words, _, _ = self.game.move(self._words, self._opponent(self._words, self._random))
        return self._seen(), self._info()

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        outcome, over, action = -1.0, True, int(action)
        if action in self.game.moves(self._words):
            self._words, over, outcome = self.game.move(self._words, action)
            if not over:
                answer = self._opponent(self._words, self._random)
                self._words, over, outcome = self.game.move(self._words, answer)
                outcome = -outcome
            else:
                # Seen by the agent, as all the others.
                self._words = (self._words[1], self._words[0], *self._words[2:])
        self._over = over
        info = self._info()
        if over:
            info[{1: "win", 0: "draw", -1: "loss"}[int(outcome)]] = 1.0
        return self._seen(), float(outcome) if over else 0.0, bool(over), False, info

    def _seen(self) -> NDArray[np.float32]:
        return self.game.planes(np.array([self._words], np.uint64))[0]

    def _info(self) -> dict[str, Any]:
        mask = np.zeros(self.game.actions, np.int8)
        if not self._over:
            mask[self.game.moves(self._words)] = 1
        return {"action_mask": mask}

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The board, [height, width, 3], with the first player's stones black; None without a render mode."""
        if self.render_mode is None:
            return None
        game = self.game
        pixels = np.full((game.height, game.width, _CELL, _CELL, 3), _BOARD, np.uint8)
        pixels[:, :, 0] = pixels[:, :, :, 0] = _GRID
        y, x = np.mgrid[:_CELL, :_CELL] - (_CELL - 1) / 2
        disc = y * y + x * x < (_CELL * 0.4) ** 2
        stones = self._words[:2] if self._begins else self._words[1::-1]
        for word, color in zip(stones, _STONES, strict=True):
            cells = game.spread(np.array([word], np.uint64)).reshape(game.height, game.width)
            pixels[cells[:, :, None, None] & disc] = color
        return pixels.swapaxes(1, 2).reshape(game.height * _CELL, game.width * _CELL, 3)


def tic_tac_toe(**options: Any) -> BoardGame:
    """Three in a row on a board of 3 x 3."""
    return BoardGame(Lines(3, 3, 3, falls=False), **options)


def connect_four(**options: Any) -> BoardGame:
    """Four in a row on a board 7 wide and 6 high, in whose columns stones fall."""
    return BoardGame(Lines(6, 7, 4, falls=True), **options)


def go(size: int = 5, komi: float = 0.5, **options: Any) -> BoardGame:
    """Go on a board of size x size."""
    return BoardGame(Go(size, komi), **options)


def game_of(env: gymnasium.Env[Any, Any]) -> Game:
    """The rules of an environment that is a board game."""
    inner: Any = env.unwrapped
    game: Game = inner.game
    return game
