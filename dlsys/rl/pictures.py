"""One episode to look at: its frames, and what the agent thought they were worth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlsys.errors import DlsysError
from dlsys.rl import environments
from dlsys.rl.agent import Acting, Agent
from dlsys.spec.rl.job import Environment

_FRAMES = 200  # of an animation; longer episodes leave frames out
_STEPS = 2_000  # of an episode; their frames are in memory
_IN_STRIP = 8
_HEIGHT, _GAP = 200, 4
_PYGAME = {"PYGAME_HIDE_SUPPORT_PROMPT": "1", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}


def draw(agent: Agent, told: Environment, folder: Path, *, gamma: float, seed: int, flat: bool) -> str:
    """Plays one episode and writes `episode.gif`, `strip.png`, and `values.png` where values are known.

    Returns:
        why there is no picture; empty where there is one.
    """
    with _silent_pygame():
        return _draw(agent, told, folder, gamma, seed, flat)


@contextmanager
def _silent_pygame() -> Iterator[None]:
    """It greets on stdout, and looks for a screen and for loudspeakers."""
    before = {name: os.environ.get(name) for name in _PYGAME}
    os.environ.update({name: os.environ.get(name, value) for name, value in _PYGAME.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _draw(agent: Agent, told: Environment, folder: Path, gamma: float, seed: int, flat: bool) -> str:
    try:
        env = environments.make(told, flat=flat, render="rgb_array", ends=True)
    except DlsysError as error:
        return str(error)
    try:
        frames, values, rewards = _play(agent, env, seed)
    except gymnasium.error.Error as error:  # of a library that draws and is not installed
        return str(error)
    finally:
        env.close()
    if not frames:
        return f"{told.name} draws no frames"
    folder.mkdir(parents=True, exist_ok=True)
    shown = frames[:: -(-len(frames) // _FRAMES)]
    shown[0].save(folder / "episode.gif", save_all=True, append_images=shown[1:], duration=40, loop=0)
    picked = [frames[index] for index in np.linspace(0, len(frames) - 1, _IN_STRIP).astype(int)]
    each = picked[0].width + _GAP
    strip = Image.new("RGB", (len(picked) * each - _GAP, picked[0].height), "gray")
    for index, frame in enumerate(picked):
        strip.paste(frame, (index * each, 0))
    strip.save(folder / "strip.png")
    if values:
        _plot(values, rewards, gamma, folder / "values.png")
    return ""


def _play(
    agent: Agent, env: gymnasium.Env[Any, Any], seed: int
) -> tuple[list[Image.Image], list[float], list[float]]:
    """Frames, the values of what was seen, and the rewards that followed."""
    act, worth = Acting(agent), getattr(agent, "values", None)
    frames: list[Image.Image] = []
    values: list[float] = []
    rewards: list[float] = []
    seen, _ = env.reset(seed=seed)
    ended = False
    while not ended and len(rewards) < _STEPS:
        drawn: Any = env.render()
        if isinstance(drawn, np.ndarray):
            frames.append(_small(drawn))
        batch = np.asarray(seen)[None]
        if worth is not None and (value := worth(batch)) is not None:
            values.append(float(value[0]))
        seen, reward, terminated, truncated, _ = env.step(act([0], batch)[0])
        rewards.append(float(reward))
        ended = terminated or truncated
    return frames, values, rewards


def _small(pixels: NDArray[Any]) -> Image.Image:
    frame = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    return frame.resize((max(1, frame.width * _HEIGHT // frame.height), _HEIGHT))


def _plot(values: list[float], rewards: list[float], gamma: float, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(values, label="value")
    followed = list(accumulate(reversed(rewards), lambda later, reward: reward + gamma * later))[::-1]
    axes.plot(followed, label=f"what followed, discounted by {gamma:g}", alpha=0.6)
    axes.set(xlabel="step of the episode", ylabel="return")
    axes.legend()
    figure.savefig(path)
