"""`dlsys agents`: what a trained agent does, played again in this process."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
import torch
from PIL import Image

from dlsys.cli import agents
from dlsys.errors import DataError, SpecError, UsageError
from dlsys.paths import RunPaths, write_json
from dlsys.rl.actions import Actions
from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.engine import run_agent
from dlsys.rl.environments import forms
from dlsys.rl.episodes import read
from dlsys.spec import yaml
from dlsys.spec.load import load
from dlsys.spec.rl.job import RLJob
from dlsys.train.checkpoint import CheckpointStore, Position, Saved
from dlsys.train.engine import Surroundings
from dlsys.train.world import World

CORRIDOR = '''
import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
    """Whoever goes right all the time is out after `length` steps."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 20}
    action_space = gymnasium.spaces.Discrete(2)
    drawn = 0

    def __init__(self, length=4, render_mode=None):
        self.length, self.render_mode = length, render_mode
        self.observation_space = gymnasium.spaces.Discrete(9)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return 0, {}

    def step(self, action):
        self.place = max(0, self.place + 2 * int(action) - 1)
        out = self.place == self.length
        return self.place, float(out) - 0.1, out, False, {"success": out}

    def render(self):
        Corridor.drawn += self.render_mode == "human"
        return np.full((10, 15, 3), 20 * self.place, np.uint8)
