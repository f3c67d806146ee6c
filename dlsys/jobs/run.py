"""One run from its start to its end: `dlsys run`, here and now.

What happens, in this order: the run's folder and record are made and owned; the writer to MLflow
starts in a process of its own; attempts train until one ends well, or retries are used up; the
outcome is written; the writer delivers it. Every way out passes through the last two.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dlsys.errors import (
    DlsysError,
    ExpectationError,
    Interrupted,
    RunError,
    UsageError,
)
from dlsys.jobs import elastic
from dlsys.jobs.attempts import Attempts, Raise, Resize, after_end
from dlsys.jobs.cost import Meter
from dlsys.jobs.delivery import PATIENCE, start_writer, wait_for_writer
from dlsys.jobs.elastic import Growth
from dlsys.jobs.interrupts import Interrupts
from dlsys.jobs.launch.assignment import Assignment
from dlsys.jobs.launch.choice import launcher_of
from dlsys.jobs.launch.launcher import Driver, Free
from dlsys.jobs.mirror.node import Mirror
from dlsys.jobs.ownership import Ownership
from dlsys.jobs.straggler import Stragglers
from dlsys.paths import RunPaths, new_run_id, read_json, write_json
from dlsys.spec import yaml
from dlsys.spec.load import Loaded
from dlsys.spec.rl.job import Job
from dlsys.spec.train.job import TrainJob
from dlsys.track import record as provenance
from dlsys.track.spool import records

_BALLAST = 64 * 1024
_RELEASED_WITHIN = 4.0


@dataclass
class Ended:
    """How a run ended.

    Attributes:
        run_id: dlsys's own id of the run.
        status: FINISHED, FAILED or KILLED, as in MLflow.
        reason: what ended training (`finished`, `target`, `time`, `interrupted`), or `error`.
        metrics: the last value of each metric.
        step: updates done.
        seconds: this call's wall time.
        trained: seconds spent in training steps, over all attempts at the run.
        attempts: how often workers were started.
        delivered: whether MLflow has everything.
        unsent: what the object store has not taken, in a sentence.
        error: what is raised to the caller when status is not FINISHED.
    """

    run_id: str
    status: str = "FAILED"
    reason: str = "error"
    metrics: dict[str, float] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    trained: float = 0.0
    attempts: int = 0
    delivered: bool = False
    unsent: str = ""
    error: BaseException | None = None


def prepare(loaded: Loaded, *, parent: str | None = None, paths: RunPaths | None = None) -> RunPaths:
    """Makes a new run of a checked job: its id, its folder and its record.

    Args:
        loaded: the job.
        parent: the id of the run that this one is a part of.
        paths: the run's folder, if that is made already.
    """
    paths = paths or RunPaths.create(new_run_id(loaded.job.name))
    paths.source.write_text(loaded.source)
    _write_spec(paths, loaded.job)
    record = provenance.build(paths.id, loaded)
    record["folder"] = str(loaded.path.parent)
    record["overrides"] = list(loaded.overrides)
    if parent:
        record["parent"] = parent
    write_json(paths.record, record)
    if diff := provenance.dirty_diff(Path.cwd()):
        (paths.root / "diff.patch").write_text(diff)
    return paths


def reopen(paths: RunPaths, loaded: Loaded) -> None:
    """Takes a run up again, with a job that may differ where a resumed run's may.

    Raises:
        UsageError: the job would compute something else.
    """
    before = yaml.read(paths.spec.read_text(), str(paths.spec)).data
    after = loaded.job.model_dump(mode="json")
    changed = [key for key in loaded.job.FIXED if before.get(key) != after.get(key)]
    if changed:
        raise UsageError(
            f"{paths.id}: {', '.join(changed)} cannot change when a run is resumed",
            hint="Start a new run for that: leave --resume out.",
        )
    _write_spec(paths, loaded.job)


def _write_spec(paths: RunPaths, job: Job) -> None:
    paths.spec.write_text(yaml.dump(job.model_dump(mode="json")))


def execute(
    paths: RunPaths, job: Job, *, address: str | None, note: Callable[[str], None] = lambda text: None
) -> Ended:
    """Trains a prepared or reopened run to its end; never raises for what happens in training.

    Args:
        address: a running Ray cluster for runs of several workers; None embeds one.
        note: gets sentences about retries.

    Raises:
        UsageError: another driver has the run, or its object store cannot be used.
    """
    began = time.monotonic()
    ended = Ended(paths.id)
    mirror = Mirror.of(paths)
    mirror.begin()
    with Ownership(paths) as owner, Interrupts() as interrupts:
        (paths.root / "stop").unlink(missing_ok=True)
        with suppress(OSError):
            paths.ballast.write_bytes(bytes(_BALLAST))
        meter = Meter(paths, job)
        writer = start_writer(paths)
        owner.record_writer(writer.pid)
        mirror.use(writer.pid, "writer")
        interrupts.last_act = lambda: _write_outcome(
            paths, ended, "KILLED", "interrupted, and did not stop in time"
        )
        try:
            _attempts(paths, job, owner, interrupts, mirror, address, ended, meter, note)
            _settle(ended, job, interrupts)
        except BaseException as error:
            interrupted = isinstance(error, Interrupted | KeyboardInterrupt)
            ended.status = "KILLED" if interrupted else "FAILED"
            ended.error = Interrupted(exit_code=interrupts.exit_code) if interrupted else error
            ended.step = ended.step or _last_step(paths)
        meter.close()
        cause = _one_line(ended.error) if ended.error else ""
        _write_outcome(paths, ended, ended.status, cause)
        patience = 5.0 if ended.status == "KILLED" else PATIENCE
        ended.delivered = wait_for_writer(writer, patience)
        paths.ballast.unlink(missing_ok=True)
        ended.unsent = mirror.end(interrupts.left - 0.5)
    ended.seconds = time.monotonic() - began
    return ended


def _attempts(
    paths: RunPaths,
    job: Job,
    owner: Ownership,
    interrupts: Interrupts,
    mirror: Mirror,
    address: str | None,
    ended: Ended,
    meter: Meter,
    note: Callable[[str], None],
) -> None:
    record = read_json(paths.record) or {}
    tracks = [paths.failures, paths.stacks, paths.places]
    before = [path.stem.partition("-")[2] for folder in tracks for path in folder.glob("attempt-*")]
    first = 1 + max(map(int, before), default=0)
    launcher = launcher_of(job, owner, mirror, address=address, queued=paths.submission.exists())
    try:
        launcher.start(job.resources)
        interrupts.install()
        known, hoped = Attempts(job.failure.retries), job.resources.workers
        while True:
            ended.attempts += 1
            growth = None
            if isinstance(job, TrainJob) and job.failure.elastic and launcher.free is not None:
                job, growth = _resize(job, hoped, launcher.free, interrupts, note)
            assignment = Assignment(
                root=str(paths.root),
                job=job,
                folder=record.get("folder", os.getcwd()),
                directory=os.getcwd(),
                attempt=first + ended.attempts - 1,
                fence=owner.fence,
                store=mirror.store,
            )
            try:
                mirror.exchange()  # whose the run is now, and that an old `stop` is gone
                stragglers = Stragglers(paths, job.resources.workers if job.alike else 0, note)
                told = (paths, interrupts, mirror, meter, growth, stragglers, note)
                driver = Driver(
                    watch=functools.partial(_relay, *told),
                    stop_requested=lambda: interrupts.received,
                    on_hang=lambda text: _hung(paths, ended, text),
                )
                result = launcher.run(assignment, driver)
            except DlsysError as error:
                known, then = known.after_failure(error, _last_step(paths))
                if isinstance(then, Raise):
                    raise then.error from error.__cause__
                note(then.note)
                continue
            ending = after_end(
                result.reason, asked=interrupts.received, room=growth.target if growth else hoped
            )
            if isinstance(ending, Resize):
                (paths.root / "stop").unlink()  # it was to make room for more workers
                hoped = ending.workers
                continue
            ended.reason, ended.metrics = result.reason, result.metrics
            ended.step, ended.trained = result.step, result.seconds
            return
    finally:
        launcher.stop()


def _resize(
    job: TrainJob, hoped: int, free: Free, interrupts: Interrupts, note: Callable[[str], None]
) -> tuple[TrainJob, Growth]:
    """The job with as many workers as there is room for now; waits until there is room for the fewest.

    Args:
        hoped: how many there should be room for, once those of the attempt before have gone.

    Raises:
        RunError: there is none within `failure.replacement`.
    """
    began = time.monotonic()
    deadline = began + job.failure.replacement
    # What workers held is free a moment after they have gone.
    while (count := elastic.most(job, free())) < hoped:
        if count and time.monotonic() > began + _RELEASED_WITHIN:
            break
        if interrupts.received:
            raise Interrupted(exit_code=interrupts.exit_code)
        if time.monotonic() > deadline:
            raise RunError(
                f"no room for {elastic.choices(job)[-1]} workers in {job.failure.replacement:g} s",
                hint="Raise failure.replacement, or lower failure.elastic.min.",
            )
        time.sleep(0.5)
    if count != job.resources.workers:
        note(f"goes on with {count} worker{'s' if count > 1 else ''}")
    resized = elastic.with_workers(job, count)
    return resized, elastic.Growth(resized, free)


def _relay(
    paths: RunPaths,
    interrupts: Interrupts,
    mirror: Mirror,
    meter: Meter,
    growth: Growth | None,
    stragglers: Stragglers,
    note: Callable[[str], None],
) -> None:
    """Tells workers in other processes about Ctrl-C, and stops to wait for them in time."""
    meter.beat()
    stragglers.look()
    if text := mirror.trouble():
        note(text)
    if growth is not None and growth.possible():
        (paths.root / "stop").touch()
    if interrupts.received:
        if not (paths.root / "stop").exists():
            (paths.root / "stop").touch()
            mirror.hurry()
        if interrupts.overdue:
            raise Interrupted


def _hung(paths: RunPaths, ended: Ended, text: str) -> None:
    """The watchdog's last act in a run without other processes."""
    _write_outcome(paths, ended, "FAILED", text)
    folder = paths.stacks
    sys.stderr.write(f"dlsys: {text}\n       Stacks: {folder}\n")
    sys.stderr.flush()
    os._exit(1)


