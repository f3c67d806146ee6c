"""The one form in which agents choose actions, and the environment's.

Whoever trains, evaluates, records, draws or exports speaks to an environment through this. An agent chooses
an index from 0 of what is discrete, and of a box a vector of numbers, in ±1 where the box has both bounds and
free where it has not; of what is made of several, first all indices and then all numbers, as one vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.spec.rl.spaces import Leaf, bounded, leaves, unserved


class Actions:
    """Of one environment.

    Args:
        space: what it takes.

    Attributes:
        space: likewise.
        counts: of each index, how many choices it has.
        bounded: of each number, whether it has two bounds, [A].
        single: whether one index is all that is chosen.
        chosen: what agents choose from: `Discrete(n)`; a Box of float32 of shape [A]; `MultiDiscrete` of
            several indices; a Box of indices and numbers, of which the former are rounded.
    """

    chosen: spaces.Space[Any]

    def __init__(self, space: spaces.Space[Any]) -> None:
        if kind := unserved(space):
            raise UsageError(f"actions of {kind} have no fixed number of parts: put a wrapper around them")
        self.space = space
        self._leaves = list(leaves(space))
        self.counts = [count for leaf in self._leaves for count in _counts(leaf.space)]
        boxes = [leaf.space for leaf in self._leaves if isinstance(leaf.space, spaces.Box)]

        def joined(each: list[NDArray[Any]]) -> NDArray[Any]:
            return np.concatenate([np.empty(0), *(part.astype(np.float64).ravel() for part in each)])

        self._low, self._high = joined([box.low for box in boxes]), joined([box.high for box in boxes])
        self.bounded = joined([bounded(box) for box in boxes]).astype(bool)
        self._whole = joined(
            [np.full(box.shape, np.issubdtype(box.dtype, np.integer)) for box in boxes]
        ).astype(bool)
        # Each whole number has the same share of ±1.
        self._base = np.where(self.bounded, self._low, 0.0)
        self._range = np.where(self.bounded, self._high - self._low, 1.0) + self._whole
        self.single = isinstance(space, spaces.Discrete)
        edge = np.where(self.bounded, 1.0, np.inf).astype(np.float32)
        if self.single:
            self.chosen = spaces.Discrete(self.counts[0])
        elif not self.counts:
            self.chosen = spaces.Box(-edge, edge, dtype=np.float32)
        elif not len(edge):
            self.chosen = spaces.MultiDiscrete(self.counts)
        else:
            half = np.full(len(self.counts), 0.5, np.float32)
            high = np.asarray(self.counts, np.float32) - half
            self.chosen = spaces.Box(np.append(-half, -edge), np.append(high, edge), dtype=np.float32)

    @property
    def numbers(self) -> int:
        """How many numbers are chosen, A."""
        return len(self._low)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one action as agents choose it."""
        return () if self.single else (len(self.counts) + self.numbers,)

    @property
    def type(self) -> Any:
        """Of the numbers of actions as agents choose them."""
        return np.float32 if self.numbers else np.int64

    @property
    def same(self) -> bool:
        """Whether both forms are one."""
        return self.chosen == self.space

    def taken(self, chosen: Any) -> Any:
        """One action as the environment takes it.

        Args:
            chosen: an index, or indices and numbers, [K + A]. What is outside of the bounds counts as on
            them.
        """
        if isinstance(self.space, spaces.Discrete):
            return chosen + self.space.start
        values = np.asarray(chosen, np.float64)
        numbers = self._stretched(values[..., len(self.counts) :])
        if isinstance(self.space, spaces.Box):
            return numbers.astype(self.space.dtype).reshape(self.space.shape)
        top = np.asarray(self.counts, np.float64) - 1
        indices = np.clip(np.rint(values[: len(self.counts)]), 0, top).astype(np.int64)
        return self._filled(self.space, list(indices), list(numbers))

    def _stretched(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        stretched = self._base + (np.clip(values, -1, 1) + 1) * self._range / 2
        stretched = np.where(self._whole, np.floor(stretched), stretched)
        free = np.where(self._whole, np.round(values), values)
        found: NDArray[np.float64] = np.clip(np.where(self.bounded, stretched, free), self._low, self._high)
        return found

    def _filled(self, space: spaces.Space[Any], indices: list[Any], numbers: list[Any]) -> Any:
        """An element of a space, from the first of what is left of indices and numbers."""
        if isinstance(space, spaces.Dict):
            return {name: self._filled(part, indices, numbers) for name, part in space.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(self._filled(part, indices, numbers) for part in space)
        source = numbers if isinstance(space, spaces.Box) else indices
        size = int(np.prod(space.shape or ()))
        own = np.asarray(source[:size]).reshape(space.shape or ())
        del source[:size]
        if isinstance(space, spaces.Discrete):
            return own.astype(space.dtype)[()] + space.start
        if isinstance(space, spaces.MultiDiscrete):
            return own.astype(space.dtype) + space.start
        return own.astype(space.dtype)

    def choice(self, taken: NDArray[Any]) -> NDArray[Any]:
        """What an agent would have chosen.

        Args:
            taken: N actions as the environment takes them, of one index or of one box: [N] or [N, A].

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
        middle = np.where(self._whole, 0.5, 0.0)  # of a whole number's share
        inside = (taken - self._base + middle) / np.where(self._range == 0, 1.0, self._range) * 2 - 1
        return np.where(self.bounded, np.clip(inside, -1, 1), taken).astype(np.float32)


def _counts(space: spaces.Space[Any]) -> list[int]:
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(count) for count in space.nvec.ravel()]
    return [2] * int(np.prod(space.shape or ())) if isinstance(space, spaces.MultiBinary) else []


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
        self.whole: Tensor
        self.policy, self._space, self._counts = policy, actions.space, actions.counts
        self._types = {
            leaf.path: torch.as_tensor(np.zeros(1, leaf.space.dtype)).dtype for leaf in leaves(actions.space)
        }
        if "initial" in dict(policy.named_buffers(recurse=False)):
            self.register_buffer("initial", policy.get_buffer("initial"))
        if actions.numbers:
            for name in ("low", "high", "base", "range", "whole"):
                self.register_buffer(name, torch.as_tensor(getattr(actions, f"_{name}")))
            self.register_buffer("bounded", torch.as_tensor(actions.bounded))

    def forward(self, observations: Any, state: Tensor | None = None) -> Any:
        """Actions [N, …] as the environment takes them for observations [N, …]; of a policy with a memory the
        next states [N, S] too, for the states [N, S] before."""
        if state is None:
            return self._taken(self.policy(observations))
        chosen, after = self.policy(observations, state)
        return self._taken(chosen), after

    def _taken(self, chosen: Tensor) -> Any:
        if isinstance(self._space, spaces.Discrete):
            return chosen + int(self._space.start)
        indices = chosen[:, : len(self._counts)].round().long()
        numbers = self._stretched(chosen[:, len(self._counts) :].double()) if hasattr(self, "low") else chosen
        found, at = {}, {True: 0, False: 0}
        for leaf in leaves(self._space):
            box = isinstance(leaf.space, spaces.Box)
            size = int(np.prod(leaf.space.shape or ()))
            own = (numbers if box else indices)[:, at[box] : at[box] + size]
            at[box] += size
            found[leaf.path] = self._shaped(leaf, own)
        return _nested(self._space, found, ())

    def _shaped(self, leaf: Leaf, own: Tensor) -> Tensor:
        space = leaf.space
        shaped = own.reshape(-1, *(space.shape or ())).to(self._types[leaf.path])
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            return shaped + torch.as_tensor(np.asarray(space.start))
        return shaped

    def _stretched(self, values: Tensor) -> Tensor:
        stretched = self.base + (values.clamp(-1, 1) + 1) * self.range / 2
        stretched = torch.where(self.whole, stretched.floor(), stretched)
        free = torch.where(self.whole, values.round(), values)
        found = torch.where(self.bounded, stretched, free)
        return torch.minimum(torch.maximum(found, self.low), self.high)


def _nested(space: spaces.Space[Any], found: dict[Any, Tensor], path: tuple[str | int, ...]) -> Any:
    if isinstance(space, spaces.Dict):
        return {name: _nested(part, found, (*path, name)) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_nested(part, found, (*path, index)) for index, part in enumerate(space))
    return found[path]
