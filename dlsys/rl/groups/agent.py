"""Learns the policies of a group, each as the agent of an algorithm learns its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from dlsys.errors import UsageError
from dlsys.rl.actions import Actions
from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.groups.observations import Together
from dlsys.rl.groups.policies import Policies
from dlsys.rl.groups.turns import own_steps
from dlsys.rl.observations import Observations
from dlsys.rl.on_policy import OnPolicy, Sampling
from dlsys.rl.own import Stateful
from dlsys.rl.runners import Runners
from dlsys.rl.sampler import Rollout
from dlsys.spec.rl.job import RLJob


class Elsewhere(Runners):
    """Whose policy is sampled with others.

    Args:
        policy: its network.
        observations, actions: what its agents see and do.
        count: environments that are stepped at once.
    """

    def __init__(self, policy: ActorCritic, observations: Observations, actions: Actions, count: int) -> None:
        self.policy, self.observations, self.actions = policy, observations, actions
        self._count, self.renewed = count, 0

    @property
    def count(self) -> int:
        return self._count

    def state(self) -> list[Any]:
        return []

    def load(self, states: list[Any]) -> list[str]:
        return []


class GroupAgent(Sampling):
    """Samples with all policies at once, and has each learn from the steps of its agents.

    Figures: those of each policy under its name and a slash, and their mean `loss`.

    Args:
        job: the job.
        kind: of the agents that learn.
    """

    NETWORK = Policies
    network: Policies

    def __init__(self, job: RLJob, kind: Callable[[RLJob, Runners], OnPolicy]) -> None:
        super().__init__(job)
        observations, actions = self.observations, self.actions.space
        assert isinstance(observations, Together)
        assert isinstance(actions, spaces.Dict)
        self._learners = {}
        for name, (first, *_) in self.network.agents.items():
            forms = observations.agents[first], Actions(actions[first])
            elsewhere = Elsewhere(self.network.policy(name), *forms, self.runners.count)
            self._learners[name] = kind(job, elsewhere)
        one = next(iter(self._learners.values()))
        self.updates, self.steps = one.updates, one.steps

    @property
    def optimizers(self) -> Mapping[str, Stateful]:
        return {}

    def teach(self, rollout: Rollout) -> dict[str, float]:
        places, names = self.network.places, list(self.network.places)
        figures: dict[str, float] = {}
        for name, learner in self._learners.items():
            agents = [(names.index(agent), agent, places[agent]) for agent in self.network.agents[name]]
            own = own_steps(rollout, agents, self.network.single[name])
            learner.step = self.step
            # Nobody may have acted.
            told = learner.teach(own) if own.held is not None and own.held.any() else {}
            figures |= {f"{name}/{figure}": value for figure, value in told.items()}
        losses = [value for figure, value in figures.items() if figure.endswith("/loss")]
        return {**figures, "loss": float(np.mean(losses)) if losses else 0.0}

    def state(self) -> dict[str, Any]:
        # Each learner's has its network, and what is random.
        return {
            "policies": {name: learner.state() for name, learner in self._learners.items()},
            "runners": self.runners.state(),
            "step": self.step,
        }

    def load(self, state: dict[str, Any]) -> list[str]:
        if set(state["policies"]) != set(self._learners):
            raise UsageError(
                f"policies: the checkpoint has {', '.join(sorted(state['policies']))}, and the environment "
                f"is for {', '.join(sorted(self._learners))} now"
            )
        for name, learner in self._learners.items():
            learner.load(state["policies"][name])
        self.step = state["step"]
        return self.runners.load(state["runners"])
