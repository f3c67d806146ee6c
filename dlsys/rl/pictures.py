"""Episodes to look at: pictures of one with what the agent thought it was worth, videos, and a window."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlsys.errors import DlsysError, UsageError
from dlsys.rl import environments
from dlsys.rl.agent import Acting, Player
from dlsys.spec.rl.job import Environment
from dlsys.spec.rl.section import Sees

_FRAMES = 200  # of an animation; longer episodes leave frames out
_STEPS = 2_000  # of an episode; their frames are in memory
_IN_STRIP = 8
_HEIGHT, _GAP = 200, 4
_PYGAME = {"PYGAME_HIDE_SUPPORT_PROMPT": "1", "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}


def draw(agent: Player, told: Environment, folder: Path, *, gamma: float, seed: int, sees: Sees) -> str:
    """Plays one episode and writes `episode.gif`, `strip.png`, and `values.png` where values are known.

    Returns:
        why there is no picture; empty where there is one.
    """
    with _silent_pygame():
        return _draw(agent, told, folder, gamma, seed, sees)


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


def film(
    agent: Player, told: Environment, path: Path, *, episodes: int, seed: int, sees: Sees
) -> list[float]:
    """Plays episodes and writes all their frames, as the environment draws them, into one video.

    Args:
        agent, told, sees: as of `dlsys.rl.evaluate.play`.
        path: a `.gif` or, with ffmpeg, an `.mp4`.
        episodes: how many.
        seed: of the first one's start; the next ones' follow it.

    Returns:
        Their returns.

    Raises:
        UsageError: the environment draws no frames here, there is no ffmpeg, or the file cannot be written.
    """
    write = _write_gif if path.suffix == ".gif" else _write_mp4(_ffmpeg(path))
    returns: list[float] = []

    def frames() -> Iterator[Image.Image]:
        for index in range(episodes):
            returns.append(0.0)
            for frame, _, reward in _played(agent, env, seed + index):
                if frame is None:
                    raise UsageError(f"{told.name} draws no frames: there is nothing to record in {path}")
                returns[-1] += reward
                yield Image.fromarray(frame)

    with _silent_pygame(), closing(environments.make(told, sees=sees, render="rgb_array", ends=True)) as env:
        try:
            write(frames(), path, int(env.metadata.get("render_fps") or 30))
        except (_Undrawn, gymnasium.error.Error) as error:
            raise UsageError(f"{told.name} cannot be drawn here: {error}") from error
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
    return returns


def _write_gif(frames: Iterator[Image.Image], path: Path, fps: int) -> None:
    # Viewers play frames slowly that are shorter than 20 ms.
    next(frames).save(path, save_all=True, append_images=frames, duration=max(20, 1000 // fps), loop=0)


def _ffmpeg(path: Path) -> str:
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"{path}: needs ffmpeg, which is not installed: say FILE.gif, or pip install imageio-ffmpeg"
        ) from error


def _write_mp4(ffmpeg: str) -> Callable[[Iterator[Image.Image], Path, int], None]:
    def write(frames: Iterator[Image.Image], path: Path, fps: int) -> None:
        first = next(frames)
        size = f"{first.width}x{first.height}"
        taken = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(fps), "-i", "-")
        # Players want yuv420p, and that even sizes.
        made = ("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", str(path))
        command = (ffmpeg, "-y", "-loglevel", "error", *taken, *made)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # then it says why
                for frame in chain([first], frames):
                    process.stdin.write(frame.tobytes())
            _, said = process.communicate()
        if process.returncode:
            raise UsageError(f"{path}: ffmpeg could not write it: {said.decode(errors='replace').strip()}")

    return write


def show(agent: Player, told: Environment, *, episodes: int, seed: int, sees: Sees) -> Iterator[float]:
    """Plays episodes in a window, and gives the return of each. As `film` otherwise.

    Raises:
        UsageError: there is no screen, or no window could be opened.
    """
    if not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))):
        raise UsageError(
            "there is no screen here to open a window on",
            hint="Record a video: dlsys agents record RUN FILE.gif",
        )
    with closing(environments.make(told, sees=sees, render="human", ends=True)) as env:
        for index in range(episodes):
            try:
                yield sum(reward for _, _, reward in _played(agent, env, seed + index))
            except (_Undrawn, gymnasium.error.Error) as error:
                raise UsageError(f"{told.name} cannot be shown here: {error}") from error


def _draw(agent: Player, told: Environment, folder: Path, gamma: float, seed: int, sees: Sees) -> str:
    try:
        env = environments.make(told, sees=sees, render="rgb_array", ends=True)
    except DlsysError as error:
        return str(error)
    frames: list[Image.Image] = []
    values: list[float] = []
    rewards: list[float] = []
    try:
        for frame, value, reward in islice(_played(agent, env, seed), _STEPS):
            frames += [] if frame is None else [_small(frame)]
            values += [] if value is None else [value]
            rewards.append(reward)
    except (_Undrawn, gymnasium.error.Error) as error:  # of a library that draws and is not installed
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


class _Undrawn(Exception):
    """An environment raised when it was asked for a frame."""


def _played(
    agent: Player, env: environments.Known, seed: int
) -> Iterator[tuple[NDArray[np.uint8] | None, float | None, float]]:
    """An episode's steps: the frame and its value, where there are such, and the reward that followed."""
    act, worth = Acting(agent), getattr(agent, "values", None)
    seen, _ = env.reset(seed=seed)
    ended = False
    while not ended:
        try:
            drawn: Any = env.render()
        except Exception as error:  # of whatever draws: pygame, OpenGL, the user's own code
            raise _Undrawn(f"{type(error).__name__}: {error}") from error
        frame = np.asarray(drawn, dtype=np.uint8) if isinstance(drawn, np.ndarray) else None
        batch = env.stack([seen])
        found = None if worth is None else worth(batch)
        seen, reward, terminated, truncated, _ = env.step(act([0], batch)[0])
        yield frame, None if found is None else float(found[0]), float(reward)
        ended = terminated or truncated


def _small(pixels: NDArray[np.uint8]) -> Image.Image:
    frame = Image.fromarray(pixels)
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