'''
JOB = """
kind: rl
name: corridor
environment: {name: "corridor:Corridor", max_steps: 30, metrics: {success: max}}
algorithm: {name: q-learning}
stop: {epochs: 1}
episodes: {valid: 3, test: 4}
checkpoint: {best: valid/return}
"""


class Nowhere:
    def metrics(self, step: int, values: dict[str, float]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def tags(self, values: dict[str, str]) -> None:
        pass


def run_of(job: RLJob, folder: Path, name: str) -> RunPaths:
    """A run's folder, before anything has been done in it."""
    paths = RunPaths.create(f"{name}-20260101-000000-0000")
    paths.spec.write_text(yaml.dump(job.model_dump(mode="json")))
    write_json(paths.record, {"folder": str(folder)})
    return paths


@pytest.fixture
def corridor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """A run with an environment of the user's, called from another folder; the metrics of its test."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / "corridor.py").write_text(CORRIDOR)
    (project / "job.yaml").write_text(JOB)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(project)
    job = load(project / "job.yaml").job
    assert isinstance(job, RLJob)
    paths = run_of(job, project, "corridor")
    around = Surroundings(
        folder=project,
        recorder=Nowhere(),
        store=CheckpointStore(paths.checkpoints, keep=2),
        artifacts=paths.artifacts,
    )
    found = run_agent(job, World(), around).metrics
    monkeypatch.chdir(elsewhere)
    sys.path.remove(str(project))
    del sys.modules["corridor"]
    yield found
    sys.modules.pop("corridor", None)


@pytest.fixture
def balancing(tmp_path: Path) -> None:
    """A run with the weights that it would begin with."""
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: balancing\nenvironment: {name: CartPole-v1}\nalgorithm: {name: ppo}\n"
        "stop: {epochs: 1}\nepisodes: {test: 6}\n"
    )
    job = load(file).job
    assert isinstance(job, RLJob)
    torch.manual_seed(0)
    module = ActorCritic(*forms(job.environment), job)
    store = CheckpointStore(run_of(job, tmp_path, "balancing").checkpoints, keep=1)
    store.save(Saved(Position(step=7), dict(module.state_dict()), {}))
    store.wait()


def told(text: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in text.splitlines())


def test_evaluate_plays_the_runs_test_again(
    corridor: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    agents.evaluate("corridor")
    found = told(capsys.readouterr().out)
    assert found["episodes"] == "4"
    for name in ("return", "return_std", "return_min", "length", "success"):
        assert float(found[name]) == pytest.approx(corridor[f"test/{name}"], abs=1e-5)
    agents.evaluate("corridor", ["environment.options.length=3"], episodes=2, seed=5, best=True)
    changed = told(capsys.readouterr().out)
    assert (changed["episodes"], changed["length"]) == ("2", "3")


def test_what_it_cannot_play_is_refused(corridor: dict[str, float]) -> None:
    for changes, said in (
        (["algorithm.lr=1"], "another environment alone"),
        (["environment.frames=2"], "learns from table observations"),
        (["environment.name=FrozenLake-v1"], "trained in another one than FrozenLake-v1 is now"),
    ):
        with pytest.raises(UsageError, match=said):
            agents.evaluate("corridor", changes)
    with pytest.raises(SpecError, match="q-learning has no chances"):
        agents.evaluate("corridor", explore=True)


def test_weights_alone_act(balancing: None, capsys: pytest.CaptureFixture[str]) -> None:
    agents.evaluate("balancing")
    best = told(capsys.readouterr().out)
    assert (best["step"], best["episodes"]) == ("7", "6")
    agents.evaluate("balancing", explore=True)
    drawn = told(capsys.readouterr().out)
    agents.evaluate("balancing", explore=True)
    assert told(capsys.readouterr().out) == drawn
    assert drawn["return"] != best["return"]
    with pytest.raises(UsageError, match=r"trained in another one than Acrobot-v1 is now: size mismatch"):
        agents.evaluate("balancing", ["environment.name=Acrobot-v1"])


def test_a_recording_is_what_offline_agents_read(
    balancing: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "episodes.parquet"
    agents.record("balancing", file, episodes=3, explore_share=0.5)
    env = gymnasium.make("CartPole-v1")
    found = read(file, 4, Actions(env.action_space))
    assert found.last.sum() == 3
    mean = float(found.rewards.sum() / 3)
    assert f"{file}: 3 episodes of the agent of step 7, mean return {mean:.6g}\n" == capsys.readouterr().out


def test_an_estimate_of_the_recorded_agent_is_its_mean_return(
    balancing: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "episodes.parquet"
    agents.record("balancing", file, episodes=40, explore_share=0.5)
    capsys.readouterr()
    agents.estimate("balancing", file, explore_share=0.5, as_json=True)
    found = json.loads(capsys.readouterr().out)
    mean = found["recorded_return"]
    assert (found["episodes"], found["step"]) == (40, 7)
    assert found["effective_episodes"] == pytest.approx(40)
    assert found["estimates"]["per_decision"]["value"] == pytest.approx(mean)
    agents.estimate("balancing", file, explore_share=0.2)
    lines = told(capsys.readouterr().out)
    assert lines["episodes"] == f"40, return {mean:.6g}"
    assert lines["weighted"] != f"{mean:.6g}"
    assert float(lines["effective"].split()[-1]) < 20


@pytest.mark.usefixtures("balancing", "corridor")
def test_what_cannot_be_estimated_is_said(tmp_path: Path) -> None:
    agents.record("corridor", tmp_path / "corridor.parquet", episodes=2)
    with pytest.raises(DataError, match="was recorded in another environment"):
        agents.estimate("balancing", tmp_path / "corridor.parquet")
    with pytest.raises(DataError, match="no such file"):
        agents.estimate("balancing", tmp_path / "none.parquet")
    agents.estimate("corridor", tmp_path / "corridor.parquet")


def test_a_video_has_each_frame_of_its_episodes(
    corridor: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents.record("corridor", tmp_path / "video.gif", episodes=2)
    with Image.open(tmp_path / "video.gif") as video:
        assert video.n_frames == 8  # type: ignore[attr-defined]
        assert video.size == (15, 10)
        assert video.info["duration"] == 50
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UsageError, match=r"video.mp4: needs ffmpeg.*FILE.gif"):
        agents.record("corridor", tmp_path / "video.mp4")
    encoder = tmp_path / "ffmpeg"
    encoder.write_text('#!/bin/sh\nfor last; do :; done\n/bin/cat > "$last"\n')
    encoder.chmod(encoder.stat().st_mode | stat.S_IXUSR)
    agents.record("corridor", tmp_path / "video.mp4")
    assert (tmp_path / "video.mp4").stat().st_size == 4 * 10 * 15 * 3
    encoder.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    with pytest.raises(UsageError, match="ffmpeg could not write it: no such codec"):
        agents.record("corridor", tmp_path / "video.mp4")
    for target, said in (("x.avi", "say FILE.parquet"), ("no/where/x.gif", "cannot be written")):
        with pytest.raises(UsageError, match=said):
            agents.record("corridor", tmp_path / target)


def test_a_window_needs_a_screen(
    corridor: dict[str, float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="no screen") as refused:
        agents.watch("corridor")
    assert "dlsys agents record RUN FILE.gif" in refused.value.hint
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    agents.watch("corridor", episodes=2)
    assert capsys.readouterr().out == "episode 1: return 0.6\nepisode 2: return 0.6\n"
    assert sys.modules["corridor"].Corridor.drawn == 8
    assert os.environ["SDL_VIDEODRIVER"] == "dummy"
