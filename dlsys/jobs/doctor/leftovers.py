"""What runs have left behind: figures on their way, files that can be made again, Rays without an owner."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress

import psutil

from dlsys import paths as places
from dlsys.cluster.provider import Finding
from dlsys.errors import DlsysError
from dlsys.jobs.launch.auth import asks_for_token
from dlsys.jobs.standing import fate
from dlsys.paths import RunPaths, read_json
from dlsys.processes import alive
from dlsys.track.writer import delivered

_MOST_NAMED = 3
_CACHE = 20.0  # GB


def runs() -> Iterator[Finding]:
    """Runs that are not what MLflow says of them."""
    every = RunPaths.all()
    lost = [run.id for run in every if fate(run)[0] == "LOST"]
    behind = [run.id for run in every if run.outcome.exists() and not delivered(run) and not _writes(run)]
    if lost:
        what = f"{_named(lost)}: RUNNING in MLflow, and nobody drives it any more"
        yield Finding(False, what, "dlsys runs sync", serious=False)
    if behind:
        yield Finding(
            False, f"{_named(behind)}: MLflow does not have all of it", "dlsys runs sync", serious=False
        )
    if not lost and not behind:
        yield Finding(True, f"MLflow has all of the {len(every)} runs in {places.home()} that have ended")


def _writes(run: RunPaths) -> bool:
    if writer := (read_json(run.owner) or {}).get("writer"):
        return alive(int(writer[0]), writer[1])
    return False


def _named(ids: list[str]) -> str:
    more = len(ids) - _MOST_NAMED
    return ", ".join(ids[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def cache() -> Iterator[Finding]:
    """What is kept to be quicker the next time."""
    folder, size = places.cache(), 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.lstat().st_size
    good = size / 1e9 < _CACHE
    mend = "" if good else f"It can be made again: rm -r {folder}"
    yield Finding(
        good, f"{folder}, tables and facts that can be made again, has {size / 1e9:.1f} GB", mend, False
    )


def ray() -> Iterator[Finding]:
    """The Ray that RAY_ADDRESS names, and the nodes of Rays that are no more."""
    if address := os.environ.get("RAY_ADDRESS"):
        yield _named_cluster(address)
    stale = [process for process, head in _nodes() if not _answers(head)]
    for process in stale:
        what = f"process {process.pid} is a node of a Ray whose head is gone"
        yield Finding(False, what, f"kill {process.pid}", serious=False)
    if not stale:
        yield Finding(True, "no Ray is left here without its head")


def _named_cluster(address: str) -> Finding:
    said, mend = f"RAY_ADDRESS is {address}", "unset RAY_ADDRESS, or start that cluster."
    if not re.fullmatch(r"[^/]+:\d+", address):
        return Finding(True, f"{said}, which nobody asked")
    try:
        asks_for_token(address)
    except DlsysError:
        return Finding(False, f"{said}, and no cluster answers there", mend)
    return Finding(True, f"{said}, and answers")


def _nodes() -> Iterator[tuple[psutil.Process, str]]:
    """This user's raylets, and the address of the head of each."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.name() == "raylet" and process.uids().real == os.getuid():
                told = [word for word in process.cmdline() if word.startswith("--gcs-address=")]
                if told:
                    yield process, told[0].partition("=")[2]


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError):
        return False
    return True
