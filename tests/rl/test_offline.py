"""Agents that learn from recordings: what they minimize, that they learn, and that they go on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rl_models import check_resumes_exactly, job
from scripted import Balancer, SwingUp
from torch.distributions import Categorical, Normal

from dlsys.errors import DataError, SpecError
from dlsys.rl.algorithms.bc import BCAgent
from dlsys.rl.algorithms.iql import IQLAgent
from dlsys.rl.algorithms.marwil import MARWILAgent
from dlsys.rl.engine import build
from dlsys.rl.episodes import record
from dlsys.rl.evaluate import play
from dlsys.rl.offline import OfflineAgent
from dlsys.spec.load import load
from dlsys.spec.rl.job import Environment, RLJob


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("episodes")
    record(Balancer(), Environment(name="CartPole-v1"), 5, 0, folder / "CartPole-v1.parquet", 0.2)
    record(SwingUp(), Environment(name="Pendulum-v1"), 3, 0, folder / "Pendulum-v1.parquet", 0.5)
    return folder


def told(name: str, recorded: Path, environment: str | None = None, **more: Any) -> RLJob:
    environment = environment or ("CartPole-v1" if name in ("bc", "marwil") else "Pendulum-v1")
    small: dict[str, Any] = {"hidden": [16], "updates": 3, "batch_size": 32}
    of_job = {key: more.pop(key) for key in ("normalize",) if key in more}
    algorithm = {"name": name, "episodes": str(recorded / f"{environment}.parquet"), **(small | more)}
    return job(algorithm, environment, **of_job)


def learner(made: RLJob) -> Any:
    agent = build(made)
    assert isinstance(agent, OfflineAgent)
    return agent


@pytest.mark.parametrize("name", ["bc", "marwil"])
def test_it_does_what_was_done(name: str, recorded: Path) -> None:
    made = told(name, recorded, hidden=[64, 64], updates=200, batch_size=256)
    agent = build(made)
    did = agent.iterate()
    assert did.steps == 200 * 256
    assert play(agent, made.environment, 5, sees="parts", seed=0, split="valid").summary()["return"] >= 450
    agent.close()


@pytest.mark.parametrize("name", ["bc", "marwil", "iql", "cql"])
def test_it_goes_on_exactly(name: str, recorded: Path) -> None:
    made = told(name, recorded, normalize={"observation": True})
    check_resumes_exactly(build(made), build(made))


def some(agent: OfflineAgent) -> tuple[Any, torch.Tensor]:
    index = torch.arange(0, 320, 10)
    return agent.recorded.rows(index), agent.returns[index]


def test_cloning_maximizes_the_likelihood_of_what_was_done(recorded: Path) -> None:
    for environment in ("CartPole-v1", "Pendulum-v1"):
        agent = learner(told("bc", recorded, environment, lr=1e-12))
        assert isinstance(agent, BCAgent)
        steps, returns = some(agent)
        network = agent.network
        with torch.no_grad():
            outputs = network.policy(network.body(steps.seen["numbers"].expand(2, -1, -1))[0])
            if environment == "CartPole-v1":
                likely = Categorical(logits=outputs).log_prob(steps.actions)
            else:
                likely = Normal(outputs, network.log_std.exp()).log_prob(steps.actions).sum(-1)  # type: ignore[union-attr]
        assert float(agent.update(steps, returns)["loss"]) == pytest.approx(-float(likely.mean()), rel=1e-4)


def test_marwil_weighs_by_advantages_of_their_own_size(recorded: Path) -> None:
    agent = learner(told("marwil", recorded, lr=1e-12, weight=0.7, value_weight=3.0))
    assert isinstance(agent, MARWILAgent)
    steps, returns = some(agent)
    with torch.no_grad():
        chances, values, _ = agent.network(steps.seen, agent.network.initial)
    gains = returns - values
    size = gains.square().mean()
    for _ in range(2):  # the second time the size is renewed by a hundredth of what it is
        figures = agent.update(steps, returns)
        weights = (0.7 * gains / size.sqrt()).exp()
        assert float(figures["weight"]) == pytest.approx(float(weights.mean()), rel=1e-4)
        policy_loss = -(weights * chances.logp(steps.actions)).mean()
        assert float(figures["policy_loss"]) == pytest.approx(float(policy_loss), rel=1e-4)
        assert float(figures["value_loss"]) == pytest.approx(float(size / 2), rel=1e-4)
        assert float(figures["loss"]) == pytest.approx(float(policy_loss + 3 * size / 2), rel=1e-4)
    agent.update(steps, 2 * returns - values)  # gains that are twice as large, and squares four times
    assert float(agent._square) == pytest.approx(float(size) * (0.99 + 0.01 * 4), rel=1e-4)


def test_iql_learns_as_in_the_paper(recorded: Path) -> None:
    agent = learner(told("iql", recorded, lr=1e-12, expectile=0.9, weight=0.5, gamma=0.8))
    assert isinstance(agent, IQLAgent)
    steps, returns = some(agent)
    network, critics = agent.network, agent.critics
    with torch.no_grad():
        # Values above and below, and targets that are not the networks.
        [*critics.targets.parameters()][-1][0] += 0.5
        chances, values, _ = network(steps.seen, network.initial)
        _, later, _ = network(steps.following, network.initial)
        done = torch.cat((steps.seen["numbers"], steps.actions), 1).expand(2, -1, -1)
        worth, found = critics.targets(done).squeeze(-1).min(0).values, critics.networks(done).squeeze(-1)
        missing = worth - values
        value_loss = torch.where(missing > 0, 0.9, 0.1) * missing**2
        policy_loss = -(0.5 * missing).exp().clamp(max=100) * chances.logp(steps.actions)
        q_loss = ((found - (steps.rewards + 0.8 * later)) ** 2).mean(1).sum()
    assert {True, False} == set((missing > 0).tolist())
    figures = agent.update(steps, returns)
    for name, value in {"value_loss": value_loss, "policy_loss": policy_loss, "q_loss": q_loss}.items():
        assert float(figures[name]) == pytest.approx(float(value.mean()), rel=1e-4), name


def test_an_outlier_counts_a_hundred_times_at_most(recorded: Path) -> None:
    agent = learner(told("iql", recorded, lr=1e-12))
    with torch.no_grad():
        [*agent.critics.targets.parameters()][-1].fill_(1000.0)
    assert float(agent.update(*some(agent))["weight"]) == 100


def test_a_weight_means_the_same_whatever_the_unit_of_rewards(recorded: Path) -> None:
    agent = learner(told("iql", recorded))
    ends = np.flatnonzero(agent.recorded.going == 0.99)[199::200]
    unit = float(10 / agent.returns.std(unbiased=False))
    torch.testing.assert_close(agent.recorded.rewards[ends], agent.returns[ends] * unit)
    seen = {"numbers": agent.recorded.seen["numbers"][:5].numpy()}
    with torch.no_grad():
        inside = agent.network(agent.shown(seen), agent.network.initial)[1]
    torch.testing.assert_close(torch.as_tensor(agent.values(seen)) * unit, inside)


def test_numbers_are_standardized_by_what_was_recorded(recorded: Path) -> None:
    agent = learner(told("bc", recorded, "Pendulum-v1", normalize={"observation": True}))
    running, seen = agent.network.features.running, agent.recorded.seen["numbers"]
    np.testing.assert_allclose(running.mean, seen.mean(0), atol=1e-5)
    np.testing.assert_allclose(running.variance, seen.var(0, unbiased=False), rtol=1e-4)
    before = running.mean.clone()
    agent.iterate()
    assert torch.equal(running.mean, before)


def test_episodes_of_another_environment_are_refused(recorded: Path) -> None:
    wrong = str(recorded / "CartPole-v1.parquet")
    with pytest.raises(DataError, match="observations should be 3 numbers"):
        build(told("cql", recorded, episodes=wrong))


def test_a_file_says_what_recordings_have_no_use_for(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").touch()
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: CartPole-v1}\nalgorithm: {name: bc, episodes: a.parquet}\n"
        "normalize: {observation: true, reward: true}\nresources: {env_runners: 1}\nstop: {epochs: 1}\n"
    )
    with pytest.raises(SpecError) as found:
        load(file)
    assert "normalize.reward: bc takes rewards as they were recorded" in str(found.value)
    assert "resources.env_runners: bc acts in its own process" in str(found.value)


@pytest.mark.parametrize("name", ["bc", "marwil", "iql", "cql"])
def test_no_environment_is_renewed_for_who_learns_without_one(name: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        f"kind: rl\nname: x\nenvironment: {{name: Pendulum-v1}}\nalgorithm: {{name: {name}, episodes: x}}\n"
        "stop: {epochs: 1}\nfailure: {environment: renew}\n"
    )
    with pytest.raises(SpecError, match=f":6: failure.environment: {name} learns without the environment"):
        load(file)
