"""What searches, opponents and agents ask of a board game for two.

A position is a few words of bits, seen by whoever is to move: the own stones first, then the other's. The
same rules move one position, whose words are Python's integers, and N of them, whose words are arrays of
uint64: one is quicker where positions are followed singly, the other where many are searched side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

# One position's words (int), or N positions' ([N] uint64).
Words = tuple[Any, ...]
Rows = NDArray[np.uint64]


class Game(ABC):
    """Rules.

    Attributes:
        height, width: of the board.
        actions: how many moves there are, legal or not.
        begin: the words of the first position.
        channels: of `planes`.
        longest: the most moves of a game.
        symmetries: K ways to turn the board that change nothing: which cell comes to each cell, [K, cells].
        turned: which move comes to each move then, [K, actions].
    """

    height: int
    width: int
    actions: int
    begin: tuple[int, ...]
    channels: int
    longest: int
    symmetries: NDArray[np.int64]
    turned: NDArray[np.int64]

    def __init__(self) -> None:
        # Columns of bits, from the bottom up, with an empty bit on top of each: what is shifted over an edge
        # falls there.
        self.stride = self.height + 1
        self.bits = [
            1 << (column * self.stride + self.height - 1 - row)
            for row in range(self.height)
            for column in range(self.width)
        ]
        self.board = sum(self.bits)
        self._cells = np.array(self.bits, np.uint64)

    @abstractmethod
    def move(self, words: Words, action: Any) -> tuple[Words, Any, Any]:
        """Makes legal moves.

        Args:
            words: of a position, or of N.
            action: an int, or [N].

        Returns:
            The position as the other player sees it; whether the game is over; and what it then is to whoever
            moved: 1 won, 0 drawn, -1 lost.
        """

    @abstractmethod
    def moves(self, words: tuple[int, ...]) -> list[int]:
        """The legal moves of one position."""

    @abstractmethod
    def legal(self, rows: Rows) -> NDArray[np.bool_]:
        """The legal moves of N positions [N, words], [N, actions]."""

    @abstractmethod
    def draw(self, words: tuple[int, ...], random: Random) -> int:
        """A random move of a playout: of the sensible ones, each is as likely."""

    def decisive(self, words: tuple[int, ...]) -> list[int]:
        """The moves of one position that win at once, or, where there are none, those that keep the other
        from it (Teytaud and Teytaud 2010: https://doi.org/10.1109/ITW.2010.5593334); empty where there are
        neither, or where the rules don't tell them quickly."""
        return []

    def urgent(self, rows: Rows) -> NDArray[np.bool_]:
        """The decisive moves of N positions [N, words], [N, actions]; of some positions none."""
        return np.zeros((len(rows), self.actions), bool)

    def sensible(self, rows: Rows) -> NDArray[np.bool_]:
        """The moves that playouts draw from, [N, actions]; at least one of each position."""
        return self.legal(rows)

    def start(self, count: int) -> Rows:
        """The first position of `count` games, [count, words]."""
        return np.tile(np.array(self.begin, np.uint64), (count, 1))

    def play(
        self, rows: Rows, actions: NDArray[np.int64]
    ) -> tuple[Rows, NDArray[np.bool_], NDArray[np.float64]]:
        """Makes a legal move in each of N positions [N, words], as `move`."""
        words, over, outcome = self.move(tuple(rows.T), actions)
        return np.stack(words, -1), over, np.asarray(outcome, np.float64)

    def planes(self, rows: Rows) -> NDArray[np.float32]:
        """What networks see of N positions, [N, height, width, channels]: the own stones, the other's, and
        what else the rules ask for."""
        seen = np.empty((len(rows), len(self._cells), self.channels), np.float32)
        for channel in (0, 1):
            seen[:, :, channel] = self.spread(rows[:, channel])
        self._more(rows, seen)
        return seen.reshape(-1, self.height, self.width, self.channels)

    def spread(self, words: Rows) -> NDArray[np.bool_]:
        """Cells [N, cells] of words [N]."""
        return (words[:, None] & self._cells) != 0

    def rows(self, planes: NDArray[Any]) -> Rows:
        """The positions of what is seen: the inverse of `planes`."""
        cells = planes.reshape(len(planes), len(self._cells), self.channels)
        found = np.zeros((len(planes), len(self.begin)), np.uint64)
        for channel in (0, 1):
            found[:, channel] = self.gather(cells[:, :, channel])
        self._fewer(cells, found)
        return found

    def gather(self, cells: NDArray[Any]) -> Rows:
        """Words [N] of cells [N, cells]."""
        return np.where(cells > 0.5, self._cells, np.uint64(0)).sum(1, dtype=np.uint64)

    @abstractmethod
    def _more(self, rows: Rows, seen: NDArray[np.float32]) -> None:
        """Fills in the channels after the second of [N, cells, channels]."""

    @abstractmethod
    def _fewer(self, cells: NDArray[Any], rows: Rows) -> None:
        """Fills in the words [N, words] after the second."""

    def turns(self, square: bool) -> NDArray[np.int64]:
        """Symmetries of the board: mirrored, and if it is a square turned too."""
        grid = np.arange(self.height * self.width).reshape(self.height, self.width)
        boards = [np.rot90(grid, turn) for turn in range(4)] if square else [grid]
        return np.stack([each.ravel() for board in boards for each in (board, board[:, ::-1])])


def ints(row: Rows) -> tuple[int, ...]:
    """One position's words as Python's integers."""
    return tuple(row.tolist())
