"""Rules, opponents and the environment of board games."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dlsys.errors import UsageError
from dlsys.rl.games.environment import BoardGame
from dlsys.rl.games.game import Game, ints
from dlsys.rl.games.go import Go
from dlsys.rl.games.lines import Lines
from dlsys.rl.games.opponents import minimax, perfect
from dlsys.spec.rl.environments import GAMES, make
from dlsys.spec.rl.job import Environment

TICTACTOE, CONNECT4, GO = Lines(3, 3, 3, falls=False), Lines(6, 7, 4, falls=True), Go(5)
ALL = pytest.mark.parametrize("game", [TICTACTOE, CONNECT4, GO, Go(3, komi=2.5)])


def played(game: Game, moves: Iterable[int]) -> tuple[tuple[int, ...], bool, float]:
    """The position after moves that are all legal, whether it is the last one, and to whoever made the last
    move what the game is."""
    words, over, outcome = game.begin, False, 0.0
    for move in moves:
        assert not over
        assert move in game.moves(words)
        words, over, outcome = game.move(words, move)
    return words, over, outcome


@ALL
def test_many_positions_are_played_as_one_is(game: Game) -> None:
    rows, random = game.start(40), np.random.default_rng(0)
    for _ in range(game.longest):
        singles, legal = [ints(row) for row in rows], game.legal(rows)
        assert [np.flatnonzero(each).tolist() for each in legal] == [game.moves(words) for words in singles]
        assert (game.rows(game.planes(rows)) == rows).all()
        sensible = game.sensible(rows)
        assert (legal | ~sensible).all()
        assert all(sensible[index, game.draw(words, Random(0))] for index, words in enumerate(singles))
        actions = np.array([random.choice(np.flatnonzero(each)) for each in sensible])
        rows, over, outcomes = game.play(rows, actions)
        alone = [game.move(words, int(action)) for words, action in zip(singles, actions, strict=True)]
        assert alone == list(zip(map(ints, rows), over.tolist(), outcomes.tolist(), strict=True))
        rows = rows[~over]
        if not len(rows):
            return
    raise AssertionError("a game was longer than the longest")


@ALL
def test_turned_boards_are_played_alike(game: Game) -> None:
    rows, random = game.start(30), np.random.default_rng(1)
    for _ in range(6):
        actions = np.array([random.choice(np.flatnonzero(each)) for each in game.sensible(rows)])
        for cells, moves in zip(game.symmetries, game.turned, strict=True):

            def turn(some: np.ndarray, cells: np.ndarray = cells) -> np.ndarray:
                planes = game.planes(some)
                return game.rows(planes.reshape(len(some), -1, game.channels)[:, cells])

            assert (game.legal(turn(rows)) == game.legal(rows)[:, moves]).all()
            became = moves.argsort()[actions]
            after, over, outcome = game.play(turn(rows), became)
            expected = game.play(rows, actions)
            assert (after == turn(expected[0])).all()
            assert (over == expected[1]).all()
            assert (outcome == expected[2]).all()
        rows, over, _ = game.play(rows, actions)
        rows = rows[~over]


def test_four_in_a_row_win_in_each_direction() -> None:
    rising = [0, 1, 1, 2, 2, 3, 2, 3, 3, 6, 3]
    for moves in ([0, 1] * 3 + [0], [0, 0, 1, 1, 2, 2, 3], rising, [6 - move for move in rising]):
        assert played(CONNECT4, moves)[1:] == (True, 1.0)
        assert not played(CONNECT4, moves[:-1])[1]


def test_lines_do_not_go_on_beyond_an_edge() -> None:
    # Three on top of the first column and one at the foot of the second.
    words, over, _ = played(CONNECT4, [1, 0, 2, 0, 2, 0, 0, 2, 0, 4, 0])
    assert not over
    stones = CONNECT4.planes(np.array([words], np.uint64))[0, :, :, 1]
    assert stones[:3, 0].all()
    assert stones[5, 1] == 1


def test_a_full_board_is_a_draw() -> None:
    words, over, outcome = played(CONNECT4, map(int, "123216266456362224054105345361340450001153"))
    assert (over, outcome) == (True, 0.0)
    assert CONNECT4.moves(words) == []


def test_tic_tac_toe_is_drawn_and_a_corner_is_answered_in_the_middle() -> None:
    value = minimax(TICTACTOE)
    assert value(TICTACTOE.begin) == 0
    corner = played(TICTACTOE, [0])[0]
    assert value(corner) == 0
    assert {perfect(TICTACTOE)(corner, Random(seed)) for seed in range(20)} == {4}
    assert value(played(TICTACTOE, [0, 1])[0]) == 1


def reachable(game: Game) -> list[tuple[int, ...]]:
    """All positions in which a move is to be made."""
    found, new = {game.begin}, [game.begin]
    while new:
        words = new.pop()
        after = {
            position
            for position, over, _ in (game.move(words, move) for move in game.moves(words))
            if not over
        }
        new += after - found
        found |= after
    return sorted(found)


def test_no_position_is_worth_less_with_decisive_moves_alone_or_turned() -> None:
    value, positions = minimax(TICTACTOE), reachable(TICTACTOE)
    assert len(positions) == 4520  # 5478, of which 958 are ends
    rows = np.array(positions, np.uint64)
    urgent, values = TICTACTOE.urgent(rows), [value(words) for words in positions]
    for words, worth, many in zip(positions, values, urgent, strict=True):
        moves = TICTACTOE.decisive(words)
        assert np.flatnonzero(many).tolist() == moves
        after = {move: TICTACTOE.move(words, move) for move in TICTACTOE.moves(words)}
        wins = [move for move, (_, _, outcome) in after.items() if outcome == 1]
        if wins:
            assert moves == wins
        elif moves:
            left = [after[move] for move in moves]
            assert max(0.0 if over else -value(position) for position, over, _ in left) == worth
    planes = TICTACTOE.planes(rows).reshape(len(rows), 9, 2)
    for cells, moved in zip(TICTACTOE.symmetries, TICTACTOE.turned, strict=True):
        turned = TICTACTOE.rows(planes[:, cells])
        assert [value(ints(row)) for row in turned] == values
        assert (TICTACTOE.urgent(turned) == urgent[:, moved]).all()


def test_decisive_moves_win_or_block_a_line_of_four() -> None:
    threatened, _, _ = played(CONNECT4, [3, 0, 3, 0, 3])
    assert CONNECT4.decisive(threatened) == [3]
    both, _, _ = played(CONNECT4, [3, 0, 3, 0, 3, 0])  # its own column first
    assert CONNECT4.decisive(both) == [3]
    assert CONNECT4.decisive(played(CONNECT4, [2, 2, 3, 3, 4])[0]) == [1, 5]
    assert CONNECT4.decisive(CONNECT4.begin) == []
    rows, random = CONNECT4.start(50), np.random.default_rng(3)
    while len(rows):
        urgent = CONNECT4.urgent(rows)
        assert [np.flatnonzero(each).tolist() for each in urgent] == [
            CONNECT4.decisive(ints(row)) for row in rows
        ]
        actions = np.array([random.choice(np.flatnonzero(each)) for each in CONNECT4.legal(rows)])
        after, over, _ = CONNECT4.play(rows, actions)
        assert urgent[np.arange(len(rows)), actions][over & urgent.any(1)].all()
        rows = after[~over]


def at(*points: tuple[int, int]) -> list[int]:
    return [row * 5 + column for row, column in points]


PASS = 25


def test_go_takes_groups_without_liberties() -> None:
    words, _, _ = played(GO, at((0, 1), (0, 0), (1, 0)))
    assert words[0] == 0  # White's only stone
    # Two stones at once, by their last liberty.
    moves = at((0, 2), (0, 0), (1, 0), (0, 1), (1, 1))
    assert played(GO, moves)[0][0] == 0


def test_go_forbids_suicide_and_allows_it_where_it_takes() -> None:
    words, _, _ = played(GO, at((0, 1), (4, 4), (1, 0)))
    assert 0 not in GO.moves(words)
    # White around (0, 0) has no other liberty: now the point may be filled.
    words, _, _ = played(GO, at((0, 2), (0, 1), (1, 1), (1, 0), (2, 0)))
    words, _, _ = GO.move(words, PASS)
    assert 0 in GO.moves(words)
    assert GO.move(words, 0)[0][0] == 0


def test_go_forbids_to_take_back_a_ko_at_once() -> None:
    moves = at((0, 1), (0, 2), (1, 0), (1, 3), (2, 1), (2, 2), (4, 4), (1, 1), (1, 2))
    words, _, _ = played(GO, moves)
    assert 6 not in GO.moves(words)
    assert not GO.legal(np.array([words], np.uint64))[0, 6]
    for move in at((4, 0), (4, 2)):
        words, _, _ = GO.move(words, move)
    assert 6 in GO.moves(words)
    words, _, _ = GO.move(words, 6)
    assert 7 not in GO.moves(words)


def test_go_counts_areas() -> None:
    # Black has the column in the middle and what is left of it, White what is right of it.
    stones = [point for row in range(5) for point in ((row, 2), (row, 3))]
    words, over, _ = played(GO, at(*stones))
    assert not over
    assert GO.lead(*words[:2]) == 15 - 10
    for komi, outcome in ((4.5, -1.0), (5.0, 0.0), (5.5, 1.0)):
        game = Go(5, komi)
        assert played(game, [*at(*stones), PASS, PASS])[1:] == (True, outcome)  # to White, who passed last


def test_go_points_beside_both_are_nobodys() -> None:
    words, _, _ = played(GO, at((0, 0), (4, 4)))
    assert GO.lead(*words[:2]) == 0
    assert GO.lead(GO.bits[0], 0) == 25


def test_go_ends_at_the_limit() -> None:
    game = Go(2)
    words, over, count = game.begin, False, 0
    while not over:
        # Never two passes: whoever can plays a stone.
        words, over, _ = game.move(words, game.moves(words)[0])
        count += 1
    assert count <= game.longest == 12


@pytest.mark.parametrize("name", sorted(GAMES))
def test_environments_are_as_gymnasium_wants_them(name: str) -> None:
    env = gymnasium.make(name, opponent="random", render_mode="rgb_array")
    check_env(env.unwrapped, skip_render_check=True)
    _, info = env.reset(seed=3)
    while True:
        action = np.flatnonzero(info["action_mask"])[0]
        _, reward, terminated, _, info = env.step(action)
        drawn = env.render()
        assert isinstance(drawn, np.ndarray)
        assert drawn.dtype == np.uint8
        if terminated:
            break
        assert reward == 0
    assert {"win", "draw", "loss"} & info.keys() == {{1: "win", 0: "draw", -1: "loss"}[int(reward)]}
    assert not info["action_mask"].any()
    env.close()


def test_an_illegal_move_loses() -> None:
    env = BoardGame(TICTACTOE, first="agent")
    env.reset(seed=0)
    env.step(4)
    _, reward, terminated, _, info = env.step(4)
    assert (reward, terminated, info["loss"]) == (-1.0, True, 1.0)


def test_either_begins_as_the_seed_says() -> None:
    env = BoardGame(TICTACTOE)
    stones = [float(env.reset(seed=seed)[0].sum()) for seed in range(40)]
    assert 8 < sum(stones) < 32
    assert stones == [float(env.reset(seed=seed)[0].sum()) for seed in range(40)]
    assert BoardGame(TICTACTOE, first="opponent").reset(seed=0)[0][:, :, 1].sum() == 1


def test_what_a_game_has_not_is_refused() -> None:
    for options, text in (
        ({"opponent": "perfect"}, "too many: take mcts"),
        ({"opponent": "nobody"}, "opponent must be random, perfect or mcts, got 'nobody'"),
        ({"opponent": "mcts", "simulations": 0}, "simulations must be at least 1, got 0"),
        ({"first": "me"}, "first must be agent, opponent or either, got 'me'"),
        ({"size": 4}, "unexpected keyword argument 'size'"),
    ):
        with pytest.raises(UsageError, match=text):
            make(Environment(name="dlsys/ConnectFour-v0", options=options))
    with pytest.raises(UsageError, match="size must be 2 to 7, got 9"):
        make(Environment(name="dlsys/Go-v0", options={"size": 9}))
