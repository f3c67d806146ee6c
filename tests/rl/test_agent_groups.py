"""Several agents in one environment: their interfaces, steps and policies."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from group_envs import Parallel
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray
from pettingzoo.test import api_test, parallel_api_test
from rl_models import check_resumes_exactly, job

from dlsys.errors import SpecError, UsageError
from dlsys.rl import environments
from dlsys.rl.engine import build
from dlsys.rl.evaluate import play
from dlsys.rl.export import export
from dlsys.rl.groups.agent import GroupAgent
from dlsys.rl.groups.policies import members
from dlsys.rl.groups.turns import own_steps
from dlsys.rl.on_policy import batch_of
from dlsys.rl.pictures import film
from dlsys.rl.plain import encode
from dlsys.rl.sampler import Rollout
from dlsys.spec.load import load
from dlsys.spec.rl.groups import ACTS, Group
from dlsys.spec.rl.job import Environment, RLJob
from dlsys.train.checkpoint import CheckpointStore, Position, Saved

SMALL = {"name": "ppo", "batch_size": 128, "minibatch_size": 32, "passes": 2, "hidden": [16], "lr": 0.003}


def told(environment: str = "group_envs:Parallel", **more: Any) -> RLJob:
    options, algorithm = more.pop("options", {}), {**SMALL, **more.pop("algorithm", {})}
    made = job(algorithm, environment, **{"resources": {"envs": 2}, **more})
    place = made.environment.model_copy(update={"options": options})
    return made.model_copy(update={"environment": place})


def group(environment: str = "group_envs:Parallel", **more: Any) -> GroupAgent:
    made = build(told(environment, **more), several=True)
    assert isinstance(made, GroupAgent)
    return made


def test_ours_are_what_the_library_wants() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parallel_api_test(Parallel(), 50)
        from group_envs import InTurn

        api_test(InTurn(), 50)


@pytest.mark.parametrize("name", ["Parallel", "Library", "InTurn"])
def test_a_group_is_an_environment_of_gymnasiums(name: str) -> None:
    env = environments.make(Environment(name=f"group_envs:{name}"), sees="plain")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(flatten|Box|render|mask).*")
        if name != "InTurn":  # a move that is not legal is an error there
            check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize("cut", [False, True])
def test_both_libraries_interfaces_of_one_game_are_the_same_steps(cut: bool) -> None:
    agents = [group(f"group_envs:{name}", options={"cut": cut}) for name in ("Parallel", "Library")]
    one, other = (agent.runners.sample(40, 0)[0] for agent in agents)
    for name, part in one.seen.items():
        np.testing.assert_array_equal(part, other.seen[name])
    for name, part in one.info.items():
        np.testing.assert_array_equal(part, other.info[name])
    assert one.returns == other.returns
    assert one.lengths == [5] * len(one.lengths), "as long as somebody's part"
    np.testing.assert_array_equal(one.truncated.any(0), [cut, cut])


def scripted() -> Rollout:
    """Of one environment, two agents that take turns, worked by hand: an episode of five steps, and the
    beginning of the next one."""
    acts = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [1, 0]], bool)
    rewards = np.array([[1, 0], [0.5, 2], [4, -1], [0, 8], [16, 32], [64, 0], [128, 256]], np.float32)
    steps = len(rewards)
    ended = np.zeros((steps, 2), bool)
    ended[4] = True
    seen = np.arange(steps + 1, dtype=np.float32)[:, None, None]
    first = np.zeros((steps + 1, 1), bool)
    first[[0, 5]] = True
    return Rollout(
        seen={"a/numbers": seen, "b/numbers": seen + 100, ACTS: acts[:, None]},
        actions=np.stack([np.arange(steps), np.arange(steps) + 50], -1)[:, None],
        rewards=rewards.sum(1, keepdims=True),
        terminated=ended[:, :1],
        truncated=np.zeros((steps, 1), bool),
        first=first,
        finals={"a/numbers": np.array([[77.0]]), "b/numbers": np.array([[177.0]])},
        ends=np.array([[4], [0]]),
        final_memories=np.zeros((1, 0), np.float32),
        memories=np.zeros((steps + 1, 1, 0), np.float32),
        told={"value": rewards[:, None] * 10},
        info={
            "rewards": rewards[:, None],
            "terminated": ended[:, None],
            "truncated": np.zeros((steps, 1, 2), bool),
        },
    )


def test_who_waits_has_no_steps_and_gets_what_comes_meanwhile_for_the_last_one() -> None:
    found = own_steps(scripted(), [(0, "a", [0]), (1, "b", [1])], single=True)
    assert found.held is not None
    # a acts at 0, 2, 4 and 5, and again after all; b at 1 and 3, and at 6, whose outcome is not known.
    np.testing.assert_array_equal(found.held.T, [[1, 1, 1, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(found.rewards[:, 0], [1.5, 4, 16, 192])
    np.testing.assert_array_equal(found.rewards[:2, 1], [1, 40])
    np.testing.assert_array_equal(found.actions[:, 0], [0, 2, 4, 5])
    np.testing.assert_array_equal(found.actions[:2, 1], [51, 53])
    np.testing.assert_array_equal(found.terminated.T, [[0, 0, 1, 0], [0, 1, 0, 0]])
    assert not found.truncated.any()
    np.testing.assert_array_equal(found.seen["numbers"][:, 0, 0], [0, 2, 4, 5, 7])
    np.testing.assert_array_equal(found.seen["numbers"][:3, 1, 0], [101, 103, 106])
    np.testing.assert_array_equal(found.told["value"][:, 0], [10, 40, 160, 640])
    np.testing.assert_array_equal(found.ends, [[2, 1], [0, 1]])
    np.testing.assert_array_equal(found.finals["numbers"][:, 0], [77, 177])


def test_a_cut_by_a_limit_cuts_the_parts_of_all_who_go_on() -> None:
    rollout = scripted()
    rollout.terminated[:], rollout.truncated[4] = False, True
    rollout.info["terminated"][:] = False
    rollout.info["terminated"][3, 0, 0] = True  # a's part was over before
    rollout.seen[ACTS][4, 0] = False, True
    found = own_steps(rollout, [(0, "a", [0]), (1, "b", [1])], single=True)
    np.testing.assert_array_equal(found.terminated.T, [[0, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(found.truncated.T, [[0, 0, 0, 0], [0, 0, 1, 0]])
    # What it saw when its part ended, while the other one went on.
    np.testing.assert_array_equal(found.finals["numbers"][:, 0], [4, 177])


@pytest.mark.parametrize("cut", [False, True])
def test_advantages_are_those_of_each_agents_own_episode(cut: bool) -> None:
    """Against sums over the steps of each agent, as it lived them."""
    agent = group(options={"cut": cut, "lives": (3, 1, 6)}, algorithm={"gamma": 0.9, "trace": 0.8})
    rollout, _ = agent.runners.sample(32, 0)
    places = agent.network.places
    listed = [(index, name, places[name]) for index, name in enumerate(places)]
    own = own_steps(rollout, listed, single=True)
    network = agent.network.policy("shared")
    batch = batch_of(network, own, own.rewards, 0.9, 0.8)
    assert batch.held is not None
    for index, name in enumerate(places):
        for place in range(2):
            times = np.flatnonzero(rollout.seen[ACTS][:-1, place, index])
            column = index * 2 + place
            held = int(batch.held[:, column].sum())
            assert held >= len(times) - 1
            values = [float(rollout.told["value"][time, place, index]) for time in times]
            found = batch.advantages[:held, column].tolist()
            later = 0.0
            for row in reversed(range(held)):
                time = times[row]
                over = rollout.info["terminated"][time, place, index]
                ended = over or rollout.info["truncated"][time, place, index]
                if over:
                    after = 0.0
                elif ended:
                    after = value_of(network, rollout, name, int(time), place)
                elif row + 1 < len(times):
                    after = values[row + 1]
                else:
                    after = value_at(network, rollout.seen[f"{name}/numbers"][-1, place])
                error = float(rollout.info["rewards"][time, place, index]) + 0.9 * after - values[row]
                later = error + (0.0 if ended else 0.9 * 0.8 * later)
                assert found[row] == pytest.approx(later, abs=1e-5)


def value_at(network: Any, seen: NDArray[Any]) -> float:
    with torch.no_grad():
        return float(network({"numbers": torch.from_numpy(seen)[None]}, torch.zeros(1, 0))[1])


def value_of(network: Any, rollout: Rollout, name: str, time: int, place: int) -> float:
    """Of what an agent saw when its part was cut."""
    for index, (step, column) in enumerate(rollout.ends.T.tolist()):
        if (step, column) == (time, place):
            return value_at(network, rollout.finals[f"{name}/numbers"][index])
    return value_at(network, rollout.seen[f"{name}/numbers"][time + 1, place])


@pytest.mark.parametrize("name", ["ppo", "a2c", "trpo", "acktr"])
@pytest.mark.parametrize(
    ("environment", "policies", "best"),
    [
        ("Parallel", "shared", 12),
        ("Parallel", {"fast": ["walker_0"], "slow": ["walker_[12]"]}, 12),
        ("InTurn", "separate", 3.5),
    ],
)
def test_they_learn(name: str, environment: str, policies: Any, best: float) -> None:
    algorithm = {"name": name, "lr": 0.01, "hidden": [16], "gamma": 0.5}
    if name in ("ppo", "trpo"):
        algorithm |= {"batch_size": 256}
    elif name == "acktr":
        algorithm = {"name": name, "hidden": [16], "gamma": 0.5}
    made = told(f"group_envs:{environment}", policies=policies)
    made = made.model_copy(
        update={"algorithm": job(algorithm, made.environment.name).algorithm, "policies": policies}
    )
    agent = build(made, several=True)
    mean = 0.0
    for _ in range(40):
        mean = float(np.mean(agent.iterate().returns))
        if mean > 0.97 * best:
            break
    played = play(agent, made.environment, 10, sees="parts", seed=0, split="test")
    assert played is not None
    assert np.mean(played.returns) >= 0.95 * best
    names = (
        [f"return_{agent}" for agent in members(["walker_0"], "separate")] if best == 12 else ["return_one"]
    )
    assert set(names) <= set(played.summary())
    agent.close()


def test_figures_are_each_policys() -> None:
    agent = group(policies="separate")
    did = agent.iterate()
    assert {"walker_0/entropy", "walker_2/loss", "loss"} <= set(did.figures)
    assert did.figures["loss"] == pytest.approx(
        np.mean([did.figures[f"walker_{index}/loss"] for index in range(3)])
    )


@pytest.mark.parametrize("policies", ["shared", "separate"])
@pytest.mark.parametrize("environment", ["group_envs:Parallel", "group_envs:InTurn"])
def test_they_go_on_exactly(policies: str, environment: str) -> None:
    more = {"policies": policies, "normalize": {"observation": True, "reward": True}}
    check_resumes_exactly(group(environment, **more), group(environment, **more))


def test_masks_are_of_each_agent() -> None:
    agent = group("group_envs:InTurn")  # which raises where one is not held
    for _ in range(3):
        agent.iterate()
    agent.close()


def test_they_are_exported_and_filmed(tmp_path: Path) -> None:
    made = told("group_envs:Parallel", policies="separate")
    agent = group("group_envs:Parallel", policies="separate")
    for _ in range(3):
        agent.iterate()
    (tmp_path / "checkpoints").mkdir()
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    weights = {name: torch.as_tensor(value) for name, value in agent.weights().items()}
    store.save(Saved(Position(), weights, {"agent": encode(agent.state())}, loop={}))
    store.wait()
    export(made, tmp_path / "checkpoints", tmp_path / "all.pt2")
    acts = torch.export.load(tmp_path / "all.pt2").module()
    env = environments.make(made.environment, sees="parts")
    seen, _ = env.reset(seed=1)
    shown = {name: torch.as_tensor(seen[f"{name}/numbers"])[None] for name in env.group.names}  # type: ignore[union-attr]
    found = acts(shown)
    chosen = agent.act(env.stack([seen]))[0]
    assert {name: int(value[0]) for name, value in found.items()} == env.actions.taken(chosen)
    returns = film(agent, made.environment, tmp_path / "all.gif", episodes=2, seed=0, sees="parts")
    assert len(returns) == 2
    env.close()


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_env_runners_sample_groups() -> None:
    agent = group(resources={"env_runners": 2, "envs": 2, "cpus": 0.5})
    try:
        did = agent.iterate()
        assert did.steps == 128
        assert np.isfinite(did.figures["loss"])
    finally:
        agent.close()


def test_a_users_wrapper_is_put_around_all(tmp_path: Path) -> None:
    place = Environment(
        name="group_envs:Parallel", wrappers=({"name": "group_envs:quicker", "options": {"lives": 2}},)
    )
    env = environments.make(place, sees="plain")
    env.reset(seed=0)
    ended = [env.step(env.action_space.sample())[2] for _ in range(2)]
    assert ended == [False, True]
    assert isinstance(env.unwrapped, Group)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"environment": {"name": "group_envs:Parallel", "frames": 2}}, "environment.frames: is of"),
        (
            {
                "environment": {
                    "name": "group_envs:Parallel",
                    "wrappers": [{"name": "FrameStackObservation"}],
                }
            },
            "environment.wrappers.0: FrameStackObservation is for one agent",
        ),
        ({"environment": {"name": "group_envs:Neither"}}, "neither a PettingZoo"),
        ({"environment": {"name": "CartPole-v1"}, "policies": "separate"}, "policies: CartPole-v1 has one"),
        ({"model": {"memory": "lstm"}}, "model.memory: group_envs:Parallel has several agents"),
        ({"policies": {"a": ["walker_0"]}}, "agent walker_1 has no policy"),
        ({"policies": {"a": ["walker_*"], "b": ["*_1"]}}, "agent walker_1 has both a and b"),
        ({"policies": {"a": ["*"], "b": ["nobody"]}}, "policies.b: matches no agent; they are walker_0"),
        ({"environment": {"name": "group_envs:Unlike"}}, "cannot share the policy 'shared', since they do"),
        ({"algorithm": {"name": "dqn"}}, "dqn is one agent, and group_envs:Parallel has 3"),
    ],
)
def test_what_does_not_suit_is_refused(more: dict[str, Any], said: str) -> None:
    plain = {
        "kind": "rl",
        "name": "x",
        "environment": {"name": "group_envs:Parallel"},
        "algorithm": SMALL,
        "stop": {"epochs": 1},
    }
    made = RLJob.model_validate(plain | more)
    with pytest.raises(UsageError, match=said):
        build(made, several=environments.check_suits(made.algorithm, made.environment))


def test_policies_are_of_algorithms_that_learn_several(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: CartPole-v1}\nalgorithm: {name: dqn}\nstop: {epochs: 1}\n"
        "policies: separate\n"
    )
    with pytest.raises(SpecError, match=":6: policies: are of several agents, and dqn is one"):
        load(file)


def test_pettingzoos_own_are_found_by_their_ids() -> None:
    pytest.importorskip("pygame")
    env = environments.make(Environment(name="classic/tictactoe-v3"), sees="parts")
    seen, _ = env.reset(seed=0)
    assert seen["player_1/image" if "player_1/image" in seen else "player_1/numbers"].size == 18
    assert env.group is not None
    assert env.group.names == ["player_1", "player_2"]
    env.close()
    with pytest.raises(UsageError, match=r"no environment 'classic/tictactoe-v1'\. Did you mean"):
        environments.make(Environment(name="classic/tictactoe-v1"))
