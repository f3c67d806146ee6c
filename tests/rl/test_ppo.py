"""PPO, and what all agents share that learn from what they have just done."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from memory_tasks import Masked
from rl_models import check_resumes_exactly, job

from dlsys.errors import WorkloadError
from dlsys.registry import ALGORITHMS
from dlsys.rl.algorithms.ppo import PPOAgent
from dlsys.rl.evaluate import play
from dlsys.rl.observations import NUMBERS
from dlsys.rl.on_policy import Batch, advantages
from dlsys.rl.progress import stepping
from dlsys.rl.sampler import Rollout
from dlsys.spec.rl.job import RLJob

SMALL = {"name": "ppo", "batch_size": 64, "minibatch_size": 16, "passes": 2, "hidden": [8]}


def agent(environment: str = "CartPole-v1", **more: Any) -> PPOAgent:
    options, told = more.pop("algorithm", {}), more.pop("options", {})
    made = job({**SMALL, **options}, environment, **{"resources": {"envs": 2}, **more})
    place = made.environment.model_copy(update={"options": told})
    return PPOAgent(made.model_copy(update={"environment": place}))


def random_rollout(steps: int = 30, count: int = 3) -> Rollout:
    random = np.random.default_rng(0)
    over = random.random((steps, count)) < 0.2
    terminated = over & (random.random((steps, count)) < 0.5)
    ends = np.argwhere(over).T
    return Rollout(
        seen={},
        actions=np.zeros((steps, count)),
        rewards=random.normal(size=(steps, count)).astype(np.float32),
        terminated=terminated,
        truncated=over & ~terminated,
        first=np.concatenate([np.ones((1, count), bool), over]),
        finals={},
        ends=ends,
        final_memories=np.zeros((ends.shape[1], 0), np.float32),
        memories=np.zeros((steps + 1, count, 0), np.float32),
    )


def test_advantages_are_the_weighted_sums_of_all_returns_of_n_steps() -> None:
    """The definition: (1 - λ) Σ λ^(n-1) of the advantages over n steps, each written out; the last one of an
    episode, or of the rollout, has all the weight that is left."""
    gamma, trace, rollout = 0.9, 0.8, random_rollout()
    steps, count = rollout.rewards.shape
    random = np.random.default_rng(1)
    values = random.normal(size=(steps + 1, count)).astype(np.float32)
    finals = random.normal(size=rollout.ends.shape[1]).astype(np.float32)
    found = advantages(rollout, rollout.rewards, values, finals, gamma, trace)
    last = {(int(t), int(n)): float(finals[i]) for i, (t, n) in enumerate(rollout.ends.T)}
    for t in range(steps):
        for n in range(count):
            each, total, k = [], 0.0, t
            while True:
                total += gamma ** (k - t) * float(rollout.rewards[k, n])
                over = bool(rollout.terminated[k, n] | rollout.truncated[k, n])
                later = last[k, n] if over else float(values[k + 1, n])
                later *= not rollout.terminated[k, n]
                each.append(total + gamma ** (k + 1 - t) * later - float(values[t, n]))
                k += 1
                if over or k == steps:
                    break
            weights = [(1 - trace) * trace**i for i in range(len(each) - 1)] + [trace ** (len(each) - 1)]
            assert found[t, n] == pytest.approx(np.dot(weights, each), abs=1e-4)


def batch_of(made: PPOAgent) -> Batch:
    return made.batch(made.runners.sample(32, 0)[0])


def test_the_loss_is_that_of_the_paper() -> None:
    """Against sums written out."""
    made = agent(algorithm={"clip": 0.1, "entropy": 0.02, "value_weight": 0.7})
    batch = batch_of(made)
    with torch.no_grad():
        made.network.policy.weight.mul_(60)  # another policy than the one that acted
    made._told = made._told.model_copy(update={"minibatch_size": 1000})
    ((kept, chances, values),) = made._minibatches(batch)
    loss, told = made._loss(kept, chances, values, 0.1, 0.02)
    gains = (kept.advantages - kept.advantages.mean()) / kept.advantages.std()
    outputs = chances.categories[0].detach()
    policy, value, entropy = 0.0, 0.0, 0.0
    for row in range(len(kept)):
        ratio = float((outputs[row, int(kept.actions[row])] - kept.logp[row]).exp())
        gain = float(gains[row])
        policy -= min(gain * ratio, gain * min(max(ratio, 0.9), 1.1)) / len(kept)
        value += float(values[row].detach() - kept.returns[row]) ** 2 / len(kept)
        entropy -= float((outputs[row].exp() * outputs[row]).sum()) / len(kept)
    assert float(loss.detach()) == pytest.approx(policy + 0.7 * value - 0.02 * entropy, rel=1e-4)
    assert float(told["policy_loss"]) == pytest.approx(policy, abs=1e-5)
    assert len(kept) == 64
    made.close()


@pytest.mark.parametrize("memory", [None, "gru"])
def test_each_row_is_learned_from_once_a_pass(memory: str | None) -> None:
    made = agent(model={"memory": memory, "sequence": 8})
    batch = batch_of(made)
    passes = [torch.cat([rows.logp for rows, _, _ in made._minibatches(batch)]) for _ in range(2)]
    for one in passes:
        assert sorted(one.tolist()) == sorted(batch.logp.flatten().tolist())
    assert not torch.equal(*passes), "each pass is shuffled anew"
    made.close()


@pytest.mark.parametrize("memory", [None, "lstm", "gru"])
def test_what_is_learned_from_is_what_was_done(memory: str | None) -> None:
    """Before the first update, the chances of the actions are those that they were drawn with, across the
    ends of episodes too."""
    made = agent(model={"memory": memory, "sequence": 8})
    for _ in range(3):
        batch = batch_of(made)
        assert batch.first[1:].any()
        for rows, chances, values in made._minibatches(batch):
            torch.testing.assert_close(chances.logp(rows.actions), rows.logp, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(values, rows.values, rtol=1e-4, atol=1e-5)
    made.close()


def test_ramps_lead_from_one_number_to_another() -> None:
    ramps = {
        "lr": {"start": 1e-3, "end": 0, "steps": 128},
        "clip": {"start": 0.2, "end": 0.1, "steps": 128},
        "entropy": {"start": 0.01, "end": 0.0, "steps": 128},
    }
    made = agent(algorithm=ramps)
    rates = [made.iterate().figures["lr"] for _ in range(3)]
    assert rates == pytest.approx([5e-4, 0, 0])
    before = made.weights()
    made.iterate()
    assert all(np.array_equal(value, before[name]) for name, value in made.weights().items())
    made.close()


def test_the_penalty_on_divergence_adapts() -> None:
    made = agent(algorithm={"kl": 1.0, "lr": 1e-7})
    made.iterate()
    assert made._kl == 0.5, "it hardly moved"
    made._told = made._told.model_copy(update={"lr": 0.3, "clip": 10.0})
    made.iterate()
    assert made._kl == 1.0
    made.close()


def recall(algorithm: dict[str, Any], memory: str | None, iterations: int, **model: Any) -> float:
    """What is earned of 1 by who remembers."""
    from dlsys.rl.engine import build

    told = {"memory": memory, "units": 16, **model} if memory else {}
    made = job(algorithm, "memory_tasks:Recall", resources={"envs": 8}, model=told)
    learner = build(made)
    found = 0.0
    try:
        for _ in range(iterations):
            learner.iterate()
            played = play(learner, made.environment, 100, sees="parts", seed=0, split="valid")
            assert played is not None
            if (found := played.summary()["return"]) >= 0.95:
                break
    finally:
        learner.close()
    return found


PPO = {"name": "ppo", "batch_size": 512, "lr": 3e-3, "entropy": 0.01}
DQN = {
    "name": "dqn",
    "lr": 2e-3,
    "starts": 500,
    "hidden": [32],
    "batch_size": 256,
    "updates": 0.05,
    "epsilon_steps": 3000,
    "n_step": 1,
    "target_every": 500,
}


@pytest.mark.parametrize("memory", ["lstm", "gru"])
def test_who_remembers_solves_what_others_cannot(memory: str) -> None:
    assert recall(PPO, memory, 6) >= 0.95
    assert recall(DQN, memory, 12, sequence=12) >= 0.95


def test_who_does_not_remember_stays_at_chance() -> None:
    assert abs(recall(PPO, None, 4)) <= 0.3


@pytest.mark.parametrize("how", ["observation", "info", "asked"])
@pytest.mark.parametrize("several", [False, True])
def test_what_is_not_legal_is_never_done(how: str, several: bool) -> None:
    """`Masked` raises otherwise."""
    made = agent("memory_tasks:Masked", options={"how": how, "several": several})
    for _ in range(10):
        assert made.iterate().steps == 64
    played = play(made, made.job.environment, 5, sees="parts", seed=0, split="valid")
    assert played is not None
    assert played.lengths == [20] * 5
    made.close()
    assert Masked(how, several).action_space == made.runners.actions.space


def scaled(**normalize: bool) -> float:
    made = agent(
        "memory_tasks:Scaled",
        algorithm={"batch_size": 512, "minibatch_size": 64, "passes": 4, "lr": 3e-3, "gamma": 0.5},
        normalize=normalize,
    )
    try:
        for _ in range(4):
            returns = made.iterate().returns
        assert max(returns) > 1000, "in the environment's own unit"
        return float(np.mean(returns)) / 20_000
    finally:
        made.close()


def test_numbers_of_any_scale_are_learned_from_where_they_are_standardized() -> None:
    assert scaled(observation=True, reward=True) > 0.8
    assert scaled() < 0.7


def test_what_numbers_are_standardized_by_is_that_of_all_that_was_seen() -> None:
    made = agent(normalize={"observation": True, "reward": True})
    seen = [made.batch(made.runners.sample(32, 0)[0]).seen[NUMBERS] for _ in range(3)]
    whole = torch.cat(seen).flatten(0, 1).double()
    running = made.network.features.running
    assert running is not None
    torch.testing.assert_close(running.mean, whole.mean(0))
    torch.testing.assert_close(running.variance, whole.var(0, unbiased=False))
    before = running.mean.clone()
    made.act({NUMBERS: np.full((5, 4), 1e6, np.float32)})
    assert torch.equal(running.mean, before), "who is measured learns nothing"
    assert any("running.mean" in name for name in made.weights())
    made.close()


@pytest.mark.parametrize(
    "more",
    [
        {"normalize": {"observation": True, "reward": True}},
        {"model": {"memory": "lstm", "units": 8}},
        {"algorithm": {"kl": 0.5}},
    ],
)
def test_it_goes_on_as_if_it_had_not_stopped(more: dict[str, Any]) -> None:
    whole, other = agent(**more), agent(**more)
    check_resumes_exactly(whole, other)
    whole.close()
    other.close()


def test_a_checkpoint_cuts_no_episode(tmp_path: Any) -> None:
    """Who saves at each iteration sees late steps too, and what is sampled does not depend on it."""
    told = RLJob.model_validate(
        {
            "kind": "rl",
            "name": "x",
            "environment": {"name": "Pendulum-v1"},
            "algorithm": {**SMALL, "batch_size": 60},
            "stop": {"epochs": 1},
        }
    )
    one, other = PPOAgent(told), PPOAgent(told)
    lengths = []
    for _ in range(8):
        lengths += one.iterate().lengths
        one.state()
        other.iterate()
    assert lengths == [200, 200]
    for name, value in one.weights().items():
        np.testing.assert_array_equal(value, other.weights()[name])
    one.close()
    other.close()


class Noting(torch.nn.Module):
    """Keeps in which mode it was called."""

    modes: ClassVar[list[bool]] = []

    def __init__(self, shapes: Any) -> None:
        super().__init__()

    def forward(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        self.modes.append(self.training)
        return seen[NUMBERS]


@pytest.mark.parametrize("algorithm", [{"name": "ppo"}, {"name": "dqn", "starts": 0, "hidden": [8]}])
def test_a_network_of_the_users_is_in_training_mode_while_it_learns_alone(algorithm: dict[str, Any]) -> None:
    told = SMALL if algorithm["name"] == "ppo" else {}
    made = ALGORITHMS.load(algorithm["name"])(
        job({**told, **algorithm}, "CartPole-v1", model={"module": "test_ppo:Noting"})
    )
    Noting.modes.clear()
    made.runners.sample(16, 0)
    made.act({NUMBERS: np.zeros((2, 4), np.float32)})
    assert set(Noting.modes) == {False}
    made.iterate()
    assert set(Noting.modes) == {False, True}
    Noting.modes.clear()
    made.values({NUMBERS: np.zeros((2, 4), np.float32)})
    assert Noting.modes == [False]
    made.close()


def test_each_step_of_an_optimizer_is_a_sign_of_life() -> None:
    made = agent()
    batch, signs = batch_of(made), []
    with stepping(lambda: signs.append(1)):
        made.learn(batch)
    assert len(signs) == 2 * 64 // 16
    made.close()


def test_an_environment_that_raises_is_made_anew_if_the_job_says_so() -> None:
    with pytest.raises(WorkloadError, match="KeyError: 'no prices for this day'"):
        agent("memory_tasks:Flaky").iterate()
    made = agent("memory_tasks:Flaky", failure={"environment": "renew"})
    did = made.iterate()
    assert did.figures["renewed"] == 64 // 8, "each raises at its eighth step"
    assert did.lengths == [8] * 8
    assert set(did.returns) == {7.0}
    made.close()
    broken = agent("memory_tasks:Flaky", failure={"environment": "renew"}, options={"after": 1})
    with pytest.raises(WorkloadError, match="no prices"):
        broken.iterate()
    broken.close()
