"""Searches in board games: playouts one at a time, and networks many at once."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dlsys.rl.games.game import Game, ints
from dlsys.rl.games.lines import Lines
from dlsys.rl.games.search import Found, masked, noisy, search
from dlsys.rl.games.selfplay import self_play
from dlsys.rl.games.uct import uct

TICTACTOE, CONNECT4 = Lines(3, 3, 3, falls=False), Lines(6, 7, 4, falls=True)


def after(game: Game, *moves: int) -> tuple[int, ...]:
    words = game.begin
    for move in moves:
        words, over, _ = game.move(words, move)
        assert not over
    return words


@pytest.mark.parametrize(
    ("game", "moves", "best"),
    [
        (TICTACTOE, (0, 3, 1, 4), 2),  # wins
        (TICTACTOE, (0, 4, 1), 2),  # does not lose
        (CONNECT4, (0, 6, 0, 6, 0, 5), 0),
        (CONNECT4, (0, 6, 0, 5, 0), 0),
        (CONNECT4, (2, 2, 3, 3), (1, 4)),  # wins in two: three in the row of the floor, open on both sides
    ],
)
def test_what_is_forced_is_found(game: Game, moves: tuple[int, ...], best: Any) -> None:
    words = after(game, *moves)
    visits = uct(game, words, 400, 1.0, Random(0))
    assert sum(visits) == 400
    assert np.argmax(visits) in np.atleast_1d(best)
    tried, _ = search(root(game, [words]), expand(game), 400, c=1.5)
    assert tried.sum() == 400
    assert tried[0].argmax() in np.atleast_1d(best)


def guess(game: Game, words: tuple[int, ...]) -> tuple[NDArray[np.float64], float]:
    """Made-up priors of all moves, and a value."""
    random = Random(str(words))
    logits = np.array([random.gauss(0, 1) for _ in range(game.actions)])
    legal = np.zeros(game.actions, bool)
    legal[game.moves(words)] = True
    return masked(logits[None], legal[None])[0], random.uniform(-0.3, 0.3)


def root(game: Game, positions: list[tuple[int, ...]]) -> Found:
    known = [guess(game, words) for words in positions]
    none = np.zeros(len(positions))
    priors, values = np.array([each[0] for each in known]), np.array([each[1] for each in known])
    return Found(np.array(positions, np.uint64), priors, values, none, none > 0)


def expand(game: Game) -> Any:
    def expanded(states: NDArray[Any], actions: NDArray[np.int64]) -> Found:
        rows, over, outcomes = game.play(states, actions)
        found = root(game, [ints(row) for row in rows])
        return found._replace(values=np.where(over, 0, found.values), rewards=outcomes, over=over)

    return expanded


def plain(
    game: Game, words: tuple[int, ...], simulations: int, c: float, gamma: float
) -> tuple[list[int], list[float]]:
    """The same search, one position at a time and with an object for each."""

    class Node:
        def __init__(self, words: tuple[int, ...], over: bool, earned: float) -> None:
            self.words, self.over, self.earned = words, over, earned
            self.priors, self.value = guess(game, words)
            self.children: dict[int, Node] = {}
            self.visits, self.totals = [0] * game.actions, [0.0] * game.actions

        def simulate(self) -> float:
            """What it is worth to whoever is to move here."""
            if self.over:
                return 0.0
            wide = np.sqrt(1 + sum(self.visits))
            scores = [
                total / max(count, 1) + c * prior * wide / (1 + count) if prior >= 0 else -np.inf
                for prior, count, total in zip(self.priors, self.visits, self.totals, strict=True)
            ]
            move = int(np.argmax(scores))
            if new := move not in self.children:
                self.children[move] = Node(*game.move(self.words, move))
            child = self.children[move]
            below = (0.0 if child.over else child.value) if new else child.simulate()
            worth = child.earned - gamma * below
            self.visits[move] += 1
            self.totals[move] += worth
            return worth

    tree = Node(words, False, 0.0)
    for _ in range(simulations):
        tree.simulate()
    return tree.visits, [total / max(count, 1) for total, count in zip(tree.totals, tree.visits, strict=True)]


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_statistics_are_those_of_a_plain_search_alone_and_among_others(gamma: float) -> None:
    positions = [
        after(CONNECT4, *moves) for moves in ((), (3,), (2, 2, 3, 3), (0, 6, 0, 6, 0), (3, 3, 3, 3, 3, 3))
    ]
    visits, means = search(root(CONNECT4, positions), expand(CONNECT4), 150, c=1.5, gamma=gamma)
    for index, words in enumerate(positions):
        expected = plain(CONNECT4, words, 150, 1.5, gamma)
        assert visits[index].tolist() == expected[0]
        np.testing.assert_allclose(means[index], expected[1], atol=1e-12)
        alone = search(root(CONNECT4, [words]), expand(CONNECT4), 150, c=1.5, gamma=gamma)
        assert alone[0][0].tolist() == visits[index].tolist()


def test_illegal_moves_are_never_tried() -> None:
    words = after(CONNECT4, 3, 3, 3, 3, 3, 3)
    found = root(CONNECT4, [words])
    noise = noisy(found.priors, 0.5, 0.3, np.random.default_rng(0))
    assert noise[0, 3] == -np.inf
    assert np.where(np.isfinite(noise), noise, 0).sum() == pytest.approx(1)
    assert (noise != found.priors)[0, :3].all()
    visits, _ = search(found._replace(priors=noise), expand(CONNECT4), 50, c=1.5)
    assert visits[0, 3] == 0


def test_games_are_remembered_in_their_order() -> None:
    def think(rows: NDArray[np.uint64]) -> NDArray[np.int64]:
        return CONNECT4.legal(rows).astype(np.int64)

    random = np.random.default_rng(0)
    positions, outcomes, lengths = self_play(CONNECT4, 5, think, 100, random)
    assert len(positions.left) == lengths.sum()
    starts = np.cumsum(lengths) - lengths
    for start, length, outcome in zip(starts, lengths, outcomes, strict=True):
        own = slice(start, start + length)
        assert (positions.rows[start] == 0).all()
        assert positions.left[own].tolist() == list(range(length))[::-1]
        signs = np.where(np.arange(length) % 2, -1, 1)
        assert (positions.outcomes[own] == outcome * signs).all()
        after, over, earned = CONNECT4.play(positions.rows[own], positions.actions[own])
        assert (after[:-1] == positions.rows[own][1:]).all()
        assert over.tolist() == [False] * (length - 1) + [True]
        assert earned[-1] == positions.outcomes[own][-1]
    np.testing.assert_allclose(positions.policies.sum(1), 1, rtol=1e-6)
    assert len(positions.joined([positions], 12).left) == 12
