"""What agents with networks of our own have in common: they act, are saved, and go on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlsys.rl.actions import Actions
from dlsys.rl.agent import Iteration
from dlsys.rl.observations import NUMBERS, Observations, Seen
from dlsys.rl.rewards import Rewards
from dlsys.rl.runners import EnvRunner, Make, Runners
from dlsys.spec.rl.job import RLJob
from dlsys.train.seeding import seed_all


class Stateful(Protocol):
    """An optimizer, as a checkpoint sees it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


class Acts(ABC):
    """Implements `dlsys.rl.agent.Player`, and its `Recurrent`, with a network of ours.

    Attributes:
        device: where it is.
    """

    device = "cpu"

    @abstractmethod
    def best(self, explore: bool) -> nn.Module:
        """What acts, or draws: from what is seen and remembered to actions and what is remembered then; its
        buffer `initial` [S] is what is remembered where an episode begins."""

    def act(self, observations: Seen, explore: bool = False) -> NDArray[Any]:
        first = self._initial.expand(len(next(iter(observations.values()))), -1)
        actions, _ = self._acted(observations, first, explore)
        return actions

    def memory(self) -> NDArray[Any] | None:
        first = self._initial
        return first.cpu().numpy() if len(first) else None

    def recall(
        self, observations: Seen, memories: NDArray[Any], explore: bool = False
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        before = torch.as_tensor(memories, dtype=torch.float32, device=self.device)
        actions, after = self._acted(observations, before, explore)
        return actions, after.cpu().numpy()

    @torch.inference_mode()
    def _acted(self, observations: Seen, before: Tensor, explore: bool) -> tuple[NDArray[Any], Tensor]:
        actions, after = self.best(explore)(self.shown(observations), before)
        return np.asarray(actions.cpu().numpy()), after

    @property
    def _initial(self) -> Tensor:
        return self.best(False).get_buffer("initial")

    def shown(self, observations: Seen) -> dict[str, Tensor]:
        """What is seen as tensors where the network is."""
        found = {name: torch.as_tensor(value, device=self.device) for name, value in observations.items()}
        if NUMBERS in found:
            found[NUMBERS] = found[NUMBERS].float()
        return found


class Drawn(nn.Module):
    """Acts as a policy explores, with torch's global generator.

    Args:
        network: the policy.

    Attributes:
        initial: what it remembers where an episode begins, [S].
    """

    initial: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("initial", network.initial, persistent=False)

    def forward(self, seen: dict[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [N, …] and what is remembered then, [N, S]."""
        chosen, _, after = self.network.explore(seen, memory, None)
        return chosen, after


class Saved(Acts):
    """What acts of an agent that was saved, without the rest of it.

    Args:
        acts: as an algorithm's `policy` makes it of weights: a network that explores too, or what has one.
    """

    def __init__(self, acts: nn.Module) -> None:
        self._acts = acts.eval()

    def best(self, explore: bool) -> nn.Module:
        return Drawn(getattr(self._acts, "network", self._acts)) if explore else self._acts


class Networked(Acts):
    """Implements `dlsys.rl.agent.Agent`, for who learns from whatever there is.

    Args:
        job: the job.

    Attributes:
        network: what acts, and what `weights` are of.
        observations, actions: the environment's.
        step: the run's, counted here too: what is drawn, and what changes as the run goes on, depends on it.
    """

    network: Any
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
        make: its policy's network, which samples and acts.
        kind: of the processes that sample.
    """

    def __init__(self, job: RLJob, make: Make, kind: type[EnvRunner] = EnvRunner) -> None:
        super().__init__(job)
        self.runners = Runners(job, make, self.device, kind)
        self.network = self.runners.policy
        self.observations, self.actions = self.runners.observations, self.runners.actions
        self.rewards = Rewards(job.normalize.reward, job.algorithm.gamma)

    def faults(self) -> dict[str, float]:
        """Figures of what went wrong and was mended, if the job wants that."""
        renew = self.job.failure.environment == "renew"
        return {"renewed": float(self.runners.renewed)} if renew else {}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "runners": self.runners.state(), "rewards": self.rewards.state()}

    def load(self, state: dict[str, Any]) -> list[str]:
        self.rewards.load(state["rewards"])
        return [*super().load(state), *self.runners.load(state["runners"])]

    def close(self) -> None:
        self.runners.close()
