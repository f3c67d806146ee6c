"""Grid worlds: maps in text files."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from tabular_play import frozen_lake

from dlsys.errors import SpecError
from dlsys.rl.tabular import value_iteration
from dlsys.rl.tabular.env import MDPEnv, gridworld_env
from dlsys.rl.tabular.gridworld import GridWorld, read_gridworld
from dlsys.rl.tabular.mdp import MDP, from_gym

BOOK = GridWorld(("...G", ".#.H", "S..."), slip=0.2)
MAPS = {
    "open": ("S....", ".....", "....G"),
    "wall": ("S.#..", "..#..", "..#..", ".....", "..#.G"),
    "spiral": ("S......", "######.", "G....#.", "####.#.", ".....#.", ".#####.", "......."),
    "holes": ("SH...", "...H.", ".H.H.", "...HG"),
    "two goals": ("G....S..G", "........."),
    "corridor": ("G" + "." * 30 + "S",),
}


def solved(mdp: MDP, sweeps: int = 2000) -> np.ndarray:
    values = np.zeros(len(mdp.states))
    for _ in range(sweeps):
        values = value_iteration.sweep(mdp, values)
    return values


def shortest(rows: tuple[str, ...]) -> int:
    """Moves from S to the nearest G, breadth first."""
    start = next((r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == "S")
    waiting, seen = deque([(start, 0)]), {start}
    while waiting:
        (row, column), moves = waiting.popleft()
        if rows[row][column] == "G":
            return moves
        if rows[row][column] == "H":
            continue
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= r < len(rows) and 0 <= c < len(rows[0])
            if inside and rows[r][c] != "#" and (r, c) not in seen:
                seen.add((r, c))
                waiting.append(((r, c), moves + 1))
    raise AssertionError("no way")


def test_the_book_s_utilities() -> None:
    """Russell and Norvig, figure 17.3, to its three digits."""
    mdp = BOOK.to_mdp()
    values = dict(zip(mdp.states, solved(mdp), strict=True))
    expected = {"(1, 1)": 0.812, "(1, 2)": 0.868, "(1, 3)": 0.918, "(2, 1)": 0.762, "(2, 3)": 0.660}
    expected |= {"(3, 1)": 0.705, "(3, 2)": 0.655, "(3, 3)": 0.611, "(3, 4)": 0.388}
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, abs=6e-4), name
    assert values["(1, 4)"] == values["(2, 4)"] == 0


@pytest.mark.parametrize("name", MAPS)
def test_the_best_policy_s_way_is_the_shortest(name: str) -> None:
    mdp = GridWorld(MAPS[name]).to_mdp(0.99)
    policy = value_iteration.greedy(value_iteration.backup(mdp, solved(mdp)))
    state, moves = int(mdp.start.argmax()), 0
    while not mdp.terminal[state]:
        state = int(mdp.transitions[state, policy[state]].argmax())
        moves += 1
        assert moves < 100
    assert moves == shortest(MAPS[name])


@pytest.mark.parametrize("slip", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("name", MAPS)
def test_rows_sum_to_one(name: str, slip: float) -> None:
    mdp = GridWorld(MAPS[name], slip=slip).to_mdp()
    assert np.abs(mdp.transitions.sum(axis=2) - 1).max() <= 1e-12


def test_frozen_lake_s_map_has_frozen_lake_s_values() -> None:
    env = frozen_lake()
    lake = from_gym(env, 0.99)
    rows = tuple(b"".join(row).decode().replace("F", ".") for row in env.unwrapped.desc)  # type: ignore[attr-defined]
    env.close()
    grid = GridWorld(rows, slip=2 / 3, step=0, goal=1, hole=0).to_mdp(0.99)
    np.testing.assert_allclose(
        solved(grid), solved(lake)[[i for i, c in enumerate("".join(rows))]], atol=1e-9
    )


def test_cells_behind_walls_are_no_states() -> None:
    assert len(GridWorld(("SG#.", "###.")).to_mdp().states) == 2


def test_cells_behind_a_goal_are_no_states() -> None:
    assert GridWorld(("SG.", "H.#")).to_mdp().states == ("(1, 1)", "(1, 2)", "(2, 1)")


def test_a_reward_is_that_of_the_cell_entered() -> None:
    env = MDPEnv(GridWorld((".SG",)).to_mdp())
    env.reset(seed=0)
    assert env.step(0)[:3] == (0, -0.04, False)
    assert env.step(2)[:3] == (1, -0.04, False)
    assert env.step(2)[:3] == (2, 0.96, True)


def test_a_file_is_read_and_played(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("slip: 0.2\n\n...G\n.#.H\nS...\n")
    assert read_gridworld(path) == BOOK
    env = gridworld_env(str(path))
    check_env(env, skip_render_check=True)
    observation, _ = env.reset(seed=0)
    assert env.mdp.states[observation] == "(3, 1)"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("S.G\n...\n..\n", 3, "a row of 2 cells; the first has 3"),
        ("S.G\n.x.\n", 2, "unknown cell 'x'. Known: S start, G goal, H hole, # wall, . free"),
        ("..G\n", 0, "there must be one start S, but there are 0"),
        ("S.G\n..S\n", 2, "there must be one start S, but there are 2"),
        ("slip: 0.1\nS#G\n", 2, "no goal G can be reached from the start S"),
        ("S.H.G\n", 1, "no goal G can be reached"),
        ("slop: 0.1\nS.G\n", 1, "unknown setting 'slop'. Did you mean 'slip'?"),
        ("slip: 1.1\nS.G\n", 1, "slip must be a number from 0 to 1, got '1.1'"),
        ("step: nan\nS.G\n", 1, "step must be a number that is finite, got 'nan'"),
        ("goal: much\nS.G\n", 1, "goal must be a number that is finite, got 'much'"),
        ("", 0, "there must be one start S, but there are 0"),
    ],
)
def test_a_wrong_map_is_refused_with_its_line(tmp_path: Path, text: str, line: int, expected: str) -> None:
    path = tmp_path / "map.txt"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_gridworld(path)
    (problem,) = caught.value.problems
    assert problem.line == line
    assert expected in problem.text
