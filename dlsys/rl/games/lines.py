"""Games in which a line of own stones wins: tic-tac-toe, and Connect-4, where stones fall."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsys.rl.games.game import Game, Rows, Words


class Lines(Game):
    """A line wins, a full board is a draw.

    Args:
        height, width: of the board.
        length: of a line, along a row, a column or a diagonal.
        falls: a move is a column (from the left), and the stone falls to its lowest empty cell; or else it is
            a cell, row by row from the top.
    """

    channels = 2
    begin = (0, 0)

    def __init__(self, height: int, width: int, length: int, *, falls: bool) -> None:
        self.height, self.width = height, width
        super().__init__()
        self.longest = height * width
        self._length = length
        self._shifts = (1, self.stride - 1, self.stride, self.stride + 1)
        if falls:
            top, bottom = self.bits[:width], self.bits[-width:]
            columns = [sum(self.bits[column::width]) for column in range(width)]
        else:
            top = bottom = columns = self.bits
        self.actions = len(top)
        self._top, self._bottom, self._columns = top, bottom, columns
        self._floor, self._anywhere = (sum(bottom), 0) if falls else (0, self.board)
        self._tops, self._bottoms, self._every = (
            np.array(each, np.uint64) for each in (top, bottom, columns)
        )
        self.symmetries = self.turns(square=height == width and not falls)
        self.turned = self.symmetries[:, :width] % width if falls else self.symmetries

    def move(self, words: Words, action: Any) -> tuple[Words, Any, Any]:
        own, other = words
        one = isinstance(action, int)
        bottom = (self._bottom if one else self._bottoms)[action]
        column = (self._columns if one else self._every)[action]
        taken = own | other
        # The sum carries through the stones of the column to the first empty cell.
        stone = (taken + bottom) & column & ~taken
        own = own | stone
        won = self._has_line(own)
        return (other, own), won | ((taken | stone) == self.board), 1.0 * won

    def _has_line(self, stones: Any) -> Any:
        found = False
        for shift in self._shifts:
            line = stones
            for step in range(1, self._length):
                line = line & (stones >> (step * shift))
            found = found | (line != 0)
        return found

    def moves(self, words: tuple[int, ...]) -> list[int]:
        taken = words[0] | words[1]
        return [action for action, top in enumerate(self._top) if not taken & top]

    def decisive(self, words: tuple[int, ...]) -> list[int]:
        own, other = words
        taken = own | other
        # All stones that could come next: no carry leaves its column.
        stones = ((taken + self._floor) | self._anywhere) & self.board & ~taken
        for line in (own, other):
            if self._has_line(line | stones):
                moves = self.moves(words)
                found = [move for move in moves if self._has_line(line | (stones & self._columns[move]))]
                if found:
                    return found
        return []

    def urgent(self, rows: Rows) -> NDArray[np.bool_]:
        own, other = rows[:, :1], rows[:, 1:]
        taken = own | other
        stones = (taken + self._bottoms) & self._every & ~taken
        wins, blocks = ((stones != 0) & self._has_line(line | stones) for line in (own, other))
        found: NDArray[np.bool_] = np.where(wins.any(1, keepdims=True), wins, blocks)
        return found

    def legal(self, rows: Rows) -> NDArray[np.bool_]:
        return ((rows[:, 0] | rows[:, 1])[:, None] & self._tops) == 0

    def _more(self, rows: Rows, seen: NDArray[np.float32]) -> None:
        pass

    def _fewer(self, cells: NDArray[Any], rows: Rows) -> None:
        pass

    def draw(self, words: tuple[int, ...], random: Random) -> int:
        moves = self.moves(words)
        return moves[int(random.random() * len(moves))]
