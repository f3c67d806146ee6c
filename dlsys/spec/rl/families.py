"""Families of environments that other packages bring: their names, what is imported for them, and the extra
of dlsys that installs it.

gymnasium registers MuJoCo's and Box2D's itself; the others register theirs when they are imported.
"""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from dlsys.errors import UsageError
from dlsys.registry import did_you_mean


@dataclass(frozen=True)
class Family:
    """Environments of one package.

    Attributes:
        extra: `pip install 'dlsys[extra]'` installs what they need.
        names: matches their names.
        modules: what is imported before one is made.
        gl: whether MuJoCo draws them, which chooses once, when it is imported, how it draws.
    """

    extra: str
    names: str
    modules: tuple[str, ...]
    gl: bool = False


_MUJOCO = (
    "Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedDoublePendulum|InvertedPendulum|Pusher|Reacher"
    "|Swimmer|Walker2d"
)
_BOX2D = "LunarLander|LunarLanderContinuous|BipedalWalker|BipedalWalkerHardcore|CarRacing"

FAMILIES = (
    Family("atari", r"ALE/.*|.*NoFrameskip-v\d+", ("ale_py",)),
    Family("mujoco", rf"({_MUJOCO})-v\d+", ("mujoco", "imageio"), gl=True),
    Family("box2d", rf"({_BOX2D})-v\d+", ("Box2D", "pygame")),
    Family("dm-control", r"dm_control/.*", ("dm_control", "shimmy"), gl=True),
    Family("minigrid", r"(MiniGrid|BabyAI)-.*", ("minigrid",)),
    Family("pettingzoo", r"(atari|butterfly|classic|sisl)/.*", ("pettingzoo",)),
    Family("bullet", r".*Bullet.*-v\d+", ("pybullet_envs_gymnasium",)),
)
# Engines that have no environments for gymnasium, by what such names would begin with, and why.
_ENGINES = {
    "havok": "Havok is proprietary, and nothing for Python comes with it",
    "physx": "PhysX is a C++ library without environments of its own",
    "flex": "FleX is a closed library of NVIDIA's for its GPUs (a small cloth of ours: dlsys/Cloth-v0)",
    "ode": "ODE is a C library without environments of its own (one of ours is dlsys/RigidPendulum-v0)",
}
# gymnasium's wrappers that need more than gymnasium, by what installs it.
WRAPPERS = {"AtariPreprocessing": "atari", "ResizeObservation": "atari"}


def family_of(name: str) -> Family | None:
    """The family of an environment by its name; None of those that need nothing more."""
    return next((family for family in FAMILIES if re.fullmatch(family.names, name)), None)


def absent(name: str) -> str:
    """Why there is no environment of an engine, and what to do instead; empty of what is none of those."""
    engine, slash, _ = name.partition("/")
    why = _ENGINES.get(engine.lower()) if slash else None
    if why is None:
        return ""
    return (
        f"{name}: {why}. A program of yours that runs it can be one: environment: {{name: dlsys/External-v0, "
        "options: {address: 'host:port'}}; docs/external-simulators.md says how"
    )


def install(extra: str) -> str:
    """How to install an extra of dlsys."""
    return f"pip install 'dlsys[{extra}]'"


def prepare(name: str) -> None:
    """Imports what registers an environment and what it is made of.

    Raises:
        UsageError: a package of its family is missing, or cannot be imported here.
    """
    family = family_of(name)
    if family is None:
        return
    if missing := [module for module in family.modules if find_spec(module) is None]:
        raise UsageError(f"{name} needs {missing[0]}, which is not installed: {install(family.extra)}")
    try:
        _import(family)
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise UsageError(
            f"{name} needs {' and '.join(family.modules)}, which cannot be imported here: "
            f"{type(error).__name__}: {error}; to install it anew: {install(family.extra)}"
        ) from error


def pettingzoo(name: str, options: dict[str, Any]) -> Any:
    """One of PettingZoo's environments, in which all act at once where there is one.

    Raises:
        UsageError: it has none of this name, or something that it needs is missing.
    """
    from pettingzoo import aec_registry, make, parallel_registry

    kind: Literal["aec", "parallel"] = "parallel" if name in parallel_registry else "aec"
    if name not in aec_registry and name not in parallel_registry:
        near = did_you_mean(name, {*aec_registry, *parallel_registry})
        raise UsageError(f"PettingZoo has no environment {name!r}.{near} Your own is package.module:Class")
    try:
        return make(kind, name, **options)
    except ImportError as error:
        raise UsageError(
            f"{name} needs what is not installed: {error.__cause__ or error}; {error}"
        ) from error


def _import(family: Family) -> None:
    """Imports a family's modules.

    Without a screen, what MuJoCo chooses by itself ends the whole process at the first picture: EGL draws
    there, and where it is missing, nothing does.
    """
    undecided = family.gl and not any(map(os.environ.get, ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")))
    if undecided:
        os.environ["MUJOCO_GL"] = "egl"
    try:
        _import_all(family.modules)
    except (ImportError, AttributeError, OSError, RuntimeError):
        if not undecided:
            raise
        os.environ["MUJOCO_GL"] = "disabled"
        _import_all(family.modules)


def _import_all(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
    if "ale_py" in modules:
        import ale_py

        # Or each emulator that is made greets on the terminal.
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
