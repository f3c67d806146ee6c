"""DreamerV3: what it keeps and draws, how it acts without exploration, and that it goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from by_hand import ByHand
from gymnasium import spaces
from ray.rllib.algorithms.dreamerv3.torch.dreamerv3_torch_rl_module import DreamerV3TorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.policy.sample_batch import SampleBatch
from rl_models import job

from dlsys.errors import SpecError, UsageError
from dlsys.registry import ALGORITHMS
from dlsys.rl.algorithms.dreamerv3 import Module
from dlsys.rl.environments import check_suits
from dlsys.rl.episode_replay import Sequences
from dlsys.rl.evaluate import play
from dlsys.rl.export import export
from dlsys.rl.plain import decode, encode
from dlsys.rl.policy import RecurrentPolicy
from dlsys.rl.rllib import RllibAgent, configure, module_of
from dlsys.rl.runner import LeanEnvRunner
from dlsys.spec.load import load
from dlsys.spec.rl.job import RLJob
from dlsys.train.checkpoint import CheckpointStore, Position, Saved
from dlsys.train.seeding import seed_all

SMALL: dict[str, Any] = {
    "name": "dreamerv3",
    "size": "nano",
    "batch_size": 4,
    "length": 5,
    "horizon": 3,
    "starts": 100,
    "updates": 0.02,
}


class Picture(gymnasium.Env[Any, Any]):
    """A square that an action in ±2 moves; it pays to be on the left. Episodes are cut after 12 steps."""

    observation_space: Any = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = spaces.Box(-2.0, 2.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.place = 0, float(self.np_random.uniform(8, 40))
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.place = float(np.clip(self.place + 2 * float(action[0]), 0, 48))
        return self._seen(), 1 - self.place / 48, False, self.steps == 12, {}

    def _seen(self) -> Any:
        shown = np.zeros(self.observation_space.shape, np.uint8)
        left = int(self.place)
        shown[24:40, left : left + 16] = 255
        return shown


class Small(Picture):
    observation_space = spaces.Box(0, 255, (32, 32, 3), np.uint8)


def told(environment: str = "CartPole-v1", **more: Any) -> RLJob:
    return job(SMALL | more, environment, resources={"envs": 2})


def made(environment: str = "CartPole-v1", seed: int = 0) -> RecurrentPolicy:
    """A policy of random weights."""
    seed_all(seed)
    env = gymnasium.make(environment)
    module: Any = configure(told(environment), env.observation_space).get_rl_module_spec(env=env).build()
    acts = module_of(told(environment), module.state_dict())
    assert isinstance(acts, RecurrentPolicy)
    return acts


def memory(capacity: int = 1000) -> Sequences:
    """Three episodes: of 6 steps, terminated; of 3, cut; of 40, in parts and still running."""
    kept = Sequences(capacity)
    kept.rng = np.random.default_rng(0)
    kept.add([_Part("a", 100, 0, 6, terminated=True), _Part("b", 200, 0, 3, truncated=True)])
    for start in range(0, 40, 8):
        kept.add([_Part("c", 300, start, 8)])
    return kept


class _Part:
    """As RLlib's episodes: after n steps it shows `base + n`, does `n`, and has been paid `base + n`."""

    def __init__(
        self, id_: str, base: int, start: int, count: int, terminated: bool = False, truncated: bool = False
    ) -> None:
        self.id_, self.is_terminated, self.is_done = id_, terminated, terminated or truncated
        self._base, self._steps = base, np.arange(start, start + count + 1)

    def __len__(self) -> int:
        return len(self._steps) - 1

    def get_observations(self) -> Any:
        return (self._base + self._steps)[:, None].astype(np.float32)

    def get_actions(self) -> Any:
        return self._steps[:-1]

    def get_rewards(self) -> Any:
        return (self._base + self._steps[1:]).astype(np.float32)


def test_sequences_follow_episodes_to_their_ends_and_begin_again() -> None:
    found = memory().sequences(300, 12)
    seen, first = found["obs"][..., 0], found["is_first"]
    assert seen.shape == (300, 12)
    assert first[:, 0].all()
    assert not first[:, 1:].all(), "most steps follow others"
    for t in range(1, 12):
        follows = ~first[:, t]
        assert (seen[follows, t] == seen[follows, t - 1] + 1).all()
        assert (found["rewards"][follows, t] == seen[follows, t]).all()
        assert (found["actions"][follows, t - 1] == seen[follows, t - 1] % 100).all()
        assert np.isin(seen[~follows, t - 1], (106, 203, 340)).all(), "begins anew after an end alone"
    assert (found["rewards"][first] == 0).all()
    assert (found["is_terminated"] == (seen == 106)).all()
    ended = seen[:, :-1][found["is_terminated"][:, :-1]]
    assert len(ended) > 10
    starts = seen[first]
    assert set(np.unique(starts)) == {*range(100, 106), *range(200, 203), *range(300, 340)}


