"""Environments as their section tells them: made, and asked what they show and take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import error as problems
from gymnasium import spaces
from numpy.typing import NDArray

from dlsys.errors import DlsysError, UsageError
from dlsys.registry import did_you_mean, import_string
from dlsys.spec.rl import families, groups
from dlsys.spec.rl.external import EXTERNAL
from dlsys.spec.rl.job import Environment
from dlsys.spec.rl.section import AlgorithmSection
from dlsys.spec.rl.spaces import Picture, bounded, is_pixels, leaves, picture, unserved
from dlsys.spec.section import show
from dlsys.spec.yaml import Path

Env = gymnasium.Env[Any, Any]

# Our own board games, by gymnasium's id; "entry points" are imported when one of them is made.
GAMES = {
    "dlsys/TicTacToe-v0": "dlsys.rl.games.environment:tic_tac_toe",
    "dlsys/ConnectFour-v0": "dlsys.rl.games.environment:connect_four",
    "dlsys/Go-v0": "dlsys.rl.games.environment:go",
}
# Our own simulators, likewise; most tell how their baseline would have done.
SIMULATORS = {
    "dlsys/Catch-v0": "dlsys.rl.simulators.catch:Catch",
    "dlsys/Execution-v0": "dlsys.rl.simulators.execution:Execution",
    "dlsys/Notifications-v0": "dlsys.rl.simulators.notifications:Notifications",
    "dlsys/TwoTanks-v0": "dlsys.rl.simulators.tanks:TwoTanks",
}
for _id, _entry in {**GAMES, **SIMULATORS}.items():
    gymnasium.register(_id, entry_point=_entry)
gymnasium.register(EXTERNAL, entry_point="dlsys.rl.external.environment:ExternalEnv")
_PENDULUM = "dlsys.rl.rigid_pendulum:RigidPendulum"
gymnasium.register("dlsys/RigidPendulum-v0", entry_point=_PENDULUM, max_episode_steps=200)
gymnasium.register("dlsys/Cloth-v0", entry_point="dlsys.rl.cloth:Cloth", max_episode_steps=100)


def make(told: Environment, *, flat: bool = True, render: str | None = None) -> Env:
    """One environment with its wrappers.

    Args:
        told: the section.
        flat: observations are float32, as networks take them: one vector of what is discrete, a dictionary
            or a tuple; images of whole numbers in 0 to 1, and [height, width, 1] where they are of one color.
        render: gymnasium's render mode: `rgb_array` draws frames, `human` opens a window.

    Raises:
        UsageError: gymnasium has no such environment or wrapper, it does not take its options, or something
            that it needs is missing here.
        Exception: whatever the user's own code raises.
    """
    options = {**told.options, **({"render_mode": render} if render else {})}
    env = _own(told, options) if ":" in told.name else _known(told, options)
    if groups.is_group(env):
        return _group(env, told)
    for wrapper in told.wrappers:
        env = _wrap(env, wrapper.name, wrapper.options)
    if told.frames:
        env = _framed(env, told.frames)
    return _plain(env) if flat else env


def _group(env: Any, told: Environment) -> Env:
    """All agents as one, with the user's own wrappers inside."""
    for index, wrapper in enumerate(told.wrappers):
        if ":" not in wrapper.name:
            raise UsageError(
                f"environment.wrappers.{index}: {wrapper.name} is for one agent, and {told.name} has "
                "several: say your own module:function, which is called with it"
            )
        env = import_string(wrapper.name)(env, **wrapper.options)
    if told.frames:
        raise UsageError(
            f"environment.frames: is of environments of one agent, and {told.name} has several: leave it out"
        )
    group: Env = groups.Group(env, told.name)
    return gymnasium.wrappers.TimeLimit(group, told.max_steps) if told.max_steps else group


def _framed(env: Env, frames: int) -> Env:
    """Shows the last observations at once, the newest last; vectors as one, which no image could be mistaken
    for."""
    stacked = _wrap(env, "FrameStackObservation", {"stack_size": frames})
    space = stacked.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) > 2:
        return stacked
    kind: Any = space.dtype
    folded = spaces.Box(space.low.ravel(), space.high.ravel(), dtype=kind)
    return gymnasium.wrappers.TransformObservation(stacked, np.ravel, folded)


def _plain(env: Env) -> Env:
    wrappers, seen = gymnasium.wrappers, env.observation_space
    if (read := picture(seen)) is not None:
        return _pictured(env, read)
    if any(is_pixels(leaf.space) for leaf in leaves(seen)):
        env = wrappers.TransformObservation(env, lambda value: _scaled(seen, value), _scaled_space(seen))
    if not isinstance(seen, spaces.Box) or len(seen.shape) != 1:
        env = wrappers.FlattenObservation(env)
    if env.observation_space.dtype != np.float32:
        env = wrappers.DtypeObservation(env, np.float32)
    return env


