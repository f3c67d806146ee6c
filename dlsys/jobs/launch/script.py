"""A script's workers on this machine: plain processes, started as torchrun starts them. No Ray."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dlsys.errors import Interrupted, TrackingError, UsageError, WorkerDiedError
from dlsys.jobs.delivery import figures, handed_over
from dlsys.jobs.launch import memory
from dlsys.jobs.launch.assignment import Assignment, Outcome
from dlsys.jobs.launch.guarded import Guarded, Shown, how, last_lines, size
from dlsys.jobs.launch.launcher import Driver, Free, Need
from dlsys.jobs.launch.torchrun import told_by_torchrun
from dlsys.spec.script.job import ScriptJob

# From a signal to SIGKILL: of ranks whose fellow has failed, and of a run that is asked to end, which has
# `dlsys.jobs.interrupts.GRACE` in all.
_GRACE, _GRACE_ASKED = 15.0, 5.0
_LOOK = 0.05
_LINES = 20
_NOT_FOUND = (126, 127)
# What MLflow 3.17 says of a script that calls `set_experiment` with another name than it was handed.
_OTHER_EXPERIMENT = "active experiment ID does not match environment run ID"


class LocalScript:
    """Runs the command of a script job, once for each worker."""

    # No node comes or goes.
    free: Free | None = None

    def start(self, need: Need) -> None:
        """There is nothing to start."""

    def run(self, assignment: Assignment, driver: Driver) -> Outcome:
        """One attempt: all ranks anew.

        Raises:
            WorkerDiedError: a rank failed, and all have ended; notes have its last lines.
            UsageError: there is no such program.
            TrackingError: MLflow is away.
        """
        job, paths = assignment.job, assignment.paths
        assert isinstance(job, ScriptJob), "what is trained has launchers of its own"
        env = {**os.environ, **job.env}
        command = [program(job.command[0], assignment.folder, env), *job.command[1:]]

        def wait() -> None:
            driver.watch()
            if number := driver.signal():
                raise Interrupted(exit_code=128 + number)

        env |= handed_over(paths, wait)
        env |= {"DLSYS_RUN_ID": paths.id, "DLSYS_CHECKPOINTS": str(paths.checkpoints)}
        began, workers = time.monotonic(), job.resources.workers
        logs = [paths.log(rank) for rank in range(workers)]
        before, kills = [size(log) for log in logs], memory.kernel_kills()
        with _reserved_port() as port:
            ranks = [
                {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(workers),
                    "LOCAL_WORLD_SIZE": str(workers),
                    "NODE_RANK": "0",
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
                for rank in range(workers)
            ]
            envs = [
                {
                    **env,
                    **told_by_torchrun(
                        rank,
                        env,
                        run=paths.id,
                        cpus=job.resources.cpus,
                        restarts=assignment.attempt - 1,
                        most=job.failure.retries,
                    ),
                }
                for rank in ranks
            ]
            shown = Shown(logs[0], sys.stderr.buffer)
            with _started(command, logs, envs, assignment.folder) as started:
                failed = _see_through(started, driver, shown)
        if driver.signal():
            return Outcome("interrupted", 0, time.monotonic() - began, {})
        if failed is not None:
            raise _failure(*failed, workers, logs, before, memory.kernel_kills() > kills)
        metrics: dict[str, float] = {}
        step = 0
        try:
            metrics, step = figures(paths, wait)
        except TrackingError:
            if job.expect:
                raise
        return Outcome("finished", step, time.monotonic() - began, metrics)

    def stop(self) -> None:
        """There is nothing to end."""


def program(word: str, folder: str, env: Mapping[str, str]) -> str:
    """The program that a command's first word names.

    `python` is that of a virtual environment that comes first on PATH, or else the one that runs dlsys.

    Args:
        folder: where it is run.

    Raises:
        UsageError: there is none.
    """
    found = shutil.which(os.path.join(folder, word) if "/" in word else word, path=env.get("PATH"))
    if word in ("python", "python3"):
        place = Path(found).parent.parent if found else Path()
        own = found and ((place / "pyvenv.cfg").is_file() or (place / "conda-meta").is_dir())
        return found if found and own else sys.executable
    if found is None:
        raise UsageError(
            f"command: no program {word!r} " + (f"in {folder}" if "/" in word else "on PATH"),
            hint="Install it, or activate its environment; a script of Python's begins with the word python.",
        )
    return found


@contextmanager
def _reserved_port() -> Iterator[int]:
    """A free port for rank 0 to listen on.

    While this socket is bound, Linux gives the port to no connection; and a rank 0 that sets SO_REUSEADDR, as
    torch does, may listen there all the same.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@contextmanager
def _started(
    command: list[str], logs: list[Path], envs: list[dict[str, str]], folder: str
) -> Iterator[list[Guarded]]:
    """The command once for each rank; whatever is left of it is ended with the context."""
    started: list[Guarded] = []
    try:
        for log, env in zip(logs, envs, strict=True):
            started.append(Guarded(command, log, env, folder))
        yield started
    finally:
        for each in started:
            each.kill()
        for each in started:
            each.code()


def _see_through(started: list[Guarded], driver: Driver, shown: Shown) -> tuple[int, int | None] | None:
    """Waits for every rank; the first failure ends the others, and so does being asked to.

    Returns:
        the rank that failed first, and its code; None where none did.
    """
    failed: tuple[int, int | None] | None = None
    asked = False
    with selectors.DefaultSelector() as waiting:
        for rank, each in enumerate(started):
            waiting.register(each, selectors.EVENT_READ, rank)
        while waiting.get_map():
            driver.watch()
            ended = [key.data for key, _ in waiting.select(_LOOK)]
            shown.show()
            codes = {rank: started[rank].code() for rank in ended}
            for rank in codes:
                waiting.unregister(started[rank])
            # Of several at the same moment, one that a signal ended is no echo of another's end.
            bad = sorted((code is not None and code > 0, rank) for rank, code in codes.items() if code != 0)
            if bad and failed is None:
                failed = bad[0][1], codes[bad[0][1]]
                _end(waiting, _GRACE, signal.SIGTERM)
            if (number := driver.signal()) and not asked:
                asked = True
                _end(waiting, _GRACE_ASKED, number)
    shown.show()
    return failed


def _end(waiting: selectors.BaseSelector, grace: float, number: int) -> None:
    for key in waiting.get_map().values():
        assert isinstance(key.fileobj, Guarded)
        key.fileobj.end(grace, number)


def _failure(
    rank: int, code: int | None, workers: int, logs: list[Path], before: list[int], short: bool
) -> UsageError | WorkerDiedError:
    """What is told of a rank that failed first, with the last lines of its log; rank 0's have been shown.

    Args:
        before: the logs' sizes, in bytes, when the attempt began.
        short: whether the kernel has killed something for memory meanwhile.
    """
    who = f"rank {rank}" if workers > 1 else "the command"
    text = f"{who} {how(code)}"
    if short and code == -signal.SIGKILL:
        text += ", by the kernel: memory is short"
    lines = last_lines(logs[rank], before[rank], _LINES)
    hint = f"All it said: {logs[rank]}"
    if any(_OTHER_EXPERIMENT in line for line in lines):
        hint = "It calls mlflow.set_experiment: leave that out, or say its name with --experiment."
    if code in _NOT_FOUND:
        return UsageError(text, hint=hint)
    error = WorkerDiedError(text, hint=hint)
    for line in lines if rank else ():
        error.add_note(f"  {line}")
    return error
