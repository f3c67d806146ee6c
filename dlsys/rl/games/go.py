"""Go on a small board, scored by area (Tromp and Taylor): https://tromp.github.io/go.html

Suicide is not allowed. Ko is the simple one: what has just taken a single stone with a single stone cannot be
taken back at once. Longer cycles end at the limit of three moves for each point; then, and after two passes,
the board is scored as it stands, dead stones included.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsys.rl.games.game import Game, Rows, Words

# The last word: moves made, and above them whether the last one was a pass and whether Black is to move.
_PASSED, _BLACK = 1 << 16, 1 << 17


class Go(Game):
    """Go; a move is a point, row by row from the top, or, as the last one, a pass.

    Positions have two words more: the point where ko forbids a stone, and what `_PASSED` and `_BLACK` say.

    Args:
        size: points along an edge, 2 to 7: a board is one word.
        komi: what White gets for moving second; with half a point nothing is drawn.
    """

    channels = 6
    begin = (0, 0, 0, _BLACK)

    def __init__(self, size: int = 5, komi: float = 0.5) -> None:
        if not 2 <= size <= 7:
            raise ValueError(f"size must be 2 to 7, got {size}")
        self.height = self.width = size
        super().__init__()
        self.actions = size * size + 1
        self.longest = 3 * size * size
        self._komi = komi
        self._bits = [*self.bits, 0]
        self._points = np.array(self._bits, np.uint64)
        self.symmetries = self.turns(square=True)
        self.turned = np.pad(self.symmetries, ((0, 0), (0, 1)), constant_values=size * size)

    def move(self, words: Words, action: Any) -> tuple[Words, Any, Any]:
        own, other, _, meta = words
        bit = (self._bits if isinstance(action, int) else self._points)[action]
        passes = bit == 0
        own, left, _ = self._placed(own, other, bit)
        taken = other & ~left
        # A single stone that has taken a single one, and now has no other liberty.
        alone = (taken & (taken - (taken != 0))) == 0
        alone = alone & (self._near(bit) & own == 0) & (self._near(bit) & self.board & ~left & ~taken == 0)
        count = (meta & (_PASSED - 1)) + 1
        over = (passes & (meta & _PASSED != 0)) | (count >= self.longest)
        after = count + _flag(passes, _PASSED) + _flag(meta & _BLACK == 0, _BLACK)
        outcome = 0.0 * over
        if over if isinstance(over, bool) else over.any():
            lead = self.lead(own, left) + self._komi * (1 - 2.0 * (meta & _BLACK != 0))
            outcome = over * (1.0 * (lead > 0) - 1.0 * (lead < 0))
        return (left, own, taken * alone, after), over, outcome

    def lead(self, own: Any, other: Any) -> Any:
        """How many points `own` is ahead by area, without komi."""
        empty = self.board & ~own & ~other
        ours = self._flood(self._near(own) & empty, empty)
        theirs = self._flood(self._near(other) & empty, empty)
        return _count(own | (ours & ~theirs)) - 1.0 * _count(other | (theirs & ~ours))

    def _near(self, stones: Any) -> Any:
        """All that is beside them."""
        step = self.stride
        return ((stones << 1) | (stones >> 1) | (stones << step) | (stones >> step)) & self.board

    def _flood(self, seeds: Any, within: Any) -> Any:
        """What of `within` hangs together with `seeds`, which lie in it."""
        while True:
            grown = seeds | (self._near(seeds) & within)
            changed = grown != seeds
            if not (changed if isinstance(changed, bool) else changed.any()):
                return seeds
            seeds = grown

    def _placed(self, own: Any, other: Any, bit: Any) -> tuple[Any, Any, Any]:
        """Own stones with one more, the other's that are left, and whether the new one stays alive."""
        own = own | bit
        empty = self.board & ~own & ~other
        left = self._flood(self._near(empty) & other, other)
        mine = self._flood(bit, own)
        return own, left, self._near(mine) & self.board & ~own & ~left != 0

    def moves(self, words: tuple[int, ...]) -> list[int]:
        return [action for action in range(self.actions) if self._allows(words, action)]

    def _allows(self, words: tuple[int, ...], action: int) -> bool:
        own, other, ko, _ = words
        bit = self._bits[action]
        if not bit:
            return True
        if bit & (own | other | ko):
            return False
        return bool(self._near(bit) & ~own & ~other or self._placed(own, other, bit)[2])

    def legal(self, rows: Rows) -> NDArray[np.bool_]:
        own, other, ko, _ = (word[:, None] for word in rows.T)
        points = self._points[:-1]
        empty = points & (own | other | ko) == 0
        legal = empty & (self._near(points) & ~own & ~other != 0)
        row, point = np.nonzero(empty & ~legal)
        if len(row):
            legal[row, point] = self._placed(own[row, 0], other[row, 0], points[point])[2]
        return np.pad(legal, ((0, 0), (0, 1)), constant_values=True)

    def _eyes(self, own: Any, other: Any) -> Any:
        """Points with own stones on all sides: who fills these never ends a game."""
        return self.board & ~own & ~other & ~self._near(self.board & ~own)

    def sensible(self, rows: Rows) -> NDArray[np.bool_]:
        found = self.legal(rows)
        found[:, :-1] &= ~self.spread(self._eyes(rows[:, 0], rows[:, 1]))
        found[:, -1] = ~found[:, :-1].any(1)
        return found

    def draw(self, words: tuple[int, ...], random: Random) -> int:
        own, other, ko, _ = words
        free = self.board & ~own & ~other & ~ko & ~self._eyes(own, other)
        actions = [action for action, bit in enumerate(self.bits) if bit & free]
        while actions:
            index = int(random.random() * len(actions))
            if self._allows(words, actions[index]):
                return actions[index]
            actions[index] = actions[-1]
            actions.pop()
        return self.actions - 1

    def _more(self, rows: Rows, seen: NDArray[np.float32]) -> None:
        meta = rows[:, 3]
        seen[:, :, 2] = self.spread(rows[:, 2])
        seen[:, :, 3] = (meta & _PASSED != 0)[:, None]
        seen[:, :, 4] = (meta & _BLACK != 0)[:, None]
        seen[:, :, 5] = ((meta & (_PASSED - 1)) / self.longest)[:, None]

    def _fewer(self, cells: NDArray[Any], rows: Rows) -> None:
        rows[:, 2] = self.gather(cells[:, :, 2])
        passed, black, count = cells[:, 0, 3] > 0.5, cells[:, 0, 4] > 0.5, cells[:, 0, 5]
        rows[:, 3] = np.round(count * self.longest) + passed * _PASSED + black * _BLACK


def _flag(holds: Any, value: int) -> Any:
    return value * holds if isinstance(holds, bool) else np.where(holds, np.uint64(value), np.uint64(0))


def _count(stones: Any) -> Any:
    return stones.bit_count() if isinstance(stones, int) else np.bitwise_count(stones)
