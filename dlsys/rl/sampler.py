"""Steps environments with a policy, and keeps what happened as rows of arrays.

An episode that ends is followed by the next one at once, so that every row is a step. Each episode starts
from a seed of its own. Environments cannot be saved; but one that is seeded repeats itself, so the state of a
sampler has what was done in the episodes that run, and whoever takes it up does it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlsys.errors import WorkloadError
from dlsys.rl import environments
from dlsys.rl.observations import Observations, Seen, tensors, write
from dlsys.spec.rl.job import Environment

# A longer episode is not done again when a run goes on, but starts anew: what was done would fill the memory.
_LONGEST = 100_000
# An environment that raises so often without a step between will never do else.
_RAISES = 3
_log = logging.getLogger(__name__)


@dataclass
class Rollout:
    """T steps of N environments.

    Attributes:
        seen: what was seen before each step, and after the last one, [T + 1, N, …] by name.
        actions: what was chosen, [T, N, …].
        rewards: [T, N].
        terminated, truncated: whether the episode ended with the step, [T, N].
        first: whether an episode began with what was seen, [T + 1, N].
        finals: what was seen where an episode ended, [E, …] by name, in the order of `ends`.
        ends: steps and environments of them, [2, E].
        final_memories: what the policy remembered then, [E, S].
        memories: what the policy remembered before each step, [T + 1, N, S]; S may be 0.
        told: what the policy said besides, [T, N, …] by name.
        returns, lengths: of the episodes that ended, undiscounted.
        renewed: how many environments raised and were made anew.
        info: of a group, what `dlsys.spec.rl.groups.TOLD` says of each agent, [T, N, A] by name.
        held: which rows are steps, [T, N]; None where all are.
    """

    seen: Seen
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    first: NDArray[np.bool_]
    finals: Seen
    ends: NDArray[np.int64]
    final_memories: NDArray[np.float32]
    memories: NDArray[np.float32]
    told: dict[str, NDArray[Any]] = field(default_factory=dict)
    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    renewed: int = 0
    info: dict[str, NDArray[Any]] = field(default_factory=dict)
    held: NDArray[np.bool_] | None = None

    @property
    def steps(self) -> int:
        return int(self.rewards.size)


def joined(rollouts: Sequence[Rollout], *, after: bool = False) -> Rollout:
    """Rollouts as one, in memory of its own: what Ray hands over can only be read.

    Args:
        rollouts: of as many environments, or of as many steps.
        after: whether they are put one after the other, and not side by side.
    """
    axis = 0 if after else 1
    ends, before = [], 0
    for each in rollouts:
        ends.append(each.ends + np.array([[before], [0]] if after else [[0], [before]]))
        before += each.rewards.shape[axis]

    def put(parts: list[NDArray[Any]], *, more: bool = False) -> NDArray[Any]:
        # What is seen after the last step of one is what is seen before the first of the next.
        cut = [part[:-1] for part in parts[:-1]] if after and more else parts[:-1]
        return np.concatenate([*cut, parts[-1]], axis)

    first = rollouts[0]
    return Rollout(
        seen={key: put([each.seen[key] for each in rollouts], more=True) for key in first.seen},
        finals={key: np.concatenate([each.finals[key] for each in rollouts]) for key in first.finals},
        ends=np.concatenate(ends, 1),
        final_memories=np.concatenate([each.final_memories for each in rollouts]),
        told={key: put([each.told[key] for each in rollouts]) for key in first.told},
        info={key: put([each.info[key] for each in rollouts]) for key in first.info},
        held=None if first.held is None else put([each.held for each in rollouts if each.held is not None]),
        **{
            name: put([getattr(each, name) for each in rollouts])
            for name in ("actions", "rewards", "terminated", "truncated")
        },
        **{
            name: put([getattr(each, name) for each in rollouts], more=True) for name in ("first", "memories")
        },
        returns=[value for each in rollouts for value in each.returns],
        lengths=[value for each in rollouts for value in each.lengths],
        renewed=sum(each.renewed for each in rollouts),
    )


Told = tuple[Tensor, dict[str, Tensor], Tensor]
Act = Callable[[dict[str, Tensor], Tensor, torch.Generator], Told]
"""From what is seen [N, …], what is remembered [N, S] and random numbers to actions [N, …], figures of each
[N, …] by name, and what is remembered then."""


class Sampler:
    """Of several environments that are stepped in turn.

    Args:
        told: the environment.
        count: how many of it, N.
        seed: of their episodes and of what is drawn.
        ends: whether episodes without a limit of their own are cut somewhere.
        renew: makes an environment anew that raises, and cuts its episode there.
    """

    def __init__(
        self,
        told: Environment,
        count: int,
        seed: Sequence[int],
        *,
        ends: bool = False,
        renew: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self._seed, self._device, self._renew = list(seed), device, renew
        one = environments.make(told, sees="parts", ends=ends)
        assert one.seen is not None
        self.observations: Observations = one.seen
        self._make = partial(environments.make, told, sees="parts", ends=ends, seen=one.seen)
        self._envs, self.actions = [one, *(self._make() for _ in range(count - 1))], one.actions
        self._tells = one.tells
        # Of each environment, how often it raised since it made a step.
        self._raised, self._renewed = [0] * count, 0
        self._initial = torch.zeros(0)
        self._generator = torch.Generator(device).manual_seed(_number(self._seed))
        self._episodes = [0] * count
        self._past: list[list[Any] | None] = [[] for _ in range(count)]
        self._returns, self._lengths = [0.0] * count, [0] * count
        self._seen = self.observations.empty(count)
        self._memory = torch.zeros(count, 0)
        self._first = np.ones(count, bool)
        self._begun = False

    def remember(self, initial: Tensor) -> None:
        """What a policy remembers where an episode begins, [S]."""
        self._initial = initial.detach().cpu()

    def begin(self) -> None:
        """New episodes everywhere."""
        for index in range(len(self._envs)):
            write(self._seen, index, self._reset(index))
        self._memory = self._initial.repeat(len(self._envs), 1)
        self._first[:] = True
        self._begun = True

    def _reset(self, index: int) -> Seen:
        seed = _number([*self._seed, index, self._episodes[index]])
        self._episodes[index] += 1
        self._past[index], self._returns[index], self._lengths[index] = [], 0.0, 0
        seen: Seen = self._envs[index].reset(seed=seed)[0]
        return seen

    def whole(self, act: Act, steps: int) -> Rollout:
        """The next episodes of its one environment, of so many steps together at least."""
        parts = [self.sample(act, steps)]
        while not self._first[0]:
            parts.append(self.sample(act, steps, end=True))
        return joined(parts, after=True)

    @torch.inference_mode()
    def sample(self, act: Act, steps: int, *, end: bool = False) -> Rollout:
        """The next steps of every environment; `end`: only until an episode ends."""
        if not self._begun:
            self.begin()
        self._renewed = 0
        count, form = len(self._envs), self.actions
        seen = self.observations.empty(steps + 1, count)
        actions = np.empty((steps, count, *form.shape), form.type)
        rewards = np.empty((steps, count), np.float32)
        terminated, truncated = np.zeros((steps, count), bool), np.zeros((steps, count), bool)
        first = np.empty((steps + 1, count), bool)
        memories = np.empty((steps + 1, count, len(self._initial)), np.float32)
        told: list[dict[str, Tensor]] = []
        info = {name: np.zeros((steps, count, *like.shape), like.dtype) for name, like in self._tells.items()}
        ends: list[tuple[int, int]] = []
        finals: list[Seen] = []
        final_memories: list[Tensor] = []
        returns: list[float] = []
        lengths: list[int] = []
        write(seen, 0, self._seen)
        for step in range(steps):
            first[step], memories[step] = self._first, self._memory.numpy()
            shown = tensors({name: part[step] for name, part in seen.items()}, self._device)
            chosen, more, memory = act(shown, self._memory.to(self._device), self._generator)
            actions[step] = chosen.cpu().numpy()
            self._memory = memory.cpu()
            told.append(more)
            self._first = np.zeros(count, bool)
            for index in range(count):
                after, reward, over, cut, more_told = self._stepped(index, actions[step, index], seen, step)
                for name, part in info.items():
                    part[step, index] = more_told.get(name, 0)
                rewards[step, index] = reward
                self._returns[index] += float(reward)
                self._lengths[index] += 1
                self._keep(index, actions[step, index])
                if over or cut:
                    terminated[step, index], truncated[step, index] = over, cut and not over
                    ends.append((step, index))
                    finals.append(after)
                    final_memories.append(self._memory[index].clone())
                    returns.append(self._returns[index])
                    lengths.append(self._lengths[index])
                    self._first[index], self._memory[index] = True, self._initial
                    after = self._reset(index)
                for name, value in after.items():
                    seen[name][step + 1, index] = value
            if end and self._first.any():
                steps = step + 1
                seen = {name: part[: steps + 1] for name, part in seen.items()}
                break
        self._seen = {name: part[steps].copy() for name, part in seen.items()}
        first[steps], memories[steps] = self._first, self._memory.numpy()
        names = told[0]
        return Rollout(
            seen=seen,
            actions=actions[:steps],
            rewards=rewards[:steps],
            terminated=terminated[:steps],
            truncated=truncated[:steps],
            first=first[: steps + 1],
            finals=self.observations.stack(finals),
            ends=np.array(ends, np.int64).reshape(-1, 2).T,
            final_memories=np.stack(final_memories) if ends else memories[0, :0],
            memories=memories[: steps + 1],
            told={name: torch.stack([each[name] for each in told]).cpu().numpy() for name in names},
            returns=returns,
            lengths=lengths,
            renewed=self._renewed,
            info={name: part[:steps] for name, part in info.items()},
        )

    def _stepped(
        self, index: int, action: Any, seen: Seen, step: int
    ) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """What an environment shows after an action, the reward, whether it ended or was cut, and `info`."""
        try:
            after, reward, over, cut, info = self._envs[index].step(action)
        except WorkloadError as error:
            self._raised[index] += 1
            if not self._renew or self._raised[index] == _RAISES:
                raise
            _log.warning("%s; it is made anew", error)
            with suppress(Exception):  # it has failed before
                self._envs[index].close()
            self._envs[index] = self._make()
            self._renewed += 1
            return {name: part[step, index] for name, part in seen.items()}, 0.0, False, True, {}
        self._raised[index] = 0
        return after, float(reward), bool(over), bool(cut), info

    def _keep(self, index: int, action: Any) -> None:
        past = self._past[index]
        if past is not None:
            past.append(action)
            if len(past) > _LONGEST:
                self._past[index] = None

    def state(self) -> dict[str, Any]:
        """What the next steps depend on."""
        return {
            "generator": self._generator.get_state(),
            "episodes": list(self._episodes),
            "past": [None if past is None else np.array(past) for past in self._past],
            "seen": {name: part.copy() for name, part in self._seen.items()},
            "memory": self._memory.clone(),
            "begun": self._begun,
        }

    def load(self, state: dict[str, Any]) -> int:
        """Takes up a state: does again what was done.

        Returns:
            How many episodes start anew, since the environment did not repeat itself.
        """
        self._generator.set_state(state["generator"])
        self._episodes, self._begun = list(state["episodes"]), state["begun"]
        self._memory = state["memory"].clone()
        anew = 0
        for index in range(len(self._envs) if self._begun else 0):
            seen = {name: part[index] for name, part in state["seen"].items()}
            if not self._again(index, state["past"][index], seen):
                anew += 1
                seen = self._reset(index)
                self._first[index], self._memory[index] = True, self._initial
            write(self._seen, index, seen)
        return anew

    def _again(self, index: int, past: NDArray[Any] | None, expected: Seen) -> bool:
        """Whether an episode is where it was, now that the same was done in it."""
        if past is None:
            return False
        self._episodes[index] -= 1
        seen = self._reset(index)
        for action in past:
            seen, reward, over, cut, _ = self._envs[index].step(action)
            if over or cut:
                return False
            self._returns[index] += float(reward)
            self._lengths[index] += 1
            self._keep(index, action)
        self._first[index] = not len(past)
        return all(np.array_equal(seen[name].astype(value.dtype), value) for name, value in expected.items())

    def close(self) -> None:
        for env in self._envs:
            env.close()


def _number(seed: Sequence[int]) -> int:
    return int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint32)[0] >> 1)
