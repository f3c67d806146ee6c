"""One worker of one attempt, whoever started it."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dlsys.errors import (
    CheckpointError,
    DataError,
    DlsysError,
    FencedError,
    HangError,
    NonFiniteError,
    RunError,
    UsageError,
    WorkerDiedError,
    WorkloadError,
)
from dlsys.jobs.ownership import check_fence, driver_alive
from dlsys.paths import RunPaths, read_json, write_json
from dlsys.spec.job import TrainJob
from dlsys.track.spool import Spool
from dlsys.train.checkpoint import CheckpointStore
from dlsys.train.engine import Surroundings, run_worker
from dlsys.train.loop import Result
from dlsys.train.watchdog import EXIT_CODE, Watchdog
from dlsys.train.world import World
from dlsys.zoo.load import user_traceback

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
    "failed": RunError,
}
_RETRIED = ("died", "hang")


@dataclass(frozen=True)
class Assignment:
    """What a worker is told; plain values, so that it can be sent anywhere.

    Attributes:
        root: the run's folder.
        job: the resolved job.
        folder: where the job file's relative paths start.
        directory: the driver's working directory, where users' modules are.
        attempt: from 1.
        fence: the driver's.
    """

    root: str
    job: dict[str, Any]
    folder: str
    directory: str
    attempt: int
    fence: int

    @property
    def paths(self) -> RunPaths:
        return RunPaths(Path(self.root))

    def attempt_folder(self, base: Path) -> Path:
        return base / f"attempt-{self.attempt}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def work(
    assignment: Assignment,
    world: World,
    *,
    stop_requested: Callable[[], bool],
    on_hang: Callable[[str], None] | None = None,
) -> Result:
    """Trains as one worker; what goes wrong is also written down for the driver.

    Raises:
        DlsysError: the run failed.
    """
    paths = assignment.paths
    job = TrainJob.model_validate(assignment.job)
    spool = Spool(paths.spool / f"rank-{world.rank}.jsonl")
    store = CheckpointStore(
        paths.checkpoints,
        keep=job.checkpoint.keep,
        before_commit=lambda: check_fence(paths, assignment.fence),
        note=spool.note,
    )
    stacks = assignment.attempt_folder(paths.stacks)
    stacks.mkdir(parents=True, exist_ok=True)

    def hang(text: str) -> None:
        report(assignment, world.rank, "hang", text)
        if on_hang is not None:
            on_hang(text)
        os._exit(EXIT_CODE)

    try:
        with Watchdog(stacks, world.rank, world.size, limit=job.failure.hang_after, on_hang=hang) as watchdog:
            return run_worker(
                job,
                world,
                Surroundings(
                    folder=Path(assignment.folder),
                    recorder=spool,
                    store=store,
                    artifacts=paths.artifacts,
                    stop_requested=stop_requested,
                    beat=watchdog.beat,
                ),
            )
    except Exception as error:
        translated = translate(error)
        if world.size > 1:
            report_error(assignment, world.rank, translated)
        if translated is error:
            raise
        raise translated from error
    finally:
        if lost := spool.close():
            sys.stderr.write(f"{lost} records could not be written to {spool.path}\n")


def translate(error: Exception) -> Exception:
    """torch's, the operating system's and the user's errors, as ours."""
    if isinstance(error, DlsysError):
        return error
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    lost = ("Connection closed by peer", "Connection reset by peer", "Read error", "Broken pipe", "gloo")
    if isinstance(error, RuntimeError) and any(sign in text for sign in lost):
        return WorkerDiedError("lost another worker of this run")
    own = user_traceback(error)
    if own:
        return WorkloadError(f"your code raised {type(error).__name__}: {text}", traceback=own)
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text.lower():
        return RunError(f"out of memory: {text}", hint="Use a smaller batch_size or model.")
    if isinstance(error, OSError) and error.strerror:
        return RunError(f"{error.filename or 'the system'}: {error.strerror}")
    return error


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
    several = assignment.job["resources"]["workers"] > 1 and first["kind"] != "hang"
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
    """Whether another attempt could go better: a worker died or hung; nothing was wrong as such."""
    return isinstance(error, tuple(_KINDS[kind] for kind in _RETRIED))


def watch_driver(assignment: Assignment) -> None:
    """Ends this process soon after its driver is gone: nobody would hear of its work."""

    def watch() -> None:
        while driver_alive(assignment.paths, assignment.fence):
            time.sleep(1.0)
        os._exit(0)

    threading.Thread(target=watch, name="dlsys-driver-watch", daemon=True).start()


def log_to_file(path: Path) -> None:
    """Sends this process's stdout and stderr, of C++ code too, to the worker's log."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - this process's own
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