def _pictured(env: Env, read: Picture) -> Env:
    """An image as [height, width, channels], in 0 to 1 if it is of whole numbers."""
    seen: Any = env.observation_space
    order, shape = read.order(len(seen.shape)), read.shape(seen.shape)
    scale = np.issubdtype(seen.dtype, np.integer)
    low, high = (0.0, 1.0) if scale else (read.low, read.high)

    def shown(value: Any) -> NDArray[np.float32]:
        image = np.asarray(value, np.float32).transpose(order).reshape(shape)
        return (image - np.float32(read.low)) / np.float32(read.high - read.low) if scale else image

    space = spaces.Box(np.float32(low), np.float32(high), shape, np.float32)
    return gymnasium.wrappers.TransformObservation(env, shown, space)


def _scaled(space: spaces.Space[Any], seen: Any) -> Any:
    """What is seen, with bytes in 0 to 1: beside them all else would be nothing."""
    if isinstance(space, spaces.Dict):
        return {name: _scaled(part, seen[name]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_scaled(part, value) for part, value in zip(space, seen, strict=True))
    return np.asarray(seen, np.float32) / np.float32(255) if is_pixels(space) else seen


def _scaled_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: _scaled_space(part) for name, part in space.items()})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([_scaled_space(part) for part in space])
    if isinstance(space, spaces.Box) and is_pixels(space):
        return spaces.Box(space.low / np.float32(255), space.high / np.float32(255), dtype=np.float32)
    return space


def _own(told: Environment, options: dict[str, Any]) -> Env:
    env: Env = import_string(told.name)(**options)
    if groups.is_group(env):
        return env
    if not isinstance(env, gymnasium.Env):
        raise UsageError(
            f"environment.name: {told.name} is no gymnasium.Env: subclass it; its reset gives (observation, "
            "info), and its step (observation, reward, terminated, truncated, info)"
        )
    for needed in ("observation_space", "action_space"):
        if not isinstance(getattr(env, needed, None), spaces.Space):
            raise UsageError(
                f"environment.name: {told.name} has no {needed}: set it to a gymnasium.spaces space"
            )
    return gymnasium.wrappers.TimeLimit(env, told.max_steps) if told.max_steps else env


def _known(told: Environment, options: dict[str, Any]) -> Env:
    families.prepare(told.name)
    try:
        if (family := families.family_of(told.name)) and family.extra == "pettingzoo":
            group: Env = families.pettingzoo(told.name, options)
            return group
        return gymnasium.make(told.name, max_episode_steps=told.max_steps, **options)
    except DlsysError:
        raise
    except problems.DependencyNotInstalled as error:
        family = families.family_of(told.name)
        raise UsageError(_lacking(told.name, error, family.extra if family else None)) from error
    except problems.UnregisteredEnv as error:
        if absent := families.absent(told.name):
            raise UsageError(absent) from error
        near = did_you_mean(told.name, gymnasium.registry)
        raise UsageError(
            f"gymnasium has no environment {show(told.name)}.{near} Your own is package.module:Class"
        ) from error
    except (TypeError, ValueError, KeyError, AssertionError, problems.Error) as error:
        raise UsageError(f"{told.name} does not take its options {options}: {error}") from error
    except Exception as error:  # of a library behind it, such as one that finds no OpenGL
        raise UsageError(f"{told.name} cannot be made here: {type(error).__name__}: {error}") from error


def _lacking(name: str, error: Exception, extra: str | None) -> str:
    """That a package is missing; where dlsys has no extra for it, gymnasium says what is to be installed."""
    mend = f"; with dlsys: {families.install(extra)}" if extra else ""
    return f"{name} needs what is not installed: {error}{mend}"


def _wrap(env: Env, name: str, options: dict[str, Any]) -> Env:
    if ":" in name:
        own: Env = import_string(name)(env, **options)
        return own
    known = [each for each in gymnasium.wrappers.__all__ if each != "vector"]
    if name not in known:
        raise UsageError(f"gymnasium has no wrapper {show(name)}.{did_you_mean(name, known)}")
    try:
        wrapped: Env = getattr(gymnasium.wrappers, name)(env, **options)
    except problems.DependencyNotInstalled as error:
        raise UsageError(_lacking(f"wrapper {name}", error, families.WRAPPERS.get(name))) from error
    except (TypeError, ValueError, AssertionError, problems.Error) as error:
        raise UsageError(f"wrapper {name} does not take {options or 'no options'} here: {error}") from error
    return wrapped


