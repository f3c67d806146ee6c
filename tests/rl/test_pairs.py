"""`dlsys agents train ALGORITHM ENVIRONMENT`: each pair is a job, or refused in the words of `check`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from runner import Folder

from dlsys.cli import agents
from dlsys.errors import SpecError, UsageError
from dlsys.registry import ALGORITHMS
from dlsys.spec.load import load
from dlsys.spec.rl.offline import Offline
from dlsys.spec.rl.pair import algorithms, of_pair

TABLES = {"q-learning", "q-value-iteration", "td-learning", "value-iteration"}
GAMES = {"mcts", "alphago", "alphazero", "muzero"}
NUMBERS = {"ddpg", "td3", "mbpo", "iql", "cql"}
REFUSED = {
    "CartPole-v1": TABLES | GAMES | NUMBERS,
    "Pendulum-v1": TABLES | GAMES | {"dqn", "rainbow"},
    "FrozenLake-v1": GAMES | NUMBERS,
    "dlsys/TicTacToe-v0": TABLES | NUMBERS,
}


def test_there_is_each_algorithm() -> None:
    assert algorithms().keys() == set(ALGORITHMS.names())


def refusal(name: str, environment: str, folder: Path) -> str:
    """Why an algorithm cannot learn there; empty where it can."""
    more = ["algorithm.episodes=."] if issubclass(algorithms()[name], Offline) else []
    try:
        of_pair(name, environment, more, folder)
    except SpecError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("environment", REFUSED)
def test_each_algorithm_suits_or_is_refused(environment: str, tmp_path: Path) -> None:
    refusals = {name: why for name in algorithms() if (why := refusal(name, environment, tmp_path))}
    assert refusals.keys() == REFUSED[environment]
    for name, why in refusals.items():
        assert re.match(rf"command line: algorithm\.name: {name} (learns from|plays|plans with) ", why)


def test_it_is_the_job_of_a_file_with_these_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["stop.epochs=3", "algorithm.lr=1e-2", "environment.options={map_name: 8x8}"]
    agents.train("a3c", "FrozenLake-v1", changes, print_=True)
    file = tmp_path / "job.yaml"
    file.write_text(capsys.readouterr().out)
    assert load(file).job == of_pair("a3c", "FrozenLake-v1", changes, tmp_path)[0].job
    assert file.read_text() == (
        "kind: rl\nname: a3c-frozenlake-v1\n"
        "environment:\n  name: FrozenLake-v1\n  options:\n    map_name: 8x8\n"
        "algorithm:\n  name: a3c\n  lr: 0.01\nresources:\n  env_runners: 2\nstop:\n  epochs: 3\n"
    )
    # What is said of resources or of the end is said in full.
    told = of_pair("a3c", "CartPole-v1", ["resources.env_runners=1"], tmp_path)[1]
    assert (told["resources"], told["stop"]) == ({"env_runners": 1}, {"steps": 100_000})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ppoo", "CartPole-v1"), r"algorithm\.name: unknown 'ppoo'. Did you mean 'ppo'\?"),
        (("ppo", "Cartpole-v1"), r"no environment 'Cartpole-v1'. Did you mean 'CartPole-v1'\?"),
        (("bc", "CartPole-v1"), r"algorithm\.episodes: is required"),
        (("ppo", "CartPole-v1", "lr"), "lr: is no override"),
        (("ppo", "CartPole-v1", "lr=1"), "lr: unknown key"),
    ],
)
def test_wrong_words_are_told(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        agents.train(words[0], words[1], list(words[2:]), print_=True)


def test_it_trains(folder: Folder) -> None:
    words = ("agents", "train", "q-learning", "FrozenLake-v1")
    done = folder.dlsys(*words, "stop.steps=2000", "episodes={valid: 2, test: 2}", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["run"].startswith("q-learning-frozenlake-v1-")
    assert (told["status"], told["step"] >= 2000) == ("FINISHED", True)
