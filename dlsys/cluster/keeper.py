"""The process that keeps a machine's part of a cluster as its file says, until `dlsys cluster down`.

    python -m dlsys.cluster.keeper CLUSTER_FOLDER [--host NAME]

A local cluster has one for all its nodes. Of a cluster of several hosts, which share the folder, each
has one for its own node: the head's also keeps the queue of jobs, and the others' read in the folder
where the head is, and whether it is still the one that they joined.

It starts the nodes and the queue of jobs, starts again what dies, and takes up a changed file. A
control plane that was killed comes back with its state from disk, so that nodes, actors and jobs go
on; without a state on disk, or when the head's raylet died, the whole cluster starts anew, and the
queue takes its jobs up from their last checkpoints. A killed keeper harms nothing: the next `up`
starts one that finds what runs. A folder that is removed is the cluster's end.
"""

from __future__ import annotations

import argparse
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from dlsys import processes
from dlsys.cluster.places import ClusterPaths
from dlsys.cluster.ray_node import CLUSTER_MARK, RayNode, environment
from dlsys.errors import DlsysError
from dlsys.paths import read_json
from dlsys.spec.cluster.providers import Cluster, Host, Local, LocalNode, Ssh, node_name
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
        paths: the cluster's files, this machine's part of them.
    """

    def __init__(self, paths: ClusterPaths) -> None:
        self._paths = paths
        self._state: dict[str, Any] = paths.read_state()
        self._asked: float = 0.0
        self._env = environment(paths.mark, paths.token)
        self._nodes: list[RayNode] = []
        self._desk: subprocess.Popen[bytes] | None = None
        self._starts: dict[str, list[float]] = {}
        self._asked_desk = 0.0
        self._given_up: set[str] = set()
        self.ending = False

    def run(self) -> None:
        """Keeps the cluster until it is asked to end."""
        self._ports()
        while not self.ending:
            try:
                self._keep()
            except DlsysError as error:
                self._tell(error=f"{error}\n{error.hint}".strip())
            except FileNotFoundError:
                self.ending = not self._paths.source.exists()
            except OSError as error:
                # A shared folder may be away for a while.
                sys.stderr.write(f"{error.filename}: {error.strerror}\n")
            time.sleep(_LOOK)
        self.end()

    def end(self) -> None:
        """Ends all processes of the cluster and removes what they left."""
        own = psutil.Process()
        for _ in range(100):
            family = [p for p in processes.marked(CLUSTER_MARK, self._paths.mark) if p != own]
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
        for node in self._nodes:
            if node.is_head:
                self._keep_head(node)
            else:
                self._keep_worker(node)
        if self._head is not None:
            self._keep_desk()
        if self._state.get("error") and all(node.runs() for node in self._nodes):
            self._tell(error="")

    def _keep_head(self, head: RayNode) -> None:
        if head.runs() or (self._revivable and head.revive_control(self._log(head.name))):
            return
        if self._pausing(head.name):
            return
        for node in self._nodes:
            node.kill()
        self._tell()
        # What is on disk tells of nodes, actors and jobs that are no more.
        shutil.rmtree(self._control, ignore_errors=True)
        self._control.mkdir(mode=0o700, parents=True)
        head.start(self._log(head.name))
        self._tell()

    def _keep_worker(self, node: RayNode) -> None:
        """Starts a node that died, or whose head is another now."""
        told = self._state if self._head else replace(self._paths, host=self._head_host).read_state()
        session = told.get("session")
        # Its processes may be there when Ray has given it up: hung, or cut off too long.
        given_up = node.name in self._lost() and time.monotonic() - self._begun(node) > _NEW
        if not session or (node.runs() and node.session == session and not given_up):
            return
        if self._pausing(node.name):
            return
        node.kill()
        node.start(self._log(node.name), f"--address={told['address']}")
        self._tell()

    def _lost(self) -> set[str]:
        """The nodes that Ray has given up, as the queue of jobs sees it."""
        if time.monotonic() < self._asked_desk + _ASK_DESK:
            return self._given_up
        self._asked_desk, self._given_up = time.monotonic(), set()
        request = urllib.request.Request(
            f"{self._state['desk']}/nodes", headers={"Authorization": f"Bearer {self._paths.read_token()}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                nodes = json.load(answer)
        except (OSError, ValueError):
            return self._given_up  # only the head's host has a queue
        self._given_up = {node["name"] for node in nodes} - {node["name"] for node in nodes if node["alive"]}
        return self._given_up

    def _reread(self) -> None:
        """Takes up the cluster's file when it has changed."""
        written = self._paths.source.stat().st_mtime
        if written == self._asked:
            return
        cluster = load_cluster(self._paths.source).cluster
        self._revivable = not isinstance(cluster, Local) or cluster.head_state == "disk"
        if self._revivable:
            self._env |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self._control)}
        self._storage = cluster.storage or str(self._paths.home)
        self._stored = "://" in self._storage
        before = {node.name: node for node in self._nodes}
        self._nodes = [before.pop(node.name, node) for node in self._wanted(cluster)]
        for gone in before.values():
            gone.kill()
        for node in self._nodes:
            node.find()
        self._asked = written
        self._tell()

    def _wanted(self, cluster: Cluster) -> list[RayNode]:
        """The nodes that are to be on this machine; of them, only the first can be the head."""
        if isinstance(cluster, Ssh):
            self._head_host = node_name(cluster.nodes[0].hosts[0])
            self._state["ports"]["gcs"] = cluster.port
            return [
                self._node(name, group, is_head=name == self._head_host)
                for group in cluster.nodes
                for name in map(node_name, group.hosts)
                if name == self._paths.host
            ]
        assert isinstance(cluster, Local)
        names = [(f"{group.name}-{index}", group) for group in cluster.nodes for index in range(group.count)]
        return [self._node(name, group, is_head=not place) for place, (name, group) in enumerate(names)]

    def _node(self, name: str, group: LocalNode | Host, *, is_head: bool) -> RayNode:
        ports = self._state["ports"]
        given = {"--num-cpus": group.cpus, "--num-gpus": group.gpus}
        options = [f"{option}={value:g}" for option, value in given.items() if value is not None]
        if is_head:
            if isinstance(group, Host) and (address := own_address(group.hosts[0])):
                options.append(f"--node-ip-address={address}")
            options += [
                *("--head", f"--port={ports['gcs']}", "--dashboard-host=127.0.0.1"),
                *(f"--dashboard-port={ports['dashboard']}", f"--ray-client-server-port={ports['client']}"),
            ]
        env = dict(self._env)
        if self._stored and not is_head:
            # As on machines of their own: what nodes exchange goes through the store.
            env["DLSYS_NODE_HOME"] = str(self._paths.root / "nodes" / name)
        return RayNode(name, group.name, options, Path(self._state["temp"], name), env, is_head)

    def _keep_desk(self) -> None:
        """Starts the queue of jobs, or finds it running."""
        known = read_json(self._paths.desk) or {}
        if known and processes.alive(int(known["pid"]), known["created"]):
            return
        if self._desk is not None and self._desk.poll() is None:
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
                env=self._env | {"DLSYS_HOME": str(self._paths.home)},
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
    def _head(self) -> RayNode | None:
        """The head, if it is on this machine."""
        return self._nodes[0] if self._nodes and self._nodes[0].is_head else None

    @property
    def _control(self) -> Path:
        """Where the control plane keeps its state."""
        return Path(self._state["temp"], "control")

    def _log(self, name: str) -> Path:
        return self._paths.logs / f"{name}.log"

    def _tell(self, **changes: Any) -> None:
        me = psutil.Process()
        ports, head = self._state["ports"], self._head
        self._state |= {
            "provider": "ssh" if self._paths.host else "local",
            "pid": me.pid,
            "created": me.create_time(),
            "address": f"{head.host}:{ports['gcs']}" if head else "",
            "session": head.session if head else "",
            "dashboard": f"http://127.0.0.1:{ports['dashboard']}",
            "desk": f"http://127.0.0.1:{ports['desk']}",
            "asked": self._asked,
            "nodes": [{"name": n.name, "group": n.group, "raylet": n.raylet} for n in self._nodes],
            **changes,
        }
        self._paths.write_state(self._state)


def own_address(host: str) -> str:
    """The address of this machine that a host's name means here; empty if it means none, or only loopback.

    On a machine in several networks, that is the one which the cluster's file speaks of.
    """
    own = {found.address for each in psutil.net_if_addrs().values() for found in each}
    try:
        meant = socket.getaddrinfo(host.rpartition("@")[2], None, socket.AF_INET)
    except OSError:
        return ""
    found = (str(address[0]) for *_, address in meant)
    return next((a for a in found if a in own and not a.startswith("127.")), "")


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="", help="by what name this machine's part goes")
    arguments = parser.parse_args()
    paths = ClusterPaths(arguments.folder, arguments.host)
    os.umask(0o077)
    lock = open(paths.keeper_lock, "w")  # noqa: SIM115 - held until the process ends
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    keeper = Keeper(paths)

    def end(*_: object) -> None:
        keeper.ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper.run()


if __name__ == "__main__":
    main()
