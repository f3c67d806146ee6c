"""One form of actions for whoever acts, and environments that are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from actions_taken import SPACES, UNBOUNDED, Strict
from gymnasium import spaces
from rl_models import job
from scripted import Scripted
from torch import nn

from dlsys.errors import DlsysError, NonFiniteError, SpecError, UsageError, WorkloadError
from dlsys.rl import environments
from dlsys.rl.actions import Actions, Taken
from dlsys.rl.algorithms.genetic import GeneticAgent, policy
from dlsys.rl.environments import check_suits, make
from dlsys.rl.episodes import read, record
from dlsys.rl.evaluate import play
from dlsys.rl.progress import stepping
from dlsys.spec.load import load
from dlsys.spec.rl.job import Environment, Wrapper

KINDS = pytest.mark.parametrize("kind", SPACES)


def choices(actions: Actions) -> np.ndarray:
    """Twenty, some of them beyond ±1."""
    random = np.random.default_rng(0)
    if isinstance(actions.chosen, spaces.Discrete):
        return random.integers(actions.chosen.n, size=20)
    return random.normal(size=(20, *(actions.chosen.shape or ()))).astype(np.float32) * 2


@KINDS
def test_what_is_chosen_is_within_the_space_and_a_file_of_torch_says_the_same(kind: str) -> None:
    actions = Actions(SPACES[kind])
    chosen = choices(actions)
    taken = [actions.taken(one) for one in chosen]
    assert all(SPACES[kind].contains(one) for one in taken)
    exported = Taken(nn.Identity(), actions)(torch.as_tensor(chosen))
    assert exported.shape == (20, *(SPACES[kind].shape or ()))
    np.testing.assert_array_equal(exported.numpy(), np.stack(taken))
    assert exported.numpy().dtype == np.stack(taken).dtype


@KINDS
def test_a_recorded_action_is_what_was_chosen(kind: str) -> None:
    actions = Actions(SPACES[kind])
    taken = np.stack([actions.taken(one) for one in choices(actions)])
    again = actions.choice(taken.reshape(20, -1) if isinstance(SPACES[kind], spaces.Box) else taken)
    np.testing.assert_allclose(np.stack([actions.taken(one) for one in again]), taken, rtol=1e-5, atol=1e-6)


def test_the_known_ones() -> None:
    assert [Actions(SPACES["from minus one"]).taken(index) for index in range(3)] == [-1, 0, 1]
    bounds = Actions(SPACES["bounds"])
    for chosen, taken in (([-1, -1], [0, 100]), ([0, 0], [5, 150]), ([1, 9], [10, 200])):
        np.testing.assert_array_equal(bounds.taken(chosen), taken)
    whole = Actions(spaces.Box(0, 4, (1,), np.int32))
    found = [int(whole.taken([value])[0]) for value in np.linspace(-1, 1, 101)]
    assert np.bincount(found).tolist() == [20, 20, 20, 20, 21], "each has the same share"
    some = Actions(SPACES["some"])
    np.testing.assert_array_equal(some.taken([-7, -7]), [-7, -2])
    np.testing.assert_array_equal(Actions(SPACES["half"]).taken([-7]), [0])
    assert Actions(SPACES["plus minus one"]).same
    assert Actions(SPACES["first"]).same


@KINDS
def test_training_evaluation_recording_and_export_do_the_same(kind: str, tmp_path: Path) -> None:
    """`Strict` takes nothing that is not in its space."""
    told = job({"name": "genetic", "population": 4, "elite": 1}, "actions_taken:Strict")
    place = Environment(name="actions_taken:Strict", options={"kind": kind})
    told = told.model_copy(update={"environment": place})
    if kind in UNBOUNDED:
        with pytest.raises(UsageError, match="chooses actions within bounds"):
            check_suits(told.algorithm, place)
        return
    check_suits(told.algorithm, place)
    agent = GeneticAgent(told)
    assert agent.iterate().lengths == [10] * len(agent.iterate().lengths)
    played = play(agent, place, 3, sees="vector", seed=0, split="valid")
    assert played is not None
    assert played.lengths == [10] * 3
    file = tmp_path / "a.parquet"
    record(agent, place, 2, 0, file, explore=0.5)
    env = make(place)
    found = read(file, 2, env.actions)
    for action in found.actions:
        assert env.action_space.contains(action.astype(env.action_space.dtype))
        assert SPACES[kind].contains(env.actions.taken(action))
    weights = {name: torch.as_tensor(value) for name, value in agent.weights().items()}
    seen = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    exported = Taken(policy(told, weights), env.actions)(torch.as_tensor(seen)).detach().numpy()
    np.testing.assert_array_equal(exported, [env.actions.taken(one) for one in agent.act(seen)])


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("kind", ["from minus one", "square", "free"])
def test_the_librarys_agents_train_and_are_measured_with_the_same_actions(kind: str) -> None:
    from dlsys.rl.rllib import RllibAgent

    told = job(
        {"name": "appo", "batch_size": 64}, "actions_taken:Strict", resources={"env_runners": 1, "cpus": 0.5}
    )
    place = Environment(name="actions_taken:Strict", options={"kind": kind})
    agent = RllibAgent(told.model_copy(update={"environment": place}))
    try:
        assert agent.iterate().steps >= 64
        assert play(agent, place, 2, sees="vector", seed=0, split="valid") is not None
    finally:
        agent.close()


def test_tables_choose_from_any_start() -> None:
    from dlsys.rl.tabular.agent import of_job

    for name in ("q-learning", "td-learning"):
        told = job({"name": name, "episodes": 2}, "actions_taken:Small")
        agent = of_job(told)
        assert agent.iterate().lengths == [10, 10]
        assert play(agent, told.environment, 2, sees="plain", seed=0, split="valid") is not None
        agent.close()


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg", "mbpo", "genetic", "cql", "dreamerv3"])
def test_who_squashes_actions_refuses_what_has_no_bounds(name: str) -> None:
    more = {"episodes": "a.parquet"} if name == "cql" else {}
    told = job({"name": name, **more})
    with pytest.raises(UsageError, match="chooses actions within bounds"):
        check_suits(told.algorithm, Environment(name="actions_taken:Strict", options={"kind": "free"}))


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("step", WorkloadError, r"KeyError: 'no prices for this day' \(actions_taken:Faulty, step 3"),
        ("reset", WorkloadError, r"KeyError: 'no prices for this day' \(actions_taken:Faulty, reset\)"),
        ("reward", NonFiniteError, "actions_taken:Faulty, step 3 of an episode: the reward is nan"),
        ("observation", NonFiniteError, "step 3 of an episode: the observation has numbers that are not"),
        ("shape", UsageError, r"shape \(3,\), and observation_space says \(2,\)"),
    ],
)
def test_a_fault_ends_it_at_that_step_whoever_acts(how: str, kind: type[DlsysError], said: str) -> None:
    place = Environment(name="actions_taken:Faulty", options={"how": how})
    told = job({"name": "genetic", "population": 4, "elite": 1})
    told = told.model_copy(update={"environment": place})
    with pytest.raises(kind, match=said) as found:
        GeneticAgent(told).iterate()
    if kind is WorkloadError:
        assert "actions_taken.py" in getattr(found.value, "traceback", "")
        assert "gymnasium" not in getattr(found.value, "traceback", "")
    with pytest.raises(kind, match=said):
        play(Idle(), place, 1, sees="vector", seed=0, split="test")


def test_an_environment_that_is_asked_for_its_form_raises_as_the_users() -> None:
    with pytest.raises(WorkloadError, match="KeyError: 'no prices for this day'") as found:
        make(Environment(name="actions_taken:Faulty", options={"how": "reset"}), sees="parts")
    assert "actions_taken.py" in (found.value.traceback or "")


def test_tables_stop_at_a_reward_that_is_no_number() -> None:
    from dlsys.rl.tabular.agent import of_job

    told = job({"name": "q-learning", "episodes": 1}, "actions_taken:Table")
    place = Environment(name="actions_taken:Table", options={"how": "reward"})
    with pytest.raises(NonFiniteError, match="the reward is nan"):
        of_job(told.model_copy(update={"environment": place})).iterate()


@pytest.mark.parametrize(
    ("name", "said"),
    [("OldApi", "is no gymnasium.Env: subclass it"), ("NoSpaces", "has no action_space")],
)
def test_what_is_no_environment_is_told(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(Environment(name=f"actions_taken:{name}"))


class Idle(Scripted):
    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.zeros(len(observations), np.int64)


def test_an_episode_without_an_end_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "LONGEST", 50)
    endless = Environment(name="actions_taken:Endless")
    found = play(Idle(), endless, 3, sees="vector", seed=0, split="valid")
    assert found is not None
    assert (found.lengths, found.cut) == ([50] * 3, 3)
    for limited in (endless.model_copy(update={"max_steps": 70}), Environment(name="CartPole-v1")):
        found = play(Idle(), limited, 1, sees="vector", seed=0, split="valid")
        assert found is not None
        assert found.cut == 0
    assert found.lengths[0] < 50
    env = make(endless)  # as it is trained in: nobody waits for its end
    env.reset()
    assert not any(env.step(0)[3] for _ in range(60))


def test_an_evaluation_can_be_given_up() -> None:
    slow = Environment(name="actions_taken:Endless", options={"seconds": 0.05})
    assert play(Idle(), slow, 1, sees="vector", seed=0, split="valid", stop=lambda: True) is None


def test_each_step_is_a_sign_of_life() -> None:
    steps: list[int] = []
    env = make(Environment(name="actions_taken:Endless"))
    env.reset()
    with stepping(lambda: steps.append(1)):
        for _ in range(4):
            env.step(0)
    env.step(0)
    assert len(steps) == 4


@pytest.mark.parametrize("name", ["NormalizeObservation", "NormalizeReward"])
def test_statistics_that_are_not_shared_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: CartPole-v1, wrappers: [{name: "
        + name
        + "}]}\nalgorithm: {name: ppo}\nstop: {epochs: 1}\n"
    )
    with pytest.raises(SpecError, match=f"{name} keeps statistics of its own in each environment"):
        load(file)


def test_pixels_in_a_dictionary_are_no_larger_than_the_rest() -> None:
    env = make(Environment(name="actions_taken:Camera"))
    assert env.observation_space.shape == (2 * 48 + 2,)
    assert env.observation_space.high.max() == 1  # type: ignore[attr-defined]
    seen, _ = env.reset(seed=0)
    assert np.abs(seen).max() <= 1
    assert env.observation_space.contains(seen)


def test_wrappers_stay_between() -> None:
    clip = Wrapper(name="RescaleAction", options={"min_action": -3.0, "max_action": 3.0})
    env = make(Environment(name="actions_taken:Strict", options={"kind": "bounds"}, wrappers=(clip,)))
    env.reset()
    env.step(np.ones(2, np.float32))
    assert isinstance(env.unwrapped, Strict)
    assert isinstance(env, gymnasium.Env)
    found: Any = env.actions.taken(np.ones(2))
    np.testing.assert_array_equal(found, [3, 3])
