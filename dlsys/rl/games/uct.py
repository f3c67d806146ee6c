"""Upper confidence bounds in trees (Kocsis and Szepesvári 2006), with random playouts.

One position at a time, in Python's integers: nothing that has to wait for a batch.
"""

from __future__ import annotations

from math import log, sqrt
from random import Random

from dlsys.rl.games.game import Game


class _Node:
    """A position, seen by whoever is to move there; its total counts for whoever moved to it."""

    __slots__ = ("actions", "children", "outcome", "over", "total", "untried", "visits", "words")

    def __init__(
        self, game: Game, words: tuple[int, ...], over: bool, outcome: float, decisive: bool
    ) -> None:
        self.words, self.over, self.outcome = words, over, outcome
        self.untried = [] if over else (decisive and game.decisive(words)) or game.moves(words)
        self.actions: list[int] = []
        self.children: list[_Node] = []
        self.visits, self.total = 0, 0.0


def uct(
    game: Game, words: tuple[int, ...], simulations: int, c: float, random: Random, *, decisive: bool = False
) -> list[int]:
    """How often each move was tried, [actions].

    Args:
        game: the rules.
        words: a position that is not over.
        simulations: playouts.
        c: the weight of what is little known; outcomes lie in ±1.
        random: orders untried moves, and plays.
        decisive: where there are `Game.decisive` moves, tree and playouts make no others.
    """
    root = _Node(game, words, over=False, outcome=0.0, decisive=decisive)
    for _ in range(simulations):
        node, path = root, [root]
        while not node.untried and not node.over:
            node = _chosen(node, c)
            path.append(node)
        if node.untried:
            untried = node.untried
            index = int(random.random() * len(untried))
            action, untried[index] = untried[index], untried[-1]
            untried.pop()
            child = _Node(game, *game.move(node.words, action), decisive)
            node.actions.append(action)
            node.children.append(child)
            node = child
            path.append(node)
        value = node.outcome if node.over else -playout(game, node.words, random, decisive)
        for node in reversed(path):
            node.visits += 1
            node.total += value
            value = -value
    visits = [0] * game.actions
    for action, child in zip(root.actions, root.children, strict=True):
        visits[action] = child.visits
    return visits


def _chosen(node: _Node, c: float) -> _Node:
    wide, best, found = c * sqrt(log(node.visits)), -1e9, node
    for child in node.children:
        score = child.total / child.visits + wide / sqrt(child.visits)
        if score > best:
            best, found = score, child
    return found


def playout(game: Game, words: tuple[int, ...], random: Random, decisive: bool = False) -> float:
    """What a game of random moves is at its end to whoever is to move first."""
    sign = -1.0
    while True:
        sign = -sign
        forced = game.decisive(words) if decisive else []
        action = forced[int(random.random() * len(forced))] if forced else game.draw(words, random)
        words, over, outcome = game.move(words, action)
        if over:
            return sign * outcome
