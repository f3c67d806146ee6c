"""How a run stands, for those who look on: what is written already is read, nothing is written or locked."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlsys.paths import RunPaths, read_json
from dlsys.processes import alive
from dlsys.spec.kinds import AnyJob
from dlsys.spec.metrics import best
from dlsys.spec.script.job import ScriptJob
from dlsys.spec.train.job import TrainJob
from dlsys.track.spool import records

# A curve on a terminal has some dozens of columns; of longer ones, every other point is dropped.
_KEPT = 512
# More figures than this are not for one line.
_MANY = 8
# What no figure of a script's own is.
_OURS = ("system/", "perf/", "cost/")

_OF_A_JOB = {"SUCCEEDED": "FINISHED", "FAILED": "FAILED", "STOPPED": "KILLED"}


@dataclass
class Curve:
    """How one metric went.

    Attributes:
        mode: whether its largest (`max`) or its smallest (`min`) value is the best; None where nobody knows.
        points: (step, value), in order, thinned out.
        best: the best so far; None without a mode, or while all are NaN.
    """

    mode: str | None
    points: list[tuple[int, float]] = field(default_factory=list)
    best: float | None = None

    def add(self, step: int, value: float) -> None:
        self.points.append((step, value))
        if len(self.points) > _KEPT:
            del self.points[1:-1:2]
        if self.mode and not math.isnan(value):
            better = max if self.mode == "max" else min
            self.best = value if self.best is None else better(self.best, value)


class Standing:
    """A run's figures so far.

    Args:
        job: says what is shown, and how far there is to go; None where it is not known.
    """

    def __init__(self, job: AnyJob | None) -> None:
        self._job = None if isinstance(job, ScriptJob) else job
        self.latest: dict[str, float] = {}
        self.step = 0
        self.curves: dict[str, Curve] = {}

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes in what was measured at a step."""
        self.step = step
        self.latest.update(metrics)
        for name, value in metrics.items():
            if self.shows(name):
                if name not in self.curves:
                    self.curves[name] = Curve(self._mode(name))
                self.curves[name].add(step, float(value))

    def shows(self, name: str) -> bool:
        """Whether a metric is for people."""
        return self._job.shows(name) if self._job else not name.startswith((*_OURS, "train/epoch"))

    def _mode(self, name: str) -> str | None:
        if self._job is not None:
            return best(self._job, name)
        return "min" if name.rpartition("/")[2] == "loss" else None

    @property
    def shown(self) -> list[str]:
        """The metrics for people: what is learned by first."""
        learned = [name for name in self.curves if name.startswith("train/")]
        return learned + sorted({*self.curves} - {*learned})

    @property
    def came(self) -> str:
        """How far it is, in words."""
        epoch = self.latest.get("train/epoch", 0.0)
        if self._job is None:
            return (f"epoch {epoch:.1f}  " if epoch else "") + f"step {self.step:,}"
        stop = self._job.stop
        epochs = self._job.came(epoch) + (f"/{stop.epochs}" if stop.epochs else "")
        return f"{epochs}  step {self.step:,}" + (f"/{stop.steps:,}" if stop.steps else "")

    @property
    def pace(self) -> str:
        """How quick it is, and how long it will take, as far as that is known."""
        parts = []
        if "perf/samples_per_second" in self.latest:
            parts.append(f"{self.latest['perf/samples_per_second']:,.0f} samples/s")
        if left := self._left:
            parts.append(f"{left:.0f} s left")
        return "  ".join(parts)

    @property
    def line(self) -> str:
        """All of it in a line."""
        figures = [f"{name.removeprefix('train/')} {self.latest[name]:.4g}" for name in self._told]
        return "  ".join(part for part in [self.came, *figures, self.pace] if part)

    @property
    def _told(self) -> list[str]:
        """Of the metrics for people those of a line: of many, what is learned by, and what the job names."""
        if not isinstance(self._job, TrainJob) or len(self.shown) <= _MANY:
            return self.shown
        watched = {name for _, name in self._job.watched()}
        named = [name for name in self.shown if name in watched]
        first = [name for name in self.shown if name.startswith("train/") or name.endswith("/loss")]
        return first + (named or [name for name in self.shown if name not in first][:2])

    @property
    def share(self) -> float | None:
        """How much of it is done, from 0 to 1; None where it ends by something else than a count."""
        return min(self.step / end, 1.0) if (end := self._end) else None

    @property
    def _end(self) -> float | None:
        """The step at which it will end."""
        epoch = self.latest.get("train/epoch", 0.0)
        if self._job is None or epoch <= 0:
            return None
        stop = self._job.stop
        ends: list[float] = [stop.steps] if stop.steps else []
        ends += [stop.epochs * self.step / epoch] if stop.epochs else []
        return min(ends, default=None)

    @property
    def _left(self) -> float | None:
        """Seconds, from the last steps' pace; evaluations and checkpoints come on top."""
        pace, end = self.latest.get("perf/step_seconds"), self._end
        return None if pace is None or end is None else max(0.0, (end - self.step) * pace)


class Spooled(Standing):
    """The same, out of the run's spool, which grows while it goes on."""

    def __init__(self, paths: RunPaths, job: AnyJob | None) -> None:
        super().__init__(job)
        self._spool: Path = paths.spool / "rank-0.jsonl"
        self._offset = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Takes in what is new, record by record."""
        for record, end in records(self._spool, self._offset):
            self._offset = end
            if "m" in record:
                self.add(int(record["s"]), record["m"])
            yield record


def fate(paths: RunPaths) -> tuple[str, str]:
    """How a run of this folder stands: MLflow's status of it, and why.

    One whose driver is gone without a word is `LOST`, unless its writer still is there to say how it ended.
    On another machine than its driver's nobody can tell; there it is RUNNING.
    """
    # A cluster's queue ends a run only to start it again elsewhere.
    if job := read_json(paths.submission):
        return _OF_A_JOB.get(job["state"], job["state"]), str(job.get("reason") or "")
    sweep = paths.sweep or paths  # a trial has no driver of its own, nor an end where its sweep was cut off
    owner = read_json(sweep.owner) or {}
    known = [(owner.get("pid", 0), owner.get("created", 0.0)), *filter(None, [owner.get("writer")])]
    lost = owner.get("host") == socket.gethostname() and not any(alive(int(pid), born) for pid, born in known)
    # Behind the look for its driver: an outcome is a driver's last act.
    if outcome := read_json(paths.outcome) or read_json(sweep.outcome):
        told = outcome.get("cause") or outcome.get("reason") or ""
        return str(outcome["status"]), "" if told == "finished" else str(told)
    if not owner:
        return "WAITING", "it was not started yet"
    return ("LOST", "its driver is gone, and left no word") if lost else ("RUNNING", "")