def test_sequences_of_a_full_memory_hold_together() -> None:
    kept = memory(capacity=20)
    found = kept.sequences(200, 15)
    seen, first = found["obs"][..., 0], found["is_first"]
    assert seen.min() == 320
    follows = ~first[:, 1:]
    assert (seen[:, 1:][follows] == seen[:, :-1][follows] + 1).all()
    other = Sequences(20)
    other.set_state(decode(encode(kept.get_state())))
    kept.rng, other.rng = np.random.default_rng(1), np.random.default_rng(1)
    again = other.sequences(50, 9)
    for name, values in kept.sequences(50, 9).items():
        np.testing.assert_array_equal(values, again[name])


def runner(kind: type, environment: str) -> Any:
    seed_all(7)
    seen = gymnasium.make(environment).observation_space
    runs = kind(config=configure(told(environment), seen), worker_index=0)
    seed_all(7)
    return runs


@pytest.mark.parametrize("environment", ["CartPole-v1", "Pendulum-v1"])
def test_both_runners_remember_the_same(environment: str) -> None:
    found = []
    for kind in (LeanEnvRunner, SingleAgentEnvRunner):
        runs = runner(kind, environment)
        parts: dict[str, list[Any]] = {}
        for _ in range(3):
            for part in runs.sample(num_timesteps=150, explore=True):
                parts.setdefault(part.id_, []).append(part.get_actions())
        runs.stop()
        found.append(sorted(np.concatenate(each).tolist() for each in parts.values()))
    assert len(found[0]) >= 2
    assert found[0] == found[1]


def test_acting_without_exploration_draws_nothing_and_depends_on_the_past() -> None:
    policy = made()
    before = torch.get_rng_state()
    seen = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    state = policy.initial.expand(5, -1)
    actions, after = policy(seen, state)
    again, _ = policy(seen, state)
    assert torch.equal(actions, again)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(actions.tolist()) <= {0, 1}
    _, later = policy(seen, after)
    assert not torch.equal(later, after)
    _, alone = policy(seen[2:3], after[2:3])
    assert torch.allclose(alone, later[2:3], atol=1e-6)


def test_its_latents_and_actions_are_the_most_likely_ones() -> None:
    policy = made()
    module: Module = policy.module
    count = 20_000
    state = {name: torch.stack([value] * count) for name, value in module.get_initial_state().items()}
    batch = {"obs": torch.randn(4).expand(count, 1, 4), "state_in": state}
    best = module.forward_inference(batch)["state_out"]
    drawn = module.forward_exploration(batch)["state_out"]["z"]
    common = drawn.mean(0).argmax(-1)
    sure = drawn.mean(0).sort(-1).values
    clear = sure[:, -1] - sure[:, -2] > 0.03
    assert clear.any()
    assert torch.equal(best["z"][0].argmax(-1)[clear], common[clear])
    assert torch.equal(best["z"].sum(-1), torch.ones(count, 4))


def by_hand(environment: str = "CartPole-v1", **more: Any) -> ByHand:
    seed_all(0)
    return ByHand(ALGORITHMS.load("dreamerv3")(told(**more).algorithm), environment)


def test_its_model_learns_what_it_is_shown() -> None:
    made = by_hand(length=10, model_lr=0.01)
    kept = Sequences(1000)
    kept.add(made.sample(num_timesteps=100))
    batch: Any = SampleBatch(kept.sequences(4, 10))  # type: ignore[no-untyped-call]
    losses = []
    for _ in range(60):
        found = made.learner.update(batch=batch.as_multi_agent(), timesteps={})
        losses.append(float(found[DEFAULT_MODULE_ID]["WORLD_MODEL_L_prediction"].peek()))
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("environment", ["CartPole-v1", "Pendulum-v1"])
def test_what_it_learns_from_is_what_rllib_computes(
    environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def most_likely(self: Any, shape: Any = None) -> Any:
        return torch.nn.functional.one_hot(self.probs.argmax(-1), self.probs.shape[-1]).float()

    monkeypatch.setattr(torch.distributions.OneHotCategorical, "sample", most_likely)
    made = by_hand(environment)
    kept = Sequences(1000)
    kept.add(made.sample(num_timesteps=60))
    rows = {name: torch.as_tensor(values) for name, values in kept.sequences(4, 5).items()}
    rows["is_first"][:, 2] = True
    found = made.module._forward_train(rows)
    if environment == "CartPole-v1":
        rows["actions"] = torch.nn.functional.one_hot(rows["actions"].long(), 2).float()
    expected = DreamerV3TorchRLModule._forward_train(made.module, rows)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[name], value, msg=name)


