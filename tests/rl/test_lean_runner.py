"""The lean env runner samples what RLlib's own does, number by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from dlsys.rl.environments import make
from dlsys.rl.rllib import configure
from dlsys.rl.runner import LeanEnvRunner
from dlsys.spec.rl.job import RLJob
from dlsys.train.seeding import seed_all


def runner(kind: type, environment: str, envs: int) -> Any:
    job = RLJob.model_validate(
        {
            "kind": "rl",
            "name": "x",
            "environment": {"name": environment, "max_steps": 30},
            "algorithm": {"name": "appo"},
            "resources": {"envs": envs},
            "stop": {"epochs": 1},
        }
    )
    seed_all(7)
    seen = make(job.environment).observation_space
    made = kind(config=configure(job, seen), worker_index=0)
    seed_all(7)
    return made


def steps(episodes: list[Any]) -> list[tuple[Any, ...]]:
    """What was sampled, for whoever learns from it: parts of one episode are put together."""
    found: dict[str, list[Any]] = {}
    for episode in episodes:
        found.setdefault(episode.id_, []).append(episode)
    rows = []
    for parts in found.values():
        last = parts[-1]
        rows.append(
            (
                np.concatenate([part.get_observations()[:-1] for part in parts]),
                last.get_observations()[-1],
                np.concatenate([part.get_actions() for part in parts]),
                np.concatenate([part.get_rewards() for part in parts]),
                np.concatenate([part.get_extra_model_outputs("action_logp") for part in parts]),
                last.is_terminated,
                last.is_truncated,
            )
        )
    return sorted(rows, key=lambda row: row[0].tobytes())


@pytest.mark.parametrize(
    ("environment", "envs"), [("CartPole-v1", 1), ("CartPole-v1", 3), ("Pendulum-v1", 2)]
)
def test_both_runners_sample_the_same(environment: str, envs: int) -> None:
    own, theirs = (runner(kind, environment, envs) for kind in (LeanEnvRunner, SingleAgentEnvRunner))
    found = []
    for made in (own, theirs):
        sampled = [episode for _ in range(3) for episode in made.sample(num_timesteps=100, explore=True)]
        found.append(steps(sampled))
        assert sum(len(episode) for episode in sampled) >= 300
        made.stop()
        seed_all(7)
    assert len(found[0]) == len(found[1])
    for mine, other in zip(*found, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_parts_of_an_episode_add_up_to_its_return() -> None:
    made = runner(LeanEnvRunner, "Pendulum-v1", 1)
    sampled = [episode for _ in range(4) for episode in made.sample(num_timesteps=20, explore=True)]
    first = [part for part in sampled if part.id_ == sampled[0].id_]
    assert [part.t_started for part in first] == [0, 20]
    told = made.get_metrics()
    (value,) = told["dlsys_returns"].peek()[:1]
    assert value == pytest.approx(sum(part.get_return() for part in first))
    assert told["dlsys_lengths"].peek()[0] == sum(len(part) for part in first) == 30
    made.stop()
