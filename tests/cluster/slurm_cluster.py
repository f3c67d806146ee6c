"""What the tests of Slurm share: a cluster, and the programs of a fake Slurm."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlsys.cluster.places import ClusterPaths
from dlsys.cluster.slurm import SlurmProvider
from dlsys.spec import yaml
from dlsys.spec.cluster.providers import Slurm
from dlsys.spec.load import check_cluster

HERE = Path(__file__).parent
PROGRAMS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "srun", "ray", "ssh")
NASTY = "a b'\"`touch pwned`$(touch pwned);touch pwned # \\ %j"


def cluster_of(**changes: Any) -> Slurm:
    data = {
        "kind": "cluster",
        "name": "lab",
        "provider": "slurm",
        "time": "4:00:00",
        "nodes": [{"name": "gpu", "cpus": 2}],
        **changes,
    }
    found = check_cluster(yaml.read(yaml.dump(data), "cluster.yaml"))
    assert isinstance(found, Slurm)
    return found


class FakeSlurm:
    """The fake programs' folder, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name in PROGRAMS:
            program = self.bin / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} -I {HERE / "fake_slurm.py"} {name} "$@"\n')
            program.chmod(0o755)

    def calls(self, program: str) -> list[list[str]]:
        lines = (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []
        return [call[1:] for call in map(json.loads, lines) if call[0] == program]

    def job(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{number}.json").read_text())
        return found

    def set_state(self, number: int, state: str) -> None:
        (self.folder / f"{number}.json").write_text(json.dumps(self.job(number) | {"state": state}))

    def end(self) -> None:
        """Ends what jobs still run, by id."""
        for path in self.folder.glob("[0-9]*.json"):
            for pid in json.loads(path.read_text())["pids"]:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


def provider_of(cluster: Slurm) -> SlurmProvider:
    return SlurmProvider(cluster, ClusterPaths.of(cluster.name))
