"""Soft actor-critic in process: its losses against numbers by hand, and that it learns."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from gymnasium import spaces
from rl_models import job
from steps_made_up import NUMBERS, made_up, soft
from torch import Generator
from torch.distributions import Categorical, Independent, Normal, TanhTransform, TransformedDistribution

from dlsys.rl.algorithms.sac import SACAgent, SoftActorCritic
from dlsys.rl.chances import Squashed
from dlsys.rl.critics import Steps

BOX, FOUR = spaces.Box(-3, 3, (2,)), spaces.Discrete(4)
SEEN = spaces.Dict(camera=spaces.Box(0, 255, (8, 8, 1), "uint8"), speed=spaces.Box(-1, 1, (2,)))


def test_squashed_numbers_have_the_densities_that_they_say() -> None:
    outputs = torch.randn(500, 6, generator=Generator().manual_seed(0))
    drawn, logp = Squashed(outputs).sample(Generator().manual_seed(1))
    told = Squashed(outputs)
    alike = TransformedDistribution(
        Independent(Normal(told.mean, told.log_std.exp()), 1), [TanhTransform(cache_size=1)]
    )
    inside = drawn.abs().amax(1) < 0.999  # beyond, float32 does not know how far
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(logp[inside], alike.log_prob(drawn)[inside], rtol=1e-3, atol=5e-3)
    assert drawn.abs().max() <= 1
    # The mean of 1 / density over samples is the size of what they cover: ±1.
    wide = torch.tensor([0.0, 0.458]).expand(20_000, -1)  # deviations of 1
    _, logp = Squashed(wide).sample(Generator().manual_seed(0))
    assert float((-logp).exp().mean()) == pytest.approx(2, rel=0.1)
    torch.testing.assert_close(told.best(), told.mean.tanh())


@pytest.mark.parametrize("twin", [True, False])
def test_the_losses_of_drawn_actions_are_the_papers(twin: bool) -> None:
    # With such a rate nothing moves between the first loss and the last one.
    learner = soft(NUMBERS, BOX, lr=1e-12, temperature=0.3, twin=twin)
    steps, random = made_up(NUMBERS, BOX), Generator().manual_seed(5)
    policy, critics = learner.policy, learner.critics
    with torch.no_grad():
        next_actions, next_logp = policy.squashed(steps.following["numbers"]).sample(random)
        own, logp = policy.squashed(steps.seen["numbers"]).sample(random)

        def q(seen: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return critics.networks(torch.cat((seen, actions), 1).expand(1 + twin, -1, -1)).squeeze(-1)

        later = q(steps.following["numbers"], next_actions).min(0).values - 0.3 * next_logp
        goal = steps.rewards + steps.going * later
        wrong = q(steps.seen["numbers"], steps.actions) - goal
        expected = {
            "value_loss": sum(0.5 * (steps.weights * each**2).mean() for each in wrong),
            "policy_loss": (0.3 * logp - q(steps.seen["numbers"], own).min(0).values).mean(),
            "entropy": -logp.mean(),
            "temperature": torch.tensor(0.3),
            "td_error": wrong.abs().mean(),
        }
        # The temperature rises where there is less entropy than -2, as many as there are parts.
        of_temperature = math.log(0.3) * (-logp.mean() + 2)
    figures, errors = learner.update(steps, Generator().manual_seed(5))
    for name, value in expected.items():
        assert float(figures[name]) == pytest.approx(float(value), rel=1e-4), name
    rest = figures["loss"] - figures["value_loss"] - figures["policy_loss"]
    assert float(rest) == pytest.approx(float(of_temperature), rel=1e-3)
    torch.testing.assert_close(errors, wrong.abs().mean(0), rtol=1e-4, atol=1e-5)


def test_the_losses_of_all_discrete_actions_are_their_means() -> None:
    learner = soft(NUMBERS, FOUR, lr=1e-12, temperature=0.3)
    steps = made_up(NUMBERS, FOUR)
    with torch.no_grad():
        before, after = (
            Categorical(logits=learner.policy.head(seen["numbers"])) for seen in (steps.seen, steps.following)
        )
        here, there = (
            learner.critics.networks(seen["numbers"].expand(2, -1, -1))
            for seen in (steps.seen, steps.following)
        )
        later = (after.probs * (there.min(0).values - 0.3 * after.logits)).sum(1)
        goal = steps.rewards + steps.going * later
        taken = here[:, torch.arange(32), steps.actions]
        expected = {
            "value_loss": sum(0.5 * (steps.weights * (each - goal) ** 2).mean() for each in taken),
            "policy_loss": (before.probs * (0.3 * before.logits - here.min(0).values)).sum(1).mean(),
            "entropy": before.entropy().mean(),
        }
    figures, _ = learner.update(steps, Generator())
    for name, value in expected.items():
        assert float(figures[name]) == pytest.approx(float(value), rel=1e-4), name


def test_targets_follow_slowly_and_features_learn_from_values_alone() -> None:
    for weight in (0.0, 1.0):
        learner = soft(SEEN, BOX, average=0.25, lr=1e-2)
        features = learner.policy.features
        assert [*features.parameters()], "an image goes through convolutions"
        before = copy.deepcopy((features, learner.policy.layers, learner.critics))
        steps = made_up(SEEN, BOX)
        learner.update(steps._replace(weights=steps.weights * weight), Generator().manual_seed(0))
        old, layers, critics = before
        assert not _same(layers, learner.policy.layers)
        assert _same(old, features) == (weight == 0)
        for mine, was, now in (
            (learner.critics.targets, critics.targets, learner.critics.networks),
            (learner.critics.target_features, critics.target_features, features),
        ):
            for target, first, online in zip(*(each.parameters() for each in (mine, was, now)), strict=True):
                torch.testing.assert_close(target, 0.75 * first + 0.25 * online)


def _same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


def _play(learner: SoftActorCritic, now: int) -> None:
    """An update of a game of one step: the best action is 1 where the first number is positive, else 3."""
    steps = made_up(NUMBERS, FOUR, 64, seed=now)
    best = torch.where(steps.seen["numbers"][:, 0] > 0, 1, 3)
    told: dict[str, Any] = {"going": torch.zeros(64), "weights": torch.ones(64)}
    learner.update(steps._replace(rewards=(steps.actions == best).float(), **told), Generator())


@pytest.mark.parametrize("twin", [True, False])
def test_it_learns_the_best_actions_and_keeps_its_entropy(twin: bool) -> None:
    learner = soft(NUMBERS, FOUR, twin=twin, lr=1e-2, temperature=0.3)
    for now in range(200):
        _play(learner, now)
    seen = torch.rand(200, 3) * 2 - 1
    best, _ = learner.policy.best({"numbers": seen}, torch.zeros(200, 0))
    assert (best == torch.where(seen[:, 0] > 0, 1, 3)).float().mean() > 0.9
    entropy = Categorical(logits=learner.policy.head(seen)).entropy().mean().item()
    assert entropy == pytest.approx(math.log(4) / 2, abs=0.25)


def test_what_is_not_legal_is_never_done_and_costs_no_entropy() -> None:
    seen = spaces.Dict(action_mask=spaces.MultiBinary(4), speed=spaces.Box(-1, 1, (3,)))
    learner = soft(seen, FOUR, lr=1e-2)
    legal = torch.tensor([[True, False, True, False]] * 16 + [[False, True, False, False]] * 16)

    def masked(steps: Steps) -> Steps:
        return steps._replace(
            seen=steps.seen | {"action_mask": legal}, following=steps.following | {"action_mask": legal}
        )

    for now in range(20):
        figures, _ = learner.update(masked(made_up(seen, FOUR, seed=now)), Generator())
    assert all(value.isfinite() for value in figures.values())
    torch.testing.assert_close(learner.aim(legal)[::16], torch.tensor([math.log(2) / 2, 0.0]))  # type: ignore[index]
    shown, none = masked(made_up(seen, FOUR)).seen, torch.zeros(32, 0)
    explored = torch.stack([learner.policy.explore(shown, none, Generator())[0] for _ in range(20)])
    for chosen in (*explored, learner.policy.best(shown, none)[0]):
        assert legal[torch.arange(32), chosen].all()
    assert {0, 2} == set(explored[:, :16].flatten().tolist())


def test_the_entropy_that_is_aimed_at() -> None:
    assert soft(NUMBERS, FOUR).aim(None) == pytest.approx(math.log(4) / 2)
    assert soft(NUMBERS, BOX).aim(None) == -2
    assert soft(NUMBERS, FOUR, entropy=0.3).aim(None) == 0.3


def test_impossible_actions_leave_numbers() -> None:
    learner = soft(NUMBERS, FOUR)
    with torch.no_grad():
        [*learner.policy.layers.parameters()][-1][..., 0] = 200.0
    _play(learner, 1)
    for part in (learner.policy, learner.critics):
        for name, value in part.state_dict().items():
            assert value.isfinite().all(), name


def test_an_agent_hands_its_options_on_and_tells_errors_to_its_memory() -> None:
    options = {"tau": 0.2, "twin": False, "temperature": 0.5, "entropy": 0.1, "n_step": 3, "gamma": 0.5}
    few = {"hidden": [8], "starts": 16, "updates": 0.01, "replay": "prioritized"}
    agent = SACAgent(job({"name": "sac", **few, **options}, "CartPole-v1", resources={"envs": 2}))
    try:
        done = agent.iterate()
        assert len(agent.learner.critics.networks[0].weight) == 1  # type: ignore[arg-type]
        assert agent.learner.critics._average == 0.2
        assert agent.learner.aim(None) == 0.1
        assert done.figures["temperature"] == pytest.approx(0.5, rel=0.05)
        assert done.figures["td_error"] > 0
        kept = agent.replay._columns["priority"][: len(agent.replay) // 2]
        assert len(set(kept.flatten().tolist())) > 5
        seen = {"numbers": torch.zeros(3, 4).numpy()}
        assert agent.act(seen).shape == (3,)
        values = agent.values(seen)
        assert values is not None
        assert values.shape == (3,)
        assert {int(each) for _ in range(20) for each in agent.act(seen, explore=True)} == {0, 1}
    finally:
        agent.close()
