"""What agents with networks of our own have in common: they act, are saved, and go on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlsys.rl.actions import Actions
from dlsys.rl.agent import Iteration
from dlsys.rl.observations import NUMBERS, Observations, Seen
from dlsys.rl.rewards import Rewards
from dlsys.rl.runners import EnvRunner, Make, Policy, Runners
from dlsys.spec.rl.job import RLJob
from dlsys.train.seeding import seed_all


class Stateful(Protocol):
    """A part of an agent, as a checkpoint sees it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


class Acts:
    """Implements `dlsys.rl.agent.Player`, and its `Recurrent`, with a network of ours.

    Attributes:
        network: what acts.
        device: where it is.
    """

    network: Any
    device = "cpu"

    def act(self, observations: Seen, explore: bool = False) -> NDArray[Any]:
        first = self.network.initial.expand(len(next(iter(observations.values()))), -1)
        actions, _ = self._acted(observations, first, explore)
        return actions

    def memory(self) -> NDArray[Any] | None:
        first: Tensor = self.network.initial
        return first.cpu().numpy() if len(first) else None

    def recall(
        self, observations: Seen, memories: NDArray[Any], explore: bool = False
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        before = torch.as_tensor(memories, dtype=torch.float32, device=self.device)
        actions, after = self._acted(observations, before, explore)
        return actions, after.cpu().numpy()

    @torch.inference_mode()
    def _acted(self, observations: Seen, before: Tensor, explore: bool) -> tuple[NDArray[Any], Tensor]:
        seen = self.shown(observations)
        if explore:  # with torch's global generator
            actions, _, after = self.network.explore(seen, before, None)
        else:
            actions, after = self.network.best(seen, before)
        return np.asarray(actions.cpu().numpy()), after

    def shown(self, observations: Seen) -> dict[str, Tensor]:
        """What is seen as tensors where the network is."""
        found = {name: torch.as_tensor(value, device=self.device) for name, value in observations.items()}
        if NUMBERS in found:
            found[NUMBERS] = found[NUMBERS].float()
        return found


class Saved(Acts):
    """What acts of an agent that was saved, without the rest of it.

    Args:
        network: its policy's.
    """

    def __init__(self, network: Policy) -> None:
        self.network = network


class Networked(Acts, ABC):
    """Implements `dlsys.rl.agent.Agent`, for who learns from whatever there is.

    Args:
        job: the job.

    Attributes:
        NETWORK: makes its policy's network, which acts, and of which `weights` are.
        observations, actions: the environment's.
        step: the run's, counted here too: what is drawn, and what changes as the run goes on, depends on it.
    """

    NETWORK: ClassVar[Make]
    observations: Observations
    actions: Actions

    def __init__(self, job: RLJob) -> None:
        seed_all(job.seed)
        self.job = job
        self.device = "cuda" if job.resources.gpus and torch.cuda.is_available() else "cpu"
        self.generator = torch.Generator().manual_seed(job.seed)
        self.step = 0

    @abstractmethod
    def iterate(self) -> Iteration:
        """Learns once."""

    @property
    @abstractmethod
    def optimizers(self) -> Mapping[str, Stateful]:
        """All of them, by name."""

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """What else a state has, by name."""
        return {}

    def worth(self, seen: dict[str, Tensor]) -> Tensor | None:
        """What it is worth [N] to be where that is seen, if the agent knows."""
        return None

    @torch.inference_mode()
    def values(self, observations: Seen) -> NDArray[Any] | None:
        """What observations [N, …] are worth [N], for agents that know."""
        found = self.worth(self.shown(observations))
        return None if found is None else np.asarray(found.cpu().numpy())

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizers": {name: each.state_dict() for name, each in self.optimizers.items()},
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "step": self.step,
            **{name: part.state_dict() for name, part in self.parts.items()},
        }

    def load(self, state: dict[str, Any]) -> list[str]:
        self.network.load_state_dict(state["network"])
        for name, each in self.optimizers.items():
            # The job says the rate: a trial of a population goes on with another one than was saved.
            groups = each.param_groups if isinstance(each, torch.optim.Optimizer) else []
            rates = [group["lr"] for group in groups]
            each.load_state_dict(state["optimizers"][name])
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        self.step = state["step"]
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return []

    def weights(self) -> dict[str, NDArray[Any]]:
        return {name: value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}

    @abstractmethod
    def close(self) -> None:
        """Ends what was started."""


class OwnAgent(Networked):
    """One that samples.

    Args:
        job: the job.
        kind: of the processes that sample.
        runners: who samples; by default those of the job.
    """

    def __init__(self, job: RLJob, kind: type[EnvRunner] = EnvRunner, runners: Runners | None = None) -> None:
        super().__init__(job)
        self.runners = runners or Runners(job, self.NETWORK, self.device, kind)
        self.network = self.runners.policy
        self.observations, self.actions = self.runners.observations, self.runners.actions
        self.rewards = Rewards(job.normalize.reward, job.algorithm.gamma)

    def faults(self) -> dict[str, float]:
        """Figures of what went wrong and was mended, if the job wants that."""
        renew = self.job.failure.environment == "renew"
        return {"renewed": float(self.runners.renewed)} if renew else {}

    @property
    def parts(self) -> Mapping[str, Stateful]:
        return {"rewards": self.rewards}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "runners": self.runners.state()}

    def load(self, state: dict[str, Any]) -> list[str]:
        return [*super().load(state), *self.runners.load(state["runners"])]

    def close(self) -> None:
        self.runners.close()
