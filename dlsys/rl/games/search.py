"""Monte Carlo tree search with a network's priors and values (Silver et al. 2017): https://arxiv.org/abs/1712.01815

Many trees grow at once, each in arrays with a row for each of its nodes: a simulation walks down all of them
together, and what it finds at their ends is one batch for the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Found(NamedTuple):
    """What is known of N positions when they come into trees.

    Attributes:
        states: whatever stands for them, [N, …].
        priors: the chance of each move, [N, actions]; -inf where a move is not legal.
        values: what they are to whoever is to move, [N]; 0 where the game is over.
        rewards: what the moves to them earned whoever made these, [N].
        over: whether the game is, [N].
    """

    states: NDArray[Any]
    priors: NDArray[Any]
    values: NDArray[Any]
    rewards: NDArray[Any]
    over: NDArray[np.bool_]


# From states [N, …] and moves in them, [N], to what follows.
Expand = Callable[[NDArray[Any], NDArray[np.int64]], Found]


def search(
    root: Found, expand: Expand, simulations: int, *, c: float, gamma: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Searches from each of G positions.

    Args:
        root: the positions; none is over, and each has a legal move.
        expand: what follows a move.
        simulations: for each position.
        c: the weight of priors, as in Q + c · P · √(1 + Σ N) / (1 + N).
        gamma: what a value is worth a move earlier.

    Returns:
        How often each move was made [G, actions], and the mean of what it led to, to whoever makes it.
    """
    games, actions = root.priors.shape
    nodes = simulations + 1
    states = np.empty((games, nodes, *root.states.shape[1:]), root.states.dtype)
    priors = np.empty((games, nodes, actions))
    rewards, over = np.zeros((games, nodes)), np.zeros((games, nodes), bool)
    children = np.full((games, nodes, actions), -1)
    visits = np.zeros((games, nodes, actions), np.int64)
    totals = np.zeros((games, nodes, actions))
    states[:, 0], priors[:, 0] = root.states, root.priors
    for new in range(1, nodes):
        # Where each walk still goes on: games, the nodes that they are at, and their moves, by depth.
        rows, at = np.arange(games), np.zeros(games, np.int64)
        path: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
        ends = []
        while len(rows):
            tried = visits[rows, at]
            explored = np.sqrt(1.0 + tried.sum(1, keepdims=True)) / (1 + tried)
            mean = totals[rows, at] / np.maximum(tried, 1)
            chosen = (mean + c * priors[rows, at] * explored).argmax(1)
            path.append((rows, at, chosen))
            below = children[rows, at, chosen]
            fresh = below < 0
            ends.append((rows[fresh], at[fresh], chosen[fresh]))
            on = ~fresh & ~over[rows, below]
            rows, at = rows[on], below[on]
        game, parent, action = (np.concatenate(part) for part in zip(*ends, strict=True))
        back = np.zeros(games)
        if len(game):
            found = expand(states[game, parent], action)
            children[game, parent, action] = new
            states[game, new], priors[game, new] = found.states, found.priors
            rewards[game, new], over[game, new] = found.rewards, found.over
            back[game] = found.values
        for rows, at, chosen in reversed(path):
            back[rows] = rewards[rows, children[rows, at, chosen]] - gamma * back[rows]
            visits[rows, at, chosen] += 1
            totals[rows, at, chosen] += back[rows]
    return visits[:, 0], totals[:, 0] / np.maximum(visits[:, 0], 1)


def masked(logits: NDArray[Any], legal: NDArray[np.bool_]) -> NDArray[Any]:
    """Priors [N, actions] of logits: their softmax over legal moves, and -inf elsewhere; where no move is
    legal (a game is over), -inf."""
    found = np.where(legal, logits, -np.inf)
    highest = found.max(1, keepdims=True)
    chances = np.exp(found - np.where(np.isfinite(highest), highest, 0))
    total = chances.sum(1, keepdims=True)
    return np.where(legal, chances / np.where(total == 0, 1, total), -np.inf)


def noisy(
    priors: NDArray[Any], share: float, concentration: float, random: np.random.Generator
) -> NDArray[Any]:
    """Priors with a share of Dirichlet noise over the legal moves, so that any of them may be tried."""
    legal = np.isfinite(priors)
    drawn = np.where(legal, random.standard_gamma(concentration, priors.shape) + 1e-9, 0)
    return np.where(legal, (1 - share) * priors + share * drawn / drawn.sum(1, keepdims=True), -np.inf)
