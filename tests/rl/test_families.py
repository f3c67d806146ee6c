"""Environments that other packages bring: made where they are installed, else refused in our words."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dlsys.errors import SpecError, UsageError
from dlsys.rl import environments
from dlsys.spec.load import load
from dlsys.spec.rl import families
from dlsys.spec.rl.environments import make
from dlsys.spec.rl.families import FAMILIES, Family, family_of
from dlsys.spec.rl.job import Environment
from dlsys.spec.rl.policy import PPO

ATARI = {
    "name": "ALE/Pong-v5",
    "options": {"frameskip": 1},
    "wrappers": ({"name": "AtariPreprocessing"},),
    "frames": 4,
}
MINIGRID = {"name": "MiniGrid-Empty-5x5-v0", "wrappers": ({"name": "minigrid.wrappers:ImgObsWrapper"},)}


@pytest.mark.parametrize(
    ("extra", "told", "shape"),
    [
        ("atari", ATARI, (84, 84, 4)),
        ("mujoco", {"name": "Hopper-v5"}, (11,)),
        ("mujoco", {"name": "Hopper-v4", "frames": 2}, (22,)),
        ("box2d", {"name": "LunarLander-v3"}, (8,)),
        ("box2d", {"name": "CarRacing-v3"}, (96, 96, 3)),
        ("dm-control", {"name": "dm_control/cartpole-swingup-v0"}, (5,)),
        ("minigrid", MINIGRID, (147,)),
        ("bullet", {"name": "HalfCheetahBulletEnv-v0"}, (26,)),
    ],
    ids=lambda value: value.get("name") if isinstance(value, dict) else None,
)
def test_one_of_each_family_is_made_and_stepped(
    extra: str, told: dict[str, Any], shape: tuple[int, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    family = family_of(told["name"])
    assert family is not None
    assert family.extra == extra
    needed = (*family.modules, *(["cv2"] if "frames" in told and extra == "atari" else []))
    if missing := [module for module in needed if find_spec(module) is None]:
        pytest.skip(f"{missing[0]} is not installed: {families.install(extra)}")
    env = environments.make(Environment(**told))
    try:
        env.reset(seed=0)
        for _ in range(3):
            seen = env.step(env.action_space.sample())[0]
        assert seen.shape == shape
        assert seen.dtype == np.float32
        assert env.observation_space.contains(seen)
    finally:
        env.close()
    if extra == "atari":
        assert capfd.readouterr() == ("", ""), "its emulator greets"


def test_those_that_gymnasium_registers_are_known_by_their_names() -> None:
    for extra, place in (("mujoco", "gymnasium.envs.mujoco"), ("box2d", "gymnasium.envs.box2d")):
        there = {name for name, spec in gymnasium.registry.items() if str(spec.entry_point).startswith(place)}
        (family,) = (family for family in FAMILIES if family.extra == extra)
        assert there
        assert {name for name in there if not re.fullmatch(family.names, name)} == set()


def test_each_family_has_its_extra_and_all_of_them_one() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert {family.extra for family in FAMILIES} | {*families.WRAPPERS.values()} <= extras.keys()
    named = re.search(r"\[(.*)\]", extras["rl-extra"][0])
    assert named is not None
    assert set(named[1].split(",")) == {family.extra for family in FAMILIES}


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family whose package is missing."""
    monkeypatch.setattr(families, "FAMILIES", (Family("atari", "Nowhere-.*", ("nowhere_py",)),))


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("wrappers", ["[]", "[{name: 'test_families:Same'}]"])
def test_a_missing_package_is_said_at_check_with_its_extra(wrappers: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        f"kind: rl\nname: x\nenvironment: {{name: Nowhere-v1, wrappers: {wrappers}}}\n"
        "algorithm: {name: ppo}\nstop: {epochs: 1}\n"
    )
    said = r"environment: Nowhere-v1 needs nowhere_py, which is not installed: pip install 'dlsys\[atari\]'"
    with pytest.raises(SpecError, match=said):
        load(file)


