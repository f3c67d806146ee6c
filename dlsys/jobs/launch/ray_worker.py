"""One worker in a process of Ray's."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict

from dlsys.errors import RunError
from dlsys.jobs import secrets
from dlsys.jobs.launch.assignment import Assignment, Outcome, report_error
from dlsys.jobs.launch.worker import log_to_file, watch_driver, work
from dlsys.jobs.mirror.node import Mirror
from dlsys.paths import write_json
from dlsys.train.world import World


def serve(assignment: Assignment, world: World) -> None:
    """Trains as one worker of an initialised world; rank 0 leaves the result for the driver.

    Raises:
        DlsysError: the run failed.
    """
    assignment = assignment.here()
    mirror = Mirror(assignment.owner_paths, assignment.store)
    mirror.join(assignment.paths, world.rank, lambda: world.max(0.0))
    try:
        _serve(assignment, world, mirror)
    except BaseException:
        with suppress(RunError):
            mirror.leave()
        raise
    mirror.leave()


def _serve(assignment: Assignment, world: World, mirror: Mirror) -> None:
    paths = assignment.paths
    log_to_file(paths.log(world.rank))
    watch_driver(assignment.owner_paths, assignment.fence)
    secrets.enter(assignment.owner_paths.secrets)
    if os.path.isdir(assignment.directory):
        os.chdir(assignment.directory)
    try:
        result = work(
            assignment,
            world,
            stop_requested=(assignment.owner_paths.root / "stop").exists,
            on_hang=lambda text: mirror.hurry(),
        )
    except Exception as error:
        if world.size == 1:
            report_error(assignment, world.rank, error)
        raise
    if world.is_main:
        folder = assignment.attempt_folder(paths.failures)
        folder.mkdir(parents=True, exist_ok=True)
        position = result.position
        outcome = Outcome(result.reason, position.step, position.seconds, result.metrics, position.epoch)
        write_json(folder / "result.json", asdict(outcome))
