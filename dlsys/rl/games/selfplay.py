"""Games of a player against itself, side by side, and what is remembered of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsys.rl.games.game import Game, Rows

# From positions [N, words] to how often each move was tried, [N, actions].
Think = Callable[[Rows], NDArray[np.int64]]
# From the number of moves made, which games go on [N] and their positions [N, words] to the next moves [N]
# and what is remembered of all moves, [N, actions].
Choose = Callable[[int, NDArray[np.int64], Rows], tuple[NDArray[np.int64], NDArray[Any]]]


@dataclass(frozen=True)
class Positions:
    """M positions of games, each game's in their order.

    Attributes:
        rows: as the game keeps them, [M, words].
        policies: the share of each move in the search, [M, actions].
        actions: what was played, [M].
        outcomes: what the game was, in the end, to whoever was to move, [M].
        left: how many moves of the game follow, the one played not counted, [M].
    """

    rows: Rows
    policies: NDArray[np.float32]
    actions: NDArray[np.int64]
    outcomes: NDArray[np.float32]
    left: NDArray[np.int64]

    @staticmethod
    def none(game: Game) -> Positions:
        return Positions(
            np.empty((0, len(game.begin)), np.uint64),
            np.empty((0, game.actions), np.float32),
            np.empty(0, np.int64),
            np.empty(0, np.float32),
            np.empty(0, np.int64),
        )

    def columns(self) -> dict[str, NDArray[np.generic]]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def at(self, chosen: NDArray[np.bool_]) -> Positions:
        """Some of them, [M]."""
        return Positions(**{name: column[chosen] for name, column in self.columns().items()})  # type: ignore[arg-type]

    def joined(self, others: list[Positions], capacity: int) -> Positions:
        """These and others, the newest `capacity` of them."""
        parts = [self.columns(), *(other.columns() for other in others)]
        return Positions(
            **{name: np.concatenate([part[name] for part in parts])[-capacity:] for name in parts[0]}
        )


def self_play(
    game: Game, count: int, think: Think, explore: int, random: np.random.Generator
) -> tuple[Positions, NDArray[np.float64], NDArray[np.int64]]:
    """Games from their first move to their end.

    Args:
        game: the rules.
        count: games.
        think: the player.
        explore: moves of each game that are drawn in proportion to how often they were tried; later ones are
            those that were tried most.
        random: draws them.

    Returns:
        As `played`.
    """

    def choose(ply: int, _: NDArray[np.int64], rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        shares = think(rows).astype(np.float64)
        shares /= shares.sum(1, keepdims=True)
        if ply >= explore:
            return shares.argmax(1), shares
        below = random.random((len(rows), 1)) * (1 - 1e-12)
        return (shares.cumsum(1) > below).argmax(1), shares

    return played(game, count, choose)


def played(
    game: Game, count: int, choose: Choose
) -> tuple[Positions, NDArray[np.float64], NDArray[np.int64]]:
    """Games from their first move to their end.

    Args:
        game: the rules.
        count: games.
        choose: makes the moves.

    Returns:
        Their positions, their outcomes to the first player and their lengths, [count].
    """
    rows, playing = game.start(count), np.arange(count)
    outcomes, lengths = np.zeros(count), np.zeros(count, np.int64)
    moves: list[tuple[NDArray[np.int64], Rows, NDArray[np.float32], NDArray[np.int64]]] = []
    while len(playing):
        actions, shares = choose(len(moves), playing, rows)
        moves.append((playing, rows, shares.astype(np.float32), actions))
        rows, over, outcome = game.play(rows, actions)
        ended = playing[over]
        outcomes[ended] = outcome[over] * (1 if len(moves) % 2 else -1)
        lengths[ended] = len(moves)
        rows, playing = rows[~over], playing[~over]
    games, plies = (
        np.concatenate(part)
        for part in zip(
            *((move[0], np.full(len(move[0]), ply)) for ply, move in enumerate(moves)), strict=True
        )
    )
    order = np.lexsort((plies, games))
    games, plies = games[order], plies[order]
    played, policies, actions = (np.concatenate([move[part] for move in moves])[order] for part in (1, 2, 3))
    seen = outcomes[games] * np.where(plies % 2, -1, 1)
    left = lengths[games] - 1 - plies
    return Positions(played, policies, actions, seen.astype(np.float32), left), outcomes, lengths


def drawn(logits: NDArray[Any], allowed: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Moves [N] drawn from the softmax of logits [N, actions] over those that are allowed, [N, actions]."""
    # The highest of logits with Gumbel noise is such a draw.
    noisy = logits - np.log(random.standard_exponential(logits.shape))
    return np.where(allowed, noisy, -np.inf).argmax(1)
