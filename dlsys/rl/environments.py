"""A job's environments, wherever they are stepped."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces

from dlsys.errors import DlsysError, NonFiniteError, UsageError, WorkloadError
from dlsys.own.frames import user_traceback
from dlsys.rl.actions import Actions
from dlsys.rl.groups.observations import Together
from dlsys.rl.observations import Observations, asks
from dlsys.rl.progress import stepped
from dlsys.spec.rl import environments as spec
from dlsys.spec.rl.groups import TOLD, Group
from dlsys.spec.rl.job import Environment
from dlsys.spec.rl.section import AlgorithmSection, Sees
from dlsys.spec.rl.spaces import MASK, leaves

# Where an episode without a limit of its own is cut if someone waits for its end: the longest one of Atari's
# is 27,000 steps.
LONGEST = 30_000
_T = TypeVar("_T")


class Known(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment as agents know it: it takes what they choose, what it gives is looked at, and an error
    of the user's code is told as theirs, in whichever process it is stepped.

    Args:
        env: with all its wrappers.
        name: what it is called in messages.
        longest: where its episodes are cut because nothing else cuts them; None leaves them.
        seen: what agents are shown instead of what the environment shows; None leaves that.

    Attributes:
        group: of several agents; None of one.
    """

    def __init__(
        self, env: spec.Env, name: str, longest: int | None = None, seen: Observations | None = None
    ) -> None:
        super().__init__(gymnasium.wrappers.TimeLimit(env, longest) if longest else env)
        self.longest = longest
        self._name = name
        self.actions = Actions(env.action_space)
        self._same = self.actions.same
        if not self._same:
            self.action_space = self.actions.chosen
        self.seen, shown = seen, env.observation_space
        self._boxes = [
            (leaf, leaf.space.shape, np.issubdtype(leaf.space.dtype, np.inexact))
            for leaf in leaves(shown)
            if isinstance(leaf.space, spaces.Box)
        ]
        masked = seen is not None and MASK in seen.shapes
        self._asks = asks(env) if masked else None
        # Where the actions of each choice begin in the mask, if it has one for all of them.
        self._starts = None
        if seen is not None and masked and seen.shapes[MASK][0] == sum(self.actions.counts):
            self._starts = np.cumsum([0, *self.actions.counts[:-1]])
        group = env.unwrapped
        self.group = group if isinstance(group, Group) else None
        # What is told of each agent of a group at each step: by name, one that is nought.
        names = [] if self.group is None else self.group.names
        self.tells = {name: np.zeros(len(names), kind) for name, kind in TOLD.items()} if names else {}
        # Where `info` has the return of each agent of a group.
        self.returns = [f"return_{name}" for name in names]
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._steps = 0
        try:
            found = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise self._translated(error) from error
        self._look(found[0])
        return found if self.seen is None else (self._shown(found[0], found[1]), found[1])

    def step(self, action: Any) -> Any:
        self._steps += 1
        try:
            found = self.env.step(action if self._same else self.actions.taken(action))
        except Exception as error:
            raise self._translated(error) from error
        if not math.isfinite(found[1]):
            raise NonFiniteError(f"{self._place()}: the reward is {found[1]}")
        self._look(found[0])
        stepped()
        return found if self.seen is None else (self._shown(found[0], found[4]), *found[1:])

    def stack(self, seen: Sequence[Any]) -> Any:
        """N of the observations that it shows, as agents take them."""
        if self.seen is not None:
            return self.seen.stack(seen)
        return np.stack([np.asarray(one) for one in seen])

    def _shown(self, observation: Any, info: dict[str, Any]) -> Any:
        assert self.seen is not None
        if self._asks is not None:
            info = {**info, MASK: self._asks()}
        found = self.seen.seen(observation, info)
        if self._starts is not None and not np.logical_or.reduceat(found[MASK], self._starts).all():
            raise UsageError(f"{self._place()}: {MASK} says that no action is legal")
        return found

    def _look(self, seen: Any) -> None:
        for leaf, shape, inexact in self._boxes:
            part = leaf.of(seen)
            if np.shape(part) != shape:
                what = f"observation {leaf.name}".rstrip()
                raise UsageError(
                    f"{self._place()}: the {what} is of shape {np.shape(part)}, and observation_space says "
                    f"{shape}"
                )
            if inexact and not np.isfinite(part).all():
                raise NonFiniteError(f"{self._place()}: the observation has numbers that are not finite")

    def _place(self) -> str:
        return f"{self._name}, step {self._steps} of an episode" if self._steps else f"{self._name}, reset"

    def _translated(self, error: Exception) -> Exception:
        if not isinstance(error, DlsysError) and (own := user_traceback(error)):
            text = f"your environment raised {type(error).__name__}: {error} ({self._place()})"
            return WorkloadError(text, traceback=own)
        return error


