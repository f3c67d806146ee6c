from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rl_models import check_resumes_exactly, job
from torch import Generator

from dlsys.errors import SpecError
from dlsys.rl.algorithms.mbpo import MBPOAgent
from dlsys.rl.dynamics import Models, Rows
from dlsys.rl.evaluate import play
from dlsys.spec.load import load
from dlsys.spec.rl.models import MBPO

SMALL: dict[str, Any] = {
    "name": "mbpo",
    "hidden": [32, 32],
    "start": 60,
    "every": 20,
    "rollouts": 200,
    "updates": 2,
}


def known(count: int, seed: int = 0) -> Rows:
    """Rows of a point in a plane; it ends where the first coordinate leaves ±1."""
    random = Generator().manual_seed(seed)
    seen = torch.rand(count, 2, generator=random) * 2 - 1
    actions = torch.rand(count, 2, generator=random) * 2 - 1
    following = seen + 0.3 * actions
    return Rows(seen, actions, -following.square().sum(-1), following, (following[:, 0].abs() > 1).float())


def fitted(steps: Rows) -> Models:
    torch.manual_seed(0)
    models = Models(2, 2, MBPO(name="mbpo", models=3, hidden=(32, 32)))
    models.fit(steps, Generator().manual_seed(0))
    return models


def test_models_learn_what_follows_what_it_pays_and_where_it_ends() -> None:
    told = known(500, seed=1)
    found = fitted(known(1000)).step(told.observations, told.actions, Generator().manual_seed(1))
    assert (found.following - told.following).abs().mean() < 0.05
    assert (found.rewards - told.rewards).abs().mean() < 0.2
    assert (found.terminated == told.terminated).float().mean() > 0.95
    assert 0.02 < told.terminated.mean() < 0.5


def test_a_models_outcomes_vary_as_much_as_the_environments() -> None:
    told = known(2000)
    noise = 0.2 * torch.randn(told.following.shape, generator=Generator().manual_seed(2))
    models = fitted(told._replace(following=told.following + noise))
    same = told.rows(torch.zeros(2000, dtype=torch.long))
    found = models.step(same.observations, same.actions, Generator().manual_seed(1))
    assert 0.15 < float(found.following.std(0).mean()) < 0.3


def test_rollouts_go_on_from_where_they_came_and_stop_where_they_end() -> None:
    agent = MBPOAgent(job(SMALL | {"horizon": 3}))
    agent.iterate()
    ends = 0

    def step(seen: torch.Tensor, actions: torch.Tensor, random: Generator) -> Rows:
        return Rows(seen, actions, seen[:, 0], seen + 1, ends * (torch.arange(len(seen)) % 2).float())

    agent._models.step = step  # type: ignore[method-assign]
    going = agent._imagine()
    assert len(going.rewards) == 3 * 200
    assert torch.equal(going.observations[200:], going.following[:-200])
    assert all(bool((agent._real.observations == row).all(1).any()) for row in going.observations[:5])
    ends = 1
    assert len(agent._imagine().rewards) == 200 + 100 + 50


def test_what_is_learned_from_is_what_was_done() -> None:
    agent = MBPOAgent(job(SMALL | {"start": 100}, resources={"envs": 2}))
    before = [agent.iterate() for _ in range(3)]
    assert [did.steps for did in before] == [20] * 3
    assert agent._real.actions.abs().max() > 0.9, "chance at first: all of ±1 is as likely"
    agent.iterate()
    real = agent._real
    assert len(real.rewards) == 80
    torch.testing.assert_close(real.following, real.observations + 2 * real.actions / 10)
    torch.testing.assert_close(real.rewards, -10 * real.following.abs().squeeze(1))
    assert torch.equal(real.terminated, (real.following.abs() > 1.5).float().squeeze(1))
    agent.close()


def test_it_learns_from_scaled_rewards_and_goes_on_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlsys.rl.dynamics._PATIENCE", 1)
    monkeypatch.setattr("dlsys.rl.dynamics._ROUND", 2)
    more: dict[str, Any] = {"normalize": {"observation": True, "reward": True}, "resources": {"envs": 2}}
    small = SMALL | {"hidden": [16], "models": 2}
    whole = MBPOAgent(job(small, **more))
    check_resumes_exactly(whole, MBPOAgent(job(small, **more)))
    rows = whole._real.rows(torch.arange(5))
    steps = whole._steps(rows)
    assert steps.rewards.abs().mean() < rows.rewards.abs().mean() / 2
    torch.testing.assert_close(steps.going, 0.99 * (1 - rows.terminated))


@pytest.mark.quality
def test_it_learns() -> None:
    told = job(SMALL | {"updates": 4, "batch_size": 128, "lr": 3e-3, "models": 2})
    agent = MBPOAgent(told)
    before = play(agent, told.environment, 20, sees="parts", seed=0, split="valid").summary()["return"]
    while agent.step < 240:
        agent.iterate()
    after = play(agent, told.environment, 20, sees="parts", seed=0, split="valid").summary()["return"]
    assert after > before / 2
    agent.close()


def test_a_file_says_what_does_not_suit_it(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: CartPole-v1}\nalgorithm: {name: mbpo}\n"
        "model: {memory: gru}\nstop: {epochs: 1}\n"
    )
    with pytest.raises(SpecError) as told:
        load(file)
    said = str(told.value)
    assert "algorithm.name: mbpo learns from continuous actions, and CartPole-v1 has discrete ones" in said
    assert "model.memory: mbpo learns without a memory" in said
