"""A process's part in mirroring a run: it says what must be here before it works, and there before it ends.

All between is done by one process of its own for each run and node (`python -m dlsys.jobs.mirror`): a
worker that is killed loses nothing of what it wrote.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psutil

from dlsys.errors import RunError, UsageError
from dlsys.jobs.mirror.journal import FOLDER, StoreError, folder_of
from dlsys.paths import RunPaths, read_json, write_json
from dlsys.processes import alive
from dlsys.track.mask import mask

if TYPE_CHECKING:
    from dlsys.jobs.mirror.checkpoints import Checkpoints
    from dlsys.jobs.mirror.files import Files
    from dlsys.jobs.mirror.objects import Objects

# How long an attempt's beginning and its end wait for a store that is away, in seconds.
_PATIENCE = 60.0
_PAUSE = 1.0


class Mirror:
    """A run's folder on this node and in the store; without a store, every call returns at once.

    Args:
        paths: the run, or the sweep with all its trials.
        store: its address; empty for none.
    """

    def __init__(self, paths: RunPaths, store: str) -> None:
        self._paths = paths
        self.store = store
        self._told = False

    @classmethod
    def of(cls, paths: RunPaths) -> Mirror:
        """As DLSYS_STORE says, or else as the run was mirrored before."""
        return cls(paths, store_of(paths))

    def begin(self) -> None:
        """Called by the run's driver: what is known of the run is here when it returns.

        Raises:
            UsageError: the store cannot be used, or a file that would go there holds a password.
        """
        if not self.store:
            return
        refuse_passwords(self._paths)
        try:
            self._objects.check(f"runs/{self._paths.id}")
            self._settle("driver")
            self._exchange()
        except OSError as error:
            raise UsageError(str(error), hint="Mend it, or unset DLSYS_STORE to keep runs here.") from error
        _start(self._paths, self.store)

    def exchange(self) -> None:
        """Sends and fetches all that is new, but for checkpoints.

        Raises:
            RunError: the store is away for too long.
        """
        if self.store:
            self._patiently(self._exchange)

    def hurry(self) -> None:
        """Sends what is new at once, if the store takes it."""
        if self.store:
            self._within(_PAUSE, lambda: self._files.push(all=True))

    def join(self, run: RunPaths, rank: int, meet: Callable[[], object] = lambda: None) -> None:
        """Called by a worker before it reads or writes anything of the run.

        Args:
            run: the run, or the trial, that it trains.
            rank: its own.
            meet: waits for the other workers: what their nodes have left must be in the store first.

        Raises:
            RunError: the store is away for too long.
        """
        if not self.store:
            return
        self._settle("worker")
        _start(self._paths, self.store)
        run.make()
        self._patiently(self._send)
        meet()
        prefix = "" if run.root == self._paths.root else f"trials/{run.id}/"
        own = [f"{prefix}spool/rank-{rank}.jsonl", f"{prefix}logs/rank-{rank}.log"]

        def fetch() -> None:
            self._files.pull(deep=False)
            self._files.pull(deep=False, only=own)
            if rank == 0:
                self._checkpoints.pull(run)

        self._patiently(fetch)

    def take(self, run: RunPaths) -> None:
        """Fetches the checkpoints of a run, or trial."""
        if self.store:
            run.make()
            self._patiently(lambda: self._checkpoints.pull(run))

    def replaced(self, run: RunPaths) -> None:
        """Makes the store's checkpoints of a run, or trial, those that are here."""
        if self.store:
            self._patiently(lambda: self._checkpoints.replace(run))

    def leave(self) -> None:
        """Called by a worker at its end: what this node wrote is in the store when it returns.

        Raises:
            RunError: the store is away for too long, and the driver is on another node.
        """
        if not self.store:
            return
        unsent = self._try_send(_PATIENCE)
        if unsent and not is_driven(self._paths):
            raise RunError(unsent)

    def end(self, most: float) -> str:
        """Called by the driver at its end; what is not in the store yet, in a sentence, or nothing.

        Args:
            most: how long that may take, in seconds.
        """
        return self._try_send(min(most, _PATIENCE)) if self.store else ""

    def use(self, process: int, role: str) -> None:
        """The mirror goes on as long as this process lives."""
        if self.store:
            users = folder_of(self._paths) / "users"
            users.mkdir(mode=0o700, exist_ok=True)
            created = psutil.Process(process).create_time()
            write_json(users / f"{process}.json", {"pid": process, "created": created, "role": role})

    def trouble(self) -> str:
        """That the store is away, in a sentence, the first time that it is."""
        if not self.store or self._told:
            return ""
        for path in sorted(folder_of(self._paths).glob("trouble-*.json")):
            if found := read_json(path):
                self._told = True
                return f"{found['text']}; training goes on, and what it writes is sent later"
        return ""

    def _settle(self, role: str) -> None:
        self._paths.make()
        (folder_of(self._paths) / "store").write_text(self.store)
        self.use(os.getpid(), role)

    @cached_property
    def _objects(self) -> Objects:
        # Arrow is imported only where there is a store.
        from dlsys.jobs.mirror.objects import Objects

        return Objects(self.store)

    @cached_property
    def _files(self) -> Files:
        from dlsys.jobs.mirror.files import Files

        return Files(self._paths, self._objects)

    @cached_property
    def _checkpoints(self) -> Checkpoints:
        from dlsys.jobs.mirror.checkpoints import Checkpoints

        return Checkpoints(self._paths, self._objects, self._files)

    def _exchange(self) -> None:
        self._files.push(all=True)
        self._files.pull(deep=True)

    def _send(self) -> None:
        self._files.push(all=True)
        self._checkpoints.push()

    def _try_send(self, patience: float) -> str:
        failed = self._within(patience, self._send)
        return failed and (
            f"{failed}; what is not there yet is in {self._paths.root} on {socket.gethostname()}, and is "
            f"sent when the store is back, or by: dlsys runs sync {self._paths.id}"
        )

    def _patiently(self, call: Callable[[], object]) -> None:
        if failed := self._within(_PATIENCE, call):
            raise RunError(
                f"{failed}, for {_PATIENCE:g} s",
                hint="When the store is back, run again with --resume.",
            )

    def _within(self, seconds: float, call: Callable[[], object]) -> str:
        """Does it, again and again while the store is away; why not, or nothing.

        In a thread: a store that hangs would be asked for minutes.
        """
        deadline = time.monotonic() + seconds
        said, fault = [f"{self.store.partition('?')[0]}: no answer"], []

        def work() -> None:
            while True:
                try:
                    call()
                    said.clear()
                except StoreError as error:
                    said[0] = str(error)
                    if time.monotonic() + _PAUSE < deadline:
                        time.sleep(_PAUSE)
                        continue
                except BaseException as error:
                    fault.append(error)
                return

        thread = threading.Thread(target=work, daemon=True, name="mirror")
        thread.start()
        thread.join(seconds)
        if fault:
            raise fault[0]
        return said[0] if said else ""


