"""One leg of a sweep's trial, in an actor that may have trained other trials before.

The sweep's driver imports this too, and trains nothing: what trains is imported where it is used.
"""

from __future__ import annotations

import functools
import gc
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsys.errors import CheckpointError, DlsysError
from dlsys.jobs import secrets
from dlsys.jobs.launch.assignment import Assignment, Outcome, is_retried, reported
from dlsys.jobs.mirror.node import Mirror
from dlsys.paths import RunPaths, read_json
from dlsys.spec.data import Source
from dlsys.spec.fingerprint import fingerprint, refuse_changes

if TYPE_CHECKING:
    from dlsys.data import Splits


@dataclass(frozen=True)
class TrialLeg:
    """What an actor is told; between processes it travels as plain values.

    Attributes:
        assignment: as for a worker of any run; its folder is the trial's, its owner the sweep's.
        metric: what is reported.
        donor: the folder of the trial whose state this one takes over first; empty for none.
        donor_epoch: where that was when it was chosen.
    """

    assignment: Assignment
    metric: str
    donor: str = ""
    donor_epoch: int = 0

    def to_dict(self) -> dict[str, Any]:
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**plain, "assignment": self.assignment.to_dict()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> TrialLeg:
        return cls(**{**plain, "assignment": Assignment.from_dict(plain["assignment"])})


def train(told: dict[str, Any]) -> dict[str, Any]:
    """Trains a leg; what goes wrong is told, and leaves the actor fit for the next one."""
    leg = TrialLeg.from_dict(told)
    assignment = leg.assignment.here()
    _settle_in(assignment.owner, assignment.fence)
    if os.path.isdir(assignment.directory):
        os.chdir(assignment.directory)
    began = time.perf_counter()
    mirror = Mirror(assignment.owner_paths, assignment.store)
    try:
        mirror.join(assignment.paths, 0)
        if (assignment.owner_paths.root / "stop").exists():
            return {"status": "interrupted"}
        if leg.donor:
            donor = assignment.owner_paths.trials / Path(leg.donor).name
            mirror.take(RunPaths(donor))
            _take_over(RunPaths(donor), leg.donor_epoch, assignment.paths)
            mirror.replaced(assignment.paths)
        record = read_json(assignment.paths.record) or {}
        now = fingerprint(assignment.trained, Path(assignment.folder))
        refuse_changes(record.get("data", {}), now, "the sweep began")
        outcome = _train(assignment)
        mirror.leave()
    except DlsysError as error:
        cause = " ".join(str(error).split())
        return {"status": "failed", "cause": cause, "retry": is_retried(error)}
    if outcome.reason == "interrupted":
        return {"status": "interrupted"}
    value = outcome.metrics.get(leg.metric)
    if value is None:
        known = ", ".join(sorted(name for name in outcome.metrics if name.startswith("valid/")))
        cause = f"it measured no {leg.metric}; it measured {known}"
        return {"status": "failed", "cause": cause, "retry": False}
    return {
        "status": "reported",
        "epoch": outcome.epoch,
        "value": value,
        "seconds": time.perf_counter() - began,
        "metrics": outcome.metrics,
    }


@functools.cache
def _settle_in(owner: str, fence: int) -> None:
    """Once in an actor's life."""
    from dlsys.jobs.launch.worker import watch_driver

    paths = RunPaths(Path(owner))
    # Nobody would hear of its work without the driver.
    watch_driver(paths, fence)
    secrets.enter(paths.secrets)
    # What was imported stays: the collector need not walk it in any trial.
    gc.collect()
    gc.freeze()


def _train(assignment: Assignment) -> Outcome:
    if assignment.workers == 1 and assignment.trained.servers is None:
        from dlsys.jobs.launch.inprocess import InProcess
        from dlsys.jobs.launch.launcher import Driver
        from dlsys.jobs.launch.presence import Presence, here

        stop = assignment.owner_paths.root / "stop"
        try:
            with Presence(assignment, [here()]) as presence:
                driver = Driver(stop_requested=presence.during(stop.exists))
                return InProcess(load=_load).run(assignment, driver)
        except DlsysError:
            raise
        except Exception as error:  # of a library, or of the user's own that ours did not foresee
            from dlsys.errors import RunError

            raise RunError(f"{type(error).__name__}: {error}") from error
    return _together(assignment)


def _together(assignment: Assignment) -> Outcome:
    """Several workers, in the room that Tune has reserved for this trial."""
    import ray.util
    from ray.exceptions import RayError

    from dlsys.errors import RunError, WorkerDiedError
    from dlsys.jobs.launch.ray_actors import fit
    from dlsys.jobs.launch.ray_launcher import equipped

    mirror = Mirror(assignment.owner_paths, assignment.store)
    try:
        with equipped(assignment, lambda: None) as ready:
            fit(ready, lambda: None, ray.util.get_current_placement_group())
    except RayError as error:
        with suppress(RunError):
            mirror.exchange()
        raise reported(assignment) or WorkerDiedError("a worker died without a word") from error
    mirror.exchange()
    found = read_json(assignment.attempt_folder(assignment.paths.failures) / "result.json")
    if found is None:
        raise RunError("the workers ended without a result")
    return Outcome(**found)


# Rows do not change between trials, and reading them takes longer than many a leg.
@functools.lru_cache(maxsize=2)
def _loaded(options: str, folder: Path) -> Splits:
    from pydantic import TypeAdapter

    from dlsys.data import load

    section: Source = TypeAdapter(Source).validate_json(options)
    return load(section, folder)


def _load(options: Source, folder: Path) -> Splits:
    return _loaded(options.model_dump_json(), folder)


def _take_over(donor: RunPaths, epoch: int, own: RunPaths) -> None:
    """Makes a donor's checkpoint this trial's only one: that of an epoch, or else its newest good one.

    Raises:
        CheckpointError: the donor has none.
    """
    from dlsys.train.checkpoint.store import CheckpointStore, verify

    for attempt in range(3):  # the donor goes on training, and tidies up
        found = CheckpointStore(donor.checkpoints).list()
        found.sort(key=lambda path: (_epoch(path) == epoch, path.name), reverse=True)
        for path in found:
            beside = own.checkpoints / f".writing-{path.name}"
            shutil.rmtree(beside, ignore_errors=True)
            with suppress(OSError, CheckpointError):
                shutil.copytree(path, beside, copy_function=os.link)
                verify(beside)
                for old in CheckpointStore(own.checkpoints).list():
                    shutil.rmtree(old)
                (own.checkpoints / "best").unlink(missing_ok=True)
                os.rename(beside, own.checkpoints / path.name)
                return
        time.sleep(0.1 * (attempt + 1))
    raise CheckpointError(f"{donor.id} has no good checkpoint to take over")


def _epoch(checkpoint: Path) -> int:
    """The epoch of a checkpoint, whose files are not held against anything yet."""
    position = (read_json(checkpoint / "state.json") or {}).get("position", {})
    return int(position.get("epoch", -1))
