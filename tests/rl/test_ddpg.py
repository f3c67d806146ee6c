"""DDPG and what makes it TD3, in process: the networks and the updates of RLlib's learner on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from dlsys.registry import ALGORITHMS
from dlsys.rl.plain import decode, encode
from dlsys.spec.rl.value import DDPG, SAC, TD3

SEEN, ACTIONS = spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
KINDS = {"ddpg": DDPG, "td3": TD3, "sac": SAC}


def _learner(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    told = KINDS[name].model_validate({"name": name, "hidden": (16, 16), **options})
    config = ALGORITHMS.load(told.name)(told).debugging(seed=0)
    return config.build_learner(spaces={DEFAULT_MODULE_ID: (SEEN, ACTIONS)})


def _batch(count: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "obs": random.uniform(-1, 1, (count, 3)).astype(np.float32),
        "new_obs": random.uniform(-1, 1, (count, 3)).astype(np.float32),
        "actions": random.uniform(-1, 1, (count, 2)).astype(np.float32),
        "rewards": random.normal(size=count).astype(np.float32),
        "terminateds": random.random(count) < 0.2,
        "n_step": np.ones(count, np.float32),
        "weights": np.ones(count, np.float32),
    }


def _update(learner: Any, batch: dict[str, np.ndarray], now: int = 1) -> None:
    together = TrainingData(batch={DEFAULT_MODULE_ID: batch})
    learner.update(training_data=together, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: now})


def _weights(learner: Any) -> dict[str, torch.Tensor]:
    found = learner.module[DEFAULT_MODULE_ID].state_dict()
    return {name: value.clone() for name, value in found.items()}


def _moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


VALUES = {"qf", "qf_encoder"}
TWINS = {"qf_twin", "qf_twin_encoder"}
POLICY = {"pi", "pi_encoder"}


def _targets(parts: set[str]) -> set[str]:
    return {f"target_{part}" for part in parts}


def test_ddpg_moves_everything_at_each_update() -> None:
    learner = _learner("ddpg")
    before = _weights(learner)
    _update(learner, _batch())
    assert _moved(before, _weights(learner)) == VALUES | POLICY | _targets(VALUES | POLICY)


def test_td3_moves_the_policy_and_the_targets_at_each_second_update() -> None:
    learner = _learner("td3")
    seen = []
    for now in range(4):
        before = _weights(learner)
        _update(learner, _batch(seed=now), now)
        seen.append(_moved(before, _weights(learner)))
    values = VALUES | TWINS
    assert seen == [values, values | POLICY | _targets(values | POLICY)] * 2


def test_the_policy_goes_where_the_values_are_higher_and_leaves_them_alone() -> None:
    learner = _learner("ddpg")
    module = learner.module[DEFAULT_MODULE_ID]
    batch = learner._convert_batch_type(
        MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(_batch())}, 32)
    ).policy_batches[DEFAULT_MODULE_ID]
    found = module.forward_train(batch)
    found["q_of_policy"].mean().backward()
    assert all(value.grad is None for part in (module.qf, module.qf_encoder) for value in part.parameters())
    assert all(
        value.grad is not None for part in (module.pi, module.pi_encoder) for value in part.parameters()
    )


def test_the_lower_of_twin_values_counts_at_smoothed_actions() -> None:
    batch = {name: torch.as_tensor(values) for name, values in _batch(4096).items()}
    module = _learner("td3", smoothing=0.3, smoothing_limit=0.2).module[DEFAULT_MODULE_ID]
    with torch.no_grad():  # as high as the other, so that each is the lower one at times
        first, second = (
            module._qf_forward_train_helper({"obs": batch["new_obs"], "actions": batch["actions"]}, *parts)
            for parts in (
                (module.target_qf_encoder, module.target_qf),
                (module.target_qf_twin_encoder, module.target_qf_twin),
            )
        )
        [*module.target_qf_twin.parameters()][-1] += first.mean() - second.mean()
    seen: list[torch.Tensor] = []
    whole = module.forward_target

    def watched(given: dict[str, torch.Tensor]) -> Any:
        seen.append(given["actions"])
        return whole(given)

    module.forward_target = watched
    target = module.forward_train(batch)["q_target_next"]
    following = {"obs": batch["new_obs"], "actions": seen[0]}
    first = module._qf_forward_train_helper(following, module.target_qf_encoder, module.target_qf)
    second = module._qf_forward_train_helper(following, module.target_qf_twin_encoder, module.target_qf_twin)
    torch.testing.assert_close(target, torch.minimum(first, second))
    assert 0.1 < (first < second).float().mean() < 0.9

    noise = seen[0] - module.forward_inference({"obs": batch["new_obs"]})["actions"]
    assert noise.abs().max() <= 0.2 + 1e-6
    # Beyond ±0.2 = ±2σ/3 lies half of a normal distribution.
    assert 0.4 < (noise.abs() > 0.2 - 1e-6).float().mean() < 0.6


def test_exploration_is_chance_at_first_and_then_noise_around_the_policy() -> None:
    module = _learner("ddpg", starts=100, explore=0.1).module[DEFAULT_MODULE_ID]
    batch = {"obs": torch.rand(2000, 3)}
    best = module.forward_inference(batch)["actions"]
    early = module.forward_exploration(batch, t=99)["actions"]
    later = module.forward_exploration(batch, t=100)["actions"]
    assert abs(early.std().item() - 1 / 3**0.5) < 0.03
    assert abs((later - best).std().item() - 0.1) < 0.01
    assert later.abs().max() <= 1


def test_the_best_action_of_sac_is_squashed() -> None:
    module = _learner("sac").module[DEFAULT_MODULE_ID]
    batch = {"obs": 20 * torch.rand(50, 3)}
    means, deviations = module.forward_exploration(batch)["action_dist_inputs"].chunk(2, -1)
    torch.testing.assert_close(module.forward_inference(batch)["actions"], means.tanh())
    assert deviations.shape == means.shape


def test_learners_states_are_whole() -> None:
    for name in KINDS:
        first, second = _learner(name), _learner(name)
        for now in range(1, 4):
            _update(first, _batch(seed=now), now)
        second.set_state(decode(encode(first.get_state())))
        for learner in (first, second):
            torch.manual_seed(1)
            for now in range(4, 8):
                _update(learner, _batch(seed=now), now)
        assert not _moved(_weights(first), _weights(second)), name
        if name == "sac":
            assert torch.equal(*(each.curr_log_alpha[DEFAULT_MODULE_ID] for each in (first, second)))
            assert first.curr_log_alpha[DEFAULT_MODULE_ID].item() != 0.0
