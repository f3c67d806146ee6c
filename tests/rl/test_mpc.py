"""Random shooting in learned models: which plan is taken, that it learns, and that it goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rl_models import check_resumes_exactly, job
from torch import Tensor

from dlsys.errors import SpecError
from dlsys.rl.algorithms.mpc import MPCAgent, Planner
from dlsys.rl.evaluate import play
from dlsys.spec.load import load

SMALL: dict[str, Any] = {"name": "mpc", "hidden": [16], "models": 2, "start": 60, "every": 60, "plans": 60}


def planner(environment: str, **more: Any) -> tuple[MPCAgent, Planner]:
    agent = MPCAgent(job({**SMALL, **more}, environment))
    return agent, agent.network


@pytest.mark.parametrize("environment", ["Pendulum-v1", "CartPole-v1"])
def test_the_plan_is_taken_that_earns_most(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against sums written out, in models that are known: the second one pays twice, the state counts steps,
    and an episode ends where its first action was low."""
    _, network = planner(environment, horizon=3, gamma=0.9)

    def expected(seen: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        level = actions[..., -1]  # a one for the last choice, or the number itself
        pay = torch.tensor([[1.0], [2.0]]) * level * (1 + seen[..., 0])
        return seen + 1, pay, (level < 0.5).float()

    monkeypatch.setattr(network.models, "expected", expected)
    seen = torch.zeros(2, 4 if environment == "CartPole-v1" else 3)
    found = network.earned(seen)
    plans = network.plans if environment == "CartPole-v1" else network.plans[..., 0]
    for index, plan in enumerate(plans.float().tolist()):
        total, going = 0.0, 1.0
        for step, level in enumerate(plan):
            total += going * 0.9**step * 1.5 * level * (1 + step)
            going *= level >= 0.5
        assert found[0, index].item() == pytest.approx(total, abs=1e-5)
    best, _ = network.best({"numbers": seen}, torch.zeros(2, 0))
    assert torch.equal(best[0], network.plans[found[0].argmax(), 0])


def test_it_learns_a_point_in_a_few_hundred_steps() -> None:
    made = job({**SMALL, "hidden": [32], "plans": 100, "horizon": 6, "every": 100})
    agent = MPCAgent(made)
    for _ in range(4):
        agent.iterate()
    played = play(agent, made.environment, 5, sees="parts", seed=0, split="test")
    assert played is not None
    random = -10 * 20 * 0.5
    assert np.mean(played.returns) > random / 3
    agent.close()


@pytest.mark.parametrize("environment", ["rl_models:Point", "CartPole-v1"])
def test_it_goes_on_exactly(environment: str) -> None:
    check_resumes_exactly(*(planner(environment, horizon=3)[0] for _ in range(2)))


def test_it_standardizes_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: Pendulum-v1}\nalgorithm: {name: mpc}\nstop: {epochs: 1}\n"
        "normalize: {observation: true}\nmodel: {memory: lstm}\n"
    )
    with pytest.raises(SpecError) as caught:
        load(file)
    assert ":6: normalize: mpc has networks of its own that this does not reach" in str(caught.value)
    assert ":7: model: mpc has networks of its own" in str(caught.value)
