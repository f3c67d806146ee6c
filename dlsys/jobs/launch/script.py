"""A script's attempt, wherever its workers run: its command once for each, as torchrun would start it.

Who starts them is another's part: `local_script.py` here, `ray_ranks.py` on a cluster.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from dlsys.errors import DlsysError, Interrupted, TrackingError, UsageError, WorkerDiedError
from dlsys.jobs.delivery import figures, handed_over
from dlsys.jobs.launch import memory
from dlsys.jobs.launch.assignment import Assignment, Outcome
from dlsys.jobs.launch.guarded import Guarded, Shown, how, last_lines, size
from dlsys.jobs.launch.launcher import Driver, Free, Need
from dlsys.spec.script.job import ScriptJob

# From a signal to SIGKILL: of ranks whose fellow has failed, and of a run that is asked to end, which has
# `dlsys.jobs.interrupts.GRACE` in all.
_GRACE, _GRACE_ASKED = 15.0, 5.0
# A guard that is not heard of for so long after that is lost.
_LAST = 3.0
_LOOK = 0.05
_LINES = 20
_NOT_FOUND = (126, 127)
# What MLflow 3.17 says of a script that calls `set_experiment` with another name than it was handed.
_OTHER_EXPERIMENT = "active experiment ID does not match environment run ID"

Given = Callable[[], dict[str, str]]


@dataclass(frozen=True)
class End:
    """How a rank's command ended.

    Attributes:
        code: its exit code, negative for a signal; None where nobody could see it.
        short: whether its machine's kernel has killed something for memory meanwhile.
    """

    code: int | None
    short: bool = False


class Watched:
    """A guarded command, and what its machine did meanwhile; arguments are those of `Guarded`."""

    def __init__(self, command: list[str], log: Path, env: Mapping[str, str], folder: str) -> None:
        self._kills = memory.kernel_kills()
        self.guarded = Guarded(command, log, env, folder)

    def end(self) -> End:
        """Waits for all of it to end."""
        code = self.guarded.code()
        return End(code, memory.kernel_kills() > self._kills)


class Ranks(Protocol):
    """The ranks of an attempt, which are at work."""

    def ended(self, within: float) -> dict[int, End]:
        """Those that have ended since the last call; waits for one, so many seconds at most."""

    def end(self, grace: float, number: int) -> None:
        """Sends a signal to those that have not, and after `grace` seconds SIGKILL."""

    def who(self, rank: int) -> str:
        """What a rank is called."""

    def where(self, rank: int) -> str:
        """Where all is that it has said."""

    def gather(self) -> None:
        """Brings what ranks have said here, where it is elsewhere."""


class ScriptLauncher(ABC):
    """Runs the command of a script job, once for each worker."""

    # No attempt changes its number of workers.
    free: Free | None = None
    # Why nobody may know how a rank ended.
    lost: ClassVar[str] = "the process that watched it was killed"

    @abstractmethod
    def start(self, need: Need) -> None:
        """As any launcher's."""

    @abstractmethod
    def stop(self) -> None:
        """As any launcher's."""

    def run(self, assignment: Assignment, driver: Driver) -> Outcome:
        """One attempt: all ranks anew.

        Raises:
            WorkerDiedError: a rank failed, and all have ended; notes have its last lines.
            UsageError: there is no such program.
            TrackingError: MLflow is away.
        """
        job, paths = assignment.job, assignment.paths
        assert isinstance(job, ScriptJob), "what is trained has launchers of its own"

        def wait() -> None:
            driver.watch()
            if number := driver.signal():
                raise Interrupted(exit_code=128 + number)

        began = time.monotonic()
        logs = [paths.log(rank) for rank in range(job.resources.workers)]
        before = [size(log) for log in logs]
        shown = Shown(logs[0], sys.stderr.buffer)
        with self._started(assignment, job, wait, lambda: handed_over(paths, wait)) as ranks:
            failed = _see_through(ranks, len(logs), driver, shown)
            ranks.gather()
            shown.show()
        if driver.signal():
            return Outcome("interrupted", 0, time.monotonic() - began, {})
        if failed is not None:
            rank, end = failed
            raise self._failure(end, ranks, rank, logs[rank], before[rank])
        metrics: dict[str, float] = {}
        step = 0
        try:
            metrics, step = figures(paths, wait)
        except TrackingError:
            if job.expect:
                raise
        return Outcome("finished", step, time.monotonic() - began, metrics)

    @abstractmethod
    def _started(
        self, assignment: Assignment, job: ScriptJob, wait: Callable[[], None], given: Given
    ) -> AbstractContextManager[Ranks]:
        """The command once for each rank; whatever is left of it is ended with the context.

        Args:
            wait: called several times a second; raises to end the waiting.
            given: waits for the run in MLflow; the variables that hand it over.
        """

    def _failure(self, end: End, ranks: Ranks, rank: int, log: Path, before: int) -> DlsysError:
        """What is told of a rank that failed first, with the last lines of its log; rank 0's have been shown.

        Args:
            before: the log's size, in bytes, when the attempt began.
        """
        text = f"{ranks.who(rank)} {how(end.code, self.lost)}"
        if end.short and end.code == -signal.SIGKILL:
            text += ", by the kernel: memory is short"
        lines = last_lines(log, before, _LINES)
        hint = f"All it said: {ranks.where(rank)}"
        if any(_OTHER_EXPERIMENT in line for line in lines):
            hint = "It calls mlflow.set_experiment: leave that out, or say its name with --experiment."
        if end.code in _NOT_FOUND:
            return UsageError(text, hint=hint)
        error = WorkerDiedError(text, hint=hint)
        for line in lines if rank else ():
            error.add_note(f"  {line}")
        return error


def _see_through(ranks: Ranks, count: int, driver: Driver, shown: Shown) -> tuple[int, End] | None:
    """Waits for every rank; the first failure ends the others, and so does being asked to.

    Returns:
        the rank that failed first, and how; None where none did.
    """
    failed: tuple[int, End] | None = None
    asked, deadline = False, float("inf")
    while count and time.monotonic() < deadline:
        driver.watch()
        ends = ranks.ended(_LOOK)
        shown.show()
        count -= len(ends)
        # Of several at the same moment, one that a signal ended is no echo of another's end.
        bad = sorted(
            (end.code is not None and end.code > 0, rank) for rank, end in ends.items() if end.code != 0
        )
        if bad and failed is None:
            failed = bad[0][1], ends[bad[0][1]]
            ranks.end(_GRACE, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE + _LAST
        if (number := driver.signal()) and not asked:
            asked = True
            ranks.end(_GRACE_ASKED, number)
            deadline = time.monotonic() + _GRACE_ASKED + _LAST
    return failed


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


def reserved_port(host: str) -> socket.socket:
    """Holds a free port for rank 0 to listen on, as long as it is open.

    While this socket is bound, Linux gives the port to no connection; and a rank 0 that sets SO_REUSEADDR, as
    torch does, may listen there all the same.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((host, 0))
    return held
