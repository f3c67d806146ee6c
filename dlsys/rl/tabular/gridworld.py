"""A robot in a grid, drawn in a text file: Russell and Norvig, Artificial Intelligence, chapter 17.1.

    slip: 0.2
    ...G
    .#.H
    S...

`S` is the start, `G` a goal, `H` a hole, `#` a wall and `.` free. Goals and holes end an episode. A move
against a wall or the border stays where it is. Above the map may stand, with these defaults:

    slip: 0        probability that a move goes to the side instead, half of it to either side
    step: -0.04    reward of every move
    goal: 1        reward of entering a goal, besides
    hole: -1       reward of entering a hole, besides
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlsys.errors import Problem, SpecError, UsageError
from dlsys.registry import did_you_mean
from dlsys.rl.tabular.mdp import MDP, absorb, empty

CELLS = {"S": "start", "G": "goal", "H": "hole", "#": "wall", ".": "free"}
# Rows and columns that an action moves by; two neighbours in the circle are at right angles.
MOVES = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
_SETTINGS = ("slip", "step", "goal", "hole")

Cell = tuple[int, int]


@dataclass(frozen=True)
class GridWorld:
    """A map and its rules.

    Attributes:
        rows: the map's lines, all of one length; one `S`, and a `G` that it leads to.
        slip: probability that a move goes to the side.
        step: reward of every move.
        goal: reward of entering a goal, besides `step`.
        hole: reward of entering a hole, besides `step`.
    """

    rows: tuple[str, ...]
    slip: float = 0.0
    step: float = -0.04
    goal: float = 1.0
    hole: float = -1.0

    def letter(self, cell: Cell) -> str:
        """What stands at (row, column); a wall outside the map."""
        row, column = cell
        inside = 0 <= row < len(self.rows) and 0 <= column < len(self.rows[0])
        return self.rows[row][column] if inside else "#"

    def after(self, cell: Cell, move: Cell) -> Cell:
        """Where a move leads."""
        target = cell[0] + move[0], cell[1] + move[1]
        return cell if self.letter(target) == "#" else target

    def cells(self) -> list[Cell]:
        """The cells that can be reached from the start, in reading order: the MDP's states."""
        text = "".join(self.rows)
        waiting = [divmod(text.index("S"), len(self.rows[0]))]
        found = set(waiting)
        while waiting:
            cell = waiting.pop()
            if self.letter(cell) not in "GH":
                reached = {self.after(cell, move) for move in MOVES.values()} - found
                found |= reached
                waiting += reached
        return sorted(found)

    def to_mdp(self, gamma: float = 1.0) -> MDP:
        """The MDP, with a state for each cell that can be reached; its name is `(line, column)`, from 1."""
        cells = self.cells()
        index = {cell: state for state, cell in enumerate(cells)}
        moves = list(MOVES.values())
        transitions = empty(len(cells), len(moves))
        letters = np.array([self.letter(cell) for cell in cells])
        terminal = np.isin(letters, ["G", "H"])
        for cell, state in index.items():
            if terminal[state]:
                continue
            for action in range(len(moves)):
                # After the move itself, the moves to its either side.
                for turn, probability in ((0, 1 - self.slip), (1, self.slip / 2), (-1, self.slip / 2)):
                    target = self.after(cell, moves[(action + turn) % len(moves)])
                    transitions[state, action, index[target]] += probability
        entering = self.step + self.goal * (letters == "G") + self.hole * (letters == "H")
        rewards = np.tile(entering, (len(cells), len(moves), 1))
        absorb(transitions, rewards, terminal)
        return MDP(
            states=tuple(f"({row + 1}, {column + 1})" for row, column in cells),
            actions=tuple(MOVES),
            transitions=transitions,
            rewards=rewards,
            terminal=terminal,
            start=(letters == "S").astype(np.float64),
            gamma=gamma,
        )


def read_gridworld(path: str | os.PathLike[str]) -> GridWorld:
    """Reads and checks a map.

    Raises:
        SpecError: everything that is wrong with it, each with its line.
        UsageError: it cannot be read.
    """
    shown = os.fspath(path)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown}: cannot be read: {reason}") from error
    problems: list[Problem] = []

    def wrong(line: int, text: str) -> None:
        problems.append(Problem(shown, line, "", text))

    settings: dict[str, float] = {}
    rows: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        key, colon, value = (part.strip() for part in line.partition(":"))
        if colon:
            if key not in _SETTINGS:
                near = did_you_mean(key, _SETTINGS)
                wrong(number, f"unknown setting {key!r}.{near} Known: {', '.join(_SETTINGS)}")
            elif (found := _number(value)) is None or (key == "slip" and not 0 <= found <= 1):
                rule = "from 0 to 1" if key == "slip" else "that is finite"
                wrong(number, f"{key} must be a number {rule}, got {value!r}")
            else:
                settings[key] = found
        elif key:
            rows.append((number, key))
            if unknown := sorted(set(key) - CELLS.keys()):
                known = ", ".join(f"{letter} {name}" for letter, name in CELLS.items())
                wrong(number, f"unknown cell {unknown[0]!r}. Known: {known}")
            if len(key) != len(rows[0][1]):
                wrong(number, f"a row of {len(key)} cells; the first has {len(rows[0][1])}: make them equal")
    starts = [number for number, row in rows for letter in row if letter == "S"]
    if len(starts) != 1:
        wrong(starts[1] if starts else 0, f"there must be one start S, but there are {len(starts)}")
    if problems:
        raise SpecError(problems)
    grid = GridWorld(tuple(row for _, row in rows), **settings)
    if "G" not in map(grid.letter, grid.cells()):
        wrong(starts[0], "no goal G can be reached from the start S: open a way")
        raise SpecError(problems)
    return grid


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