def make(
    told: Environment,
    *,
    sees: Sees = "vector",
    render: str | None = None,
    ends: bool = False,
    seen: Observations | None = None,
) -> Known:
    """As `dlsys.spec.rl.environments.make`, in a process that runs the user's code too.

    Args:
        told, render: likewise.
        sees: what agents see: `plain`, as the environment shows it; `vector`, float32, as networks of
            libraries take it; `parts`, the form of `dlsys.rl.observations`.
        seen: that form, of another one like it: this one need not be asked then.
        ends: an episode ends after LONGEST steps at the latest, if nothing else says how long it may be.

    Raises:
        UsageError: there is no such environment or wrapper, it does not take its options, or it is no
            environment of gymnasium's.
        WorkloadError: the user's own code raised.
    """
    env = _made(told, flat=sees == "vector", render=render)
    if sees == "parts" and seen is None:
        group = isinstance(env.unwrapped, Group)
        seen = _asked(told, lambda: Together.of(env) if group else Observations.of(env))
    return Known(env, told.name, LONGEST if ends and not _limited(env) else None, seen)


def _made(told: Environment, *, flat: bool, render: str | None = None) -> spec.Env:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return _asked(told, lambda: spec.make(told, flat=flat, render=render))


def _asked(told: Environment, call: Callable[[], _T]) -> _T:
    """What a call gives that runs the user's code, its errors as ours."""
    try:
        return call()
    except DlsysError:
        raise
    except Exception as error:
        if own := user_traceback(error):
            raise WorkloadError(
                f"your environment raised {type(error).__name__}: {error}", traceback=own
            ) from error
        raise UsageError(f"environment: {told.name} cannot be made: {error}") from error


def forms(told: Environment) -> tuple[Observations, Actions]:
    """What is seen of an environment, and what is chosen in it."""
    env = make(told, sees="parts")
    try:
        assert env.seen is not None
        return env.seen, env.actions
    finally:
        env.close()


def _limited(env: spec.Env) -> bool:
    """Whether something around it cuts its episodes."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            return True
        env = env.env
    return False


class Made:
    """`make` as RLlib wants it: a class that is called with its context, in whichever process."""

    def __new__(cls, context: Mapping[str, Any]) -> Any:
        return make(Environment.model_validate(context["told"]), ends=context["ends"])

    @staticmethod
    def context(told: Environment, *, ends: bool) -> dict[str, Any]:
        """What RLlib is to call it with."""
        return {"told": told.model_dump(mode="json"), "ends": ends}


def check_suits(algorithm: AlgorithmSection, told: Environment) -> bool:
    """Whether there are several agents in an environment.

    Raises:
        UsageError: the algorithm cannot learn in it.
    """
    env = _made(told, flat=False)
    several = isinstance(env.unwrapped, Group)
    for path, text in spec.unsuited(algorithm, env, told.name):
        raise UsageError(f"{'.'.join(map(str, path))}: {text}")
    return several
