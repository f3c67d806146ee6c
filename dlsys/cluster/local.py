"""Several Ray nodes on this machine, for real: separate raylets, with own resources, ports and folders."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from dlsys import processes
from dlsys.cluster.places import ClusterPaths, Endpoint
from dlsys.cluster.provider import Finding
from dlsys.cluster.ray_node import CLUSTER_MARK, environment
from dlsys.errors import RunError, UsageError
from dlsys.paths import read_json
from dlsys.spec import yaml
from dlsys.spec.cluster import Local
from dlsys.spec.load import load_cluster

_UP_WITHIN = 180.0
_DOWN_WITHIN = 30.0
_LOOK = 0.1


class LocalProvider:
    """A cluster on this machine; its keeper does the work.

    Args:
        cluster: what it is to be.
        paths: its files on this machine.
    """

    def __init__(self, cluster: Local, paths: ClusterPaths) -> None:
        self._cluster = cluster
        self._paths = paths

    def render(self) -> dict[str, str]:
        return {"cluster.yaml": yaml.dump(self._cluster.model_dump(mode="json"))}

    def up(self, say: Callable[[str], None]) -> None:
        self._paths.make()
        with self._paths.locked():
            self._write()
            keeper = None if self._keeper() else self._start_keeper()
            self._await_ready(keeper, say)

    def down(self, say: Callable[[str], None]) -> None:
        if not self._paths.root.exists():
            return
        with self._paths.locked():
            state = self._paths.read_state()
            if keeper := self._keeper():
                keeper.send_signal(signal.SIGTERM)
                with suppress(psutil.Error):
                    keeper.wait(timeout=_DOWN_WITHIN)
            deadline = time.monotonic() + _DOWN_WITHIN
            while family := processes.marked(CLUSTER_MARK, str(self._paths.root)):
                if time.monotonic() > deadline:
                    left = ", ".join(str(process.pid) for process in family)
                    raise RunError(f"{self._paths.name}: these processes do not end: {left}")
                processes.kill(family)
                time.sleep(_LOOK)
            if temp := state.get("temp"):
                shutil.rmtree(temp, ignore_errors=True)
            shutil.rmtree(self._paths.root)
        say(f"{self._paths.name} is down; its jobs and runs are kept")

    def alive(self) -> bool:
        return self._keeper() is not None

    @contextmanager
    def connect(self) -> Iterator[Endpoint]:
        url = self._paths.read_state().get("desk")
        if not url or not self._paths.token.exists():
            raise RunError(
                f"cluster {self._paths.name} is not up", hint=f"dlsys cluster up {self._paths.name}"
            )
        yield Endpoint(url, self._paths.read_token())

    def doctor(self) -> Iterator[Finding]:
        cores = len(os.sched_getaffinity(0))
        asked = sum(node.cpus * node.count for node in self._cluster.nodes)
        yield Finding(
            asked <= cores,
            f"the nodes say they have {asked:g} CPUs, this machine has {cores}",
            "" if asked <= cores else "Workers will share cores; give the nodes fewer.",
        )
        free = shutil.disk_usage("/tmp").free / 1e9
        yield Finding(free > 2, f"/tmp has {free:.0f} GB free", "" if free > 2 else "Ray needs 2 GB or more.")
        state = self._paths.read_state()
        if not state:
            yield Finding(True, "the cluster is not up", f"dlsys cluster up {self._paths.name}")
            return
        keeper = self._keeper() is not None
        yield Finding(
            keeper,
            f"its keeper {'lives' if keeper else 'is gone'}",
            "" if keeper else "dlsys cluster up again",
        )
        if error := state.get("error"):
            yield Finding(False, error, f"See the logs in {self._paths.logs}")
        for node in state.get("nodes", ()):
            lives = bool(node["raylet"]) and psutil.pid_exists(node["raylet"])
            what = f"node {node['name']}: its raylet {'lives' if lives else 'is gone'}"
            yield Finding(lives, what, "" if lives else "The keeper starts it again; look at its log")

    def _write(self) -> None:
        """Writes what the cluster is to be, if that is new; the keeper takes it up.

        Raises:
            UsageError: something changed that cannot change while it runs.
        """
        text = self.render()["cluster.yaml"]
        if self._paths.source.exists() and self._keeper():
            before = load_cluster(self._paths.source).cluster
            fixed = ("provider", "storage", "head_state")
            changed = [key for key in fixed if getattr(before, key) != getattr(self._cluster, key)]
            if before.nodes[0] != self._cluster.nodes[0]:
                changed.append("nodes.0")
            if changed:
                raise UsageError(
                    f"{self._paths.name} is up: {', '.join(changed)} cannot change while it is",
                    hint=f"dlsys cluster down {self._paths.name}, then up again.",
                )
            if before == self._cluster:
                return
        beside = self._paths.source.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._paths.source)

    def _keeper(self) -> psutil.Process | None:
        state = self._paths.read_state()
        if state and processes.alive(int(state["pid"]), state["created"]):
            return psutil.Process(int(state["pid"]))
        return None

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        env = environment(self._paths.root, self._paths.token)
        with open(self._paths.logs / "keeper.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "dlsys.cluster.keeper", str(self._paths.root)],
                env=env,
                cwd=self._paths.root,  # a job without a working folder of its own starts there
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await_ready(self, keeper: subprocess.Popen[bytes] | None, say: Callable[[str], None]) -> None:
        deadline = time.monotonic() + _UP_WITHIN
        told: set[str] = set()
        asked = self._paths.source.stat().st_mtime
        while True:
            state = self._paths.read_state()
            # What a dead keeper said is of the past.
            current = state if self._keeper() and state.get("asked") == asked else {}
            for node in current.get("nodes", ()):
                if node["raylet"] and node["name"] not in told:
                    told.add(node["name"])
                    say(f"node {node['name']} is up")
            if error := current.get("error"):
                raise RunError(
                    f"{self._paths.name}: {error}", hint="dlsys cluster down ends what is left of it."
                )
            desk = read_json(self._paths.root / "desk.json") or {}
            if (
                len(told) == sum(group.count for group in self._cluster.nodes)
                and desk
                and processes.alive(int(desk["pid"]), desk["created"])
            ):
                return
            if keeper is not None and keeper.poll() is not None:
                said = (self._paths.logs / "keeper.log").read_text().strip().splitlines()
                raise RunError(
                    f"{self._paths.name}: its keeper ended: {said[-1] if said else keeper.returncode}"
                )
            if time.monotonic() > deadline:
                raise RunError(
                    f"{self._paths.name} is not ready after {_UP_WITHIN:g} s",
                    hint=f"Logs: {self._paths.logs}",
                )
            time.sleep(_LOOK)
