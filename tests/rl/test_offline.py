"""Offline agents, and what else of the agents here needs a Ray: one for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rl_models import job
from scripted import Balancer, SwingUp

from dlsys.errors import DataError
from dlsys.rl.agent import Iteration
from dlsys.rl.engine import build
from dlsys.rl.episodes import record
from dlsys.rl.evaluate import play
from dlsys.rl.plain import decode, encode
from dlsys.rl.rllib import RllibAgent
from dlsys.spec.rl.job import Environment, RLJob

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("one_ray")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("episodes")
    record(Balancer(), Environment(name="CartPole-v1"), 5, 0, folder / "CartPole-v1.parquet", 0.2)
    record(SwingUp(), Environment(name="Pendulum-v1"), 3, 0, folder / "Pendulum-v1.parquet", 0.5)
    return folder


def told(name: str, recorded: Path, **more: Any) -> RLJob:
    environment = "CartPole-v1" if name in ("bc", "marwil") else "Pendulum-v1"
    small: dict[str, Any] = {"hidden": [16], "updates": 3, "batch_size": 32}
    algorithm = {"name": name, "episodes": str(recorded / f"{environment}.parquet"), **(small | more)}
    return job(algorithm, environment)


@pytest.mark.parametrize("name", ["bc", "marwil"])
def test_it_does_what_was_done(name: str, recorded: Path) -> None:
    made = told(name, recorded, hidden=[64, 64], updates=200, batch_size=256)
    agent = build(made)
    did = agent.iterate()
    assert did.steps == 200 * 256
    assert play(agent, made.environment, 5, sees="vector", seed=0, split="valid").summary()["return"] >= 450
    agent.close()


@pytest.mark.parametrize("name", ["bc", "marwil", "iql", "cql"])
def test_it_goes_on_exactly(name: str, recorded: Path) -> None:
    whole = build(told(name, recorded))
    assert isinstance(whole, RllibAgent)
    whole.iterate()
    state = decode(encode(whole.state()))
    expected = whole.iterate()
    other = build(told(name, recorded))
    other.load(state)
    found = other.iterate()
    assert found.steps == expected.steps == 96
    assert _learned(found) == _learned(expected)
    for key, value in whole.weights().items():
        np.testing.assert_array_equal(value, other.weights()[key], err_msg=key)
    assert other.state()["sampled"] == whole.state()["sampled"] == 192
    whole.close()
    other.close()


def test_episodes_of_another_environment_are_refused(recorded: Path) -> None:
    wrong = str(recorded / "CartPole-v1.parquet")
    with pytest.raises(DataError, match="observations should be 3 numbers"):
        build(told("cql", recorded, episodes=wrong))


def _learned(did: Iteration) -> dict[str, float]:
    """All but RLlib's counters, some of which start anew with the process."""
    return {name: value for name, value in did.figures.items() if not name.startswith("num_")}


def test_a_population_plays_alike_in_other_processes() -> None:
    algorithm = {"name": "genetic", "population": 12, "elite": 3}
    alone = build(job(algorithm, "CartPole-v1"))
    apart = build(job(algorithm, "CartPole-v1", resources={"env_runners": 2, "cpus": 0.5}))
    for _ in range(2):
        expected, found = alone.iterate(), apart.iterate()
        assert found.returns == expected.returns
        assert found.figures == expected.figures
    apart.close()
    alone.close()
