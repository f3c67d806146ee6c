"""A real local cluster for a module of tests, used through `dlsys` as people use it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from forking import SERVER

import dlsys
from dlsys import processes
from dlsys.cluster.places import ClusterPaths
from dlsys.cluster.ray_node import CLUSTER_MARK
from dlsys.paths import RunPaths

# A machine that is busy otherwise needs ten times as long as an idle one.
_PATIENCE = 120.0

TWO_NODES = """
kind: cluster
name: test-two
provider: local
nodes:
  - {name: head, cpus: 1}
  - {name: worker, cpus: 1}
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up.

    Attributes:
        folder: where commands are called; its `.dlsys` is DLSYS_HOME.
        name: the cluster's.
    """

    folder: Path
    name: str

    @property
    def environment(self) -> dict[str, str]:
        package = str(Path(dlsys.__file__).parents[1])
        return {**os.environ, "DLSYS_HOME": str(self.folder / ".dlsys"), "PYTHONPATH": package}

    @property
    def paths(self) -> ClusterPaths:
        return ClusterPaths(self.folder / ".dlsys" / "clusters" / self.name)

    def dlsys(
        self, *words: str, check: bool = True, timeout: float = _PATIENCE, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """One command; with `check`, it must succeed."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = SERVER.fork(
                ["-P", "-m", "dlsys.cli.main", *words],
                cwd or self.folder,
                self.environment,
                out.fileno(),
                err.fileno(),
            )
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(words, code, out.read(), err.read())
        assert not check or done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stderr}"
        return done

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(json.loads(self.dlsys("jobs", "status", job_id, "--json").stdout))

    def run(self, job_id: str) -> RunPaths:
        """The files of a job's run."""
        return RunPaths(self.folder / ".dlsys" / "runs" / job_id)

    def log(self, job_id: str) -> str:
        """What a job's driver has said."""
        return (self.run(job_id).logs / "driver.log").read_text()

    def wait_for(self, job_id: str, states: Collection[str], timeout: float = _PATIENCE) -> dict[str, Any]:
        """The job, once it is in one of these states."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.update(json.loads(self.run(job_id).submission.read_text()))
            return found["state"] in states

        self.until(there, timeout, lambda: f"{job_id} is {found['state']}: {found['reason']}")
        return found

    def until(
        self, condition: Callable[[], bool], timeout: float = _PATIENCE, told: Callable[[], str] = lambda: ""
    ) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s; {told()}"
            time.sleep(0.05)

    def marked(self) -> list[psutil.Process]:
        """Every process of the cluster, jobs' too."""
        return processes.marked(CLUSTER_MARK, str(self.paths.root))


@contextmanager
def local_cluster(folder: Path, text: str = TWO_NODES) -> Iterator[Cluster]:
    """A cluster in a folder of its own; when it is down, nothing of it is left."""
    (folder / "cluster.yaml").write_text(text)
    name = next(line.split()[1] for line in text.splitlines() if line.startswith("name:"))
    cluster = Cluster(folder, name)
    try:
        cluster.dlsys("cluster", "up", "cluster.yaml", timeout=200)
        yield cluster
    finally:
        cluster.dlsys("cluster", "down", name, check=False, timeout=120)
        left = cluster.marked()
        processes.kill(left)
    assert not left, f"processes left: {[(p.pid, p.cmdline()[:4]) for p in left if p.is_running()]}"