def refuse_passwords(paths: RunPaths) -> None:
    """Raises UsageError when a file of the run that is mirrored has what looks like a secret."""
    for path in (paths.source, paths.spec, paths.root / "trained.yaml", paths.record):
        text = path.read_text() if path.exists() else ""
        if mask("", text) != text:
            raise UsageError(
                f"{paths.id}: {path.name} has what looks like a secret, and would go to the object store",
                hint="MLflow takes its password from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
            )


def store_of(paths: RunPaths) -> str:
    """The store of a run: DLSYS_STORE, or the one that it was mirrored to before; empty for none."""
    told = os.environ.get("DLSYS_STORE", "")
    if not told and (known := paths.root / FOLDER / "store").is_file():
        told = known.read_text()
    return told


def is_driven(paths: RunPaths) -> bool:
    """Whether the run's driver works on this node, in this folder."""
    return any(user["role"] == "driver" for user in users(paths))


def users(paths: RunPaths) -> list[dict[str, Any]]:
    """The processes of a run that live on this node; what is known of others is forgotten."""
    found = []
    for path in (paths.root / FOLDER / "users").glob("*.json"):
        user = read_json(path)
        if user and alive(int(user["pid"]), user["created"]):
            found.append(user)
        else:
            path.unlink(missing_ok=True)
    return found


def _start(paths: RunPaths, store: str) -> None:
    """Starts the process that mirrors, unless there is one."""
    with open(folder_of(paths) / "running.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    with open(folder_of(paths) / "log", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-P", "-m", "dlsys.jobs.mirror", str(paths.root), store],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ).wait()  # it goes on as a process of its own
