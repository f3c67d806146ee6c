"""Who plays against an agent."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from dlsys.rl.games.game import Game
from dlsys.rl.games.uct import uct

# From a position to a move.
Opponent = Callable[[tuple[int, ...], Random], int]

# Below that many cells, all positions are soon known.
_KNOWN = 9


def opponent(game: Game, name: str, simulations: int) -> Opponent:
    """An opponent by its name.

    Args:
        game: the rules.
        name: `random` (any legal move), `perfect` (one of the best ones; a random one of these), or `mcts`.
        simulations: of `mcts`.

    Raises:
        ValueError: there is no such opponent, or not in this game.
    """
    if name == "random":
        return lambda words, random: random.choice(game.moves(words))
    if name == "mcts":
        if simulations < 1:
            raise ValueError(f"simulations must be at least 1, got {simulations}")
        return lambda words, random: _tried_most(uct(game, words, simulations, 1.0, random))
    if name != "perfect":
        raise ValueError(f"opponent must be random, perfect or mcts, got {name!r}")
    if game.longest > _KNOWN:
        raise ValueError("opponent perfect looks at all positions, and this game has too many: take mcts")
    return perfect(game)


def _tried_most(visits: list[int]) -> int:
    return max(range(len(visits)), key=visits.__getitem__)


def perfect(game: Game) -> Opponent:
    """Minimax that remembers."""
    values = minimax(game)

    def chosen(words: tuple[int, ...], random: Random) -> int:
        worth = {action: _worth(game, words, action, values) for action in game.moves(words)}
        best = max(worth.values())
        return random.choice([action for action, value in worth.items() if value == best])

    return chosen


def minimax(game: Game) -> Callable[[tuple[int, ...]], float]:
    """From a position to what it is to whoever is to move, if both play as well as can be: 1, 0 or -1."""

    @cache
    def value(words: tuple[int, ...]) -> float:
        return max(_worth(game, words, action, value) for action in game.moves(words))

    return value


def _worth(
    game: Game, words: tuple[int, ...], action: int, value: Callable[[tuple[int, ...]], float]
) -> float:
    after, over, outcome = game.move(words, action)
    return float(outcome) if over else -value(after)
