"""What a worker is told, and what it tells: values and files, no torch.

The driver of several workers imports this and not their code: it starts them sooner so.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dlsys.errors import (
    CheckpointError,
    DataError,
    DlsysError,
    FencedError,
    HangError,
    NonFiniteError,
    OutOfMemoryError,
    RunError,
    UsageError,
    WorkerDiedError,
    WorkloadError,
)
from dlsys.paths import RunPaths, node_home, read_json, write_json
from dlsys.spec.kinds import AnyJob, job_of
from dlsys.spec.rl.job import Job
from dlsys.spec.script.job import ScriptJob

# How a worker tells its driver, through a file, what ended it.
_KINDS: dict[str, type[RunError] | type[UsageError]] = {
    "usage": UsageError,
    "data": DataError,
    "workload": WorkloadError,
    "nonfinite": NonFiniteError,
    "checkpoint": CheckpointError,
    "fenced": FencedError,
    "hang": HangError,
    "died": WorkerDiedError,
    "memory": OutOfMemoryError,
    "failed": RunError,
}
_RETRIED = ("died", "hang", "memory")


@dataclass(frozen=True)
class Assignment:
    """What a worker is told; between processes it travels as plain values.

    Attributes:
        root: the run's folder.
        job: the resolved job.
        folder: where the job file's relative paths start.
        directory: the driver's working directory, where users' modules are; empty where every worker
            starts in a copy of it.
        attempt: from 1.
        fence: the driver's.
        servers: the addresses of the parameter servers and their key, where there are some.
        owner: the folder of the run that the fence belongs to, if not this one's.
        pause: the epoch at whose end training pauses; None trains to the job's end.
        tested: whether the test set is measured at the end.
        store: the object store through which nodes exchange the run's files; empty where they share them.
    """

    root: str
    job: AnyJob
    folder: str
    directory: str
    attempt: int
    fence: int
    servers: dict[str, Any] | None = None
    owner: str = ""
    pause: int | None = None
    tested: bool = True
    store: str = ""

    def here(self) -> Assignment:
        """The same, with the run's folder as it is on this node."""
        home = node_home() if self.store else None
        if home is None:
            return self
        owner = str(self.owner_paths.under(home).root) if self.owner else ""
        return replace(self, root=str(self.paths.under(home).root), owner=owner)

    @property
    def owner_paths(self) -> RunPaths:
        return RunPaths(Path(self.owner or self.root))

    @property
    def workers(self) -> int:
        """How many there are; an agent's learner is the only one."""
        return self.job.resources.workers

    @property
    def trained(self) -> Job:
        """The job, which dlsys itself trains."""
        assert not isinstance(self.job, ScriptJob), "a script has a launcher of its own"
        return self.job

    @property
    def paths(self) -> RunPaths:
        return RunPaths(Path(self.root))

    def attempt_folder(self, base: Path) -> Path:
        return base / f"attempt-{self.attempt}"

    def to_dict(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**plain, "job": self.job.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Assignment:
        return cls(**{**plain, "job": job_of(plain["job"])})


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended that did not fail.

    Attributes:
        reason: what ended it, as in `dlsys.train.loop.Result`.
        step: updates done.
        seconds: time spent training, over all attempts.
        metrics: the last value of each metric.
        epoch: epochs done.
    """

    reason: str
    step: int
    seconds: float
    metrics: dict[str, float]
    epoch: int = 0


def report_error(assignment: Assignment, rank: int, error: Exception) -> None:
    kind = next(
        (kind for kind, cls in _KINDS.items() if type(error) is cls),
        "usage" if isinstance(error, UsageError) else "failed",
    )
    detail = error.traceback if isinstance(error, WorkloadError) else ""
    if not isinstance(error, DlsysError):
        detail = "".join(traceback.format_exception(error))
    report(assignment, rank, kind, str(error) or repr(error), detail=detail, hint=getattr(error, "hint", ""))


def report(
    assignment: Assignment, rank: int, kind: str, text: str, *, detail: str = "", hint: str = ""
) -> None:
    folder = assignment.attempt_folder(assignment.paths.failures)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / f"rank-{rank}.json",
        {"rank": rank, "kind": kind, "text": text, "detail": detail, "hint": hint, "time": time.time()},
    )


def reported(assignment: Assignment) -> DlsysError | None:
    """What the workers of an attempt wrote about their end: the first cause, not its echoes."""
    folder = assignment.attempt_folder(assignment.paths.failures)
    found = [value for path in sorted(folder.glob("rank-*.json")) if (value := read_json(path))]
    if not found:
        return None
    # A worker that lost another one tells of the other's end, not of its own.
    first = min(found, key=lambda value: (value["kind"] == "died", value["kind"] == "hang", value["time"]))
    if first["kind"] == "hang":
        first = _hanging(assignment, found) or first
    several = assignment.workers > 1 and first["kind"] not in ("hang", "memory")
    text = f"rank {first['rank']}: {first['text']}" if several else first["text"]
    cls = _KINDS[first["kind"]]
    if issubclass(cls, WorkloadError):
        return cls(text, traceback=first["detail"])
    error = cls(text, hint=first["hint"])
    if first["kind"] == "failed" and first["detail"]:
        error.add_note(first["detail"])
    return error


def _hanging(assignment: Assignment, found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of several workers without progress, the one that does not wait for the others."""
    stacks = assignment.attempt_folder(assignment.paths.stacks)
    for value in found:
        told = read_json(stacks / f"rank-{value['rank']}.json")
        if told and not told["waits"]:
            return value
    return None


def is_retried(error: Exception) -> bool:
    """Whether another attempt could go better: a worker died or hung; nothing was wrong as such.

    Memory may have been short because of others: the caller sees whether the next attempt comes further.
    """
    return isinstance(error, tuple(_KINDS[kind] for kind in _RETRIED))
