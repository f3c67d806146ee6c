"""The policies of a group: one for all of its agents, one for each, or one for those that the job says."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from dlsys.errors import UsageError
from dlsys.rl.actions import Actions
from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.groups.observations import Together, parts
from dlsys.rl.observations import Observations
from dlsys.rl.sampler import Told
from dlsys.spec.rl.job import RLJob


class Policies(nn.Module):
    """Implements `dlsys.rl.runners.Policy` for all agents at once.

    Attributes:
        each: their networks, by name.
        agents: whose they are.
        places: where in what the group chooses the choices of each agent are.
    """

    initial: Tensor

    def __init__(self, observations: Observations, actions: Actions, job: RLJob) -> None:
        super().__init__()
        assert isinstance(observations, Together)
        assert isinstance(actions.space, spaces.Dict)
        self.agents = members(list(observations.agents), job.policies)
        self.places, self._names = parts(actions), list(observations.agents)
        self._type = torch.float32 if actions.numbers else torch.int64
        placed = [place for name in self._names for place in self.places[name]]
        self._order = sorted(range(len(placed)), key=placed.__getitem__)
        self.each = nn.ModuleDict()
        self.single: dict[str, bool] = {}
        for name, agents in self.agents.items():
            _alike(name, agents, {"see": observations.space, "do": actions.space})
            own = Actions(actions.space[agents[0]])
            self.each[key_of(name)] = ActorCritic(observations.agents[agents[0]], own, job)
            self.single[name] = own.single
        self.register_buffer("initial", torch.zeros(0), persistent=False)

    def policy(self, name: str) -> ActorCritic:
        found = self.each[key_of(name)]
        assert isinstance(found, ActorCritic)
        return found

    def set(self, told: Mapping[str, float]) -> None:
        """They explore by their chances alone."""

    def explore(self, seen: dict[str, Tensor], memory: Tensor, generator: Generator | None) -> Told:
        chosen: dict[str, Tensor] = {}
        told: dict[str, dict[str, Tensor]] = {}
        for name, agents in self.agents.items():
            own, figures, _ = self.policy(name).explore(*self._shown(agents, seen, memory), generator)
            chosen |= _of_each(agents, own)
            for figure, values in figures.items():
                told.setdefault(figure, {}).update(_of_each(agents, values))
        stacked = {
            figure: torch.stack([values[name] for name in self._names], 1) for figure, values in told.items()
        }
        return self._joined(chosen), stacked, memory

    def best(self, seen: dict[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest actions of all."""
        chosen: dict[str, Tensor] = {}
        for name, agents in self.agents.items():
            own, _ = self.policy(name).best(*self._shown(agents, seen, memory))
            chosen |= _of_each(agents, own)
        return self._joined(chosen), memory

    @staticmethod
    def _shown(
        agents: list[str], seen: Mapping[str, Tensor], memory: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """What some agents see and remember, agent by agent."""
        starts = [f"{agent}/" for agent in agents]
        names = [name.removeprefix(starts[0]) for name in seen if name.startswith(starts[0])]
        shown = {name: torch.cat([seen[start + name] for start in starts]) for name in names}
        return shown, memory.repeat(len(agents), 1)

    def _joined(self, chosen: Mapping[str, Tensor]) -> Tensor:
        """What the group chooses, [N, K + A], of what each agent does."""
        columns = torch.cat([chosen[name].reshape(-1, len(self.places[name])) for name in self._names], 1)
        return columns.to(self._type)[:, self._order]


def _of_each(agents: list[str], values: Tensor) -> dict[str, Tensor]:
    """Of what is computed agent by agent, each one's."""
    return dict(zip(agents, values.unflatten(0, (len(agents), -1)), strict=True))


def _alike(policy: str, agents: list[str], both: Mapping[str, spaces.Space[Any]]) -> None:
    first, *others = agents
    for other in others:
        for what, space in both.items():
            assert isinstance(space, spaces.Dict)
            if space[first] != space[other]:
                raise UsageError(
                    f"policies: {first} and {other} cannot share the policy {policy!r}, since they {what} "
                    f"something else: {space[first]} and {space[other]}",
                    hint="policies: separate gives each its own; {name: [patterns of agents]} groups them.",
                )


def members(agents: list[str], told: str | Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Whose policy each policy is.

    Args:
        agents: all of them.
        told: as of `RLJob.policies`.

    Raises:
        UsageError: an agent has none or several, or a policy has no agent.
    """
    if isinstance(told, str):
        return {"shared": agents} if told == "shared" else {agent: [agent] for agent in agents}
    found = {
        name: [agent for agent in agents if any(fnmatchcase(agent, each) for each in patterns)]
        for name, patterns in told.items()
    }
    for name, own in found.items():
        if not own:
            raise UsageError(f"policies.{name}: matches no agent; they are {', '.join(agents)}")
    for agent in agents:
        having = [name for name, own in found.items() if agent in own]
        if len(having) != 1:
            has = f"both {' and '.join(having)}" if having else "no policy"
            raise UsageError(f"policies: agent {agent} has {has}: each agent must match one of them")
    return found


def key_of(name: str) -> str:
    """A name of a submodule, which may have no dot."""
    return name.replace(".", "/")
