"""What several agents see, and where in what they choose together each one's choices are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.rl.actions import Actions
from dlsys.rl.observations import Observations, See, Seen
from dlsys.spec.rl.groups import ACTS, EACH, Group
from dlsys.spec.rl.spaces import MASK


class Together(Observations):
    """Of a group: of each agent what it sees, under its name and a slash, and who acts, [A], under `acts`.

    Args:
        space: what all see, by agent.
        masks: of agents that are told in their `info` what is legal, how many numbers that has.

    Attributes:
        agents: of each, by its name.
    """

    def __init__(self, space: spaces.Dict, masks: Mapping[str, int]) -> None:
        self.space = space
        self.agents = {name: Observations(part, masks.get(name, 0)) for name, part in space.items()}
        self.shapes, self.types, self.pictures = {}, {}, {}
        for name, each in self.agents.items():
            self.shapes |= {f"{name}/{key}": shape for key, shape in each.shapes.items()}
            self.types |= {f"{name}/{key}": kind for key, kind in each.types.items()}
        self.shapes[ACTS], self.types[ACTS] = (len(self.agents),), np.dtype(np.bool_)

    @staticmethod
    def of(env: Any) -> Together:
        """Those of a group, which is reset once to see whose `info` has a mask."""
        group = env.unwrapped
        assert isinstance(group, Group)
        _, info = env.reset(seed=0)
        masks = {name: int(np.size(told[MASK])) for name, told in info[EACH].items() if MASK in told}
        assert isinstance(group.observation_space, spaces.Dict)
        return Together(group.observation_space, masks)

    @property
    def masked(self) -> bool:
        """Whether somebody's `info` tells what is legal, rather than what it is shown."""
        return any(each.masked for each in self.agents.values())

    @property
    def notes(self) -> list[str]:
        return [f"agent {name}: {text}" for name, each in self.agents.items() for text in each.notes]

    def seen(self, observation: Any, info: Mapping[str, Any] | None = None) -> Seen:
        assert info is not None
        found: Seen = {ACTS: info[ACTS]}
        for acts, (name, each) in zip(info[ACTS], self.agents.items(), strict=True):
            own = each.seen(observation[name], info[EACH][name])
            if MASK in own and not own[MASK].any():
                if acts:
                    raise UsageError(f"agent {name}: {MASK} says that no action is legal")
                own[MASK] = np.ones_like(own[MASK])  # what it does counts for nothing
            found |= {f"{name}/{key}": value for key, value in own.items()}
        return found


def parts(actions: Actions) -> dict[str, list[int]]:
    """Where in what a group chooses the choices of each agent are, by its name."""
    found: dict[str, list[int]] = {}
    index, number = 0, len(actions.counts)
    assert isinstance(actions.space, spaces.Dict)
    for name, space in actions.space.items():
        own = Actions(space)
        found[name] = [*range(index, index + len(own.counts)), *range(number, number + own.numbers)]
        index, number = index + len(own.counts), number + own.numbers
    return found


class SeeTogether(nn.Module):
    """`Together.seen` of many, for files that need only torch.

    Args:
        observations: the group's.
    """

    def __init__(self, observations: Together) -> None:
        super().__init__()
        self._agents = {name: See(each) for name, each in observations.agents.items()}

    def forward(self, observation: Mapping[str, Any], mask: None = None) -> dict[str, Tensor]:
        """What is seen [N, …] of N observations of each agent, by their names."""
        return {
            f"{name}/{key}": value
            for name, see in self._agents.items()
            for key, value in see(observation[name]).items()
        }
