"""Agents that learn from what they have just done, and then forget it."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.agent import Iteration
from dlsys.rl.networks import learning
from dlsys.rl.observations import tensors
from dlsys.rl.own import OwnAgent
from dlsys.rl.runners import EnvRunner, Runners
from dlsys.rl.sampler import Rollout
from dlsys.spec.rl.job import RLJob


@dataclass
class Batch:
    """T steps of N environments to learn from, all [T, N, …].

    Attributes:
        seen: by name.
        actions: what was chosen.
        logp: the logarithms of their chances then.
        values: what was expected then.
        advantages: how much better than expected it turned out.
        returns: the values' goals.
        first: where an episode begins.
        memories: what was remembered before each step.
        held: which of them are steps; None where all are.
    """

    seen: dict[str, Tensor]
    actions: Tensor
    logp: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    first: Tensor
    memories: Tensor
    held: Tensor | None = None

    def pieces(self, length: int) -> Iterator[Batch]:
        """Cut into pieces of so many steps."""
        for begin in range(0, len(self.first), length):
            part = slice(begin, begin + length)
            yield Batch(
                {name: value[part] for name, value in self.seen.items()},
                *(getattr(self, each.name)[part] for each in fields(self)[1:-1]),
            )

    def flat(self) -> Rows:
        """All steps as rows, of policies that remember nothing."""
        rows = Rows(
            {name: value.flatten(0, 1) for name, value in self.seen.items()},
            *(
                getattr(self, name).flatten(0, 1)
                for name in ("actions", "logp", "values", "advantages", "returns")
            ),
        )
        return rows if self.held is None else rows[self.held.flatten()]


@dataclass
class Rows:
    """Steps to learn from, all [R, …], as in `Batch`."""

    seen: dict[str, Tensor]
    actions: Tensor
    logp: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def __len__(self) -> int:
        return len(self.actions)

    def split(self, size: int) -> Iterator[Rows]:
        """So many rows at a time."""
        for begin in range(0, len(self), size):
            yield self[slice(begin, begin + size)]

    def __getitem__(self, index: Tensor | slice) -> Rows:
        return Rows(
            {name: value[index] for name, value in self.seen.items()},
            *(getattr(self, name)[index] for name in ("actions", "logp", "values", "advantages", "returns")),
        )


class Sampling(OwnAgent):
    """Samples `algorithm.batch_size` steps with its policy, and learns from them.

    Args:
        job: the job.
        steps: of each environment in a batch; by default as many as make `algorithm.batch_size`.
        least: steps of an iteration at least, which makes several updates where each is smaller.
        kind: of the processes that sample.
        runners: who samples; by default those of the job.

    Attributes:
        steps: of each environment in a batch.
        updates: of an iteration, each of a batch.
    """

    def __init__(
        self,
        job: RLJob,
        *,
        steps: int | None = None,
        least: int = 1,
        kind: type[EnvRunner] = EnvRunner,
        runners: Runners | None = None,
    ) -> None:
        super().__init__(job, kind, runners)
        told: Any = job.algorithm
        count = self.runners.count
        self.steps = steps or max(1, -(-told.batch_size // count))
        self.updates = -(-least // (self.steps * count))

    @abstractmethod
    def teach(self, rollout: Rollout) -> dict[str, float]:
        """Learns from what happened; figures by name."""

    def iterate(self) -> Iteration:
        return together([self._update() for _ in range(self.updates)])

    def _update(self) -> Iteration:
        began = time.perf_counter()
        rollout, _ = self.runners.sample(self.steps, self.step)
        sampled = time.perf_counter()
        self.step += rollout.steps
        figures = self.teach(rollout)
        return Iteration(
            steps=rollout.steps,
            returns=rollout.returns,
            lengths=rollout.lengths,
            figures={**figures, **self.faults()},
            seconds={"sample": sampled - began, "learn": time.perf_counter() - sampled},
        )


class OnPolicy(Sampling):
    """Of one policy. Its arguments are those of `Sampling`."""

    NETWORK = ActorCritic
    network: ActorCritic

    @abstractmethod
    def learn(self, batch: Batch) -> dict[str, float]:
        """Learns from a batch; figures by name."""

    def worth(self, seen: dict[str, Tensor]) -> Tensor | None:
        first = self.network.initial
        if len(first):
            return None
        return self.network(seen, first.expand(len(next(iter(seen.values()))), -1))[1]

    def teach(self, rollout: Rollout) -> dict[str, float]:
        batch = self.batch(rollout)
        with learning(self.network):
            return self.learn(batch)

    def batch(self, rollout: Rollout) -> Batch:
        """What a rollout teaches."""
        self.rewards.take(rollout)
        told: Any = self.job.algorithm
        return batch_of(self.network, rollout, self.rewards.scaled(rollout.rewards), told.gamma, told.trace)


def together(parts: Sequence[Iteration]) -> Iteration:
    """Updates as one iteration: the means of their figures."""
    if len(parts) == 1:
        return parts[0]
    return Iteration(
        steps=sum(each.steps for each in parts),
        returns=[value for each in parts for value in each.returns],
        lengths=[value for each in parts for value in each.lengths],
        figures={
            name: float(np.mean([each.figures[name] for each in parts if name in each.figures]))
            for name in dict.fromkeys(name for each in parts for name in each.figures)
        },
        seconds={name: sum(each.seconds[name] for each in parts) for name in parts[0].seconds},
    )


def batch_of(
    network: ActorCritic, rollout: Rollout, rewards: NDArray[np.float32], gamma: float, trace: float
) -> Batch:
    """What a rollout teaches a network, whose running statistics take it in.

    Args:
        network: the one that sampled.
        rollout: what happened.
        rewards: [T, N], scaled.
        gamma: the discount γ.
        trace: the λ of the advantages.
    """
    device, steps = network.initial.device, len(rollout.rewards)
    seen = tensors(rollout.seen, device)
    memories = torch.from_numpy(rollout.memories).to(device)

    @torch.no_grad()
    def valued(seen: dict[str, Tensor], memories: Tensor) -> NDArray[np.float32]:
        """What is expected [N] where that is seen [N, …] and remembered [N, S]."""
        return np.asarray(network(seen, memories)[1].cpu().numpy())

    # Where the last step of each column led to.
    held, every = rollout.held, np.arange(rollout.rewards.shape[1])
    last = np.full(len(every), steps) if held is None else held.sum(0)
    newest = {name: part[last, every] for name, part in seen.items()}
    values = np.concatenate(
        [rollout.told["value"], np.zeros_like(rollout.rewards[:1], shape=(1, len(every)))]
    )
    values[last, every] = valued(newest, memories[last, every])
    finals = np.zeros(0, np.float32)
    if rollout.ends.size:
        before = torch.from_numpy(rollout.final_memories).to(device)
        finals = valued(tensors(rollout.finals, device), before)
    gains = advantages(rollout, rewards, values, finals, gamma, trace)
    shown = {name: part[:steps] for name, part in seen.items()}
    # After what was expected is known: what it was standardized by must not change before.
    network.features.update(shown if held is None else {name: part[held] for name, part in shown.items()})
    return Batch(
        seen=shown,
        actions=torch.from_numpy(rollout.actions).to(device),
        logp=torch.from_numpy(rollout.told["logp"]).to(device),
        values=torch.from_numpy(values[:-1]).to(device),
        advantages=torch.from_numpy(gains).to(device),
        returns=torch.from_numpy(gains + values[:-1]).to(device),
        first=torch.from_numpy(rollout.first[:steps]).to(device),
        memories=memories[:steps],
        held=None if held is None else torch.from_numpy(held).to(device),
    )


def advantages(
    rollout: Rollout,
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    finals: NDArray[np.float32],
    gamma: float,
    trace: float,
) -> NDArray[np.float32]:
    """Generalized advantage estimates (Schulman et al. 2016), [T, N].

    Args:
        rollout: what happened.
        rewards: [T, N], scaled.
        values: before each step and after the last one, [T + 1, N].
        finals: of what was seen where episodes ended, [E]; those that terminated have no future.
        gamma: the discount γ.
        trace: the λ.
    """
    following = values[1:].copy()
    following[tuple(rollout.ends)] = finals
    following[rollout.terminated] = 0
    going = np.float32(gamma * trace) * ~(rollout.terminated | rollout.truncated)
    errors = rewards + np.float32(gamma) * following - values[:-1]
    if rollout.held is not None:
        errors[~rollout.held] = 0
    found, later = np.empty_like(errors), np.zeros_like(errors[0])
    for step in range(len(errors) - 1, -1, -1):
        found[step] = later = errors[step] + going[step] * later
    return found
