"""One run from its start to its end: `dlsys run`, here and now.

Its folder and record are made; attempts train until one ends well, or retries are used up.
`driving.py` has what surrounds them, `attempts.py` what follows one.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from dlsys.jobs.driving import Driving, Ending, Note, silent
from dlsys.jobs.elastic import Growth
from dlsys.jobs.launch.assignment import Assignment
from dlsys.jobs.launch.choice import launcher_of
from dlsys.jobs.launch.launcher import Driver, Free
from dlsys.jobs.mirror.node import Mirror
from dlsys.jobs.straggler import Stragglers
from dlsys.paths import RunPaths, new_run_id, read_json, write_json
from dlsys.spec import yaml
from dlsys.spec.earlier import as_now
from dlsys.spec.kinds import AnyJob
from dlsys.spec.load import Loaded
from dlsys.spec.script.job import ScriptJob
from dlsys.spec.script.load import LoadedScript
from dlsys.spec.train.job import TrainJob
from dlsys.track import record as provenance
from dlsys.track.spool import records

_RELEASED_WITHIN = 4.0


@dataclass(kw_only=True)
class Ended(Ending):
    """How a run ended.

    Attributes:
        reason: what ended training (`finished`, `target`, `time`, `interrupted`), or `error`.
        metrics: the last value of each metric.
        step: updates done.
        trained: seconds spent in training steps, over all attempts at the run.
        attempts: how often workers were started.
        resumable: whether it has a checkpoint to go on from.
    """

    reason: str = "error"
    metrics: dict[str, float] = field(default_factory=dict)
    step: int = 0
    trained: float = 0.0
    attempts: int = 0
    resumable: bool = False

    def told(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "attempts": self.attempts,
            "step": self.step,
            "metrics": self.metrics,
        }


def prepare(
    loaded: Loaded | LoadedScript, *, parent: str | None = None, paths: RunPaths | None = None
) -> RunPaths:
    """Makes a new run of a checked job: its id, its folder and its record.

    Args:
        loaded: the job.
        parent: the id of the run that this one is a part of.
        paths: the run's folder, if that is made already.
    """
    run_id = paths.id if paths else new_run_id(loaded.job.name)
    record = provenance.build(run_id, loaded)  # which may refuse the run
    paths = paths or RunPaths.create(run_id)
    paths.source.write_text(loaded.source)
    _write_spec(paths, loaded.job)
    record["folder"] = str(loaded.folder)
    record["overrides"] = list(loaded.overrides)
    if parent:
        record["parent"] = parent
    write_json(paths.record, record)
    if diff := provenance.dirty_diff(Path.cwd()):
        (paths.root / "diff.patch").write_text(diff)
    return paths


def prepare_parent(loaded: Loaded, kind: str, params: Mapping[str, str]) -> RunPaths:
    """Makes a run that trains nothing: one that runs of a job, or of several like it, are parts of.

    Args:
        kind: what they are for, as its name and tag say it.
        params: what is told of it.
    """
    paths = RunPaths.create(new_run_id(f"{kind}-{loaded.job.name}"[:63]))
    paths.source.write_text(loaded.source)
    record = provenance.build(paths.id, loaded)
    record["tags"]["dlsys.kind"] = kind
    record["params"] = dict(params)
    write_json(paths.record, record)
    return paths


def reopen(paths: RunPaths, loaded: Loaded | LoadedScript) -> None:
    """Takes a run up again, with a job that may differ where a resumed run's may.

    Raises:
        UsageError: the job would compute something else.
    """
    before = as_now(yaml.read(paths.spec.read_text(), str(paths.spec)).data)
    after = loaded.job.model_dump(mode="json")
    # What a file of an earlier version does not have yet is what an empty value means.
    changed = [key for key in loaded.job.FIXED if (before.get(key) or None) != (after.get(key) or None)]
    if changed:
        raise UsageError(
            f"{paths.id}: {', '.join(changed)} cannot change when a run is resumed",
            hint="Start a new run for that: leave --resume out.",
        )
    _write_spec(paths, loaded.job)


def _write_spec(paths: RunPaths, job: AnyJob) -> None:
    paths.spec.write_text(yaml.dump(job.model_dump(mode="json")))


def execute(
    paths: RunPaths,
    job: AnyJob,
    *,
    address: str | None,
    note: Note = silent,
    farewell: Callable[[Ended], None] = lambda ended: None,
    may_exit: bool = True,
) -> Ended:
    """Trains a prepared or reopened run to its end; never raises for what happens in training.

    Args:
        address: a running Ray cluster for runs of several workers; None embeds one.
        note: gets sentences about retries.
        farewell: says how it ended where this does not return: it was asked to end and did not in time.
        may_exit: whether this process is ended then.

    Raises:
        UsageError: another driver has the run, or its object store cannot be used.
    """
    ended = Ended(run_id=paths.id)
    late = "interrupted, and did not stop in time"
    driving = Driving(
        paths,
        ended,
        Mirror.of(paths),
        whom=job.notify,
        note=note,
        late=late,
        farewell=lambda: farewell(ended),
        may_exit=may_exit,
    )

    def conclude() -> None:
        if ended.error is not None:
            ended.step = ended.step or _last_step(paths)
        # What a script saves is called as it likes.
        ended.resumable = any(paths.checkpoints.glob("*" if isinstance(job, ScriptJob) else "step-*"))

    driving.conclude = conclude
    with driving, closing(Meter(paths, None if isinstance(job, ScriptJob) else job)) as meter:
        _attempts(driving, job, address, ended, meter)
        _judge(ended, job, driving)
    return ended


def _attempts(driving: Driving, job: AnyJob, address: str | None, ended: Ended, meter: Meter) -> None:
    paths, mirror, interrupts = driving.paths, driving.mirror, driving.interrupts
    record = read_json(paths.record) or {}
    tracks = [paths.failures, paths.stacks, paths.places]
    before = [path.stem.partition("-")[2] for folder in tracks for path in folder.glob("attempt-*")]
    first = 1 + max(map(int, before), default=0)
    queued = paths.submission.exists()
    launcher = launcher_of(job, driving.owner, mirror, address=address, queued=queued)
    try:
        launcher.start(job.resources)
        interrupts.install()
        driving.check()
        known, hoped = Attempts(job.failure.retries), job.resources.workers
        if isinstance(job, ScriptJob):
            known = replace(known, again="starts all workers anew")
        while True:
            ended.attempts += 1
            growth = None
            if isinstance(job, TrainJob) and job.failure.elastic and launcher.free is not None:
                job, growth = _resize(job, hoped, launcher.free, driving)
            assignment = Assignment(
                root=str(paths.root),
                job=job,
                folder=record.get("folder", os.getcwd()),
                directory=os.getcwd(),
                attempt=first + ended.attempts - 1,
                fence=driving.owner.fence,
                store=mirror.store,
            )
            try:
                mirror.exchange()  # whose the run is now, and that an old `stop` is gone
                alike = not isinstance(job, ScriptJob) and job.alike
                stragglers = Stragglers(paths, job.resources.workers if alike else 0, driving.note)
                driver = Driver(
                    watch=functools.partial(_watch, driving, meter, growth, stragglers),
                    stop_requested=lambda: interrupts.received,
                    on_hang=functools.partial(_hung, driving),
                    signal=lambda: interrupts.exit_code - 128 if interrupts.received else 0,
                )
                result = launcher.run(assignment, driver)
            except DlsysError as error:
                known, then = known.after_failure(error, _last_step(paths))
                if isinstance(then, Raise):
                    raise then.error from error.__cause__
                driving.note("\n".join([*getattr(error, "__notes__", ()), then.note]))
                continue
            ending = after_end(
                result.reason, asked=interrupts.received, room=growth.target if growth else hoped
            )
            if isinstance(ending, Resize):
                driving.ask_no_more()
                hoped = ending.workers
                continue
            ended.reason, ended.metrics = result.reason, result.metrics
            ended.step, ended.trained = result.step, result.seconds
            return
    finally:
        launcher.stop()


def _resize(job: TrainJob, hoped: int, free: Free, driving: Driving) -> tuple[TrainJob, Growth]:
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
        driving.check()
        if time.monotonic() > deadline:
            raise RunError(
                f"no room for {elastic.choices(job)[-1]} workers in {job.failure.replacement:g} s",
                hint="Raise failure.replacement, or lower failure.elastic.min.",
            )
        time.sleep(0.5)
    if count != job.resources.workers:
        driving.note(f"goes on with {count} worker{'s' if count > 1 else ''}")
    resized = elastic.with_workers(job, count)
    return resized, elastic.Growth(resized, free)


def _watch(driving: Driving, meter: Meter, growth: Growth | None, stragglers: Stragglers) -> None:
    """Looks after workers in other processes, and stops to wait for them in time."""
    meter.beat()
    stragglers.look()
    driving.attend()
    if growth is not None and growth.possible():
        driving.ask_to_stop()
    if driving.interrupts.overdue:
        raise Interrupted


def _hung(driving: Driving, text: str) -> None:
    """The watchdog's last act in a run without other processes."""
    driving.write_outcome("FAILED", text)
    sys.stderr.write(f"dlsys: {text}\n       Stacks: {driving.paths.stacks}\n")
    sys.stderr.flush()
    with suppress(Exception):
        driving.tell("FAILED", text, math.inf)
    os._exit(1)


def _judge(ended: Ended, job: AnyJob, driving: Driving) -> None:
    """The verdict on a run whose training ended by itself."""
    if ended.reason == "interrupted":
        raise Interrupted(exit_code=driving.interrupts.exit_code)
    if missed := unmet(job, ended.metrics):
        raise ExpectationError("; ".join(missed))
    ended.status = "FINISHED"


def unmet(job: AnyJob, metrics: Mapping[str, float]) -> list[str]:
    """What of a job's `expect` its result falls short of, a sentence each."""
    missed = []
    for name, bound in job.expect.items():
        value = metrics.get(name)
        if value is None or not bound.holds(value):
            shown = "never measured" if value is None else f"{value:.6g}"
            missed.append(f"{name} is {shown}, expected {bound}")
    return missed


def _last_step(paths: RunPaths) -> int:
    """How far a run came that did not end by itself, as far as it was recorded."""
    steps = [int(record["s"]) for record, _ in records(paths.spool / "rank-0.jsonl") if "s" in record]
    return max(steps, default=0)
