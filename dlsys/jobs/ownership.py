"""One owner for a run.

A driver holds a lock for as long as it lives, and a number, the fence, that grows with every
driver. Workers of an older driver find a higher number before they write anything that lasts, and
end. A new driver also kills what a killed one left behind.
"""

from __future__ import annotations

import fcntl
import socket
import time
from types import TracebackType
from typing import IO

import psutil

from dlsys.errors import FencedError, UsageError
from dlsys.paths import RunPaths, read_json, write_json
from dlsys.processes import alive, end_processes


class Ownership:
    """A context in which this process is the run's only driver.

    Raises:
        UsageError: another driver is alive.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self.fence = 0
        self._processes: list[list[float]] = []
        self._lock: IO[str] | None = None

    def __enter__(self) -> Ownership:
        self._lock = open(self._paths.lock, "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            owner = read_json(self._paths.owner) or {}
            raise UsageError(
                f"{self._paths.id} is being run by process {owner.get('pid', '?')}",
                hint="Wait for it, or end it with Ctrl-C; then run again with --resume.",
            ) from None
        before = read_json(self._paths.owner) or {}
        self.fence = int(before.get("fence", 0)) + 1
        # The fence first: from here on, nothing of the old driver may write.
        self._write()
        end_processes(before.get("processes", []))
        _wait_for_writer(before)
        self._paths.outcome.unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()

    def record(self, processes: list[psutil.Process]) -> None:
        """Remembers processes that must not outlive this driver."""
        for process in processes:
            try:
                self._processes.append([process.pid, process.create_time()])
            except psutil.Error:
                continue
        self._write()

    def record_writer(self, pid: int) -> None:
        """Remembers the writer: a next driver waits for its last words."""
        self._writer = [pid, psutil.Process(pid).create_time()]
        self._write()

    _writer: list[float] | None = None

    def _write(self) -> None:
        me = psutil.Process()
        write_json(
            self._paths.owner,
            {
                "fence": self.fence,
                "pid": me.pid,
                "created": me.create_time(),
                "host": socket.gethostname(),
                "processes": self._processes,
                "writer": self._writer,
            },
        )


def _wait_for_writer(before: dict[str, object], seconds: float = 20.0) -> None:
    """Two writers must not deliver one spool: the old one ends by itself, or is ended."""
    writer = before.get("writer")
    if not isinstance(writer, list):
        return
    deadline = time.monotonic() + seconds
    while alive(int(writer[0]), writer[1]):
        if time.monotonic() > deadline:
            end_processes([writer])
            return
        time.sleep(0.05)


def check_fence(paths: RunPaths, fence: int) -> None:
    """Raises FencedError when a newer driver has taken the run over."""
    now = int((read_json(paths.owner) or {}).get("fence", 0))
    if now > fence:
        raise FencedError(f"{paths.id} belongs to a newer driver (fence {now}, this one has {fence})")


def driver_alive(paths: RunPaths, fence: int) -> bool:
    """Whether the driver of this fence still lives; true on other machines than its own."""
    owner = read_json(paths.owner) or {}
    if owner.get("host") != socket.gethostname() or "pid" not in owner:
        return True
    if int(owner["fence"]) > fence:
        return False
    if int(owner["fence"]) < fence:
        return True  # a copy from before, where the run is in an object store
    return alive(int(owner["pid"]), owner["created"])
