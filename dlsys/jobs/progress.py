"""What a person sees while a run goes on: read from the spool, so that training is not asked."""

from __future__ import annotations

import math
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from dlsys.jobs.standing import Spooled
from dlsys.paths import RunPaths
from dlsys.spec.kinds import AnyJob
from dlsys.spec.rl.job import Job
from dlsys.spec.script.job import ScriptJob

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_LINE_EVERY = 5.0


def plain_console() -> Console:
    """Standard error, for sentences; in notebooks rich would make a page of HTML of each."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, force_jupyter=False)


class Notes:
    """Sentences on stderr; all else there is a script's own.

    Args:
        paths: the run.
        heard: whether somebody hears of the run for the first time.
    """

    def __init__(self, paths: RunPaths, heard: bool) -> None:
        self._paths, self._heard = paths, heard

    def __enter__(self) -> Notes:
        if self._heard:
            self.say(f"run {self._paths.id}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to end."""

    def say(self, text: str) -> None:
        """A sentence of its own line."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def progress_of(paths: RunPaths, job: AnyJob, *, heard: bool = True) -> Notes | Progress:
    """What shows a run of this job.

    Args:
        heard: of a script, whether its run must be named first.
    """
    return Notes(paths, heard) if isinstance(job, ScriptJob) else Progress(paths, job)


class Progress:
    """A live table on a terminal, plain lines elsewhere; on stderr.

    Args:
        paths: the run.
        job: says how far there is to go.
    """

    def __init__(self, paths: RunPaths, job: Job) -> None:
        self._paths = paths
        self._standing = Spooled(paths, job)
        # What an earlier attempt at the run wrote is part of its curves, and no news.
        for _ in self._standing.read():
            pass
        self._begun = False
        self._said, self._told = -math.inf, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="dlsys-progress", daemon=True)

    def __enter__(self) -> Progress:
        self._console = plain_console()
        self.say(f"run {self._paths.id}")
        self._live: Live | None = None
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live("starting …", console=self._console, auto_refresh=False)
            self._live.start(refresh=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """A sentence of its own line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self._read()

    def _read(self) -> None:
        measured = False
        for record in self._standing.read():
            if "note" in record:
                self.say(str(record["note"]))
            if "m" in record:
                self._begun = measured = True
                if self._live is None and any(name.startswith("valid/") for name in record["m"]):
                    self._line()
        if self._live is not None:
            if measured:
                from dlsys.jobs.drawing import view

                self._live.update(view(self._standing), refresh=True)
        elif self._begun and time.monotonic() - self._said > _LINE_EVERY:
            self._line()

    def _line(self) -> None:
        """Each evaluation, and now and then between two."""
        self._said = time.monotonic()
        text = self._standing.line
        if text != self._told:
            self._told = text
            self.say(text)
