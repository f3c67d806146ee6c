"""Mirrors one run on one node, until none of its processes is left here and all is in the store.

    python -m dlsys.jobs.mirror RUN_FOLDER STORE

Checkpoints have a thread of their own: a long upload must not hold up what tells workers to stop. While
the store is away it is tried again with growing pauses.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dlsys.jobs.mirror.journal import folder_of
from dlsys.jobs.mirror.node import is_driven, users
from dlsys.paths import RunPaths, write_json

_LOOK = 1.0
_PAUSE_MOST = 15.0
# A store that is away for so long when the run has ended is left to `dlsys runs sync`.
_GIVE_UP = 3600.0


class _Loop(threading.Thread):
    """Does one thing again and again.

    Args:
        call: told whether the run has ended here.

    Attributes:
        done: whether it was done after the run had ended, or the store has been away for too long since.
    """

    def __init__(self, paths: RunPaths, name: str, call: Callable[[bool], None]) -> None:
        super().__init__(daemon=True)
        self._paths, self._what, self._call = paths, name, call
        self._trouble = folder_of(paths) / f"trouble-{name}.json"
        self.done = False

    def run(self) -> None:
        pause, since = _LOOK, time.monotonic()
        while self._paths.spool.is_dir():
            ended = not users(self._paths)
            began = time.monotonic()
            try:
                self._call(ended)
                self._trouble.unlink(missing_ok=True)
                since = time.monotonic()
                # A long list is asked for less often.
                pause, self.done = max(_LOOK, 10 * (since - began)), ended
            except OSError as error:
                pause = min(2 * pause, _PAUSE_MOST)
                self.done = ended and time.monotonic() - since > _GIVE_UP
                self._tell(str(error))
            time.sleep(_LOOK if ended else pause)
        self.done = True

    def _tell(self, text: str) -> None:
        sys.stderr.write(f"{self._what}: {text}\n")
        if self._paths.spool.is_dir():
            write_json(self._trouble, {"since": time.time(), "text": text})


def run(paths: RunPaths, store: str) -> None:
    """Mirrors until there is nothing left to do."""
    from dlsys.jobs.mirror.checkpoints import Checkpoints
    from dlsys.jobs.mirror.files import Files
    from dlsys.jobs.mirror.objects import Objects

    objects = Objects(store)
    files = Files(paths, objects)
    checkpoints = Checkpoints(paths, objects, files)

    def exchange(ended: bool) -> None:
        files.pull(deep=is_driven(paths))
        files.push(all=ended)

    loops = [_Loop(paths, "files", exchange), _Loop(paths, "checkpoints", lambda ended: checkpoints.push())]
    for loop in loops:
        loop.start()
    while not all(loop.done for loop in loops) or users(paths):
        time.sleep(_LOOK / 2)


def main() -> None:
    root, store = sys.argv[1:]
    # Ray ends what a worker has started, and its group, with the worker.
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    paths = RunPaths(Path(root))
    lock = open(folder_of(paths) / "running.lock", "w")  # noqa: SIM115 - held until the process ends
    while users(paths):  # also one that came when all seemed to be over, and found the lock taken
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        run(paths, store)
        fcntl.flock(lock, fcntl.LOCK_UN)


if __name__ == "__main__":
    main()
