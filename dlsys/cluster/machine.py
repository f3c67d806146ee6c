"""This machine's part of a cluster: its keeper found, started, waited for and ended."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from dlsys import processes
from dlsys.cluster.places import ClusterPaths
from dlsys.cluster.ray_node import CLUSTER_MARK, environment
from dlsys.errors import RunError
from dlsys.paths import read_json

_UP_WITHIN = 180.0
_DOWN_WITHIN = 30.0
_LOOK = 0.1


def keeper_of(paths: ClusterPaths) -> psutil.Process | None:
    """The keeper that runs here."""
    state = paths.read_state()
    if state and processes.alive(int(state["pid"]), state["created"]):
        return psutil.Process(int(state["pid"]))
    return None


def bring_up(paths: ClusterPaths, nodes: int, say: Callable[[str], None], *, desk: bool) -> None:
    """Starts the keeper, or finds it; returns when all that it keeps here runs.

    Args:
        nodes: how many Ray nodes there are to be here.
        desk: whether the queue of jobs is to be here.

    Raises:
        RunError: something did not start, in its own words.
    """
    keeper = None if keeper_of(paths) else _start(paths)
    deadline = time.monotonic() + _UP_WITHIN
    told: set[str] = set()
    asked = paths.source.stat().st_mtime
    while True:
        state = paths.read_state()
        # What a dead keeper said is of the past.
        current = state if keeper_of(paths) and state.get("asked") == asked else {}
        for node in current.get("nodes", ()):
            if node["raylet"] and node["name"] not in told:
                told.add(node["name"])
                say(f"node {node['name']} is up")
        if error := current.get("error"):
            raise RunError(f"{paths.name}: {error}", hint="dlsys cluster down ends what is left of it.")
        if len(told) == nodes and (not desk or _desk_runs(paths)):
            return
        if keeper is not None and keeper.poll() is not None:
            said = paths.keeper_log.read_text().strip().splitlines()
            raise RunError(f"{paths.name}: its keeper ended: {said[-1] if said else keeper.returncode}")
        if time.monotonic() > deadline:
            raise RunError(f"{paths.name} is not ready after {_UP_WITHIN:g} s", hint=f"Logs: {paths.logs}")
        time.sleep(_LOOK)


def take_down(paths: ClusterPaths) -> None:
    """Ends the keeper and all that it started here; may be called again.

    Raises:
        RunError: processes do not end.
    """
    state = paths.read_state()
    if keeper := keeper_of(paths):
        keeper.send_signal(signal.SIGTERM)
        with suppress(psutil.Error):
            keeper.wait(timeout=_DOWN_WITHIN)
    deadline = time.monotonic() + _DOWN_WITHIN
    while family := processes.marked(CLUSTER_MARK, paths.mark):
        if time.monotonic() > deadline:
            left = ", ".join(str(process.pid) for process in family)
            raise RunError(f"{paths.name}: these processes do not end: {left}")
        processes.kill(family)
        time.sleep(_LOOK)
    if temp := state.get("temp"):
        shutil.rmtree(temp, ignore_errors=True)
    paths.state.unlink(missing_ok=True)


def _start(paths: ClusterPaths) -> subprocess.Popen[bytes]:
    with open(paths.keeper_log, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "dlsys.cluster.keeper", str(paths.root), "--host", paths.host],
            env=environment(paths.mark, paths.token),
            cwd=paths.root,  # a job without a working folder of its own starts there
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _desk_runs(paths: ClusterPaths) -> bool:
    desk = read_json(paths.desk) or {}
    return bool(desk) and processes.alive(int(desk["pid"]), desk["created"])
