"""Model-based policy optimization (Janner et al. 2019): https://arxiv.org/abs/1906.08253

Each iteration takes some steps in the environment, fits an ensemble of models to all of them, rolls the
policy out in the models for a few steps from where it has really been, and lets a soft actor-critic learn
from that, with a share of real steps. Unlike the paper's, a model also learns where episodes terminate.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional

from dlsys.rl import environments
from dlsys.rl.agent import Iteration
from dlsys.rl.algorithms.soft import Actor, SoftActorCritic, Steps
from dlsys.rl.networks import networks
from dlsys.rl.policy import Policy
from dlsys.spec.rl.environments import Env
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.models import MBPO
from dlsys.train.seeding import seed_all

# A tenth of the steps, at most _HOLDOUT, says when the models have learned enough: when for _PATIENCE rounds
# none of them has got better at these by a hundredth, or all are as good as they need to be. A round is as
# many batches as the steps make, and at least _ROUND: a few steps would make a single one.
_HOLDOUT = 1000
_ROUND = 20
_PATIENCE = 5
_BETTER = 0.99
_ENOUGH = 1e-3


class Models(nn.Module):
    """An ensemble of Gaussian models: from an observation and an action to a change, a reward and an end.

    Args:
        observations: O.
        actions: A.
        told: how many, their widths and learning rate.
    """

    def __init__(self, observations: int, actions: int, told: MBPO) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        inputs, outputs = observations + actions, observations + 1
        self._told, self._inputs, self._outputs = told, inputs, outputs
        self.network = networks(told.models, inputs, 2 * outputs + 1, told.hidden, told.activation)
        # What variances lie between is learned (Chua et al. 2018, appendix A.1).
        self.log_variances = nn.Parameter(torch.tensor([[-10.0], [0.5]]).repeat(1, outputs))
        self.register_buffer("mean", torch.zeros(inputs + outputs))
        self.register_buffer("std", torch.ones(inputs + outputs))
        self._optimizer = torch.optim.AdamW(self.parameters(), told.model_lr, weight_decay=1e-4, fused=True)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means [E, N, O + 1], log-variances alike and logits of ends [E, N], of inputs [E, N, O + A].

        All of them are scaled.
        """
        mean, raw, ends = self.network(inputs).split([self._outputs, self._outputs, 1], -1)
        low, high = self.log_variances
        log_variance = high - functional.softplus(high - raw)
        return mean, low + functional.softplus(log_variance - low), ends.squeeze(-1)

    def fit(self, steps: Steps, generator: Generator) -> dict[str, float]:
        """Learns until steps that are held out are no longer predicted better.

        Returns:
            what is wrong there: the mean squared error of scaled changes and rewards, and the
            cross-entropy of ends; and the rounds that it took.
        """
        changes = steps.following - steps.observations
        columns = (steps.observations, steps.actions, changes, steps.rewards[:, None])
        rows = torch.cat(columns, -1)
        self.mean.copy_(rows.mean(0))
        self.std.copy_(rows.std(0).clamp_min(1e-6))
        rows = torch.cat(((rows - self.mean) / self.std, steps.terminated[:, None]), -1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        held = rows[: min(len(rows) // 10, _HOLDOUT)].expand(self._told.models, -1, -1)
        rows = rows[held.shape[1] :]
        shape = self._told.models, self._told.batch_size
        best, left, rounds = torch.full((2, self._told.models), torch.inf), _PATIENCE, 0
        while left:
            for _ in range(max(len(rows) // shape[1], _ROUND)):
                index = torch.randint(len(rows), shape, generator=generator)
                self._optimizer.zero_grad()
                likely, _, ends = self._losses(rows[index])
                bounds = self.log_variances[1].sum() - self.log_variances[0].sum()
                loss = likely.sum() + ends.sum() + 0.01 * bounds
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
            with torch.no_grad():
                wrong = torch.stack(self._losses(held)[1:])
            rounds += 1
            better = (wrong < _BETTER * best) & (best > _ENOUGH)
            left = _PATIENCE if bool(better.any()) else left - 1
            best = torch.minimum(best, wrong)
        errors, ends = wrong.mean(1).tolist()
        return {"model_error": errors, "model_end_loss": ends, "model_rounds": float(rounds)}

    def _losses(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each model's losses on rows [E, N, O + A + O + 1 + 1].

        Returns:
            The negative log-likelihood of changes and rewards, their squared error, and the
            cross-entropy of ends; [E] each.
        """
        inputs, goal, ended = torch.split(rows, [self._inputs, self._outputs, 1], -1)
        mean, log_variance, end = self(inputs)
        errors = (mean - goal).square()
        # Weighted as by Seitzer et al. 2022: a large variance would excuse a bad mean for ever.
        weight = (log_variance.detach() / 2).exp()
        likely = (weight * (errors * (-log_variance).exp() + log_variance)).mean((1, 2))
        ends = functional.binary_cross_entropy_with_logits(end, ended.squeeze(-1), reduction="none")
        return likely, errors.mean((1, 2)), ends.mean(1)

    @torch.no_grad()
    def step(self, observations: Tensor, actions: Tensor, generator: Generator) -> Steps:
        """What may follow: each row as a random model says."""
        count = len(observations)
        rows = torch.arange(count)
        inputs = torch.cat((observations, actions), -1)
        scaled = (inputs - self.mean[: self._inputs]) / self.std[: self._inputs]
        model = torch.randint(self._told.models, (count,), generator=generator)
        mean, log_variance, end = (
            each[model, rows] for each in self(scaled.expand(self._told.models, -1, -1))
        )
        noise = torch.randn(mean.shape, generator=generator)
        outputs = mean + (log_variance / 2).exp() * noise
        outputs = outputs * self.std[self._inputs :] + self.mean[self._inputs :]
        return Steps(observations, actions, outputs[:, -1], observations + outputs[:, :-1], (end > 0).float())

    def state(self) -> dict[str, Any]:
        return {"networks": self.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state["networks"])
        self._optimizer.load_state_dict(state["optimizer"])


class MBPOAgent:
    """Implements `dlsys.rl.agent.Agent`.

    Environments cannot be saved: a checkpoint cuts the episode that runs, whether the run goes on or is
    resumed.
    """

    def __init__(self, job: RLJob) -> None:
        assert isinstance(job.algorithm, MBPO)
        seed_all(job.seed)
        self._told = told = job.algorithm
        self._env = environments.make(job.environment)
        observations, actions = _sizes(self._env)
        self._generator = Generator().manual_seed(job.seed)
        self._learner = SoftActorCritic(observations, actions, told, told.average)
        self._models = Models(observations, actions, told)
        self.policy = Policy(self._learner.actor)
        empty = torch.empty
        self._real = Steps(
            empty(0, observations), empty(0, actions), empty(0), empty(0, observations), empty(0)
        )
        self._sampled = 0
        self._seen: NDArray[Any] | None = None
        self._return, self._length = 0.0, 0

    def iterate(self) -> Iteration:
        told, began = self._told, time.perf_counter()
        did = Iteration(steps=told.every)
        new = Steps.join([self._step(did) for _ in range(told.every)])
        self._real = Steps(*(values[-told.memory :] for values in Steps.join([self._real, new])))
        self._sampled += told.every
        sampled = time.perf_counter()
        did.seconds["sample"] = sampled - began
        if self._sampled >= told.start:
            did.figures.update(self._models.fit(self._real, self._generator))
            fitted = time.perf_counter()
            did.seconds["model"] = fitted - sampled
            did.figures.update(self._learn(self._imagine()))
            did.seconds["learn"] = time.perf_counter() - fitted
        return did

    @torch.no_grad()
    def _step(self, did: Iteration) -> Steps:
        """One step of the environment; notes an episode that ends with it."""
        if self._seen is None:
            seed = int(torch.randint(2**31, (), generator=self._generator))
            self._seen, self._return, self._length = self._env.reset(seed=seed)[0], 0.0, 0
        before = self._tensor(self._seen)
        if self._sampled < self._told.start:
            actions = torch.rand(1, self._real.actions.shape[1], generator=self._generator) * 2 - 1
        else:
            actions, _ = self._learner.actor.sample(before, self._generator)
        seen, reward, terminated, truncated, _ = self._env.step(actions[0].numpy())
        self._return, self._length = self._return + float(reward), self._length + 1
        self._seen = seen
        if terminated or truncated:
            did.returns.append(self._return)
            did.lengths.append(self._length)
            self._seen = None
        return Steps(
            before,
            actions,
            torch.tensor([float(reward)]),
            self._tensor(seen),
            torch.tensor([float(terminated)]),
        )

    @staticmethod
    def _tensor(seen: NDArray[Any]) -> Tensor:
        return torch.as_tensor(seen, dtype=torch.float32).reshape(1, -1)

    @torch.no_grad()
    def _imagine(self) -> Steps:
        """Rollouts of the policy in the models, from where it has been."""
        seen = self._real.sample(self._told.rollouts, self._generator).observations
        rolled = []
        for _ in range(self._told.horizon):
            actions, _ = self._learner.actor.sample(seen, self._generator)
            rolled.append(self._models.step(seen, actions, self._generator))
            seen = rolled[-1].following[rolled[-1].terminated == 0]
        return Steps.join(rolled)

    def _learn(self, imagined: Steps) -> dict[str, float]:
        told = self._told
        real = round(told.real * told.batch_size)
        for _ in range(told.updates * told.every):
            rows = [
                self._real.sample(real, self._generator),
                imagined.sample(told.batch_size - real, self._generator),
            ]
            figures = self._learner.update(Steps.join(rows), self._generator)
        return {name: float(value) for name, value in figures.items()}

    def act(self, observations: NDArray[Any], explore: bool = False) -> NDArray[Any]:
        with torch.inference_mode():
            seen = torch.as_tensor(observations, dtype=torch.float32).flatten(1)
            actions = self.policy.drawn(seen) if explore else self.policy(seen)
        return np.asarray(actions.numpy())

    def state(self) -> dict[str, Any]:
        self._seen = None
        return {
            "learner": self._learner.state(),
            "models": self._models.state(),
            "real": self._real._asdict(),
            "sampled": self._sampled,
            "generator": self._generator.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._learner.load(state["learner"])
        self._models.load(state["models"])
        self._real = Steps(**state["real"])
        self._sampled = state["sampled"]
        self._generator.set_state(state["generator"])
        self._seen = None

    def weights(self) -> dict[str, NDArray[Any]]:
        return {name: value.numpy() for name, value in self._learner.actor.state_dict().items()}

    def close(self) -> None:
        self._env.close()  # type: ignore[no-untyped-call]


def policy(job: RLJob, weights: Mapping[str, Tensor]) -> Policy:
    """The policy of an agent's weights, without the agent."""
    assert isinstance(job.algorithm, MBPO)
    env = environments.make(job.environment)
    actor = Actor(*_sizes(env), job.algorithm)
    actor.load_state_dict(dict(weights))
    env.close()  # type: ignore[no-untyped-call]
    return Policy(actor)


def _sizes(env: Env) -> tuple[int, int]:
    """How many numbers an observation and an action have."""
    return int(np.prod(env.observation_space.shape or ())), int(np.prod(env.action_space.shape or ()))
