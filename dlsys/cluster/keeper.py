"""The process that keeps a local cluster as its file says, until `dlsys cluster down`.

    python -m dlsys.cluster.keeper CLUSTER_FOLDER

It starts the nodes and the queue of jobs, starts again what dies, and takes up a changed file. A
control plane that was killed comes back with its state from disk, so that nodes, actors and jobs go
on; without a state on disk, or when the head's raylet died, the whole cluster starts anew, and the
queue takes its jobs up from their last checkpoints. A killed keeper harms nothing: the next `up`
starts one that finds what runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from dlsys import processes
from dlsys.cluster.places import ClusterPaths
from dlsys.cluster.ray_node import CLUSTER_MARK, RayNode, environment
from dlsys.errors import DlsysError
from dlsys.paths import read_json
from dlsys.spec.cluster import Local, LocalNode
from dlsys.spec.load import load_cluster

_LOOK = 0.5
# What dies again and again is started again with growing pauses, in seconds.
_PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
_CALM = 120.0
_ASK_DESK = 3.0
# A node is not looked for among Ray's before this time after its start.
_NEW = 20.0


class Keeper:
    """Holds one cluster to its file.

    Args:
        paths: the cluster's files on this machine.
    """

    def __init__(self, paths: ClusterPaths) -> None:
        self._paths = paths
        self._state: dict[str, Any] = paths.read_state()
        self._asked: float = 0.0
        self._env = environment(paths.root, paths.token)
        self._nodes: list[RayNode] = []
        self._desk: subprocess.Popen[bytes] | psutil.Process | None = None
        self._starts: dict[str, list[float]] = {}
        self._asked_desk = 0.0
        self.ending = False

    def run(self) -> None:
        """Keeps the cluster until it is asked to end."""
        self._ports()
        while not self.ending:
            try:
                self._keep()
            except DlsysError as error:
                self._tell(error=f"{error}\n{error.hint}".strip())
            time.sleep(_LOOK)
        self.end()

    def end(self) -> None:
        """Ends all processes of the cluster and removes what they left."""
        own = psutil.Process()
        for _ in range(100):
            family = [p for p in processes.marked(CLUSTER_MARK, str(self._paths.root)) if p != own]
            if not family:
                break
            processes.kill(family)
            time.sleep(0.05)
        shutil.rmtree(self._state["temp"], ignore_errors=True)

    def _ports(self) -> None:
        """Decides, once, what must stay the same when something is started again."""
        if "temp" not in self._state:
            gcs, dashboard, client, desk = _free_ports(4)
            # Below the system's own folder: sockets' paths are limited to 107 bytes.
            self._state["temp"] = tempfile.mkdtemp(prefix="dlsys-", dir="/tmp")
            self._state["ports"] = {"gcs": gcs, "dashboard": dashboard, "client": client, "desk": desk}
        self._tell()

    def _keep(self) -> None:
        self._reread()
        if not self._nodes:
            return
        head = self._nodes[0]
        if not head.runs() and not (self._revivable and head.revive_control(self._log(head.name))):
            for node in self._nodes:
                node.kill()
            # What is on disk tells of nodes, actors and jobs that are no more.
            shutil.rmtree(self._control, ignore_errors=True)
            self._control.mkdir(mode=0o700, parents=True)
            self._start(head)
        lost = self._lost()
        for node in self._nodes[1:]:
            if node.name in lost and time.monotonic() - self._begun(node) > _NEW:
                node.kill()  # its processes are there, but Ray has given it up: hung, or cut off too long
            if not node.runs():
                self._start(node)
        self._keep_desk()
        if self._state.get("error") or not self._state.get("ready"):
            self._tell(ready=True, error="")

    def _lost(self) -> set[str]:
        """The nodes that Ray has given up, as the queue of jobs sees it."""
        if time.monotonic() < self._asked_desk + _ASK_DESK:
            return set()
        self._asked_desk = time.monotonic()
        request = urllib.request.Request(
            f"{self._state['desk']}/nodes", headers={"Authorization": f"Bearer {self._paths.read_token()}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                nodes = json.load(answer)
        except (OSError, ValueError):
            return set()
        return {node["name"] for node in nodes} - {node["name"] for node in nodes if node["alive"]}

    def _reread(self) -> None:
        """Takes up the cluster's file when it has changed."""
        written = self._paths.source.stat().st_mtime
        if written == self._asked:
            return
        cluster = load_cluster(self._paths.source).cluster
        assert isinstance(cluster, Local)
        self._revivable = cluster.head_state == "disk"
        if self._revivable:
            self._env |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self._control)}
        self._storage = cluster.storage or str(self._paths.home)
        before = {node.name: node for node in self._nodes}
        wanted = [(f"{group.name}-{index}", group) for group in cluster.nodes for index in range(group.count)]
        self._nodes = [
            before.get(name) or self._node(name, group, is_head=place == 0)
            for place, (name, group) in enumerate(wanted)
        ]
        for gone in before.keys() - {name for name, _ in wanted}:
            before[gone].kill()
        for node in self._nodes:
            node.find()
        self._asked = written
        self._tell()

    def _node(self, name: str, group: LocalNode, *, is_head: bool) -> RayNode:
        ports = self._state["ports"]
        options = [f"--num-cpus={group.cpus:g}", f"--num-gpus={group.gpus:g}"]
        if is_head:
            options += [
                *("--head", f"--port={ports['gcs']}", "--dashboard-host=127.0.0.1"),
                *(f"--dashboard-port={ports['dashboard']}", f"--ray-client-server-port={ports['client']}"),
            ]
        return RayNode(name, group.name, options, Path(self._state["temp"], name), dict(self._env), is_head)

    def _start(self, node: RayNode) -> None:
        if self._pausing(node.name):
            return
        more = () if node.is_head else (f"--address={self._nodes[0].host}:{self._state['ports']['gcs']}",)
        node.start(self._log(node.name), *more)
        self._tell()

    def _keep_desk(self) -> None:
        """Starts the queue of jobs, or finds it running."""
        known = read_json(self._paths.root / "desk.json") or {}
        if known and processes.alive(int(known["pid"]), known["created"]):
            return
        if self._desk is not None and isinstance(self._desk, subprocess.Popen) and self._desk.poll() is None:
            return
        if self._pausing("desk"):
            return
        ports = self._state["ports"]
        with open(self._log("desk"), "ab") as log:
            self._desk = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "dlsys.jobs.desk", str(self._paths.root)),
                    *("--port", str(ports["desk"]), "--storage", self._storage),
                    *("--dashboard", f"http://127.0.0.1:{ports['dashboard']}"),
                ],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _begun(self, node: RayNode) -> float:
        """When this keeper last started the node; long ago for one that it found running."""
        return self._starts.get(node.name, [float("-inf")])[-1]

    def _pausing(self, name: str) -> bool:
        """Whether something that died often must wait a little longer."""
        now = time.monotonic()
        starts = self._starts.setdefault(name, [])
        starts[:] = [at for at in starts if now - at < _CALM]
        if starts and now - starts[-1] < _PAUSES[min(len(starts), len(_PAUSES) - 1)]:
            return True
        starts.append(now)
        return False

    @property
    def _control(self) -> Path:
        """Where the control plane keeps its state."""
        return Path(self._state["temp"], "control")

    def _log(self, name: str) -> Path:
        return self._paths.logs / f"{name}.log"

    def _tell(self, **changes: Any) -> None:
        me = psutil.Process()
        ports = self._state["ports"]
        self._state |= {
            "provider": "local",
            "pid": me.pid,
            "created": me.create_time(),
            "address": f"{self._nodes[0].host}:{ports['gcs']}" if self._nodes else "",
            "dashboard": f"http://127.0.0.1:{ports['dashboard']}",
            "desk": f"http://127.0.0.1:{ports['desk']}",
            "asked": self._asked,
            "nodes": [{"name": n.name, "group": n.group, "raylet": n.raylet} for n in self._nodes],
            **changes,
        }
        self._paths.write_state(self._state)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    paths = ClusterPaths(Path(sys.argv[1]))
    os.umask(0o077)
    lock = open(paths.root / "keeper.lock", "w")  # noqa: SIM115 - held until the process ends
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    keeper = Keeper(paths)

    def end(*_: object) -> None:
        keeper.ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper.run()


if __name__ == "__main__":
    main()
