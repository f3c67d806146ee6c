"""DQN and its additions: the network, the loss, and what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from rl_models import job
from torch import Tensor

from dlsys.rl.actions import Actions
from dlsys.rl.algorithms.dqn import DQNAgent, NoisyLinear, QNetwork, projected
from dlsys.rl.evaluate import play
from dlsys.rl.observations import NUMBERS, Observations
from dlsys.rl.pictures import draw
from dlsys.rl.replay import Transitions
from dlsys.spec.rl.value import Rainbow

SEEN = Observations(spaces.Box(-1, 1, (4,), np.float32))
GENERATOR = torch.Generator()


def network(*, choices: int = 3, **options: Any) -> QNetwork:
    torch.manual_seed(0)
    name = options.pop("name", "dqn")
    return QNetwork(
        SEEN, Actions(spaces.Discrete(choices)), job({"name": name, "hidden": (16, 16), **options})
    )


def seen(count: int) -> dict[str, Tensor]:
    return {NUMBERS: torch.rand(count, 4, generator=torch.Generator().manual_seed(1))}


def explore(of: QNetwork, shown: dict[str, Tensor], seed: int = 0) -> Tensor:
    with torch.no_grad():
        return of.explore(shown, torch.zeros(1, 0), GENERATOR.manual_seed(seed))[0]


@pytest.mark.parametrize("atoms", [1, 11])
@pytest.mark.parametrize("dueling", ["mean", "max"])
def test_dueling_takes_the_mean_or_the_maximum_of_the_advantages_away(dueling: str, atoms: int) -> None:
    made = network(dueling=dueling, atoms=atoms)
    features = made.features(seen(5))
    assert made.value is not None
    value, found = made.value(made.body(features)), made.outputs(features)  # [5, atoms], [5, 3, atoms]
    of_actions = found.mean(1) if dueling == "mean" else found.max(1).values
    # The identity: the mean (or the best) action is worth what the state is worth.
    torch.testing.assert_close(of_actions, value)
    other = found.max(1).values if dueling == "mean" else found.mean(1)
    assert not torch.allclose(other, value)


def test_the_mean_of_a_distribution_is_the_value_and_both_streams_shape_it() -> None:
    made = network(dueling="mean", atoms=11, v_min=-2, v_max=8)
    found = made.outputs(made.features(seen(5)))
    means = made.mean(found)
    torch.testing.assert_close(means, found.softmax(-1) @ torch.linspace(-2, 8, 11))
    means.sum().backward()
    for head in (made.value, made.advantage):
        assert head is not None
        assert head.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_a_distribution_is_projected_share_by_share() -> None:
    atoms = torch.linspace(-1, 3, 5)
    shares = torch.rand(4, 5).softmax(-1)
    moved = 3 * torch.randn(4, 5)
    expected = torch.zeros(4, 5)
    for row in range(4):
        for share, point in zip(shares[row].tolist(), moved[row].clamp(-1, 3).tolist(), strict=True):
            low = min(int(point + 1), 3)
            expected[row, low] += share * (atoms[low + 1].item() - point)
            expected[row, low + 1] += share * (point - atoms[low].item())
    torch.testing.assert_close(projected(shares, moved, atoms), expected)


def test_noise_has_the_papers_scale() -> None:
    torch.manual_seed(0)
    layer = NoisyLinear(100, 50, 0.5)
    assert layer.weight_sigma.unique().tolist() == pytest.approx([0.05])
    inputs, outputs = torch.ones(1, 100), []
    still = layer(inputs)
    for _ in range(400):
        layer.draw()
        outputs.append(layer(inputs) - still)
    # √|ε|·sign(ε) has the variance E|ε| = √(2/π), and the noise of a weight that of two of them.
    one = (2 / np.pi) ** 0.5
    expected = 0.05 * (100 * one**2 + one) ** 0.5
    assert torch.stack(outputs).std().item() == pytest.approx(expected, rel=0.1)


def test_noise_explores_instead_of_chance_and_is_absent_when_the_best_is_asked_for() -> None:
    made = network(noisy=True, noise=3.0)
    assert sum(isinstance(layer, NoisyLinear) for layer in made.modules()) == 2, "not the first layer"
    shown, best = seen(64), made.best
    known = [best(shown, torch.zeros(1, 0))[0] for _ in range(3)]
    assert all(torch.equal(known[0], each) for each in known)
    tried = [explore(made, shown, seed) for seed in range(8)]
    assert any(not torch.equal(known[0], each) for each in tried)
    # One draw of the noise acts on all environments, as one policy: nobody throws a coin for each.
    alone = explore(made, {NUMBERS: shown[NUMBERS][:1]}, seed=3)
    assert explore(made, shown, seed=3)[0] == alone[0]


def test_chance_is_as_frequent_as_it_is_told_and_falls() -> None:
    made = network()
    shown = seen(4000)
    best = made.best(shown, torch.zeros(1, 0))[0]
    assert torch.equal(explore(made, shown), best)
    made.set({"epsilon": 0.3})
    # A random action is the best one once in three.
    assert float((explore(made, shown) != best).float().mean()) == pytest.approx(0.2, abs=0.02)
    agent = DQNAgent(job({"name": "dqn", "epsilon": 0.1, "epsilon_steps": 100}, "CartPole-v1"))
    told = []
    for agent.step in (0, 50, 100, 1000):
        told.append(agent.exploring()["epsilon"])
    assert told == pytest.approx([1.0, 0.55, 0.1, 0.1])
    agent.close()


def test_what_is_not_legal_is_neither_drawn_nor_best() -> None:
    made = network(choices=5)
    mask = torch.zeros(500, 5, dtype=torch.bool)
    mask[:, 1] = mask[:, 3] = True
    shown = {**seen(500), "action_mask": mask}
    made.set({"epsilon": 0.5})
    assert set(explore(made, shown).tolist()) == {1, 3}
    assert set(made.best(shown, torch.zeros(1, 0))[0].tolist()) <= {1, 3}


def test_rainbow_has_all_six() -> None:
    told = Rainbow.model_validate({"name": "rainbow"})
    assert (told.double, told.dueling, told.replay, told.noisy) == (True, "mean", "prioritized", True)
    assert told.n_step > 1
    assert told.atoms > 1


class Given(gymnasium.Env[Any, Any]):
    """One state after the other of a list of steps (action taken or not, each pays and leads as it says)."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, choices: int = 10, noise: float = 1.0) -> None:
        self.action_space, self.noise = spaces.Discrete(choices), noise

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.second = False
        return np.array([1, 0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(self.np_random.normal()) * self.noise if self.second else 0.0
        over, self.second = self.second, True
        return np.array([0, 1], np.float32), reward, over, False, {}


def agent(environment: dict[str, Any] | None = None, **options: Any) -> DQNAgent:
    told = {"name": "dqn", "starts": 100, "hidden": (32,), "batch_size": 32, "n_step": 1, **options}
    made = job(told, "test_dqn:Given", resources={"envs": 4})
    place = made.environment.model_copy(update={"options": environment or {}})
    return DQNAgent(made.model_copy(update={"environment": place}))


def overestimate(double: bool) -> float:
    """The learned value of a state whose actions all lead to one where ten actions are worth 0 ± 1."""
    learner = agent(double=double, lr=3e-2, target_every=50, gamma=1.0)
    random, found = np.random.default_rng(0), []
    first, second = np.eye(2, dtype=np.float32)

    def fresh(count: int) -> Transitions:
        ends = random.random(count) < 0.5
        return Transitions(
            rows=np.arange(count),
            seen={NUMBERS: np.where(ends[:, None], second, first)},
            actions=random.integers(10, size=count),
            rewards=np.where(ends, random.normal(size=count), 0).astype(np.float32),
            following={NUMBERS: np.broadcast_to(second, (count, 2)).copy()},
            terminated=ends,
            steps=np.ones(count, np.float32),
            weights=np.ones(count, np.float32),
        )

    learner.replay.sample = fresh  # type: ignore[method-assign]
    for learner.step in range(1, 301):
        learner.update()
        if learner.step > 50:
            with torch.no_grad():
                values = learner.network.outputs(
                    learner.network.features({NUMBERS: torch.tensor(first[None])})
                )
            found.append(float(values.mean()))
    learner.close()
    return float(np.mean(found))


def test_double_dqn_overestimates_less() -> None:
    """Every action is worth 0; the maximum of noisy estimates is more (van Hasselt et al. 2016)."""
    single, double = overestimate(False), overestimate(True)
    assert single > 0.1
    assert abs(double) < single / 2


@pytest.mark.parametrize("options", [{}, {"double": True, "dueling": "max"}, {"atoms": 51, "v_min": -53.1}])
def test_the_value_of_what_is_known_is_learned(options: dict[str, Any]) -> None:
    """After the first state comes the second, which pays nothing, or the end: all is worth 0, and with an
    atom range whose step times their count is a little more than the range."""
    learner = agent({"noise": 0.0}, v_max=80.5, lr=1e-2, **options)
    for _ in range(2):
        learner.iterate()
    both = {NUMBERS: np.eye(2, dtype=np.float32)}
    found = learner.values(both)
    assert found is not None
    np.testing.assert_allclose(found, 0, atol=1.0 if "atoms" in options else 0.1)
    learner.close()


def test_the_loss_is_that_of_the_papers() -> None:
    """Against sums written out: double, with three rewards added up, and weights."""
    learner = agent(double=True, n_step=3, replay="prioritized", gamma=0.5)
    rollout, _ = learner.runners.sample(50, 0, {"epsilon": 1.0})
    learner.replay.add(rollout)
    learner._target.load_state_dict({k: v + 0.1 for k, v in learner.network.state_dict().items()})
    drawn = learner.replay.sample(32)
    learner.replay.sample = lambda count: drawn  # type: ignore[method-assign]
    loss, told = learner._single()
    expected, errors = 0.0, []
    with torch.no_grad():
        online, target = (
            [net.mean(net.outputs(net.features({NUMBERS: torch.as_tensor(part[NUMBERS])}))) for part in parts]
            for net, parts in (
                (learner.network, (drawn.seen, drawn.following)),
                (learner._target, (drawn.seen, drawn.following)),
            )
        )
    for row in range(32):
        best = int(online[1][row].argmax())
        later = 0.0 if drawn.terminated[row] else 0.5 ** drawn.steps[row] * float(target[1][row, best])
        missed = float(online[0][row, int(drawn.actions[row])]) - (float(drawn.rewards[row]) + later)
        expected += float(drawn.weights[row]) * (missed**2 / 2 if abs(missed) < 1 else abs(missed) - 0.5) / 32
        errors.append(abs(missed))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert float(told["td_error"]) == pytest.approx(np.mean(errors), rel=1e-4)
    learner.close()


def test_the_target_network_is_the_online_one_of_some_steps_ago() -> None:
    learner = agent(target_every=300, updates=0.05)
    learner.step = 1000
    learner.replay.add(learner.runners.sample(50, 0)[0])
    for step, same in ((1000, True), (1200, False), (1299, False), (1300, True)):
        learner.step = step
        before = {name: value.clone() for name, value in learner.network.state_dict().items()}
        learner.update()
        target = learner._target.state_dict()
        assert all(torch.equal(before[name], target[name]) for name in before) == same, step
    learner.close()


def test_pixels_of_a_users_own_environment_are_learned_from_and_drawn(tmp_path: Path) -> None:
    options = {"lr": 3e-3, "gamma": 0.9, "batch_size": 64, "epsilon_steps": 1500, "starts": 200}
    told = job({"name": "dqn", "hidden": (32,), **options}, "dlsys/Catch-v0", resources={"envs": 4})
    told = told.model_copy(
        update={"environment": told.environment.model_copy(update={"options": {"side": 8}})}
    )
    learner = DQNAgent(told)
    try:
        for _ in range(4):
            learner.iterate()
        played = play(learner, told.environment, 50, sees="parts", seed=0, split="valid")
        assert played is not None
        assert played.summary()["return"] >= 0.8, "who waits in the middle catches one ball in eight"
        assert not draw(learner, told.environment, tmp_path, gamma=0.9, seed=0, sees="parts")
    finally:
        learner.close()
    assert {path.name for path in tmp_path.iterdir()} == {"episode.gif", "strip.png", "values.png"}
