"""What evaluations measure besides returns, and actions that they draw from a policy's chances."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from rl_models import job
from scripted import Scripted
from test_agent_loop import job as looped
from test_agent_loop import loop

from dlsys.errors import SpecError, UsageError
from dlsys.rl.agent import Acting, Player, Recurrent
from dlsys.rl.engine import build
from dlsys.rl.environments import make
from dlsys.rl.evaluate import play
from dlsys.rl.export import acting
from dlsys.rl.own import OwnAgent, Saved
from dlsys.rl.policy import PolicyPlayer, policy_of
from dlsys.rl.rllib import configure
from dlsys.spec.load import load
from dlsys.spec.rl.job import Environment, RLJob


class Aiming(gymnasium.Env[Any, Any]):
    """Ends at once; action 1 succeeds, and how far 0 missed is told by its seed."""

    observation_space = spaces.Box(0, 1, (4,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {"success": 5}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        missed = np.array([self.np_random.uniform()], np.float32)
        info = {"success": bool(action == 1), "distance": missed, "path": "left", "way": np.zeros(3)}
        return np.zeros(4, np.float32), 1.0, True, False, info


class Sure(Scripted):
    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        return np.ones(len(observations), np.int64)


TOLD = {"name": "test_evaluation:Aiming", "metrics": {"success": "max", "distance": "min"}}


def test_the_mean_of_what_each_last_info_tells_is_measured() -> None:
    played = play(Sure(), Environment(**TOLD), 40, sees="vector", seed=0, split="valid")  # type: ignore[arg-type]
    assert played is not None
    assert played.told["success"] == [1.0] * 40
    assert len(set(played.told["distance"])) == 40
    figures = played.summary()
    assert figures["success"] == 1.0
    assert figures["distance"] == pytest.approx(np.mean(played.told["distance"]))


@pytest.mark.parametrize("name", ["is_success", "path", "way"])
def test_what_is_not_told_is_said_with_what_is(name: str) -> None:
    told = Environment(name="test_evaluation:Aiming", metrics={name: "max"})
    with pytest.raises(UsageError, match=rf"no finite number '{name}'.*it has distance, success$"):
        play(Sure(), told, 2, sees="vector", seed=0, split="valid")


def test_a_run_logs_and_keeps_them_and_the_best_is_of_their_kind(tmp_path: Path) -> None:
    made, recorder = loop(tmp_path, looped(environment=TOLD, stop={"epochs": 2}))
    result = made.run()
    assert {"valid/success", "valid/distance", "test/success", "test/distance"} <= result.metrics.keys()
    assert len(recorder.of("valid/success")) == 1
    with open(tmp_path / "artifacts" / "episodes.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "split", "seed", "return", "length", "success", "distance"]
    test = [float(row["distance"]) for row in rows if row["split"] == "test"]
    assert np.mean(test) == pytest.approx(result.metrics["test/distance"], rel=1e-4)
    told = looped(environment=TOLD, checkpoint={"best": "valid/distance"})
    best = loop(tmp_path / "best", told)[0].best
    assert [best.improves({"valid/distance": value}) for value in (0.5, 0.7, 0.2)] == [True, False, True]


GOOD = """\
kind: rl
name: x
environment: {name: CartPole-v1, metrics: {success: max}}
algorithm: {name: ppo}
stop: {epochs: 1, target: {valid/success: ">= 0.9"}}
checkpoint: {best: valid/success}
expect: {test/success: ">= 0.5"}
"""


def test_they_may_be_aimed_at_and_expected(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(GOOD)
    assert isinstance(load(file).job, RLJob)
    for wrong, said in (
        (["expect={test/distance: '> 1'}"], "no metric 'test/distance'"),
        (["expect={}", "environment.metrics={success: max, return: max}"], "measured of every episode"),
        (["environment.metrics={success: max, 'a@b': min}"], "rename it"),
        (["environment.metrics.success=best"], "'max' or 'min'"),
    ):
        with pytest.raises(SpecError, match=said):
            load(file, wrong)


@pytest.mark.parametrize("name", ["dqn", "genetic", "q-learning", "value-iteration"])
def test_who_has_no_chances_does_not_explore_in_evaluations(name: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        f"kind: rl\nname: x\nenvironment: {{name: FrozenLake-v1}}\nalgorithm: {{name: {name}}}\n"
        "stop: {epochs: 1}\nepisodes: {explore: true}\n"
    )
    with pytest.raises(SpecError, match=f":6: episodes.explore: {name} has no chances"):
        load(file)


# Continuous policies see Point, discrete ones Aiming.
DRAWING = [("impala", "test_evaluation:Aiming"), ("appo", "rl_models:Point")]
OWN = [
    *((name, "test_evaluation:Aiming") for name in ("ppo", "a2c", "reinforce", "sac")),
    *((name, "rl_models:Point") for name in ("ppo", "trpo", "acktr", "sac", "mbpo")),
]


def player_of(told: RLJob) -> PolicyPlayer:
    torch.manual_seed(0)
    env = make(told.environment)
    module: Any = (
        configure(told, env.observation_space).get_rl_module_spec(env=env, inference_only=True).build()
    )
    return PolicyPlayer(policy_of(module).eval())


@pytest.mark.parametrize(("name", "environment"), DRAWING)
def test_draws_are_the_policys_chances_and_training_draws_nothing_for_them(
    name: str, environment: str
) -> None:
    told = job({"name": name}, environment)
    player = player_of(told)
    seen = np.tile(np.float32([0.3] * make(told.environment).observation_space.shape[0]), (4000, 1))
    drawn = drawn_of(player, seen)
    out = player.policy.module.forward_exploration({"obs": torch.as_tensor(seen[:1])})["action_dist_inputs"]
    if environment.endswith("Aiming"):
        assert drawn.mean() == pytest.approx(out.softmax(-1)[0, 1].item(), abs=0.04)
    else:
        assert np.median(drawn) == pytest.approx(out[0, 0].item(), abs=0.1)


def drawn_of(player: Player, seen: Any) -> NDArray[Any]:
    """Four thousand actions, which depend on their seed alone, and change no other draws."""
    before = torch.random.get_rng_state()
    drawn, again, other = (Acting(player, seed)(range(4000), seen) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != other).any()
    assert len(np.unique(Acting(player)(range(4000), seen), axis=0)) == 1
    return drawn


@pytest.mark.parametrize(("name", "environment"), OWN)
def test_draws_are_as_those_of_training(name: str, environment: str) -> None:
    agent = build(job({"name": name}, environment))
    assert isinstance(agent, OwnAgent)
    try:
        seen = {"numbers": np.full((4000, *agent.runners.observations.shapes["numbers"]), 0.3, np.float32)}
        with torch.no_grad():
            shown = {"numbers": torch.as_tensor(seen["numbers"])}
            tried = agent.network.explore(shown, torch.zeros(4000, 0), torch.Generator())[0].numpy()
        for player in (
            agent,
            Saved(acting(agent.job, agent.network.state_dict(), agent.observations, agent.actions)),
        ):
            drawn = drawn_of(player, seen)
            assert drawn.mean() == pytest.approx(tried.mean(), abs=0.08)
            assert drawn.std() == pytest.approx(tried.std(), abs=0.08)
    finally:
        agent.close()


class Wandering(Scripted):
    """Remembers what it did, and draws what it does."""

    def memory(self) -> NDArray[Any]:
        return np.zeros(1)

    def recall(
        self, observations: NDArray[Any], memories: NDArray[Any], explore: bool = False
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        drawn = torch.randint(2, (len(observations),)).numpy() if explore else np.ones(len(observations), int)
        return drawn, memories + 1


def test_an_evaluation_that_explores_can_be_repeated_and_one_that_does_not_is_as_before() -> None:
    told = Environment(**TOLD)  # type: ignore[arg-type]
    assert isinstance(Wandering(), Recurrent)
    first, same, other = (
        play(Wandering(), told, 200, sees="vector", seed=seed, split="test", explore=True)
        for seed in (0, 0, 1)
    )
    assert first is not None
    assert other is not None
    assert first == same
    assert 0.3 < first.summary()["success"] < 0.7
    assert first.told["success"] != other.told["success"]
    best = play(Wandering(), told, 20, sees="vector", seed=0, split="test")
    assert best is not None
    assert best.summary()["success"] == 1.0
