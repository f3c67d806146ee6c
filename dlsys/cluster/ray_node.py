"""One Ray node on this machine, started by `ray start` and found again by the mark on its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from dlsys import processes
from dlsys.errors import RunError

# Every process of a cluster has this in its environment: the cluster's mark.
CLUSTER_MARK = "DLSYS_CLUSTER_FOLDER"
# And every process of a node this: the node and the cluster's mark.
NODE_MARK = "DLSYS_NODE"
# Nothing large travels through Ray: batches are made where they are used.
_OBJECT_STORE_BYTES = 100_000_000
_START_WITHIN = 60.0
# Who is stopped (SIGSTOP, a debugger) for so long is as good as dead.
_STOPPED = 20.0
_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise a warning about a future default reaches every job's log.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default 15: whatever else runs here would go first, and all workers wait for the slowest.
    "RAY_worker_niceness": "0",
    # A job that is stopped gets this long for its last checkpoint; by default 3 s.
    "RAY_JOB_STOP_WAIT_TIME_S": "20",
    # How long nodes and drivers wait for a head's control plane to come back; by default 60 s.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "120",
}


def environment(mark: str, token: Path) -> dict[str, str]:
    """What processes of a cluster start with.

    Args:
        mark: the cluster's, `ClusterPaths.mark`.
        token: the file of its token.
    """
    # `python` in a command is the one that has dlsys, also where `up` was called by its full path.
    search = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
    ours = {CLUSTER_MARK: mark, "RAY_AUTH_TOKEN_PATH": str(token), "PATH": search, **_SETTINGS}
    # Of the shell that calls `up`, nothing that names another cluster.
    theirs = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    return theirs | ours


@dataclass
class RayNode:
    """A node: its raylet and all that belongs to it.

    Attributes:
        name: `worker-0`, the group and the number in it.
        group: of the cluster file.
        options: of `ray start`.
        temp: the folder of its sessions; short, as sockets' paths are limited to 107 bytes.
        env: the environment.
        is_head: whether Ray's control plane is in it.
        host: the address that Ray gave it, once it runs.
        session: Ray's name of what its head began when it started; all nodes that joined it have the same.
    """

    name: str
    group: str
    options: list[str]
    temp: Path
    env: dict[str, str]
    is_head: bool = False
    host: str = ""
    _stopped: dict[str, float] = field(default_factory=dict)
    session: str = ""
    _watched: dict[str, psutil.Process] = field(default_factory=dict)
    _control: tuple[list[str], dict[str, str]] | None = None

    def start(self, log: Path, *more: str) -> None:
        """Starts the node, or finds it running.

        Args:
            log: gets what `ray start` says.
            more: options that are known only now.

        Raises:
            RunError: Ray did not start, with its last words.
        """
        if self.find():
            return
        self.kill()
        command = [
            *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start"),
            *(f"--temp-dir={self.temp}", f"--labels=dlsys/group={self.group},dlsys/node={self.name}"),
            *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
            f"--object-store-memory={_OBJECT_STORE_BYTES}",
            *("--include-log-monitor=false", "--disable-usage-stats", "--log-style=record"),
            *self.options,
            *more,
        ]
        with open(log, "ab") as file:
            begins = file.tell()
            try:
                code = subprocess.run(
                    command,
                    env={**self.env, NODE_MARK: self._mark},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    timeout=_START_WITHIN,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = -1
        if code or not self.find():
            self.kill()
            said = log.read_bytes()[begins:].decode(errors="replace").strip().splitlines()
            why = said[-1] if said else f"`ray start` ended with {code}"
            raise RunError(f"node {self.name}: Ray did not start: {why}", hint=f"All of it: {log}")

    def find(self) -> bool:
        """Looks for the node's processes; whether it runs."""
        self._watched, self.session = {}, ""
        for process in self._family():
            with suppress(psutil.Error):
                command = process.cmdline()
                program = os.path.basename(command[0]) if command else ""
                if program in ("raylet", "gcs_server"):
                    self._watched[program] = process
                if program == "gcs_server":
                    self._control = (command, process.environ())
                if program == "raylet":
                    said = dict(word.split("=", 1) for word in command if "=" in word)
                    self.host, self.session = said["--node_ip_address"], said["--session-name"]
        return self.runs()

    def runs(self) -> bool:
        """Whether the raylet and, on the head, the control plane live."""
        return self._lives("raylet") and (not self.is_head or self._lives("gcs_server"))

    @property
    def raylet(self) -> int | None:
        """The raylet's process id."""
        return self._watched["raylet"].pid if self._lives("raylet") else None

    def revive_control(self, log: Path) -> bool:
        """Starts a control plane that died again, as it was; it reads its state from disk.

        Returns:
            Whether there was one to revive: the raylet beside it lives.
        """
        if self._control is None or not self._lives("raylet"):
            return False
        if not self._lives("gcs_server"):
            command, env = self._control
            if "gcs_server" in self._watched:
                processes.kill([self._watched["gcs_server"]])  # stopped, it would keep its port
            with open(log, "ab") as file:
                started = subprocess.Popen(
                    command,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            self._stopped.pop("gcs_server", None)
            self._watched["gcs_server"] = psutil.Process(started.pid)
        return True

    def kill(self) -> None:
        """Ends every process of the node."""
        deadline = time.monotonic() + 10
        while (family := self._family()) and time.monotonic() < deadline:
            processes.kill(family)
            time.sleep(0.05)
        self._watched, self.session = {}, ""
        self._stopped = {}

    def _lives(self, program: str) -> bool:
        process = self._watched.get(program)
        with suppress(psutil.Error):
            if process is None or not process.is_running():
                return False
            status, now = process.status(), time.monotonic()
            if status != psutil.STATUS_STOPPED:
                self._stopped.pop(program, None)
                return status != psutil.STATUS_ZOMBIE
            return now - self._stopped.setdefault(program, now) < _STOPPED
        return False

    def _family(self) -> list[psutil.Process]:
        found = processes.marked(NODE_MARK, self._mark)
        return [process for process in found if process.pid != os.getpid()]

    @property
    def _mark(self) -> str:
        return f"{self.name} {self.env[CLUSTER_MARK]}"
