"""Runs `dlsys` as a user does, in a process of its own, and looks at what it left.

The processes are forks (`forking`), or with `Folder.forks = False` interpreters.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from forking import SERVER, Fork

import dlsys
from dlsys.paths import RunPaths
from dlsys.track.store import Store
from dlsys.train.checkpoint import CheckpointStore

#: How each line begins that a run writes when all goes well: nothing of Ray's, torch's or MLflow's own talk.
OURS = ("run mine-", "epoch ", "the test is of the best checkpoint: ", "See it:", "Look it up:")

MODULE = '''
"""A user's own workload, with faults on demand (environment variables)."""

import os
import time

import torch
from torch import nn

from dlsys.zoo.workload import Loss, Workload


def rank():
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


class Mine(Workload):
    metrics = {"accuracy": "max"}
    steps = 0

    def build(self):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 10))

    def forward(self, model, batch, carry):
        return model(batch["image"]), None

    def objective(self, outputs, batch):
        loss = nn.functional.cross_entropy(outputs, batch["label"])
        if torch.is_grad_enabled():
            Mine.steps += 1
            time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
            here = str(rank()) == os.environ.get("FAULT_RANK", "0")
            now = here and str(Mine.steps) == os.environ.get("FAULT_STEP")
            if now and not os.path.exists("fault-struck"):
                open("fault-struck", "w").close()
                fault(os.environ["FAULT"])
                if os.environ["FAULT"] == "nan":
                    loss = loss * float("nan")
        return Loss(loss)

    def measure(self, outputs, batch):
        hits = (outputs.argmax(1) == batch["label"]).sum()
        return {**super().measure(outputs, batch), "accuracy": hits}


def fault(kind):
    if kind == "raise":
        raise KeyError("oops")
    if kind == "hang":
        time.sleep(1000)
    if kind == "kill":
        os.kill(os.getpid(), 9)
    if kind == "segv":
        os.kill(os.getpid(), 11)
    if kind == "exit":
        os._exit(0)
'''

JOB = """
kind: train
name: mine
workload: mine:Mine
data: {source: digits}
batch_size: 64
optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
stop: {epochs: 3}
checkpoint: {every: 5 steps, best: valid/accuracy}
tracking: {log_every: 1}
"""

AGENT = """
kind: rl
name: agent
environment: {name: CartPole-v1}
algorithm: {name: ppo, batch_size: 400, passes: 2}
resources: {env_runners: 2}
stop: {epochs: 6}
evaluate: 3 epochs
episodes: {valid: 5, test: 5}
checkpoint: {every: 2 epochs}
"""


@dataclass
class Done:
    """A finished command."""

    code: int
    out: str
    err: str
    seconds: float


class Folder:
    """A user's working directory with a job and a workload of theirs."""

    forks = True

    def __init__(self, path: Path, **environment: str) -> None:
        self.path = path
        self.environment = {
            **os.environ,
            "DLSYS_HOME": str(path / ".dlsys"),
            # The dlsys that is tested, wherever another one is installed.
            "PYTHONPATH": os.pathsep.join([str(path), str(Path(dlsys.__file__).parents[1])]),
            **environment,
        }
        (path / "mine.py").write_text(MODULE)
        (path / "job.yaml").write_text(JOB)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str] | Fork:
        # Files, not pipes: nobody reads while the command runs, and a full pipe would stop it.
        # A name of their own: another command may run in this folder.
        name = secrets.token_hex(4)
        self._out = open(self.path / f"out-{name}.txt", "w+")  # noqa: SIM115
        self._err = open(self.path / f"err-{name}.txt", "w+")  # noqa: SIM115
        words = ["-m", "dlsys.cli.main", *arguments]
        told = {**self.environment, **environment}
        if self.forks:
            return SERVER.fork(words, self.path, told, self._out.fileno(), self._err.fileno())
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.path,
            env=told,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str] | Fork, timeout: float = 120) -> Done:
        began = time.monotonic()
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"still running after {timeout} s; stderr:\n{self.err}") from None
        seconds = time.monotonic() - began
        done = Done(code, Path(self._out.name).read_text(), self.err, seconds)
        self._out.close()
        self._err.close()
        return done

    @property
    def err(self) -> str:
        return Path(self._err.name).read_text()

    def dlsys(self, *arguments: str, timeout: float = 120, **environment: str) -> Done:
        return self.finish(self.start(*arguments, **environment), timeout)

    @property
    def run(self) -> RunPaths:
        """The only run."""
        (root,) = (self.path / ".dlsys" / "runs").iterdir()
        return RunPaths(root)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s; stderr:\n{self.err}"
            time.sleep(0.02)

    def step(self) -> int:
        """The last step recorded so far, in any run."""
        found = 0
        for spool in (self.path / ".dlsys" / "runs").glob("*/spool/rank-0.jsonl"):
            for line in spool.read_text().splitlines():
                try:
                    found = max(found, json.loads(line).get("s", 0))
                except ValueError:
                    continue
        return found

    def store(self) -> Store:
        return Store(f"sqlite:///{self.path}/.dlsys/mlflow.db")

    def mlflow_runs(self) -> list[Any]:
        return self.store().runs()

    def history(self, name: str) -> Counter[int]:
        """How often each step of a metric stands in the only MLflow run."""
        store = self.store()
        (run,) = store.runs()
        return Counter(point.step for point in store.client.get_metric_history(run.info.run_id, name))

    def weights(self) -> dict[str, Any]:
        saved = CheckpointStore(self.run.checkpoints).latest()
        assert saved is not None
        return saved.model

    def processes(self) -> list[psutil.Process]:
        """Every process that works in or on this folder, or was started from here."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid == os.getpid():
                    continue
                command = " ".join(process.cmdline())
                home = process.environ().get("DLSYS_HOME")
            except psutil.Error:
                continue
            if str(self.path) in command or home == self.environment["DLSYS_HOME"]:
                found.append(process)
        return found

    def assert_alone(self, within: float = 10) -> None:
        deadline = time.monotonic() + within
        while left := self.processes():
            if time.monotonic() > deadline:
                names = [" ".join(p.cmdline())[:100] for p in left if p.is_running()]
                raise AssertionError(f"processes left: {names}")
            time.sleep(0.1)

    def clean(self) -> None:
        """Ends, by id, whatever a failed test left."""
        for process in self.processes():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