class Same(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper of the user's, for which nothing is made at check."""


def test_a_package_that_cannot_be_imported_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacks_gl.py").write_text("raise OSError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(families, "FAMILIES", (Family("box2d", "Drawn-.*", ("lacks_gl",)),))
    with pytest.raises(UsageError, match=r"cannot be imported here: OSError: libGL.*dlsys\[box2d\]"):
        make(Environment(name="Drawn-v1"))


@pytest.mark.parametrize(
    ("given", "works", "chosen"),
    [
        ({}, "egl", "egl"),
        ({}, "disabled", "disabled"),
        ({"MUJOCO_GL": "osmesa"}, "osmesa", "osmesa"),
        ({"DISPLAY": ":0"}, "", ""),
    ],
)
def test_without_a_screen_mujoco_draws_with_egl_or_not_at_all(
    given: dict[str, str], works: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    module = f"draws_{works or 'on_a_screen'}_{len(given)}"
    (tmp_path / f"{module}.py").write_text(
        f"import os\nif os.environ.get('MUJOCO_GL', '') != {works!r}:\n    raise ImportError('no such GL')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(families, "FAMILIES", (Family("mujoco", "Drawn-.*", (module,), gl=True),))
    families.prepare("Drawn-v1")
    assert os.environ.get("MUJOCO_GL", "") == chosen
    monkeypatch.delenv("MUJOCO_GL", raising=False)


def _lacks_gl(**options: Any) -> Any:
    raise AttributeError("'NoneType' object has no attribute 'glGetError'")


def test_what_a_library_raises_when_one_is_made_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium.envs.registration, "registry", {**gymnasium.registry})
    gymnasium.register("Undrawn-v0", _lacks_gl)
    with pytest.raises(UsageError, match=r"Undrawn-v0 cannot be made here: AttributeError: .*glGetError"):
        make(Environment(name="Undrawn-v0"))


def test_a_wrapper_that_lacks_a_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(env: Any) -> Any:
        raise gymnasium.error.DependencyNotInstalled("opencv-python package not installed")

    monkeypatch.setattr(gymnasium.wrappers, "AtariPreprocessing", lacking)
    with pytest.raises(UsageError, match=r"wrapper AtariPreprocessing needs what is not .*dlsys\[atari\]"):
        make(Environment(name="CartPole-v1", wrappers=({"name": "AtariPreprocessing"},)))  # type: ignore[arg-type]


class Clock(gymnasium.Env[Any, Any]):
    """Shows how many steps there have been, in each of its numbers but for the color that counts from 100."""

    action_space = spaces.Discrete(2)

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._seen(), 0.0, False, False, {}

    def _seen(self) -> Any:
        seen = np.full(self.observation_space.shape, self.steps, np.uint8)
        if seen.ndim == 3:
            seen[..., 1] += 100
        return seen


@pytest.mark.parametrize(
    ("shape", "stacked", "last"),
    [
        ((2,), (6,), [0, 0, 1, 1, 2, 2]),
        ((9, 8), (9, 8, 3), [0, 1, 2]),
        ((9, 8, 2), (9, 8, 6), [0, 100, 1, 101, 2, 102]),
    ],
)
def test_frames_are_further_colors_or_one_vector(
    shape: tuple[int, ...], stacked: tuple[int, ...], last: list[int]
) -> None:
    told = Environment(name="test_families:Clock", options={"shape": shape}, frames=3)
    env = environments.make(told, sees="parts")
    env.reset(seed=0)
    env.step(0)
    (seen,) = env.step(0)[0].values()
    assert seen.shape == stacked
    np.testing.assert_array_equal((seen * 255).round() if seen.ndim == 1 else seen[2, 3], last)
    flat = make(told)
    assert flat.observation_space.shape == stacked
    assert flat.observation_space.dtype == np.float32


def test_frames_are_not_for_planners(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: FrozenLake-v1, frames: 2}\n"
        "algorithm: {name: value-iteration}\nstop: {epochs: 1}\n"
    )
    with pytest.raises(SpecError, match="frames: value-iteration plans with the environment's own states"):
        load(file)


class Mission(spaces.Space[str]):
    """A package's own space of texts, such as MiniGrid's, of which gymnasium knows nothing."""


class Talks(Clock):
    """Shows words besides."""

    def __init__(self, own: bool) -> None:
        super().__init__((2,))
        words = Mission() if own else spaces.Sequence(spaces.Discrete(9))
        self.observation_space = spaces.Dict({"seen": spaces.Box(0, 1, (2,)), "mission": words})


@pytest.mark.parametrize(("own", "said"), [(True, "Mission"), (False, "Sequence")])
def test_a_part_that_no_network_takes_is_named(own: bool, said: str) -> None:
    told = Environment(name="test_families:Talks", options={"own": own})
    with pytest.raises(UsageError, match=rf"has Dict \(mission: {said}\) ones: put a wrapper"):
        environments.check_suits(PPO(name="ppo"), told)
