"""DQN's additions, in process: the network, the loss of RLlib's learner on it, and what they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_LOGITS, QF_PREDS, QF_PROBS
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from dlsys.registry import ALGORITHMS
from dlsys.rl.algorithms.dqn import NoisyLinear, QNetwork, projected
from dlsys.rl.plain import decode, encode
from dlsys.spec.rl.value import DQN, Rainbow

SEEN, ACTIONS = spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(3)


def _learner(seen: spaces.Box = SEEN, actions: spaces.Discrete = ACTIONS, **options: Any) -> Any:
    torch.manual_seed(0)
    kind = Rainbow if options.get("name") == "rainbow" else DQN
    told = kind.model_validate({"name": "dqn", "hidden": (16, 16), **options})
    config = ALGORITHMS.load(told.name)(told).debugging(seed=0)
    return config.build_learner(spaces={DEFAULT_MODULE_ID: (seen, actions)})


def _network(**options: Any) -> QNetwork:
    found = _learner(**options).module[DEFAULT_MODULE_ID]
    assert isinstance(found, QNetwork)
    return found


def _batch(count: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "obs": random.uniform(-1, 1, (count, 4)).astype(np.float32),
        "new_obs": random.uniform(-1, 1, (count, 4)).astype(np.float32),
        "actions": random.integers(3, size=count),
        "rewards": random.normal(size=count).astype(np.float32),
        "terminateds": random.random(count) < 0.2,
        "n_step": np.ones(count, np.float32),
        "weights": np.ones(count, np.float32),
    }


def _update(learner: Any, batch: dict[str, np.ndarray], now: int = 1) -> None:
    together = TrainingData(batch={DEFAULT_MODULE_ID: batch})
    learner.update(training_data=together, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: now})


@pytest.mark.parametrize("atoms", [1, 11])
@pytest.mark.parametrize("dueling", ["mean", "max"])
def test_dueling_takes_the_mean_or_the_maximum_of_the_advantages_away(dueling: str, atoms: int) -> None:
    network = _network(dueling=dueling, atoms=atoms)
    batch = {"obs": torch.rand(5, 4)}
    seen = network.encoder(batch)["encoder_out"]
    value = network.vf(seen)  # [5, atoms]
    found = network.compute_q_values(batch)
    logits = found[QF_PREDS].unsqueeze(-1) if atoms == 1 else found[QF_LOGITS]  # [5, 3, atoms]
    of_actions = logits.mean(1) if dueling == "mean" else logits.max(1).values
    # The identity: the mean (or the best) action is worth what the state is worth.
    torch.testing.assert_close(of_actions, value)
    other = logits.max(1).values if dueling == "mean" else logits.mean(1)
    assert not torch.allclose(other, value)


def test_a_distribution_sums_to_one_and_its_mean_is_the_value() -> None:
    network = _network(dueling="mean", atoms=11, v_min=-2, v_max=8)
    found = network.compute_q_values({"obs": torch.rand(5, 4)})
    torch.testing.assert_close(found[QF_PROBS].sum(-1), torch.ones(5, 3))
    torch.testing.assert_close(found[QF_PREDS], found[QF_PROBS] @ torch.linspace(-2, 8, 11))
    # Both streams shape it.
    found[QF_PREDS].sum().backward()
    assert all(head.abs().sum() > 0 for head in (network.vf.weight.grad, network.af.net.mlp[0].weight.grad))


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


@pytest.mark.parametrize("double", [True, False])
def test_a_distribution_of_any_range_is_learned(double: bool) -> None:
    # Here (v_max - v_min) / ((v_max - v_min) / 50) is a little more than 50.
    learner = _learner(atoms=51, v_min=-53.1, v_max=80.5, double=double, lr=0.01)
    batch = _batch() | {"rewards": np.full(32, 200, np.float32), "terminateds": np.ones(32, bool)}
    for now in range(60):
        _update(learner, batch, now)
    network = learner.module[DEFAULT_MODULE_ID]
    with torch.no_grad():
        values = network.compute_q_values({"obs": torch.as_tensor(batch["obs"])})[QF_PREDS]
    taken = values[torch.arange(32), torch.as_tensor(batch["actions"])]
    assert taken.min() > 60


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
    network = _network(noisy=True, noise=3.0)
    assert sum(isinstance(layer, NoisyLinear) for layer in network.modules()) == 2 * 2  # and the targets
    batch = {"obs": torch.rand(64, 4)}
    best = [network.forward_inference(batch)["actions"] for _ in range(3)]
    assert all(torch.equal(best[0], each) for each in best)
    assert network.epsilon_schedule.get_current_value() == 0.0
    tried = [network.forward_exploration(batch, t=0)["actions"] for _ in range(8)]
    assert any(not torch.equal(best[0], each) for each in tried)
    # One draw of the noise acts on all environments, as one policy: nobody throws a coin for each.
    with torch.no_grad():
        torch.manual_seed(3)
        explored = network.forward_exploration(batch, t=0)["actions"]
        torch.manual_seed(3)
        alone = network.forward_exploration({"obs": batch["obs"][:1]}, t=0)["actions"]
    assert explored[0] == alone[0]

    quiet = _network()
    chance = [quiet.forward_exploration(batch, t=0)["actions"] for _ in range(2)]
    assert not torch.equal(*chance)


def test_the_scale_of_the_noise_is_learned() -> None:
    learner = _learner(name="rainbow", atoms=11)
    network = learner.module[DEFAULT_MODULE_ID]
    sigmas = {name: value for name, value in network.named_parameters() if "sigma" in name}
    own = {name: value.detach().clone() for name, value in sigmas.items() if "_target" not in name}
    assert len(own) == 6
    _update(learner, _batch())
    for name, before in own.items():
        assert not torch.equal(sigmas[name], before), name


def test_rainbow_has_all_six() -> None:
    told = Rainbow.model_validate({"name": "rainbow"})
    assert (told.double, told.dueling, told.replay, told.noisy) == (True, "mean", "prioritized", True)
    assert told.n_step > 1
    assert told.atoms > 1


def _overestimate(double: bool) -> float:
    """The learned value of a state whose actions all lead to one where ten actions are worth 0 ± 1."""
    learner = _learner(
        spaces.Box(0, 1, (2,), np.float32),
        spaces.Discrete(10),
        double=double,
        hidden=(32,),
        lr=3e-2,
        target_every=50,
        gamma=1.0,
    )
    random, found = np.random.default_rng(0), []
    first, second = np.eye(2, dtype=np.float32)
    module = learner.module[DEFAULT_MODULE_ID]
    for now in range(1, 301):
        ends = random.random(32) < 0.5
        batch = _batch(32) | {
            "obs": np.where(ends[:, None], second, first),
            "new_obs": np.broadcast_to(second, (32, 2)).copy(),
            "actions": random.integers(10, size=32),
            "rewards": np.where(ends, random.normal(size=32), 0).astype(np.float32),
            "terminateds": ends,
        }
        _update(learner, batch, now)
        if now > 50:
            with torch.no_grad():
                found.append(module.compute_q_values({"obs": torch.tensor(first[None])})[QF_PREDS].mean())
    return float(np.mean(found))


def test_double_dqn_overestimates_less() -> None:
    """Every action is worth 0; the maximum of noisy estimates is more (van Hasselt et al. 2016)."""
    single, double = _overestimate(False), _overestimate(True)
    assert single > 0.1
    assert abs(double) < single / 2


def test_a_learners_state_is_whole() -> None:
    first, second = _learner(target_every=4), _learner(target_every=4)
    for now in range(1, 8):
        _update(first, _batch(seed=now), now)
    second.set_state(decode(encode(first.get_state())))
    for learner in (first, second):
        torch.manual_seed(1)
        for now in range(8, 13):
            _update(learner, _batch(seed=now), now)
    for name, value in first.module[DEFAULT_MODULE_ID].state_dict().items():
        assert torch.equal(value, second.module[DEFAULT_MODULE_ID].state_dict()[name]), name
