"""What a person sees while a run goes on: read from the spool, so that training is not asked."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from dlsys.paths import RunPaths
from dlsys.spec.kinds import AnyJob
from dlsys.spec.rl.job import Job
from dlsys.spec.script.job import ScriptJob
from dlsys.track.spool import records

if TYPE_CHECKING:
    from rich.console import Console

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
    """A live bar on a terminal, plain lines elsewhere; on stderr.

    Args:
        paths: the run.
        job: says how far there is to go.
    """

    def __init__(self, paths: RunPaths, job: Job) -> None:
        self._paths, self._job = paths, job
        self._spool: Path = paths.spool / "rank-0.jsonl"
        # What an earlier attempt at the run wrote is not news.
        self._offset = self._spool.stat().st_size if self._spool.exists() else 0
        self._latest: dict[str, float] = {}
        self._step = 0
        self._said, self._told = 0.0, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="dlsys-progress", daemon=True)
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        self._console = plain_console()
        self.say(f"run {self._paths.id}")
        self._status = self._console.status("starting …") if self._live else None
        if self._status is not None:
            self._status.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """A sentence of its own line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self._read()

    def _read(self) -> None:
        for record, end in records(self._spool, self._offset):
            self._offset = end
            if "note" in record:
                self.say(str(record["note"]))
                continue
            self._latest.update(record.get("m", {}))
            self._step = int(record.get("s", self._step))
            if any(name.startswith("valid/") for name in record.get("m", {})):
                self._line()
        if not self._latest:
            return
        if self._status is not None:
            self._status.update(self._text())
        elif time.monotonic() - self._said > _LINE_EVERY:
            self._line()

    def _line(self) -> None:
        """Each evaluation, and now and then between two."""
        self._said = time.monotonic()
        text = self._text()
        if text != self._told:
            self._told = text
            self.say(text)

    def _text(self) -> str:
        latest, stop = self._latest, self._job.stop
        epoch = latest.get("train/epoch", 0.0)
        parts = [self._job.came(epoch) + (f"/{stop.epochs}" if stop.epochs else "")]
        parts.append(f"step {self._step:,}" + (f"/{stop.steps:,}" if stop.steps else ""))
        shown = [name for name in latest if self._job.shows(name)]
        learned = [name for name in shown if name.startswith("train/")]
        parts += [f"{name.removeprefix('train/')} {latest[name]:.4g}" for name in learned]
        parts += [f"{name} {latest[name]:.4g}" for name in sorted({*shown} - {*learned})]
        if "perf/samples_per_second" in latest:
            parts.append(f"{latest['perf/samples_per_second']:,.0f} samples/s")
        if (left := self._left(epoch)) is not None:
            parts.append(f"{left:.0f} s left")
        return "  ".join(parts)

    def _left(self, epoch: float) -> float | None:
        """Seconds, from the last steps' pace; evaluations and checkpoints come on top."""
        pace, stop = self._latest.get("perf/step_seconds"), self._job.stop
        if pace is None or epoch <= 0:
            return None
        ends: list[float] = [stop.steps] if stop.steps else []
        ends += [stop.epochs * self._step / epoch] if stop.epochs else []
        return max(0.0, (min(ends) - self._step) * pace) if ends else None
