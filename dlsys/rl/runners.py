"""Who samples for an agent of our own: this process, or processes of Ray that step environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from dlsys.rl import environments
from dlsys.rl.actions import Actions
from dlsys.rl.actors import Actors, Counted
from dlsys.rl.observations import Observations
from dlsys.rl.sampler import Rollout, Sampler, Told, joined
from dlsys.spec.rl.job import RLJob


class Policy(Protocol):
    """A network that samples and acts."""

    def __init__(self, observations: Observations, actions: Actions, job: RLJob) -> None: ...

    initial: Tensor
    """What it remembers where an episode begins, [S]; S may be 0."""

    def explore(self, seen: dict[str, Tensor], memory: Tensor, generator: torch.Generator | None) -> Told:
        """Actions to learn from: as `dlsys.rl.sampler.Act`."""

    def best(self, seen: dict[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """The best known actions [N, …], and what it remembers then [N, S]."""

    def set(self, told: Mapping[str, float]) -> None:
        """How it explores now, by name."""

    def to(self, device: str) -> Any: ...

    def eval(self) -> Any: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> Any: ...


Make = type[Policy]


def network_of(
    make: Make, observations: Observations, actions: Actions, job: RLJob, device: str = "cpu"
) -> Policy:
    """A policy's network. It does in training mode what it does in no other, such as dropout, while it learns
    alone: see `dlsys.rl.networks.learning`."""
    network = make(observations, actions, job)
    network.to(device)
    network.eval()
    return network


class Runner:
    """One process that samples.

    Args:
        job: the job.
        make: its policy's network.
        index: which runner it is, from 0.
        began: the run's step, so that one that starts again does not begin the same episodes.
        device: where the policy acts.
    """

    def __init__(self, job: RLJob, make: Make, index: int, began: int, device: str = "cpu") -> None:
        told = job.environment
        self._whole, renew = job.algorithm.WHOLE_EPISODES, job.failure.environment == "renew"
        seed = (job.seed, index, began)
        self._sampler = Sampler(told, job.resources.envs, seed, ends=self._whole, renew=renew, device=device)
        self.observations, self.actions = self._sampler.observations, self._sampler.actions
        self.policy = network_of(make, self.observations, self.actions, job, device)
        self._sampler.remember(self.policy.initial)

    def sample(self, steps: int) -> Rollout:
        """The next steps of its environments; so many at least, if the algorithm wants whole episodes."""
        sample = self._sampler.whole if self._whole else self._sampler.sample
        return sample(self.policy.explore, steps)

    def state(self) -> dict[str, Any]:
        return self._sampler.state()

    def load(self, state: dict[str, Any]) -> int:
        return self._sampler.load(state)

    def close(self) -> None:
        self._sampler.close()


class EnvRunner(Counted):
    """A runner in a process of its own, which is told weights and asked for steps."""

    def __init__(self, job: RLJob, make: Make, index: int) -> None:
        torch.set_num_threads(max(1, int(job.resources.cpus)))
        self.job = job
        self._told = job, make, index
        self._runner: Runner | None = None

    def sample(
        self, weights: Mapping[str, Tensor], told: Mapping[str, float], steps: int, began: int
    ) -> tuple[Rollout, bool]:
        """Steps with these weights, and whether the episodes are all new ones."""
        new = self._runner is None
        runner = self.runner(weights, began)
        runner.policy.set(told)
        with self.counted():
            return runner.sample(steps), new

    def runner(self, weights: Mapping[str, Tensor], began: int) -> Runner:
        """What samples, with these weights."""
        if self._runner is None:
            self._runner = Runner(*self._told, began)
        self._runner.policy.load_state_dict(weights)
        return self._runner

    def state(self) -> dict[str, Any] | None:
        return None if self._runner is None else self._runner.state()

    def load(self, state: dict[str, Any] | None) -> int:
        if state is None:
            return 0
        self._runner = Runner(*self._told, 0)
        with self.counted():
            return self._runner.load(state)


class Runners:
    """Samples with as many runners as the job has.

    Args:
        job: the job.
        make: the policy's network, from what is seen and chosen.
        device: where the learner's copy is.
        kind: of the processes.

    Attributes:
        policy: the learner's copy of it. With no runners it is the one that samples.
        observations, actions: the environment's.
        renewed: how many environments raised and were made anew.
        remote: the processes.
    """

    def __init__(
        self, job: RLJob, make: Make, device: str = "cpu", kind: type[EnvRunner] = EnvRunner
    ) -> None:
        self._job = job
        self.renewed = 0
        self._local: Runner | None = None
        count = job.resources.env_runners
        self.remote = Actors(kind, [(job, make, index) for index in range(count)], job.resources.cpus)
        if not job.resources.env_runners:
            self._local = Runner(job, make, 0, 0, device)
            self.policy = self._local.policy
            self.observations, self.actions = self._local.observations, self._local.actions
            return
        self.observations, self.actions = environments.forms(job.environment)
        self.policy = network_of(make, self.observations, self.actions, job, device)

    @property
    def count(self) -> int:
        """Environments that are stepped at once."""
        return self._job.resources.envs * max(len(self.remote), 1)

    def sample(
        self, steps: int, step: int, told: Mapping[str, float] | None = None
    ) -> tuple[Rollout, list[bool]]:
        """The next steps of every environment, with the newest weights.

        Args:
            steps: how many of each.
            step: the run's.
            told: how the policy explores.

        Returns:
            Them, and of each environment whether its episode was cut before, since its process was lost.
        """
        self.policy.set(told or {})
        rollout, new = self._sampled(steps, step, told or {})
        self.renewed += rollout.renewed
        return rollout, new

    def _sampled(self, steps: int, step: int, told: Mapping[str, float]) -> tuple[Rollout, list[bool]]:
        if self._local is not None:
            return self._local.sample(steps), [False] * self.count
        weights = self.weights()
        found = self.remote.ask(lambda one, _: one.sample.remote(weights, told, steps, step))
        new = [begun for _, begun in found for _ in range(self._job.resources.envs)]
        whole = self._job.algorithm.WHOLE_EPISODES
        return joined([rollout for rollout, _ in found], after=whole), new

    def weights(self) -> Any:
        """The newest ones, as Ray hands them to all processes."""
        import ray

        return ray.put({name: value.cpu() for name, value in self.policy.state_dict().items()})

    def state(self) -> list[Any]:
        """Of each runner."""
        if self._local is not None:
            return [self._local.state()]
        return self.remote.ask(lambda one, _: one.state.remote())

    def load(self, states: list[Any]) -> list[str]:
        """Takes up their states.

        Returns:
            What is otherwise than it was, in words.
        """
        runners = max(len(self.remote), 1)
        if len(states) != runners:
            return [f"episodes start anew: there were {len(states)} env runners, and there are {runners} now"]
        if self._local is not None:
            anew = self._local.load(states[0])
        else:
            anew = sum(self.remote.ask(lambda one, index: one.load.remote(states[index])))
        name = self._job.environment.name
        return [f"{anew} episodes start anew: {name} did not repeat itself from their seeds"] if anew else []

    def close(self) -> None:
        if self._local is not None:
            self._local.close()
        self.remote.close()
