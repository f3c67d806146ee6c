"""Training while the MLflow server is gone for the middle third, against one that stays."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from side_by_side import compare, report

JOB = """
kind: train
name: outage
workload: lenet-5
data: {source: digits, size: 16}
batch_size: 64
optimizer: {name: sgd, lr: 0.01}
stop: {steps: 900}
tracking: {log_every: 1}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server:
    """An MLflow server of our own, which can be stopped in its tracks."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self.restart()

    def restart(self) -> None:
        """Starts the server on the same address and store, and waits for it to answer."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
        command += ["--port", str(self._port), "--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            [*command, "--default-artifact-root", str(self._folder / "artifacts")],
            cwd=self._folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=1).read()
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError("the MLflow server did not start")

    def signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self._process.wait()


def train(folder: Path, server: Server, *, outage: bool) -> float:
    """Seconds spent in the loop."""
    (folder / "job.yaml").write_text(JOB)
    home = Path(tempfile.mkdtemp(dir=folder))
    process = subprocess.Popen(
        [sys.executable, "-m", "dlsys.cli.main", "run", "job.yaml", f"tracking.uri={server.uri}"],
        cwd=folder,
        env={**os.environ, "DLSYS_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def step() -> int:
        lines = [line for path in home.glob("runs/*/spool/rank-0.jsonl") for line in path.open()]
        return max((json.loads(line).get("s", 0) for line in lines if line.endswith("\n")), default=0)

    def interfere() -> None:
        for at, number in ((300, signal.SIGSTOP), (600, signal.SIGCONT)):
            while step() < at and process.poll() is None:
                time.sleep(0.05)
            if outage:
                server.signal(number)

    watcher = threading.Thread(target=interfere)
    watcher.start()
    assert process.wait() == 0
    watcher.join()
    (state,) = home.glob("runs/*/checkpoints/step-0000000900/state.json")
    return float(json.loads(state.read_text())["position"]["seconds"])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder)
        try:
            row = compare(
                "training, MLflow silent for a third of it",
                "MLflow there",
                lambda: train(folder, server, outage=True),
                lambda: train(folder, server, outage=False),
                goal="<= 1.05",
                runs=5,
            )
        finally:
            server.close()
        report("outage", [row])


if __name__ == "__main__":
    main()
