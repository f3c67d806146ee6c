"""What surrounds the work of a run, a sweep and a verification, alike for all of them.

The folder is owned; its writer to MLflow starts in a process of its own; the work is done, or fails, or
is interrupted; the outcome is written; the writer delivers it. Every way out passes through the last two.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from dlsys.errors import Interrupted
from dlsys.jobs.delivery import PATIENCE, refused, start_writer, wait_for_writer
from dlsys.jobs.interrupts import Interrupts
from dlsys.jobs.mirror.node import Mirror
from dlsys.jobs.notify import absent, notify
from dlsys.jobs.ownership import Ownership
from dlsys.paths import RunPaths, write_json
from dlsys.spec.notify import Notify

# Room for an outcome on a disk that has become full.
_BALLAST = 64 * 1024
# Whoever interrupts does not want to wait for MLflow as long as one that waits for the end anyway.
_IMPATIENCE = 5.0
_MARGIN = 0.5
# What is told of one that is ended by force is told at once, or not.
_LAST_WORDS = 2.0

Note = Callable[[str], None]


def silent(text: str) -> None:
    """Notes nothing."""


@dataclass(kw_only=True)
class Ending:
    """How it ended.

    Attributes:
        run_id: dlsys's own id of the run.
        status: FINISHED, FAILED or KILLED, as in MLflow.
        cause: why it is not FINISHED, in a line; by default the error's.
        seconds: this call's wall time.
        delivered: whether MLflow has everything.
        unsent: what the object store has not taken, in a sentence.
        error: what is raised to the caller when status is not FINISHED, or when MLflow lacks figures for a
            reason that time cannot mend.
    """

    run_id: str
    status: str = "FAILED"
    cause: str = ""
    seconds: float = 0.0
    delivered: bool = False
    unsent: str = ""
    error: BaseException | None = None

    def told(self) -> dict[str, Any]:
        """What the outcome says besides status and cause, as JSON."""
        return {"attempts": 1, "metrics": {}}


class Driving:
    """A context in which this process drives what is in a folder.

    What its body raises is the ending's error, and is not raised again.

    Args:
        paths: the folder.
        ended: gets how it ended; the body sets the status where that is well.
        mirror: of the folder.
        whom: who is told of the end, outside; by default whom the environment says.
        note: gets sentences for people.
        late: the cause that is written where the process is ended by force.
        farewell: called just before that, to say how it ended.
        may_exit: whether the process may be ended so; where Python calls dlsys, it is another program's.

    Attributes:
        owner: of the folder.
        interrupts: tells whether the end is asked for.
        conclude: called when the status is known, before the outcome is written.

    Raises:
        UsageError: another driver has it, or its object store cannot be used.
    """

    owner: Ownership
    interrupts: Interrupts

    def __init__(
        self,
        paths: RunPaths,
        ended: Ending,
        mirror: Mirror,
        *,
        whom: Notify | None = None,
        note: Note = silent,
        late: str = "interrupted",
        farewell: Callable[[], None] = lambda: None,
        may_exit: bool = True,
    ) -> None:
        self.paths, self.mirror, self.note = paths, mirror, note
        self.conclude: Callable[[], None] = lambda: None
        self._ended, self._late, self._farewell = ended, late, farewell
        self._may_exit = may_exit
        self._whom, self._told = whom, False

    def __enter__(self) -> Driving:
        self._began = time.monotonic()
        if missing := absent(self._whom):
            self.note(missing)
        self.mirror.begin()
        with ExitStack() as stack:
            self.owner = stack.enter_context(Ownership(self.paths))
            self.interrupts = stack.enter_context(Interrupts(may_exit=self._may_exit))
            self._stop.unlink(missing_ok=True)
            with suppress(OSError):
                self.paths.ballast.write_bytes(bytes(_BALLAST))
            self._writer = start_writer(self.paths)
            self.owner.record_writer(self._writer.pid)
            self.mirror.use(self._writer.pid, "writer")
            self.interrupts.last_act = self._end_by_force
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        ended = self._ended
        with self._stack:
            if error is not None:
                self._fail(error)
            self.conclude()
            self.interrupts.disarm()
            self.write_outcome(ended.status, ended.cause)
            patience = _IMPATIENCE if ended.status == "KILLED" else PATIENCE
            ended.delivered = wait_for_writer(self._writer, min(patience, self._left))
            if ended.error is None:
                ended.error = refused(self.paths)
            # Now it is known where its page is.
            self.tell(ended.status, ended.cause, max(self._left, _MARGIN))
            self.paths.ballast.unlink(missing_ok=True)
            ended.unsent = self.mirror.end(self._left)
        ended.seconds = time.monotonic() - self._began
        return True

    def _end_by_force(self) -> None:
        """What the main thread has no time for: it may be in the middle of anything."""
        ended = self._ended
        self.write_outcome("KILLED", self._late)
        ended.status, ended.seconds = "KILLED", time.monotonic() - self._began
        ended.error = Interrupted(self._late, exit_code=self.interrupts.exit_code)
        with suppress(Exception):
            self.conclude()
            self._farewell()
            sys.stdout.flush()
        with suppress(Exception):
            self.tell("KILLED", self._late, _LAST_WORDS)

    def attend(self) -> None:
        """To be called often while workers train in other processes: tells them of Ctrl-C."""
        if text := self.mirror.trouble():
            self.note(text)
        if self.interrupts.received and not self._stop.exists():
            self.ask_to_stop()
            self.mirror.hurry()

    def ask_to_stop(self) -> None:
        """Workers save, and end."""
        self._stop.touch()

    def ask_no_more(self) -> None:
        """What they have ended for is done."""
        self._stop.unlink()

    def check(self) -> None:
        """Raises Interrupted where the end is asked for."""
        if self.interrupts.received:
            raise Interrupted(exit_code=self.interrupts.exit_code)

    def tell(self, status: str, cause: str, patience: float) -> None:
        """Tells whom it concerns, outside, how it ended; once, and in so many seconds."""
        if not self._told:
            self._told = True
            outcome = {"status": status, "cause": cause, **self._ended.told()}
            if why := notify(self.paths, self._whom, outcome, patience):
                self.note(why)

    def write_outcome(self, status: str, cause: str) -> None:
        outcome = {"status": status, "cause": cause, **self._ended.told()}
        try:
            write_json(self.paths.outcome, outcome)
        except OSError:
            self.paths.ballast.unlink(missing_ok=True)
            write_json(self.paths.outcome, outcome)

    @property
    def _stop(self) -> Path:
        return self.paths.root / "stop"

    @property
    def _left(self) -> float:
        """Seconds for what is left to do."""
        return self.interrupts.left - _MARGIN

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, SystemError) and isinstance(error.__cause__, Interrupted):
            error = error.__cause__  # a signal's, which came while Ray's compiled code waited
        if isinstance(error, Interrupted | KeyboardInterrupt):
            self._ended.status = "KILLED"
            # One that came from a part with signals of its own knows better which it was.
            own = self.interrupts.received or not isinstance(error, Interrupted)
            error = Interrupted(exit_code=self.interrupts.exit_code) if own else error
        else:
            self._ended.status = "FAILED"
        self._ended.error = error
        self._ended.cause = " ".join(str(error).split()) or type(error).__name__
