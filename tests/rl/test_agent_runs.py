"""Whole runs of an agent, as a user starts them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from runner import Folder

pytestmark = pytest.mark.ray

USE = """
import sys, gymnasium, torch
policy = torch.export.load("policy.pt2").module()
observation, _ = gymnasium.make("CartPole-v1").reset(seed=1)
print(policy(torch.tensor(observation[None]))[0].item(), "ray" in sys.modules, "dlsys" in sys.modules)
"""


def test_a_run_is_tracked_resumed_and_exported(folder: Folder) -> None:
    done = folder.dlsys("run", "agent.yaml", "stop.epochs=4", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["status"], told["attempts"]) == ("FINISHED", 1)
    more = folder.dlsys("run", "--resume", "agent", "stop.epochs=6", "--json")
    assert more.code == 0, more.err
    (run,) = folder.mlflow_runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["dlsys.algorithm"] == "ppo"
    assert run.data.metrics["perf/samples_per_second"] > 0
    assert {"perf/sample_seconds", "perf/learn_seconds"} <= run.data.metrics.keys()
    assert run.data.params["algorithm.name"] == "ppo"
    steps = folder.history("train/return")
    assert len(steps) == 6
    assert set(steps.values()) == {1}
    assert len(folder.history("test/return")) == 2

    made = folder.dlsys("runs", "export", "agent", "policy.pt2")
    assert made.code == 0, made.err
    used = subprocess.run(
        [sys.executable, "-c", USE], cwd=folder.path, capture_output=True, text=True, check=True, timeout=120
    )
    action, ray, dlsys = used.stdout.split()
    assert action in ("0", "1")
    assert (ray, dlsys) == ("False", "False")
    assert "Warning" not in done.err + more.err + made.err
    folder.assert_alone()


@pytest.mark.usefixtures("interpreters")
def test_ctrl_c_ends_it_within_seconds_and_it_can_be_resumed(folder: Folder) -> None:
    process = folder.start("run", "agent.yaml", "stop.epochs=100000")
    folder.wait_for(lambda: folder.step() > 400)
    process.send_signal(signal.SIGINT)
    done = folder.finish(process, timeout=15)
    assert done.code == 130
    (run,) = folder.mlflow_runs()
    assert run.info.status == "KILLED"
    folder.assert_alone()
    epochs = int(run.data.metrics["train/epoch"]) + 1
    again = folder.dlsys("run", "--resume", "agent", f"stop.epochs={epochs}")
    assert again.code == 0, again.err
    assert set(folder.history("train/return").values()) == {1}


FAULTY = """
import gymnasium
from gymnasium import spaces


class Faulty(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}

    def step(self, action):
        raise KeyError("no prices for this day")
"""


def test_an_error_in_an_env_runner_is_told_at_once(folder: Folder) -> None:
    """RLlib would start the env runner again, each time after a minute, and say nothing."""
    (folder.path / "faulty.py").write_text(FAULTY)
    told = ("environment.name=faulty:Faulty", "resources.env_runners=1")
    done = folder.dlsys("run", "agent.yaml", *told, timeout=120)
    assert done.code == 1
    assert "your environment raised KeyError: 'no prices for this day' (faulty:Faulty, step 1" in done.err
    assert "faulty.py" in done.err
    assert "ray/rllib" not in done.err
    folder.assert_alone()
