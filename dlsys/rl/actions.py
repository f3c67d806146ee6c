"""The one form in which agents choose actions, and the environment's.

Whoever trains, evaluates, records, draws or exports speaks to an environment through this: an agent chooses
an index from 0 of what is discrete, and of a box a vector of numbers, in ±1 where the box has both bounds and
free where it has not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from dlsys.spec.rl.environments import bounded


class Actions:
    """Of one environment.

    Args:
        space: what it takes.

    Attributes:
        space: likewise.
        chosen: what agents choose from: `Discrete(n)`, or a Box of float32 of shape [A]. Other spaces are as
            they are.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space = self.chosen = space
        if isinstance(space, spaces.Discrete):
            self.chosen = spaces.Discrete(int(space.n))
        elif isinstance(space, spaces.Box):
            self._low, self._high = (bound.astype(np.float64).ravel() for bound in (space.low, space.high))
            self._whole = bool(np.issubdtype(space.dtype, np.integer))
            self.bounded = bounded(space).ravel()
            # Each whole number has the same share of ±1.
            reach = float(self._whole)
            self._base = np.where(self.bounded, self._low, 0.0)
            self._range = np.where(self.bounded, self._high - self._low, 1.0) + reach
            edge = np.where(self.bounded, 1.0, np.inf).astype(np.float32)
            self.chosen = spaces.Box(-edge, edge, dtype=np.float32)

    @property
    def same(self) -> bool:
        """Whether both forms are one."""
        return self.chosen == self.space

    def taken(self, chosen: Any) -> Any:
        """One action as the environment takes it.

        Args:
            chosen: an index, or numbers [A]. Those outside of the bounds count as on them.
        """
        if isinstance(self.space, spaces.Discrete):
            return chosen + self.space.start
        if not isinstance(self.space, spaces.Box):
            return chosen
        values = np.asarray(chosen, np.float64)
        stretched = self._base + (np.clip(values, -1, 1) + 1) * self._range / 2
        if self._whole:
            stretched, values = np.floor(stretched), np.round(values)
        found = np.clip(np.where(self.bounded, stretched, values), self._low, self._high)
        return found.astype(self.space.dtype).reshape(self.space.shape)

    def choice(self, taken: NDArray[Any]) -> NDArray[Any]:
        """What an agent would have chosen.

        Args:
            taken: N actions as the environment takes them, [N] or [N, A].

        Returns:
            Indices [N], or numbers [N, A].

        Raises:
            ValueError: there is no such action.
        """
        if isinstance(self.space, spaces.Discrete):
            indices = taken.astype(np.int64) - int(self.space.start)
            if indices.min() < 0 or indices.max() >= self.space.n:
                raise ValueError(f"found {taken.min()} to {taken.max()}")
            return np.asarray(indices)
        middle = 0.5 if self._whole else 0.0  # of a whole number's share
        inside = (taken - self._base + middle) / np.where(self._range == 0, 1.0, self._range) * 2 - 1
        return np.where(self.bounded, np.clip(inside, -1, 1), taken).astype(np.float32)


class Taken(nn.Module):
    """`Actions.taken` of many, for files that need only torch.

    Args:
        policy: what chooses.
        actions: the environment's.

    Attributes:
        initial: of a policy with a memory, the state where an episode begins, [S].
    """

    def __init__(self, policy: nn.Module, actions: Actions) -> None:
        super().__init__()
        self.low: Tensor
        self.high: Tensor
        self.base: Tensor
        self.range: Tensor
        self.bounded: Tensor
        self.policy, self._space = policy, actions.space
        if "initial" in dict(policy.named_buffers(recurse=False)):
            self.register_buffer("initial", policy.get_buffer("initial"))
        if isinstance(actions.space, spaces.Box):
            self._whole = actions._whole
            self._type = torch.as_tensor(np.empty(0, actions.space.dtype)).dtype
            for name in ("low", "high", "base", "range"):
                self.register_buffer(name, torch.as_tensor(getattr(actions, f"_{name}")))
            self.register_buffer("bounded", torch.as_tensor(actions.bounded))

    def forward(self, observations: Tensor, state: Tensor | None = None) -> Any:
        """Actions [N, …] as the environment takes them for observations [N, …]; of a policy with a memory the
        next states [N, S] too, for the states [N, S] before."""
        if state is None:
            return self._taken(self.policy(observations))
        chosen, after = self.policy(observations, state)
        return self._taken(chosen), after

    def _taken(self, chosen: Tensor) -> Tensor:
        if isinstance(self._space, spaces.Discrete):
            return chosen + int(self._space.start)
        if not isinstance(self._space, spaces.Box):
            return chosen
        values = chosen.double()
        stretched = self.base + (values.clamp(-1, 1) + 1) * self.range / 2
        if self._whole:
            stretched, values = stretched.floor(), values.round()
        found = torch.where(self.bounded, stretched, values)
        found = torch.minimum(torch.maximum(found, self.low), self.high)
        return found.to(self._type).reshape(chosen.shape[:-1] + self._space.shape)