def test_dreams_end_by_chances() -> None:
    module = by_hand().module
    start = {"h": torch.zeros(3, 16), "z": torch.zeros(3, 4, 4)}
    ended = torch.tensor([0.0, 1.0, 0.0])
    dreams = module.dreamer_model.dream_trajectory(start, ended, 4, gamma=0.5)
    continues = dreams["continues_dreamed_t0_to_H_BxT"]
    assert continues[0].tolist() == [1, 0, 1]
    assert ((continues[1:] > 0) & (continues[1:] < 1)).all()
    weights = dreams["dream_loss_weights_t0_to_H_BxT"]
    torch.testing.assert_close(weights[2], 0.25 * continues[0] * continues[1] * continues[2])


def test_returns_that_hardly_differ_are_not_scaled_up() -> None:
    learns = by_hand().learner
    actor = learns.module[DEFAULT_MODULE_ID].actor

    def advantages(range_: float) -> Any:
        for name in ("ema_value_target_pct5", "ema_value_target_pct95"):
            getattr(actor, name).data.fill_(float("nan"))
        returns = 50 + range_ * torch.linspace(0, 1, 101)[None]
        return learns._compute_scaled_value_targets(
            module_id=DEFAULT_MODULE_ID,
            config=learns.config,
            value_targets_t0_to_Hm1_BxT=returns,
            value_predictions_t0_to_Hm1_BxT=torch.full_like(returns, 50.0),
        )

    assert advantages(0.01).max().item() == pytest.approx(0.01, rel=1e-2)
    assert advantages(100.0).max().item() == pytest.approx(1 / 0.9, rel=1e-2)


def test_a_file_says_what_does_not_suit_it(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: FrozenLake-v1}\n"
        "algorithm: {name: dreamerv3, capacity: 20, length: 1, size: tiny}\nstop: {epochs: 1}\n"
    )
    with pytest.raises(SpecError) as said:
        load(file)
    assert "algorithm.length" in str(said.value)
    assert "algorithm.size" in str(said.value)
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: CartPole-v1}\n"
        "algorithm: {name: dreamerv3, capacity: 10}\nstop: {epochs: 1}\n"
    )
    with pytest.raises(SpecError, match=r"algorithm.capacity: must be at least 16"):
        load(file)
    with pytest.raises(UsageError, match=r"images of shape \(64, 64, 3\).*shows \(32, 32, 3\)"):
        check_suits(told().algorithm, told("test_dreamer:Small").environment)
    check_suits(told().algorithm, told("test_dreamer:Picture").environment)


@pytest.mark.ray
@pytest.mark.parametrize("environment", ["CartPole-v1", "test_dreamer:Picture"])
def test_an_agent_that_is_resumed_goes_on_as_one_that_is_not(environment: str, one_ray: None) -> None:
    first = RllibAgent(told(environment))
    assert first.iterate().steps >= 250
    saved = encode(first.state())
    expected = _goes_on(first)
    second = RllibAgent(told(environment))
    second.load(decode(saved))
    found = _goes_on(second)
    for (steps, returns, figures, weights), again in zip(expected, found, strict=True):
        assert (steps, returns, figures) == again[:3]
        assert returns
        for part, values in weights.items():
            np.testing.assert_array_equal(values, again[3][part], err_msg=part)


def _goes_on(agent: RllibAgent) -> list[tuple[int, list[float], dict[str, float], dict[str, Any]]]:
    """Two iterations, since what a first checkpoint kept, a second one may have lost."""
    seen = []
    for _ in range(2):
        done = agent.iterate()
        weights = {part: values.copy() for part, values in agent.weights().items()}
        figures = {name: done.figures[name] for name in ("model_loss", "policy_loss", "value_loss")}
        seen.append((done.steps, done.returns, figures, weights))
        agent.state()
    agent.close()
    return seen


@pytest.mark.ray
def test_what_is_exported_plays_as_the_agent(one_ray: None, tmp_path: Path) -> None:
    of = told()
    agent = RllibAgent(of)
    agent.iterate()
    expected = play(agent, of.environment, 3, sees="vector", seed=0, split="test")
    store = CheckpointStore(tmp_path / "checkpoints", keep=1)
    (tmp_path / "checkpoints").mkdir()
    model = {name: torch.as_tensor(value) for name, value in agent.weights().items()}
    store.save(Saved(Position(step=250), model, {}, loop={}), best=False)
    store.wait()
    agent.close()
    export(of, tmp_path / "checkpoints", tmp_path / "policy.pt2")
    policy = torch.export.load(tmp_path / "policy.pt2").module()
    env = gymnasium.make("CartPole-v1")
    for seed, length in zip(expected.seeds, expected.lengths, strict=True):
        seen, _ = env.reset(seed=seed)
        state, steps, ended = policy.initial.expand(1, -1), 0, False
        while not ended:
            actions, state = policy(torch.as_tensor(seen[None]), state)
            seen, _, terminated, truncated, _ = env.step(int(actions[0]))
            steps, ended = steps + 1, terminated or truncated
        assert steps == length