def _settle(ended: Ended, job: Job, interrupts: Interrupts) -> None:
    """The verdict on a run whose training ended by itself."""
    if ended.reason == "interrupted":
        raise Interrupted(exit_code=interrupts.exit_code)
    if missed := unmet(job, ended.metrics):
        raise ExpectationError("; ".join(missed))
    ended.status = "FINISHED"


def unmet(job: Job, metrics: Mapping[str, float]) -> list[str]:
    """What of a job's `expect` its result falls short of, a sentence each."""
    missed = []
    for name, bound in job.expect.items():
        value = metrics.get(name)
        if value is None or not bound.holds(value):
            shown = "never measured" if value is None else f"{value:.6g}"
            missed.append(f"{name} is {shown}, expected {bound}")
    return missed


def _write_outcome(paths: RunPaths, ended: Ended, status: str, cause: str) -> None:
    outcome = {
        "status": status,
        "reason": ended.reason,
        "cause": cause,
        "attempts": ended.attempts,
        "step": ended.step,
        "metrics": ended.metrics,
    }
    try:
        write_json(paths.outcome, outcome)
    except OSError:
        paths.ballast.unlink(missing_ok=True)
        write_json(paths.outcome, outcome)


def _last_step(paths: RunPaths) -> int:
    """How far a run came that did not end by itself, as far as it was recorded."""
    steps = [int(record["s"]) for record, _ in records(paths.spool / "rank-0.jsonl") if "s" in record]
    return max(steps, default=0)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
