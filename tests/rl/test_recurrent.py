"""Agents that remember: each episode has a memory of its own, wherever it is played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from rl_models import job
from scripted import Scripted
from torch import Tensor, nn

from dlsys.rl.actions import Actions, Taken
from dlsys.rl.agent import Acting
from dlsys.rl.episodes import record
from dlsys.rl.evaluate import play
from dlsys.rl.pictures import draw
from dlsys.rl.policy import Policy, RecurrentPolicy, policy_of

TOLD = job({"name": "ppo"}, "test_recurrent:Count").environment


class Count(gymnasium.Env[Any, Any]):
    """Always shows the same, and pays for the number of steps so far; an episode's start says how many."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(1000)

    def __init__(self, render_mode: str | None = None) -> None:
        pass

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.length = 0, int(self.np_random.integers(1, 30))
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        right = float(action == self.steps)
        self.steps += 1
        return np.zeros(1, np.float32), right, self.steps == self.length, False, {}

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        return np.zeros((8, 8, 3), np.uint8)


class Counter(Scripted):
    """Remembers how often it has acted in an episode, and does that."""

    def memory(self) -> NDArray[Any]:
        return np.zeros(1)

    def recall(self, observations: NDArray[Any], memories: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        return memories[:, 0].astype(np.int64), memories + 1


def test_seats_that_come_and_go_do_not_mix_what_is_remembered() -> None:
    played = play(Counter(), TOLD, 100, sees="vector", seed=0, split="valid")
    assert played.returns == played.lengths
    assert len(set(played.lengths)) > 10


def test_every_other_way_to_play_remembers_too(tmp_path: Path) -> None:
    returns = record(Counter(), TOLD, 3, 0, tmp_path / "a.parquet")
    assert min(returns) > 1
    made = Counter()
    acted = []
    known = made.recall
    made.recall = lambda *told: (acted.append(told[1].item()), known(*told))[1]  # type: ignore[method-assign]
    draw(made, TOLD, tmp_path, gamma=0.9, seed=1, sees="vector")
    assert acted == list(range(len(acted)))
    assert len(acted) > 1


def test_an_episode_that_is_over_is_forgotten() -> None:
    act, seen = Acting(Counter()), np.zeros((2, 1))
    assert act([4, 7], seen).tolist() == [0, 0]
    assert act([7, 4], seen).tolist() == [1, 1]
    assert act([4], seen[:1]).tolist() == [2]
    assert act([4, 7], seen).tolist() == [3, 0]


class Summing(nn.Module):
    """As RLlib's recurrent modules: chooses the sign of the sum of all it has seen, from 1 on."""

    def is_stateful(self) -> bool:
        return True

    def get_initial_state(self) -> dict[str, Tensor]:
        return {"sum": torch.ones(1), "steps": torch.zeros(2, 3)}

    def forward_inference(self, batch: dict[str, Any]) -> dict[str, Any]:
        before = batch["state_in"]
        total = before["sum"] + batch["obs"][:, 0]
        after = {"steps": before["steps"] + 1, "sum": total}
        return {"actions": torch.tanh(1000 * total).unsqueeze(1), "state_out": after}


def test_a_policys_state_is_one_vector_and_can_be_exported() -> None:
    policy = policy_of(Summing())
    assert isinstance(policy, RecurrentPolicy)
    taken = Taken(policy, Actions(spaces.Box(-3.0, 3.0, (1,))))
    assert policy.initial.tolist() == [1] + [0] * 6
    shown = (torch.zeros(2, 1), policy.initial.repeat(2, 1))
    shapes = ({0: torch.export.Dim("N")},) * 2
    program = torch.export.export(taken, shown, dynamic_shapes=shapes, strict=False).module()
    for acts in (taken, program):
        state = acts.initial.expand(3, -1)
        actions, state = acts(torch.tensor([[2.0], [-2.0], [-0.5]]), state)
        assert actions.flatten().tolist() == [3, -3, 3]
        actions, state = acts(torch.full((3, 1), -1.0), state)
        assert actions.flatten().tolist() == [3, -3, -3]
        assert state[:, 0].tolist() == [2, -2, -0.5]
        assert state[:, 1:].unique().tolist() == [2]


def test_a_policy_without_memory_takes_observations_alone() -> None:
    class Plain(Summing):
        def is_stateful(self) -> bool:
            return False

        def forward_inference(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {"actions": batch["obs"]}

    policy = policy_of(Plain())
    assert type(policy) is Policy
    assert Taken(policy, Actions(spaces.Box(-2.0, 2.0, (1,))))(torch.tensor([[0.5]])).tolist() == [[1.0]]