def unsuited(algorithm: AlgorithmSection, env: Env, place: str) -> Iterator[tuple[Path, str]]:
    """What an algorithm cannot do in an environment, as (path in the file, sentence); closes it.

    Args:
        algorithm: its options.
        env: as `make` makes it, not flat.
        place: the environment's name.
    """
    group = env.unwrapped if isinstance(env.unwrapped, groups.Group) else None
    try:
        plays = not algorithm.GAMES or _is_game(env)
        plannable = group is not None or not algorithm.PLANS or _has_model(env)
    finally:
        env.close()  # type: ignore[no-untyped-call]
    name = getattr(algorithm, "name", "")
    if group is not None and not algorithm.GROUPS:
        yield ("algorithm", "name"), f"{name} is one agent, and {place} has {len(group.names)}: take ppo"
        return
    if not plays:
        yield (
            ("algorithm", "name"),
            f"{name} plays board games, and {place} is none, or a wrapper changes what is seen of it: take "
            f"{', '.join(GAMES)} without wrappers",
        )
        return
    if not plannable:
        yield (
            ("algorithm", "name"),
            f"{name} plans with an environment's model, and {place} has none that can be had (a table P of "
            "transitions, or a state that can be set): take q-learning, or one with a network such as dqn",
        )
    if group is None:
        yield from _unsuited_spaces(algorithm, env.observation_space, env.action_space, place)
        return
    seen, taken = group.observation_space, group.action_space
    assert isinstance(seen, spaces.Dict)
    assert isinstance(taken, spaces.Dict)
    for agent in group.names:
        yield from _unsuited_spaces(algorithm, seen[agent], taken[agent], f"{place}'s {agent}")


def _unsuited_spaces(
    algorithm: AlgorithmSection, sees: spaces.Space[Any], does: spaces.Space[Any], place: str
) -> Iterator[tuple[Path, str]]:
    name, seen, taken = getattr(algorithm, "name", ""), _observations(sees), _actions(does)
    able = {*algorithm.OBSERVATIONS, *(["table"] if "flat" in algorithm.OBSERVATIONS else [])}
    for what, found, allowed in (
        ("actions", taken, algorithm.ACTIONS),
        ("observations", seen, tuple(sorted(able))),
    ):
        if found not in allowed:
            mend = ": put a wrapper around it that shows what networks take" if "(" in found else ""
            yield (
                ("algorithm", "name"),
                f"{name} learns from {' or '.join(allowed)} {what}, and {place} has {found} ones{mend}",
            )
    if taken == "continuous" and "continuous" in algorithm.ACTIONS and not algorithm.UNBOUNDED:
        assert isinstance(does, spaces.Box)
        if not bounded(does).all():
            yield (
                ("algorithm", "name"),
                f"{name} chooses actions within bounds, and {place} takes {does}: put a wrapper "
                "of your own around it that has bounds, or take ppo",
            )
    read = picture(sees)
    shape = read and read.shape(sees.shape or ())
    if seen == "image" and algorithm.IMAGES not in (None, shape):
        yield (
            ("environment", "wrappers"),
            f"{name} takes images of shape {algorithm.IMAGES}, and {place} shows {shape}: "
            "put gymnasium's ResizeObservation around it",
        )


def _is_game(env: Env) -> bool:
    """Whether it has the rules of a game, and shows what these are read from."""
    inner = env.unwrapped
    rules = getattr(inner, "game", None)
    return hasattr(rules, "planes") and env.observation_space is inner.observation_space


def _has_model(env: Env) -> bool:
    """Whether planning finds what it needs; whether it suits is seen when it is read."""
    env.reset()  # some have a state only then
    inner: Any = env.unwrapped
    table = hasattr(inner, "P") and hasattr(inner, "initial_state_distrib")
    seen = env.observation_space
    settable = isinstance(seen, spaces.Box) and bool(bounded(seen).all()) and hasattr(inner, "state")
    return table or settable or hasattr(inner, "mdp")


def _actions(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Discrete):
        return "discrete"
    if isinstance(space, spaces.Box):
        return "continuous"
    return unserved(space) or "composite"


def _observations(space: spaces.Space[Any]) -> str:
    if isinstance(space, spaces.Discrete):
        return "table"
    if picture(space) is not None:
        return "image"
    held = any(picture(leaf.space) is not None for leaf in leaves(space))
    return unserved(space) or ("mixed" if held else "flat")
