"""Python programs as forks of one process that has imported torch and MLflow already.

A fork is to everybody else the process it stands for: its arguments and its environment are what
/proc shows, its parent alone is another one. It shares the hash seed with its sisters: what may depend
on that starts real interpreters.

    python tests/forking.py SOCKET      the process that forks, until its standard input ends
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

# Not Ray, which reads variables of the environment when it is imported.
_IMPORTED = (
    "mlflow.store.tracking.sqlalchemy_store",
    "sklearn.datasets",
    "torch._dynamo",  # which the first optimizer asks for
    "dlsys.cli.main",
    "dlsys.jobs.launch.inprocess",
    "dlsys.jobs.run",
    "dlsys.train.engine",
    "dlsys.train.strategies.single",
)
# Room for the longest command line, and the largest environment, of a fork.
_ROOM = 8192, 65536
_ROOT = str(Path(__file__).parents[1])


class Fork:
    """A process, with the methods of a `Popen` that are used here."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = json.loads(self._connection.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0) from None
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork(
    address: str,
    arguments: Sequence[str],
    cwd: str,
    environment: Mapping[str, str],
    out: int,
    err: int,
    new_session: bool = False,
) -> Fork:
    """Starts `python ARGUMENTS`, which begin with [-P] -m MODULE, at the server of an address."""
    request = json.dumps([list(arguments), cwd, dict(environment), new_session]).encode()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(request) + 4096)
    connection.connect(address)
    socket.send_fds(connection, [request], [out, err])
    return Fork(json.loads(connection.recv(64)), connection)


class Server:
    """The process that forks, as the one that asks it sees it; it starts with the first request."""

    def __init__(self) -> None:
        self._folder: str | None = None

    def fork(
        self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], out: int, err: int
    ) -> Fork:
        if self._folder is None:
            self._start()
        return fork(f"{self._folder}/socket", arguments, str(cwd), environment, out, err)

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="fork")
        arguments, variables = ("x" * room for room in _ROOM)
        # Whoever looks for the processes of a test by its home must not find this one.
        own = {name: value for name, value in os.environ.items() if not name.startswith("DLSYS_")}
        self._process = subprocess.Popen(
            [sys.executable, __file__, f"{self._folder}/socket", arguments],
            env={**own, "PYTHONPATH": _ROOT, "ROOM": variables},
            stdin=subprocess.PIPE,
        )
        while not os.path.exists(f"{self._folder}/socket"):
            assert self._process.poll() is None, "the process that forks has ended"
            time.sleep(0.05)

    def close(self) -> None:
        if self._folder is not None:
            self._process.stdin.close()
            self._process.wait()
            shutil.rmtree(self._folder)
            self._folder = None


def main(address: str) -> None:
    """Forks, and tells those who asked how it ended."""
    sys.path[:] = [entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).parent))]
    sys.path.insert(0, _ROOT)
    for name in _IMPORTED:
        __import__(name)
    sys.path.remove(_ROOT)
    template = _template(Path(address).with_name("mlflow.db"))
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{address}.new")
    listener.listen(64)
    os.rename(f"{address}.new", address)
    chosen = selectors.DefaultSelector()
    chosen.register(listener, selectors.EVENT_READ)
    chosen.register(0, selectors.EVENT_READ)
    running: dict[int, tuple[int, socket.socket]] = {}  # by a descriptor of the fork
    while True:
        for key, _ in chosen.select():
            if key.fd == 0:
                return
            if key.fd in running:
                pid, connection = running.pop(key.fd)
                chosen.unregister(key.fd)
                os.close(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(OSError):
                    connection.send(json.dumps(code).encode())
                connection.close()
                continue
            connection, _ = listener.accept()
            request, fds, _, _ = socket.recv_fds(connection, 1 << 20, 2)
            if (pid := os.fork()) == 0:
                for fd, (_, other) in running.items():
                    os.close(fd)
                    other.close()
                for opened in (chosen, listener, connection):
                    opened.close()
                _become(address, template, fds, *json.loads(request))
            for fd in fds:
                os.close(fd)
            connection.send(json.dumps(pid).encode())
            descriptor = os.pidfd_open(pid)
            running[descriptor] = (pid, connection)
            chosen.register(descriptor, selectors.EVENT_READ)


def _template(path: Path) -> Path:
    """An MLflow store without runs, made in a fork: of it, this process must have no threads and no files."""
    from dlsys.track.store import Store

    if os.fork() == 0:
        Store(f"sqlite:///{path}")
        os._exit(0)
    assert os.wait()[1] == 0, "no store for tests"
    return path


def _become(
    address: str,
    template: Path,
    fds: list[int],
    arguments: list[str],
    cwd: str,
    environment: dict[str, str],
    new_session: bool,
) -> NoReturn:
    """Does in this process what `python ARGUMENTS` would do in another."""
    if new_session:
        os.setsid()
    os.chdir(cwd)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate([null, *fds]):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    _show([sys.executable, *arguments], environment)
    own, module, *rest = arguments if arguments[0] == "-P" else ["", *arguments]
    assert module == "-m"
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [entry for entry in ([] if own else [cwd]) + paths if entry]
    sys.argv[:] = rest
    _patch(address, template)
    sys.modules.pop(rest[0], None)  # it is __main__ now
    code: Any = 0
    try:
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    # An interpreter's end, without taking apart what was imported: that would touch every shared page.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def _show(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Writes them where the kernel takes what /proc shows, which is where this process has its own."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    places = [int(field) for field in fields[45:49]]  # of arguments and environment, start and end
    told = list(arguments), [f"{name}={value}" for name, value in environment.items()]
    for start, end, texts in zip(places[::2], places[1::2], told, strict=True):
        shown = b"".join(os.fsencode(text) + b"\0" for text in texts)
        assert len(shown) < end - start, "more room is needed"
        ctypes.memmove(start, shown.ljust(end - start, b"\0"), end - start)


def _patch(address: str, template: Path) -> None:
    """A run's writer is a fork too, and a new store is a copy: to make one takes MLflow seconds."""
    import sqlite3

    from mlflow.store.db import utils

    from dlsys.jobs import delivery, run
    from dlsys.paths import RunPaths

    def start_writer(paths: RunPaths) -> Fork:
        with open(paths.logs / "writer.log", "ab") as log:
            words = ["-P", "-m", "dlsys.track.writer", str(paths.root)]
            return fork(address, words, os.getcwd(), os.environ, log.fileno(), log.fileno(), True)

    def initialize_tables(engine: Any) -> None:
        with sqlite3.connect(template) as source, sqlite3.connect(engine.url.database) as target:
            source.backup(target)

    delivery.start_writer = run.start_writer = start_writer
    utils._initialize_tables = initialize_tables


SERVER = Server()

if __name__ == "__main__":
    main(sys.argv[1])
