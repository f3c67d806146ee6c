"""Agents that search board games and learn from playing them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rl_models import job

from dlsys.errors import SpecError, UsageError
from dlsys.registry import ALGORITHMS, import_string
from dlsys.rl.algorithms.alphago import AlphaGoAgent
from dlsys.rl.algorithms.alphazero import AlphaZeroAgent
from dlsys.rl.algorithms.mcts import MCTSAgent
from dlsys.rl.algorithms.muzero import MuZeroAgent
from dlsys.rl.evaluate import play
from dlsys.rl.export import policy as exported
from dlsys.rl.games.agent import GameAgent
from dlsys.rl.games.environment import BoardGame
from dlsys.rl.games.game import ints
from dlsys.rl.games.lines import Lines
from dlsys.rl.games.opponents import minimax
from dlsys.rl.plain import decode, encode
from dlsys.spec.load import load
from dlsys.spec.rl.environments import unsuited

TICTACTOE = "dlsys/TicTacToe-v0"
SMALL: dict[str, Any] = {
    "simulations": 6,
    "games": 4,
    "hidden": 8,
    "blocks": 1,
    "updates": 3,
    "batch_size": 16,
}
LEARNERS = pytest.mark.parametrize(
    "told",
    [
        {"name": "alphazero", **SMALL},
        {"name": "alphago", "teacher": 8, "supervised": 1, "reinforced": 2, **SMALL},
        {"name": "muzero", "unroll": 3, **SMALL},
    ],
    ids=lambda told: told["name"],
)


def agent(told: dict[str, Any], environment: str = TICTACTOE, **more: Any) -> Any:
    told_job = job(told, environment, **more)
    return ALGORITHMS.load(told_job.algorithm.name)(told_job)


@LEARNERS
def test_it_goes_on_exactly(told: dict[str, Any]) -> None:
    whole, other = agent(told), agent(told)
    for _ in range(2):
        whole.iterate()
    other.iterate()
    other.load(decode(encode(copy.deepcopy(whole.state()))))
    for _ in range(2):
        expected, found = whole.iterate(), other.iterate()
        assert found.figures == expected.figures
        assert found.returns == expected.returns
    for name, value in whole.weights().items():
        np.testing.assert_array_equal(value, other.weights()[name])


@LEARNERS
def test_it_fits_what_it_remembers(told: dict[str, Any]) -> None:
    made: GameAgent = agent({**told, "updates": 40, "hidden": 32, "lr": 0.003})
    first = made.iterate().figures
    assert first.keys() >= {"loss", "policy_loss", "value_loss", "games", "draws", "first_wins"}
    assert first["games"] == 4
    for _ in range(4):
        last = made._learn()
    assert last["loss"] < 0.9 * first["loss"]


@LEARNERS
def test_weights_are_the_networks_policy_without_a_search(told: dict[str, Any]) -> None:
    made: GameAgent = agent(told, "dlsys/Go-v0")
    made.iterate()
    rows = made.memory.rows
    planes = made.game.planes(rows)
    weights = {name: torch.as_tensor(value) for name, value in made.weights().items()}
    alone = exported(job(told, "dlsys/Go-v0"), weights)
    with torch.inference_mode():
        logits, values = made.network(torch.from_numpy(planes))
        assert alone(torch.from_numpy(planes)).tolist() == logits.argmax(1).tolist()
    np.testing.assert_array_equal(made.values(planes), values.numpy())
    assert made.game.legal(rows)[np.arange(len(rows)), made.act(planes)].all()


@LEARNERS
def test_it_plays_in_the_environment(told: dict[str, Any]) -> None:
    made = agent(told, "dlsys/ConnectFour-v0")
    environment = job(told, "dlsys/ConnectFour-v0").environment
    done = play(made, environment, 6, sees="plain", seed=0, split="valid")
    assert done is not None
    assert set(done.returns) <= {1.0, 0.0, -1.0}
    assert min(done.lengths) >= 3  # no illegal move


def test_it_may_search_longer_when_it_acts() -> None:
    made: AlphaZeroAgent = agent({"name": "alphazero", **SMALL, "acting": 20})
    rows = made.game.start(2)
    assert made.think(rows).sum(1).tolist() == [20, 20]
    assert made.think(rows, np.random.default_rng(0)).sum(1).tolist() == [6, 6]


def test_muzero_knows_no_rules_in_its_search(monkeypatch: pytest.MonkeyPatch) -> None:
    made: MuZeroAgent = agent({"name": "muzero", **SMALL})
    planes = made.game.planes(made.game.start(2))

    def never(*_: Any) -> Any:
        raise AssertionError("the rules were asked")

    for name in ("play", "move", "moves"):
        monkeypatch.setattr(made.game, name, never)
    assert made.act(planes).shape == (2,)


def test_muzeros_model_learns_what_moves_earn() -> None:
    made: MuZeroAgent = agent(
        {"name": "muzero", **SMALL, "games": 1, "hidden": 64, "updates": 60, "lr": 0.003}
    )
    made.iterate()
    made._learn()
    memory = made.memory
    with torch.inference_mode():
        states = made.network.represent(torch.from_numpy(made.game.planes(memory.rows)))
        _, rewards = made.network.follow(states, torch.from_numpy(memory.actions))
    ended = memory.left == 0
    assert abs(memory.outcomes[-1]) == 1
    assert rewards[ended].item() > 0.7
    assert rewards[~ended].abs().mean() < 0.2


def test_a_playouts_share_in_values_is_the_mix() -> None:
    told = {"name": "alphago", **SMALL, "mix": 0.0}
    rows = agent(told, "dlsys/ConnectFour-v0").game.start(5)
    columns = np.arange(5)
    values = {}
    for mix in (0.0, 0.25, 1.0):
        made: AlphaGoAgent = agent({**told, "mix": mix}, "dlsys/ConnectFour-v0")
        made._random = np.random.default_rng(0)
        with torch.inference_mode():
            values[mix] = made.expand(rows, columns).values
    with torch.inference_mode():
        plain = AlphaZeroAgent.expand(made, rows, columns).values
    np.testing.assert_array_equal(values[0.0], plain)
    assert set(values[1.0]) <= {1.0, 0.0, -1.0}
    np.testing.assert_allclose(values[0.25], 0.75 * values[0.0] + 0.25 * values[1.0], rtol=1e-6)


def test_a_playout_ends_as_the_game_does() -> None:
    made: AlphaGoAgent = agent({"name": "alphago", **SMALL})
    words = made.game.begin
    for move in (0, 1, 2, 3, 4, 5, 7):  # two cells are left, and whoever takes the last one wins
        words, over, _ = made.game.move(words, move)
        assert not over
    rows = np.array([words], np.uint64)
    with torch.inference_mode():
        assert made.playouts(rows, np.random.default_rng(0)).tolist() == [-1.0]


def test_the_policy_gradient_mends_a_planted_weakness() -> None:
    rates = {"games": 64, "updates": 40, "supervised": 1, "reinforced": 2, "reinforce_lr": 1e-3}
    made: AlphaGoAgent = agent({"name": "alphago", **SMALL, **rates})
    made._iteration = 1
    with torch.no_grad():
        made.network.policy.weight.zero_()
        made.network.policy.bias.copy_(torch.tensor([0.0, 0, 0, 0, -2, 0, 0, 0, 0]))  # seldom in the middle
    before = copy.deepcopy(made.network.state_dict())
    first, second = made.iterate().figures, made.iterate().figures
    assert second["against_earlier"] > first["against_earlier"] > 0
    assert len(made._pool) == 3
    start = torch.from_numpy(made.game.planes(made.game.start(1)))
    with torch.inference_mode():
        was, became = (net(start)[0].softmax(1)[0, 4] for net in (made.network, made.network.reinforced))
    assert became > 1.2 * was
    _, outcomes, _ = made.against(made.network.reinforced, made.network, 400, np.random.default_rng(0))
    assert np.where(np.arange(400) % 2, -outcomes, outcomes).mean() > 0.4
    for name, value in made.network.state_dict().items():
        assert name.startswith("reinforced.") or torch.equal(value, before[name]), name


def test_values_are_learned_from_one_position_of_a_game_after_a_random_move() -> None:
    made: AlphaGoAgent = agent({"name": "alphago", **SMALL, "games": 200, "supervised": 1, "reinforced": 0})
    made._iteration = 1
    with torch.no_grad():
        made.network.policy.weight.zero_()
        made.network.policy.bias.copy_(torch.linspace(80, 0, 9))  # cell after cell: the seventh stone wins
    [(found, _, lengths)] = made._play()
    assert len(lengths) == 600
    stones = made.game.planes(found.rows).sum(3).reshape(-1, 9).astype(bool)
    plies = stones.sum(1)
    assert np.bincount(plies, minlength=9)[1:6].min() > 40
    # Of nine plies for the random move, a game has seven at most, and the last of these may end it.
    assert 350 < len(plies) < 480
    in_order = [stones[index, : ply - 1].all() for index, ply in enumerate(plies)]
    assert np.mean(in_order) > 0.98
    at_random = [not stones[index, ply - 1] for index, ply in enumerate(plies) if ply < 7]
    assert np.mean(at_random) > 0.5
    assert (found.left + plies <= 8).all()


def test_mcts_answers_alike_alone_and_among_others_and_learns_nothing() -> None:
    made: MCTSAgent = agent({"name": "mcts", "simulations": 50})
    did = made.iterate()
    assert did.done
    assert did.steps == did.lengths[0]
    planes = made._game.planes(made._game.start(3))
    assert made.act(planes).tolist() == [made.act(planes[:1])[0]] * 3
    assert made.weights() == {}
    with pytest.raises(UsageError, match="mcts only searches"):
        exported(job({"name": "mcts"}, TICTACTOE), {})


def test_mcts_never_answers_with_a_move_that_loses() -> None:
    value, wrong = minimax(Lines(3, 3, 3, falls=False)), []
    for seed in range(6):
        made: MCTSAgent = agent({"name": "mcts"}, seed=seed)
        rows, _, _ = made._game.play(made._game.start(9), np.arange(9))
        answers = made.act(made._game.planes(rows))
        after, _, _ = made._game.play(rows, answers)
        wrong += [(seed, first) for first, row in enumerate(after) if value(ints(row)) != 0]
    assert wrong == []


def test_an_algorithm_of_games_is_refused_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    for environment in (
        "{name: CartPole-v1}",
        "{name: dlsys/Go-v0, wrappers: [{name: FlattenObservation}]}",
    ):
        file.write_text(
            f"kind: rl\nname: x\nenvironment: {environment}\nalgorithm: {{name: muzero}}\n"
            "stop: {epochs: 1}\n"
        )
        with pytest.raises(SpecError) as told:
            load(file)
        assert "algorithm.name: muzero plays board games" in str(told.value)
        assert "take dlsys/TicTacToe-v0, dlsys/ConnectFour-v0, dlsys/Go-v0 without wrappers" in str(
            told.value
        )


def test_a_game_of_ones_own_is_searched() -> None:
    told = job({"name": "muzero"}, TICTACTOE).algorithm
    env = BoardGame(Lines(4, 4, 3, falls=False))
    assert list(unsuited(told, env, "mine")) == []
    env.game = "chess"  # type: ignore[assignment]
    [(_, text)] = unsuited(told, env, "mine")
    assert "muzero plays board games, and mine is none" in text


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_an_env_runner_plays_the_same_games() -> None:
    told = {"name": "alphazero", **SMALL}
    made, alone = agent(told, resources={"env_runners": 1}), agent(told)
    for _ in range(2):
        assert made.iterate().figures == alone.iterate().figures
    expected = alone.memory.columns()
    for name, column in made.memory.columns().items():
        np.testing.assert_array_equal(column, expected[name])
    made.close()


def test_names_lead_to_agents_and_policies() -> None:
    for name in ("mcts", "alphago", "alphazero", "muzero"):
        assert import_string(ALGORITHMS.target(name).partition(":")[0] + ":policy")
